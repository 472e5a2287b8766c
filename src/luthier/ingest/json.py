"""JSON and JSON Lines: names as headings, records as rows of `name: value`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from luthier.ingest._blocks import clean_lines
from luthier.ingest.base import LIKELY, NO, READERS, Refused, Source
from luthier.ingest.text import decode, looks_like_text
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span

MAX_DEPTH = 6
"""Deeper objects are written as `a.b.c: value`: headings have six levels."""


@register(READERS, "json")
class JsonReader(Spec):
    """JSON documents and JSON Lines; a flat record is one span."""

    encoding: str | None = None
    """Encoding of the files; None finds it out."""

    version: ClassVar[int] = 1

    def accepts(self, source: Source) -> int:
        named = source.suffix in (".json", ".jsonl", ".ndjson", ".geojson", ".ipynb")
        return LIKELY if named and looks_like_text(source.head) else NO

    def read(self, source: Source) -> Iterator[Document]:
        text, encoding = decode(source.read_bytes(), self.encoding)
        lines = source.suffix in (".jsonl", ".ndjson")
        meta: dict[str, Any] = {"encoding": encoding}
        try:
            if lines:
                spans = _lines(text, meta)
            else:
                try:
                    data = json.loads(text)
                except ValueError as error:
                    spans = _lines(text, meta) if "\n" in text.strip() else []
                    if not spans:
                        raise Refused("corrupt", f"not valid JSON: {error}") from None
                else:
                    spans = list(_walk(data, (), 1))
        except RecursionError:
            raise Refused("corrupt", "nested too deeply") from None
        yield source.document(reader="json", media="application/x-ndjson" if lines else "application/json",
                              spans=spans, meta=meta)


def _lines(text: str, meta: dict[str, Any]) -> list[Span]:
    spans: list[Span] = []
    bad: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError:
            bad.append(number)
            continue
        record = "\n".join(_flat(data, ""))
        if record:
            spans.append(Span(text=record, kind="row", line=number))
    if bad and len(bad) >= len(spans):
        raise Refused("corrupt", f"line {bad[0]} is not valid JSON")
    if bad:  # some lines of a log are cut off: the others still count, and the document says so
        meta["bad_lines"] = bad[:20]
        meta["num_bad_lines"] = len(bad)
    return spans


def _walk(data: Any, path: tuple[str, ...], level: int) -> Iterator[Span]:
    """Headings for names that hold more than a value; leaves of one object together."""
    if isinstance(data, dict) and level <= MAX_DEPTH:
        flat = {key: value for key, value in data.items() if _is_leaf(value)}
        text = "\n".join(line for key, value in flat.items() for line in _flat(value, str(key)))
        if text:
            yield Span(text=text, kind="row")
        for key, value in data.items():
            if key not in flat and value:
                yield Span(text=str(key), kind="heading", level=level)
                yield from _walk(value, (*path, str(key)), level + 1)
    elif isinstance(data, list) and any(not _is_leaf(item) for item in data):
        for item in data:
            simple = isinstance(item, dict) and all(_is_leaf(value) for value in item.values())
            if simple or not isinstance(item, dict | list):
                text = "\n".join(_flat(item, ""))
                if text:
                    yield Span(text=text, kind="row")
            else:
                yield from _walk(item, path, level)
    else:
        text = "\n".join(_flat(data, ""))
        if text:
            yield Span(text=text, kind="row" if isinstance(data, dict) else "paragraph")


def _is_leaf(value: Any) -> bool:
    if isinstance(value, list):
        return all(not isinstance(item, dict | list) for item in value)
    return not isinstance(value, dict)


def _flat(value: Any, name: str) -> Iterator[str]:
    """`name: value` lines; lists of values on one line, or one a line when they are long."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and all(not isinstance(item, dict | list) for item in value):
        texts = [_scalar(item) for item in value if _scalar(item)]
        joined = "; ".join(texts) if sum(map(len, texts)) <= 200 else "\n".join(f"- {text}" for text in texts)
        if texts:
            yield f"{name}:{' ' if '- ' not in joined[:2] else chr(10)}{joined}" if name else joined
    elif isinstance(value, list):
        for item in value:
            yield from _flat(item, name)
    elif _scalar(value):
        yield f"{name}: {_scalar(value)}" if name else _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean_lines(value) if isinstance(value, str) else str(value)
