"""Column types of `datasets` for rows, shared by Parquet and dataset folders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from luthier.errors import need
from luthier.prepare.formats import _files, _flat
from luthier.prepare.formats.base import Content, plain

_NUMBERS = {"page": "int64", "line": "int64", "weight": "float64"}


def features(content: Content, found: _flat.Layout | None, *, classes: bool) -> Any:
    """`datasets.Features` of the columns. `classes`: labels as class numbers with their names, and not as words."""
    datasets = need("datasets", extra="datasets")
    text = datasets.Value("string")
    columns = found.columns if found is not None else _flat.other_columns(content)
    kinds: dict[str, Any] = {name: datasets.Value(_NUMBERS[name]) if name in _NUMBERS else text for name in columns}
    kinds.update({name: datasets.List(text) for name in columns if name in _flat.LISTS})
    if found is None:
        return datasets.Features(kinds)
    if "messages" in columns:
        kinds["messages"] = datasets.List({"role": text, "content": text})
    if "spans" in columns:
        number = datasets.Value("int64")
        kinds["spans"] = datasets.List({"start": number, "end": number, "label": text})
    if content.images:
        kinds["image"] = datasets.Image()
    if "label" in columns:
        names = [*content.labels, *((found.outside,) if found.outside else ())]
        one = datasets.ClassLabel(names=names) if classes and names else text
        kinds["label"] = datasets.List(one) if found.several else one
    return datasets.Features(kinds)


def rows(content: Content, found: _flat.Layout | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split, row) in the types above; images as their file's own bytes."""
    if found is None:
        yield from (("", _clean(row)) for row in _flat.other_rows(content))
        return
    for example, row in _flat.rows(content, found):
        if content.images:
            file = _files.source(example, content)
            row["image"] = {"bytes": file.read_bytes(), "path": _files.name_of(example, file)}
        yield example.split, _clean(row)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {name: _clean(inner) for name, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list) else value
