"""The desk: items and decisions as they are on disk at this moment, what is open for whom, and taking one down.

Everything is read again when a file changed, so several servers, tabs, editors and runs may work on a project at once.
"""

from __future__ import annotations

import itertools
import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from luthier.errors import UsageError
from luthier.prepare.decisions import FILE, FOLDER, PATTERN
from luthier.queues import QUEUES, Decided, ReviewItem, append_line, decide, latest, queue_file, undo
from luthier.review import items as sources
from luthier.review.agreement import Agreement, agreements, conflicts
from luthier.store import Artifact, Store, tell_disk_trouble

Mode = Literal["open", "second", "conflicts"]
"""open: what nobody decided; second: what others decided and this person did not, without showing what they said;
conflicts: what two people decided differently."""


@dataclass
class Snapshot:
    """Items and decisions as they were read."""

    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    items: dict[tuple[str, str], ReviewItem] = field(default_factory=dict)
    decided: dict[str, list[Decided]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def of(self, queue: str) -> dict[str, ReviewItem]:
        return {id: item for (name, id), item in self.items.items() if name == queue}


class Desk:
    """One project's review. Safe to use from several threads."""

    def __init__(self, root: Path, store: Store, *, multi_label: bool = False):
        """`multi_label`: whether rows may carry several labels."""
        self.root, self.store, self.multi_label = root, store, multi_label
        self._lock = threading.Lock()
        self._seen: tuple[Any, Any] = (None, None)
        self._now = Snapshot()
        self._found_problems: list[str] = []

    def now(self) -> Snapshot:
        """What is on disk."""
        with self._lock:
            made = _times([self.root / sources.STATE / sources.LATEST, self.root / FOLDER / sources.PROPOSED])
            said = _times([*(queue_file(self.root, queue) for queue in QUEUES),
                           *sorted((self.root / FOLDER).glob(PATTERN))])
            if made != self._seen[0]:
                artifacts = sources.latest_artifacts(self.root, self.store)
                found, problems = sources.gather(self.root, artifacts)
                self._now = Snapshot(artifacts, {(one.queue, one.id): one for one in found}, {}, problems)
                self._found_problems = problems
            if (made, said) != self._seen:
                decided, problems = sources.decisions(self.root, self._now.items.values())
                self._now = replace(self._now, decided=decided, problems=[*self._found_problems, *problems])
                self._seen = made, said
            return self._now

    def todo(self, queue: str | None, mode: Mode, by: str) -> list[ReviewItem]:
        """What there is to do for a person, by queue and the least certain first."""
        now = self.now()
        return [item for name in QUEUES if queue in (None, name) for item in _todo(now, name, mode, by)]

    def item(self, queue: str, id: str) -> ReviewItem:
        """UsageError for one that is not there (any more)."""
        found = self.now().items.get((queue, id))
        if found is None:
            raise UsageError(f"there is no item '{id}' in the queue '{queue}'; the data may have changed, load the "
                             "page again")
        return found

    def decide(self, queue: str, id: str, verdict: str, value: Any = None, *, by: str, settles: bool = False
               ) -> Decided:
        """Append a decision to its file under `labels/`. UsageError for one that cannot be, such as an edit without a
        value or a label that the task does not have."""
        item = self.item(queue, id)
        by = " ".join(by.split())[:80]
        if not by:
            raise UsageError("a decision needs the name of the person who makes it (--by, or the field 'You')")
        value = self._checked(item, verdict, value)
        if queue == "duplicates" and verdict == "edit" and item.proposal == "same" and value == "different":
            verdict, value = "reject", None
        made = Decided(id=id, verdict=verdict, value=value, by=by, at=_stamp(), text=item.text,  # type: ignore[arg-type]
                       where=item.where, settles=settles)
        with tell_disk_trouble(self.root):
            if queue == "labels":
                append_line(self.root / FOLDER / FILE, _row(item, made))
            else:
                decide(self.root, queue, made)
        return made

    def undo(self, queue: str, id: str, *, by: str) -> None:
        """Take back a person's last decision about an item. UsageError if there is none."""
        standing = [one for one in self.now().decided.get(queue, ()) if one.id == id and one.by == by]
        if not standing:
            raise UsageError(f"{by} has decided nothing about the item '{id}' that could be taken back")
        with tell_disk_trouble(self.root):
            if queue == "labels":
                item = self.now().items.get((queue, id))
                name = {"id": sources.row_id(item)} if item is not None else {"id": id}
                append_line(self.root / FOLDER / FILE, {**name, "undo": True, "by": by, "at": _stamp()})
            else:
                undo(self.root, queue, id, by=by, at=_stamp())

    def last(self, by: str) -> tuple[str, str] | None:
        """Queue and id of the person's newest standing decision."""
        mine = [(one.at, at, queue, one.id) for queue, decided in self.now().decided.items()
                for at, one in enumerate(decided) if one.by == by and (queue, one.id) in self.now().items]
        return max(mine)[2:] if mine else None

    def agreements(self) -> list[Agreement]:
        now = self.now()
        return [one for queue in QUEUES for one in agreements(queue, now.decided.get(queue, ()), now.of(queue))]

    def conflicts(self, queue: str) -> dict[str, list[Decided]]:
        now = self.now()
        return conflicts(now.decided.get(queue, ()), now.of(queue))

    def _checked(self, item: ReviewItem, verdict: str, value: Any) -> Any:
        """The value that is written down."""
        if verdict not in ("accept", "edit", "reject"):
            raise UsageError(f"the verdict is '{verdict}'; it must be accept, edit or reject")
        if verdict == "reject":
            return None
        if verdict == "accept" and item.queue == "pairs":
            return sources.pair_of(item)
        if verdict == "accept":
            return sources.proposed_labels(item) if item.queue == "labels" else item.proposal or item.text
        if item.queue == "labels":
            return self._labels(item, value)
        if item.queue == "pairs":
            if not isinstance(value, Mapping) or not all(str(value.get(key) or "").strip()
                                                         for key in ("question", "answer")):
                raise UsageError("an edited pair needs a question and an answer; or reject it")
            return {key: str(value[key]).strip() for key in ("question", "answer")}
        if not isinstance(value, str) or not value.strip():
            raise UsageError("an edit needs the right text; or reject the item")
        if item.choices and value not in item.choices:
            raise UsageError(f"'{value}' is none of: {', '.join(item.choices)}")
        return value if item.queue == "corrections" else value.strip()

    def _labels(self, item: ReviewItem, value: Any) -> list[str]:
        labels = [value] if isinstance(value, str) else value
        if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
            raise UsageError("an edit needs the right labels")
        unknown = [one for one in labels if item.choices and one not in item.choices]
        if unknown:
            raise UsageError(f"'{unknown[0]}' is none of the labels: {', '.join(item.choices)}")
        if not self.multi_label and len(labels) != 1:
            raise UsageError("a row of this task has one label; choose one, or reject the item")
        return list(dict.fromkeys(labels))


def _row(item: ReviewItem, made: Decided) -> dict[str, Any]:
    """A decision about a row, as `luthier.prepare.decisions` reads it."""
    row: dict[str, Any] = {"id": sources.row_id(item), "where": item.where, "text": item.text}
    given = list(item.notes.get("given") or ())
    if made.verdict != "reject":
        row["labels"] = list(made.value)
    elif given:  # the suspicion is wrong, so the label that stands there is right
        row["labels"] = given
    else:
        row |= {"labels": None, "verdict": "reject"}
    return {**{key: value for key, value in row.items() if value or key == "labels"}, "by": made.by, "at": made.at,
            **({"settles": True} if made.settles else {})}


def _todo(now: Snapshot, queue: str, mode: Mode, by: str) -> Iterator[ReviewItem]:
    items, decided = now.of(queue), now.decided.get(queue, [])
    standing = latest(decided)
    if mode == "conflicts":
        wanted: Any = conflicts(decided, items)
        yield from (item for id, item in items.items() if id in wanted)
        return
    mine = {one.id for one in decided if one.by == by}
    for id, item in items.items():
        if (id not in standing) if mode == "open" else (id in standing and id not in mine):
            yield item


def progress(desk: Desk, by: str) -> list[dict[str, Any]]:
    """Of every queue: items, decided, open; `earlier`: decided ones that no stage asks about any more; `second`: what
    others decided and this person did not; conflicts; and the person's pace in items a minute (median pause between
    decisions; pauses over five minutes are breaks)."""
    now = desk.now()
    found = []
    for queue in QUEUES:
        items, decided = now.of(queue), now.decided.get(queue, [])
        known = {one.id for one in decided} & items.keys()
        mine = {one.id for one in decided if one.by == by} & items.keys()
        pace = _pace([one.at for one in decided if one.by == by])
        found.append({
            "queue": queue, "items": len(items), "decided": len(known), "open": len(items) - len(known),
            "earlier": len({one.id for one in decided} - items.keys()), "mine": len(mine), "second": len(known - mine),
            "conflicts": len(conflicts(decided, items).keys() & items.keys()),
            "people": sorted({one.by for one in decided if one.by}), "per_minute": pace,
            "minutes_left": round((len(items) - len(known)) / pace, 1) if pace else None})
    return found


def _pace(times: Sequence[str]) -> float | None:
    moments = []
    for at in times:
        try:
            moments.append(datetime.fromisoformat(at).timestamp())
        except ValueError:
            continue  # written by hand, without a time or in another form
    pauses = [b - a for a, b in itertools.pairwise(moments) if 0 < b - a < 300]
    return round(60 / statistics.median(pauses), 1) if len(pauses) >= 3 else None


def changes(desk: Desk) -> list[str]:
    """What the next `luthier run` does with the decisions that were made since the stages ran, in sentences."""
    now = desk.now()
    told = []
    for queue in QUEUES:
        stage, sentence = _EFFECT[queue]
        artifact = now.artifacts.get(stage)
        # When the stage began, which is told to a tenth of a second and may be rounded up.
        since = max(float(artifact.summary.get("made_at", 0)) - 0.1, 0.0) if artifact is not None else 0.0
        fresh = {one.id for one in now.decided.get(queue, ()) if _moment(one.at) >= int(since)}  # told in seconds
        if fresh:
            n = len(fresh)
            told.append(f"{n:,} {_NOUN[queue] if n > 1 else _NOUN[queue][:-1]}: {sentence}")
    return told


_NOUN = {"corrections": "lines", "pairs": "pairs", "duplicates": "suspected duplicates", "privacy": "privacy hits",
         "labels": "rows"}
_EFFECT = {
    "corrections": ("ingest", "ingest reads their documents again with your text; prepare and all after it follow."),
    "pairs": ("prepare", "prepare takes the accepted and edited ones as examples and leaves out the rejected; train "
                         "and all after it follow."),
    "duplicates": ("prepare", "prepare merges those that are the same and keeps both of the others; all after it "
                              "follows."),
    "privacy": ("prepare", "prepare treats them as you decided; all after it follows."),
    "labels": ("prepare", "prepare gives the rows your labels; train and all after it follow."),
}


def _moment(at: str) -> float:
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return 0.0


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _times(files: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    found = []
    for file in files:
        try:
            about = file.stat()
        except OSError:
            continue
        found.append((str(file), about.st_size, about.st_mtime_ns))
    return tuple(found)
