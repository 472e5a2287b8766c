"""Items out, decisions in: plain JSONL, Label Studio and Argilla.

The id of the item travels with it, so that a decision finds its item whatever the other tool does with the rest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from luthier.errors import DataError, UsageError
from luthier.queues import QUEUES, Decided, ReviewItem
from luthier.review.agreement import answer
from luthier.review.desk import Desk
from luthier.review.items import pair_of
from luthier.store import tell_disk_trouble, write_text

FORMATS = ("jsonl", "label-studio", "argilla")


@dataclass(frozen=True)
class Said:
    """A decision as a file tells it, before it is known whether there is such an item."""

    place: str
    """Line or number in the file."""
    queue: str
    """Empty where the file does not say."""
    id: str
    verdict: str
    """accept, edit or reject; empty where only a value is told, which decides between accept and edit."""
    value: Any = None
    by: str = ""
    """Empty where the file does not say."""


@dataclass(frozen=True)
class Written:
    """An export."""

    file: Path
    settings: Path | None
    """What the other tool needs to show the items; None for JSONL."""
    items: int
    decisions: int

    def data(self) -> dict[str, Any]:
        return {"file": str(self.file), "settings": self.settings and str(self.settings), "items": self.items,
                "decisions": self.decisions}

    def text(self) -> str:
        also = f"; the settings for the other tool are in {self.settings}" if self.settings else ""
        return f"{self.items:,} items with {self.decisions:,} decisions written to {self.file}{also}"


@dataclass
class Taken:
    """An import."""

    file: Path
    taken: int = 0
    known: int = 0
    """Decisions that were there already."""
    refused: Counter[str] = field(default_factory=Counter)
    """Reason → how many; the file's other decisions are taken all the same."""
    examples: dict[str, str] = field(default_factory=dict)
    """Reason → the first such place, with what was wrong."""

    def refuse(self, reason: str, detail: str) -> None:
        self.refused[reason] += 1
        self.examples.setdefault(reason, detail)

    def data(self) -> dict[str, Any]:
        return {"file": str(self.file), "taken": self.taken, "known": self.known, "refused": dict(self.refused),
                "first": self.examples}

    def text(self) -> str:
        noun = "decision" if self.taken == 1 else "decisions"
        lines = [f"{self.taken:,} {noun} taken over from {self.file}" + (f", {self.known:,} were there already"
                                                                            if self.known else "")]
        lines += [f"not taken: {count:,} {reason} (first: {self.examples[reason]})"
                  for reason, count in self.refused.most_common()]
        return "\n".join([*lines, *(["They count from the next luthier run on."] if self.taken else [])])


def write(desk: Desk, file: Path, format: str = "jsonl", *, queue: str | None = None) -> Written:
    """Write all items of a queue (of all queues: JSONL only) with what was decided about them, atomically.

    UsageError for an unknown format, a folder that is not there, or several queues where the format takes one;
    DataError where there is no item.
    """
    from luthier.review import argilla, label_studio

    if format not in FORMATS:
        raise UsageError(f"there is no format '{format}'; there are: {', '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent}; create it, or name another file")
    now = desk.now()
    items = [item for item in now.items.values() if queue in (None, item.queue)]
    if not items:
        raise DataError(f"there is no item{f' in the queue {queue}' if queue else ''} to export; run: luthier run")
    known: dict[tuple[str, str], list[Decided]] = {}
    for name in QUEUES:
        for one in now.decided.get(name, ()):
            known.setdefault((name, one.id), []).append(one)
    rows = [(item, known.get((item.queue, item.id), [])) for item in items]
    used = list(dict.fromkeys(item.queue for item in items))
    if format != "jsonl" and len(used) > 1:
        raise UsageError(f"{format} shows one kind of question in a project; choose one with --queue: "
                         f"{', '.join(used)}")
    beside: Path | None = None
    if format == "jsonl":
        text = "".join(json.dumps(_line(item, said), ensure_ascii=False) + "\n" for item, said in rows)
    else:
        tool = label_studio if format == "label-studio" else argilla
        text = json.dumps(tool.records(rows, desk.multi_label), ensure_ascii=False, indent=1) + "\n"
        beside = file.with_name(file.stem + tool.SETTINGS)
        with tell_disk_trouble(file.parent):
            write_text(beside, tool.settings(used[0], [item for item, _ in rows], desk.multi_label))
    with tell_disk_trouble(file.parent):
        write_text(file, text)
    return Written(file, beside, len(rows), sum(len(said) for _, said in rows))


def read(desk: Desk, file: Path, format: str | None = None, *, by: str = "", queue: str | None = None) -> Taken:
    """Append the file's decisions that are not there yet; `by` made those that name nobody. What is about no item, or
    cannot be a decision, is counted with its reason. UsageError or DataError for a file that is none of the formats."""
    from luthier.review import argilla, label_studio

    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    found = format or _format_of(text, file)
    if found not in FORMATS:
        raise UsageError(f"there is no format '{found}'; there are: {', '.join(FORMATS)}")
    taken = Taken(file)
    if found == "jsonl":
        said = _lines(text, taken)
    else:
        tool = label_studio if found == "label-studio" else argilla
        people = {one.by for decided in desk.now().decided.values() for one in decided} | {by}
        said = tool.decisions(_array(text, file), taken, people)
    now = desk.now()
    queues: dict[str, list[str]] = {}
    for name, id in now.items:
        queues.setdefault(id, []).append(name)
    have: dict[tuple[str, str], dict[str, str]] = {}  # item → person → what the person said last
    for name, decided in now.decided.items():
        for one in decided:
            have.setdefault((name, one.id), {})[one.by] = answer(one, now.items.get((name, one.id)))
    for one in said:
        about = [name for name in queues.get(one.id, []) if one.queue in ("", name) and queue in (None, name)]
        if len(about) != 1:
            taken.refuse("unknown-id" if not about else "id-of-two-queues", f"{one.place}: {one.id}")
            continue
        item = now.items[about[0], one.id]
        _take(desk, item, one, one.by or by, have.setdefault((item.queue, item.id), {}), taken)
    return taken


def _take(desk: Desk, item: ReviewItem, one: Said, by: str, have: dict[str, str], taken: Taken) -> None:
    verdict = one.verdict or ("accept" if _same(item, one.value) else "edit")
    if verdict == "edit" and _same(item, one.value):
        verdict = "accept"
    asked = Decided(id=item.id, verdict=verdict, value=one.value if verdict == "edit" else None)  # type: ignore[arg-type]
    if have.get(by) == answer(asked, item):
        taken.known += 1
        return
    try:
        made = desk.decide(item.queue, item.id, verdict, one.value, by=by)
    except UsageError as error:
        taken.refuse("no-decision", f"{one.place}: {error}")
        return
    have[by] = answer(made, item)
    taken.taken += 1


def _same(item: ReviewItem, value: Any) -> bool:
    """Whether a value is what the item proposes."""
    proposed = pair_of(item) if item.queue == "pairs" else item.proposal or item.text
    return answer(Decided(id="", verdict="edit", value=value)) == answer(Decided(id="", verdict="edit", value=proposed))


def _line(item: ReviewItem, said: Sequence[Decided]) -> dict[str, Any]:
    row = {key: value for key, value in asdict(item).items() if value not in ("", None, (), [], {})}
    told = ("verdict", "value", "by", "at", "settles")
    return {**row, "decisions": [{key: value for key, value in asdict(one).items()
                                  if key in told and value not in ("", None, False)} for one in said]}


def _lines(text: str, taken: Taken) -> Iterator[Said]:
    """One object a line: an exported item with `decisions`, or `id`, `verdict`, `value` and `by` on the line itself."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            taken.refuse("not-json", f"{place}: {error}")
            continue
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            taken.refuse("without-id", place)
            continue
        made = row["decisions"] if isinstance(row.get("decisions"), list) else []
        if row.get("verdict"):
            made = [*made, row]
        for one in made:
            if not isinstance(one, Mapping) or one.get("verdict") not in ("accept", "edit", "reject"):
                taken.refuse("no-decision", f"{place}: `verdict` must be accept, edit or reject")
                continue
            yield Said(place, str(row.get("queue") or ""), row["id"], one["verdict"], one.get("value"),
                       str(one.get("by") or ""))


def _format_of(text: str, file: Path) -> str:
    """By what the file holds."""
    if not text.lstrip().startswith("["):
        return "jsonl"
    first = next((row for row in _array(text, file) if isinstance(row, dict)), {})
    return "argilla" if "fields" in first else "label-studio"


def _array(text: str, file: Path) -> list[Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON ({error})") from None
    if not isinstance(data, list):
        raise DataError(f"{file} holds no list of tasks or records; export it as JSON")
    return data
