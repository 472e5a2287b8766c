"""Review queues: what a stage asks a person about, and what people decided.

A stage writes the items it is unsure of into `review.jsonl` of its artifact. What people decide goes into the project's
`labels/<queue>.jsonl`, plain lines made for git that no run ever rewrites; the stage reads them at its next run, and
their hash is one of its inputs. `luthier review` is the page on top; an editor does as well.

Item ids are made of content (document, place, text), so that a decision survives a re-run and a changed document asks
again. Labels of rows have a queue of their own, older format: `labels/decisions*.jsonl` (luthier.prepare.decisions).

Nothing is ever taken out of such a file: a line with `undo` takes back the last decision of that person about that id,
and of two people's decisions the later one holds until a line with `settles` ends the matter.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from luthier.errors import DataError
from luthier.types import digest, read_jsonl, write_jsonl

Queue = Literal["corrections", "pairs", "duplicates", "privacy", "labels"]
"""corrections: lines read from scans; pairs: synthetic questions and answers; duplicates: two texts, the same or not;
privacy: suspected personal data; labels: proposed or suspected classes."""
QUEUES: tuple[str, ...] = get_args(Queue)

Verdict = Literal["accept", "edit", "reject"]
FOLDER, REVIEW = "labels", "review.jsonl"


@dataclass(frozen=True, kw_only=True)
class ReviewItem:
    """One thing a person should look at."""

    queue: str
    id: str
    """Stands for what is asked: the same question gets the same id in every run."""
    text: str
    """What is judged: the line as it was read, the question and answer, the hit in its sentence."""
    proposal: str | Sequence[str] = ""
    """What holds if the person accepts: the text, the labels, `same`, the kind of personal data."""
    choices: tuple[str, ...] = ()
    """What may be proposed instead; empty for free text."""
    confidence: float = 0.0
    """0 to 1; the page shows the least certain first."""
    reason: str = ""
    """Why a person is asked, in words."""
    where: str = ""
    """Citation: file and page or line."""
    path: str = ""
    """The source file, relative to the ingested folder; with `page` and `box` the page shows its image."""
    page: int | None = None
    box: tuple[float, float, float, float] | None = None
    """x0, top, x1, bottom in PDF points (PDF) or pixels (image files)."""
    context: str = ""
    """What stands around it: the passage, or the other text of a suspected duplicate."""
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What one person decided about one item; one line of `labels/<queue>.jsonl`."""

    id: str
    verdict: Verdict
    value: Any = None
    """The corrected text, labels or kind, for `edit`; what was accepted, for `accept`."""
    by: str = ""
    at: str = ""
    """ISO time."""
    text: str = ""
    """What was judged, so that the line can be read (and still matched) without the artifact."""
    where: str = ""
    settles: bool = False
    """Ends a disagreement: made in the knowledge of what others had decided, so it counts for no agreement."""
    source: str = ""
    """File and line this was read from, such as `labels/pairs.jsonl:3`; not written."""


def queue_file(root: Path, queue: str) -> Path:
    return root / FOLDER / f"{queue}.jsonl"


def read_decided(root: Path, queue: str) -> list[Decided]:
    """All decisions of a queue that stand, in the order they were made. DataError names the line that is none."""
    file = queue_file(root, queue)
    if not file.is_file():
        return []
    found: list[Decided] = []
    for number, line in enumerate(file.read_text("utf-8-sig").split("\n"), 1):
        if line.strip():
            one = _decided(line, f"{FOLDER}/{file.name}:{number}")
            if isinstance(one, Decided):
                found.append(one)
            else:
                take_back(found, *one)
    return found


def take_back(found: list[Any], id: str, by: str) -> None:
    """Remove the last of `found` about `id`, by that person where one is named."""
    for at in range(len(found) - 1, -1, -1):
        if found[at].id == id and by in ("", found[at].by):
            del found[at]
            return


def latest(decided: Iterable[Decided]) -> dict[str, Decided]:
    """The decision that holds for each id: the last one made."""
    return {one.id: one for one in decided}


def decided_hash(root: Path, queue: str) -> str:
    """Stands for a queue's decisions as an input of a stage; empty where there are none."""
    file = queue_file(root, queue)
    return digest(file.read_text("utf-8-sig")) if file.is_file() and file.stat().st_size else ""


def decide(root: Path, queue: str, decided: Decided) -> None:
    """Append one decision and see it on disk before returning: a decision is a person's minute."""
    append_line(queue_file(root, queue), {key: value for key, value in asdict(decided).items() if key != "source"
                                          and value not in ("", None, False)})


def undo(root: Path, queue: str, id: str, *, by: str = "", at: str = "") -> None:
    """Take back the last decision of `by` (of anybody, if empty) about an item; both lines stay in the file."""
    append_line(queue_file(root, queue), {"id": id, "undo": True, **({"by": by} if by else {}),
                                          **({"at": at} if at else {})})


def append_line(file: Path, record: Mapping[str, Any]) -> None:
    """Append one line of JSON and see it on disk. Several processes may do so at once: none loses a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    with file.open("a+b", buffering=0) as out, _alone(out.fileno()):
        end = out.seek(0, os.SEEK_END)
        if end:
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":  # a line of an editor, or one that a power cut left half
                line = b"\n" + line
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[out.write(rest):]
        except OSError:  # a full disk: leave no half a line behind
            out.truncate(end)
            raise
        os.fsync(out.fileno())


@contextlib.contextmanager
def _alone(handle: int) -> Iterator[None]:
    """Keep other writers out while one looks at the end of the file and writes. The lock goes with its process."""
    try:
        import fcntl
    except ImportError:  # not on this system: one write at the end of the file is whole by itself
        yield
        return
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield  # closing the file unlocks


def write_review(folder: Path, items: Iterable[ReviewItem]) -> int:
    """Write a stage's open items beside its other files; returns how many."""
    return write_jsonl(folder / REVIEW, items)


def read_review(folder: Path) -> list[ReviewItem]:
    """The items of a stage's artifact; empty where it asked nothing."""
    if not (folder / REVIEW).is_file():
        return []
    return [ReviewItem(**{**row, "choices": tuple(row["choices"]), "box": tuple(row["box"]) if row["box"] else None})
            for row in read_jsonl(folder / REVIEW)]


def _decided(line: str, source: str) -> Decided | tuple[str, str]:
    """A decision, or the id and the person of one that is taken back."""
    try:
        data = json.loads(line)
    except ValueError as error:
        raise DataError(f"{source}: not JSON ({error}); mend or remove the line") from None
    if not isinstance(data, dict) or not isinstance(data.get("id"), str) or not data["id"]:
        raise DataError(f"{source}: a decision needs the `id` of the item; mend or remove the line")
    if data.get("undo") is True:
        return data["id"], str(data.get("by") or "")
    if data.get("verdict") not in get_args(Verdict):
        raise DataError(f"{source}: `verdict` is {data.get('verdict')!r}; write accept, edit or reject")
    if data["verdict"] == "edit" and data.get("value") in (None, "", []):
        raise DataError(f"{source}: an edit needs the right `value`; or reject the item")
    names = ("id", "verdict", "value", "by", "at", "text", "where", "settles")
    return Decided(**{name: data[name] for name in names if name in data}, source=source)
