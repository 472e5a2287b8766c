"""The privacy step of `prepare`: documents and rows through the scanner, what was found written down, values "
  "taken out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from luthier.errors import DataError
from luthier.prepare.privacy import scan
from luthier.prepare.privacy.base import VERSION, Hit, Privacy
from luthier.prepare.privacy.key import Key, open_key
from luthier.prepare.privacy.scan import Found, Scanner, masked, normal, question_id
from luthier.prepare.privacy.surrogate import Surrogates
from luthier.queues import decided_hash
from luthier.shelf import Memory, Shelf, Sink
from luthier.store import canonical
from luthier.types import Document, Dropped, Example, Message, Tag, digest

REASON = "unresolved-privacy"
STEP = "privacy"
_DONE = {"redact": "redacted", "refuse": "redacted", "pseudonymise": "pseudonymised"}
_BEFORE, _AROUND, _SHOWN = 160, 160, 5
_BATCH = 1024
"""Rows that are looked at together."""


@dataclass(frozen=True)
class Place:
    """A text that is looked at, and where it stands."""

    text: str
    where: str
    item: str
    part: str
    document: str = ""
    path: str = ""
    page: int | None = None


class Guard:
    """Finds, records and rewrites for one run of `prepare`."""

    def __init__(self, spec: Privacy, root: Path, key: Key | None):
        self.spec, self.root, self.key = spec, root, key
        self.scanner = Scanner(spec, root)
        self.surrogates = Surrogates(key) if key is not None and spec.mode == "pseudonymise" else None
        self.records: Shelf[dict[str, Any]] = Memory().rows()
        """Every hit of this run; see `docs/privacy.md` for the fields."""
        self.identity = canonical([VERSION, spec.dump(), privacy_inputs(spec, root, key)])
        """All that the result depends on beside the texts."""

    def documents(self, documents: Sequence[Document]) -> tuple[list[Document], list[dict[str, Any]], list[Dropped]]:
        """The documents with what was taken out of them (as many spans as before), the records of the hits, and the
        paragraphs that were left out."""
        changed: list[Document] = []
        records: list[dict[str, Any]] = []
        dropped: list[Dropped] = []
        for document in documents:
            places = [Place(document.title, document.path, document.id, "title", document.id, document.path)]
            for at, span in enumerate(document.spans):
                where = (f"{document.path}, page {span.page}" if span.page is not None
                         else f"{document.path}, line {span.line}" if span.line is not None else document.path)
                places.append(Place(span.text, where, f"{document.id}#{at}", "text", document.id, document.path,
                                    span.page))
            texts = [place.text for place in places]
            found = self.scanner.spread(texts, self.scanner.scan(texts))
            new: list[str] = []
            for place, one in zip(places, found):
                refused = place.part == "text" and self._refuses(one)
                text, noted = self._apply(place, one, refused=refused)
                records += noted
                if refused:
                    text = ""
                    dropped.append(self._drop(place, one))
                new.append(text)
            if new != texts:
                spans = tuple(replace(span, text=text) for span, text in zip(document.spans, new[1:]))
                document = replace(document, title=new[0], spans=spans)
            changed.append(document)
        return changed, records, dropped

    def examples(self, examples: Iterable[Example], dropped: Sink[Dropped], *, system: str | None = None,
                 clean: Callable[[Example], bool] = lambda example: False) -> Iterator[Example]:
        """Rows of the user's own data, in their order; what is refused is added to `dropped`. The tags of a text move
        with it. `system` is the project's own prompt, which is not looked at; `clean` says of a row that it is made of
        clean text and goes on as it is."""
        rows = iter(examples)
        while batch := [*islice(rows, _BATCH)]:
            dirty = iter(self._rows([example for example in batch if not clean(example)], dropped, system))
            for example in batch:
                row = example if clean(example) else next(dirty)
                if row is not None:
                    yield row

    def _rows(self, examples: Sequence[Example], dropped: Sink[Dropped], system: str | None) -> list[Example | None]:
        """None for what is refused."""
        places = [_places(example, system) for example in examples]
        flat = [place for row in places for place in row]
        found = iter(self.scanner.scan([place.text for place in flat]))
        kept: list[Example | None] = []
        for example, row in zip(examples, places):
            judged = [(place, next(found)) for place in row]
            refused = any(self._refuses(one) for place, one in judged if place.part != "group")
            new = {}
            for place, one in judged:
                text, noted = self._apply(place, one, refused=refused)
                self.records.extend(noted)
                new[place.part] = text
            if refused:
                dropped.extend([self._drop(place, one) for place, one in judged if self._refuses(one)][:1])
                kept.append(None)
                continue
            hits = any(one.hits for _, one in judged)
            kept.append(_rebuilt(example, new, self._moves(judged)) if hits and self.spec.rewrites else example)
        return kept

    def clean_drops(self, dropped: Sequence[Dropped], memory: Memory) -> Sequence[Dropped]:
        """What is written down about dropped items, without personal data where that is taken out elsewhere."""
        if not self.spec.rewrites:
            return dropped
        kept, drops = memory.drops(), iter(dropped)
        while batch := [*islice(drops, _BATCH)]:
            texts = [text for drop in batch for text in (drop.text, drop.detail)]
            found = self.scanner.scan(texts)
            clean = [_replaced(text, one.hits, lambda hit, _: f"[{hit.kind}]") for text, one in zip(texts, found)]
            kept.extend(replace(drop, text=text, detail=detail) if (drop.text, drop.detail) != (text, detail) else drop
                        for drop, text, detail in zip(batch, clean[::2], clean[1::2]))
        return kept

    def finish(self) -> None:
        """DataError where the settings ask to stop at what is unsure."""
        if not self.spec.strict:
            return
        refused = (record for record in self.records if record["status"] == "refused" and not record["sure"])
        first = [*islice(refused, _SHOWN)]
        if first:
            shown = "\n".join(f"{record['where']}: {record['kind']} {record['masked']} ({record['rule']}, confidence "
                              f"{record['confidence']:g})" for record in first)
            others = sum(1 for _ in refused)
            more = f"\n… and {others} more" if others else ""
            raise DataError(f"prepare.privacy: {len(first) + others} hits are unsure, and strict asks to stop; decide "
                            f"about them "
                            f"with strict: false and luthier review, name harmless values in allow, or raise "
                            f"min_confidence:\n{shown}{more}")

    def _refuses(self, one: Found) -> bool:
        return self.spec.mode == "refuse" and any(not self.scanner.sure(hit) for hit in one.hits)

    def _apply(self, place: Place, one: Found, *, refused: bool) -> tuple[str, list[dict[str, Any]]]:
        """The text as it goes on, and a record of each hit."""
        if not one.hits and not one.ignored:
            return place.text, []
        text = place.text
        if self.spec.rewrites and one.hits:
            text = _replaced(text, one.hits, lambda hit, value: self._instead(hit, value, place))
        done = "refused" if refused else _DONE.get(self.spec.mode, "found")
        shift, records = 0, []
        for hit in sorted((*one.hits, *one.ignored), key=lambda hit: hit.start):
            ignored = hit in one.ignored
            value = place.text[hit.start : hit.end]
            at = hit.start + shift
            record: dict[str, Any] = {
                "where": place.where, "item": place.item, "document": place.document, "path": place.path,
                "page": place.page, "part": place.part, "start": hit.start, "end": hit.end, "kind": hit.kind,
                "rule": hit.rule, "confidence": hit.confidence, "masked": masked(value), "sure": self.scanner.sure(hit),
                "status": ("rejected" if hit.by_person else "allowed") if ignored else done,
                "by_person": hit.by_person, "id": question_id(hit.kind, value),
            }
            if self.spec.rewrites and not ignored:
                if self.key is not None:
                    record["hash"] = self.key.hash(value)
                record |= {"chars": len(normal(value)), "words": len(re.findall(r"[^\W_]+", value))}
                if not refused:
                    record["before"] = text[max(0, at - _BEFORE) : at]
                shift += len(self._instead(hit, value, place)) - len(value)
            if not record["sure"] and not ignored:
                record["ask"] = [value, place.text[max(0, hit.start - _AROUND) : hit.end + _AROUND]]
            records.append(record)
        return text, records

    def _instead(self, hit: Hit, value: str, place: Place) -> str:
        if self.surrogates is not None:
            return self.surrogates.of(hit.kind, value, hit.rule)
        if place.part == "group" and self.key is not None:  # two groups must not become one
            return f"[{hit.kind} {self.key.hash(value)[:8]}]"
        return f"[{hit.kind}]"

    def _moves(self, judged: Sequence[tuple[Place, Found]]) -> list[tuple[int, int, int]]:
        """(start, end, length of what stands there now) of each change in a text with tags."""
        return [(hit.start, hit.end, len(self._instead(hit, place.text[hit.start : hit.end], place)))
                for place, one in judged if place.part == "text" for hit in one.hits]

    def _drop(self, place: Place, one: Found) -> Dropped:
        unsure = [hit for hit in one.hits if not self.scanner.sure(hit)]
        told = ", ".join(f"{hit.kind} {masked(place.text[hit.start : hit.end])}" for hit in unsure[:3])
        text = _replaced(place.text, one.hits, lambda hit, _: f"[{hit.kind}]")
        return Dropped(item=place.item, step=STEP, reason=REASON, detail=f"{place.where}: {told}", text=text[:300])


def open_guard(spec: Privacy, root: Path, *, make_key: bool) -> Guard | None:
    """The guard of a run; None where the settings switch it off. `make_key` writes a key file where one is needed."""
    if spec.mode == "off":
        return None
    return Guard(spec, root, open_key(spec, root, make=make_key) if spec.rewrites else None)


def privacy_inputs(spec: Privacy, root: Path, key: Key | None) -> str:
    """Stands for what `prepare` depends on for privacy beside its settings: decisions, key, models."""
    parts = [decided_hash(root, "privacy"), key.fingerprint if key is not None else "",
             canonical(scan.inputs(spec, root))]
    return digest(*parts) if any(part not in ("", "{}") for part in parts) else ""


def _places(example: Example, system: str | None) -> list[Place]:
    where, item = example.origin.where, example.id or digest(example.origin.where, str(example.input))
    place = lambda part, text: Place(text, where, item, part)  # noqa: E731
    if isinstance(example.input, str):
        found = [place("text", example.input)]
    else:
        found = [place(f"turn {at}", turn.content) for at, turn in enumerate(example.input)
                 if not (turn.role == "system" and turn.content == system)]
    if example.target is not None:
        found.append(place("target", example.target))
    found += [place(f"negative {at}", text) for at, text in enumerate(example.negatives)]
    return [*found, *(Place(value, where, item, "group") if len(example.groups) == 1 else
                      Place(value, where, item, f"group {name}") for name, value in example.groups.items())]


def _rebuilt(example: Example, new: Mapping[str, str], moves: Sequence[tuple[int, int, int]]) -> Example:
    if isinstance(example.input, str):
        input: str | tuple[Message, ...] = new["text"]
    else:
        input = tuple(replace(turn, content=new.get(f"turn {at}", turn.content))
                      for at, turn in enumerate(example.input))
    groups = {name: new["group" if len(example.groups) == 1 else f"group {name}"] for name in example.groups}
    spans = None if example.spans is None else moved(example.spans, moves)
    return replace(example, input=input, target=new.get("target", example.target), groups=groups, spans=spans,
                   negatives=tuple(new[f"negative {at}"] for at in range(len(example.negatives))))


def moved(tags: Sequence[Tag], moves: Sequence[tuple[int, int, int]]) -> tuple[Tag, ...]:
    """Tags of a text at their new places. A tag that begins or ends inside a changed piece takes all of that piece."""

    def place(at: int, *, end: bool) -> int:
        shift = 0
        for start, stop, length in moves:
            if at >= stop:
                shift += length - (stop - start)
            elif at > start or (at == start and not end):
                return start + shift + (length if end else 0)
            else:
                break
        return at + shift

    found: list[Tag] = []
    for tag in tags:
        start, end = place(tag.start, end=False), place(tag.end, end=True)
        if not found or start >= found[-1].end:  # two tags inside one changed piece cannot be told apart any more
            found.append(replace(tag, start=start, end=end))
    return tuple(found)


def _replaced(text: str, hits: Sequence[Hit], instead: Any) -> str:
    parts, at = [], 0
    for hit in hits:
        parts += [text[at : hit.start], instead(hit, text[hit.start : hit.end])]
        at = hit.end
    return "".join([*parts, text[at:]])
