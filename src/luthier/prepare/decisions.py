"""What a person decided about single rows (`luthier label`): `labels/decisions*.jsonl` in the project folder.

One JSON object a line: `{"id": "…", "labels": ["card"]}`. A row is named by its `id` (as `luthier label` and
`suspects.json` show it), by `where` (`data/train.csv:12`) or by its whole `text`. Decisions complete rows that have no
label and correct those that have one; of two about the same row the later one counts. `luthier review` adds who decided
(`by`) and when (`at`); a line with `"undo": true` takes back that person's last decision about the row, and one with
`"verdict": "reject"` and no labels says that a person looked and knows no label: the row stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.models.sources import file_hash
from luthier.prepare.base import OWN_SPLIT
from luthier.prepare.label_repeats import UNLABELLED
from luthier.prepare.text import normalise
from luthier.shelf import Sink
from luthier.types import Dropped, Example, digest

FOLDER, FILE, PATTERN = "labels", "decisions.jsonl", "decisions*.jsonl"
DECIDED = "decided"
"""Tag of a row whose labels a person decided here."""


@dataclass(frozen=True)
class Decision:
    """One line of a decisions file."""

    source: str
    """File and line, such as `labels/decisions.jsonl:3`."""
    labels: tuple[str, ...]
    id: str = ""
    where: str = ""
    text: str = ""
    by: str = ""
    at: str = ""
    settles: bool = False
    """Ends a disagreement between people, see `luthier.queues`."""


@dataclass(frozen=True)
class LeftOpen(Decision):
    """A person looked at the row and knows no label for it: it stays as it is, and nobody is asked again."""


def decisions_hash(root: Path) -> str:
    """Stands for all decisions; empty where there are none."""
    parts = [file_hash(file) for file in _files(root)]
    return digest(*parts) if parts else ""


def read_decisions(root: Path) -> Iterator[Decision | Dropped]:
    """The decisions that stand, in order, and the lines that are none, with the reason."""
    yield from (one for one in read_looked_at(root) if not isinstance(one, LeftOpen))


def read_looked_at(root: Path) -> list[Decision | Dropped]:
    """As `read_decisions`, with the rows that a person looked at and left open (`LeftOpen`)."""
    found: list[Decision | Dropped] = []
    for file in _files(root):
        for number, line in enumerate(file.read_text("utf-8-sig", errors="replace").split("\n"), 1):
            if line.strip():
                one = _read(line, f"{FOLDER}/{file.name}:{number}")
                if isinstance(one, _Undo):
                    _take_back(found, one)
                else:
                    found.append(one)
    return found


@dataclass(frozen=True)
class _Undo:
    key: tuple[str, str]
    """Field and value that name the row."""
    by: str


def _take_back(found: list[Decision | Dropped], undo: _Undo) -> None:
    field, value = undo.key
    for at in range(len(found) - 1, -1, -1):
        one = found[at]
        if isinstance(one, Decision) and getattr(one, field) == value and undo.by in ("", one.by):
            del found[at]
            return


def decided_rows(made: Sequence[Example], root: Path, dropped: Sink[Dropped], *, id_of: Callable[[Example], str]
                 ) -> dict[int, Example]:
    """Number → row, of the rows that people decided about. A decision that matches no row is counted among the dropped.

    `id_of` gives a row's final id. A row that had no label stays in train: it was chosen because it is hard, and would
    bend a test. A text that several rows have is decided for all of them.
    """
    found = list(read_decisions(root))
    dropped.extend(one for one in found if isinstance(one, Dropped))
    wanted = [one for one in found if isinstance(one, Decision)]
    if not wanted:
        return {}
    ids: dict[str, list[int]] = {one.id: [] for one in wanted if one.id}
    places: dict[str, list[int]] = {one.where: [] for one in wanted}
    texts: dict[str, list[int]] = {_comparable(one.text): [] for one in wanted}
    for at, example in enumerate(made):
        for known, value in ((ids, id_of(example) if ids else ""), (places, example.origin.where),
                             (texts, _comparable(str(example.input)))):
            if value in known:
                known[value].append(at)
    kept: dict[int, Example] = {}
    for one in wanted:
        hits = ids[one.id] if one.id else []
        if not hits and one.where:
            hits = places[one.where]
        if key := _comparable(one.text):  # the row must still say what was decided about
            hits = [at for at in hits if _comparable(str(made[at].input)) == key] or texts[key]
        hits = [at for at in hits if made[at].spans is None and made[at].target is None]
        for at in hits:
            kept[at] = _decided(made[at], one)
        if not hits:
            dropped.append(Dropped(
                item=one.source, step="decisions", reason="decision-without-row", text=one.text[:300],
                detail=f"no row has its id, place or text ({one.id or one.where or 'text'}); the data changed, or the "
                       "row is named wrongly"))
    return kept


def _comparable(text: str) -> str:
    return normalise(text) or text.strip()


def _decided(example: Example, one: Decision) -> Example:
    tags = tuple(tag for tag in example.tags if tag not in (UNLABELLED, DECIDED))
    if UNLABELLED in example.tags and OWN_SPLIT not in tags:
        tags = (*tags, OWN_SPLIT)
    return replace(example, labels=one.labels, tags=(*tags, DECIDED),
                   origin=replace(example.origin, maker="human", evidence=one.source))


def _read(line: str, source: str) -> Decision | Dropped | _Undo:
    def bad(detail: str) -> Dropped:
        return Dropped(item=source, step="decisions", reason="unreadable-decision", detail=detail, text=line[:300])

    try:
        data = json.loads(line)
    except ValueError as error:
        return bad(f"not JSON: {error}")
    if not isinstance(data, dict):
        return bad("not a JSON object")
    names = {name: data.get(name) or "" for name in ("id", "where", "text")}
    if not all(isinstance(value, str) for value in names.values()) or not any(names.values()):
        return bad("names no row; give its id, where, or text")
    by, at = str(data.get("by") or ""), str(data.get("at") or "")
    if data.get("undo") is True:
        return _Undo(next((name, value) for name, value in names.items() if value), by)
    labels = data.get("labels")
    labels = [labels] if isinstance(labels, str) else labels
    if labels is None and data.get("verdict") == "reject":
        return LeftOpen(source, (), by=by, at=at, settles=data.get("settles") is True, **names)
    if labels is None:
        return bad("no `labels`; write the right ones, such as [\"card\"]")
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        return bad("`labels` is not a list of names")
    return Decision(source, tuple(" ".join(label.split()) for label in labels), by=by, at=at,
                    settles=data.get("settles") is True, **names)


def _files(root: Path) -> list[Path]:
    found = (file for file in (root / FOLDER).glob(PATTERN) if file.is_file() and file.stat().st_size)
    return sorted(found, key=lambda file: file.stem)  # decisions, decisions-2, …
