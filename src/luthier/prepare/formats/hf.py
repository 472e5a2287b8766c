"""A dataset folder of Hugging Face `datasets`, for `load_from_disk`."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from luthier.errors import need
from luthier.plugins import register
from luthier.prepare.formats import _arrow, _flat
from luthier.prepare.formats.base import FORMATS, Content, FileFormat, What


@register(FORMATS, "hf")
class HuggingFace(FileFormat):
    """A folder for `datasets.load_from_disk`: one part a split, classes as numbers with their names, images as
    bytes."""

    what: ClassVar[tuple[What, ...]] = ("examples", "passages", "dropped")

    def write(self, path: Path, content: Content) -> int:
        datasets = need("datasets", extra="datasets")
        from datasets.arrow_writer import ArrowWriter

        found = _flat.layout(content, turns=True) if content.what == "examples" else None
        features = _arrow.features(content, found, classes=True)
        aside = path.with_name(f"{path.name}.rows")  # written once as it comes, then by `datasets` in shards
        aside.mkdir()
        writers: dict[str, Any] = {}
        counts: Counter[str] = Counter()
        for split, row in _arrow.rows(content, found):
            if split not in writers:
                writers[split] = ArrowWriter(features=features, path=str(aside / f"{split or 'rows'}.arrow"))
            writers[split].write(features.encode_example(row))
            counts[split] += 1
        for writer in writers.values():
            writer.finalize()
        parts = {split: datasets.Dataset.from_file(str(aside / f"{split or 'rows'}.arrow"))
                 for split in ("train", "validation", "test", "") if split in writers}
        shown = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        try:
            (parts[""] if "" in parts else datasets.DatasetDict(parts)).save_to_disk(str(path))
        finally:
            if shown:
                datasets.enable_progress_bars()
        parts.clear()
        shutil.rmtree(aside)
        return counts.total()

    def reader(self, content: Content) -> dict[str, Any]:
        return _flat.read_back(content, _flat.layout(content, turns=True)) if content.what == "examples" else {}
