"""Parquet: typed columns, compressed, read by row group."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from luthier.errors import need
from luthier.plugins import register
from luthier.prepare.formats import _arrow, _flat
from luthier.prepare.formats.base import FORMATS, Content, FileFormat, What


@register(FORMATS, "parquet")
class Parquet(FileFormat):
    """One Parquet file with typed columns and the column types of `datasets` in its metadata; images as bytes."""

    row_group: int = Field(default=1000, ge=1)
    """Rows written, and later read, at a time."""

    what: ClassVar[tuple[What, ...]] = ("examples", "passages", "dropped")
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def write(self, path: Path, content: Content) -> int:
        arrow = need("pyarrow", extra="datasets")
        parquet = need("pyarrow.parquet", extra="datasets")
        found = _flat.layout(content, turns=True) if content.what == "examples" else None
        schema = _arrow.features(content, found, classes=False).arrow_schema
        rows = (row for _, row in _arrow.rows(content, found))
        count = 0
        with parquet.ParquetWriter(path, schema) as writer:
            while batch := list(islice(rows, self.row_group)):
                writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
                count += len(batch)
        return count

    def reader(self, content: Content) -> dict[str, Any]:
        return _flat.read_back(content, _flat.layout(content, turns=True)) if content.what == "examples" else {}
