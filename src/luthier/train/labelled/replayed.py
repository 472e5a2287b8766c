"""Which stored rows may be replayed: not those that are learned now anyway, and none that is held out now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from luthier.models.sources import file_hash
from luthier.prepare.base import TOGETHER
from luthier.prepare.label_split import near_repeats, same_words
from luthier.progress import Progress
from luthier.task import Task
from luthier.train.labelled.checks import names_of
from luthier.types import Example


def still_valid(stored: Sequence[Example], train: Sequence[Example], *, task: Task, root: Path) -> list[Example]:
    """Stored rows without those that the train rows repeat or correct (the same text or image, whatever its label), and
    without images that are no longer there."""
    present = [example for example in stored if not example.image or (root / example.image).is_file()]
    ids = {example.id for example in train}
    if task.type == "embed":  # a query may have many matching texts
        return [example for example in present if example.id not in ids]
    content = {content_of(example, root) for example in train} if present else set()
    return [example for example in present if example.id not in ids and content_of(example, root) not in content]


def replayable(stored: Sequence[Example], held: Sequence[Example], labels: Sequence[str], *, task: Task, root: Path,
               progress: Progress) -> list[Example]:
    """Stored rows whose labels the data still has, and that share no document, group or words with a validation or test
    row of today: a document may have come to the test set since."""
    known = {*labels}
    old = [example for example in stored if task.type == "embed" or known >= {*names_of(example)}]
    seen = {origin for example in held for origin in origins(example)}
    left = [example for example in old if not seen & origins(example)]
    content = {content_of(example, root) for example in held} if left else set()
    left = [example for example in left if content_of(example, root) not in content]
    repeated = {at for at, *_ in near_repeats([*enumerate(left)], held)} if task.type != "image" else set()
    left = [example for at, example in enumerate(left) if at not in repeated]
    if len(left) < len(old):
        progress.say(f"  {len(old) - len(left)} of {len(old)} stored rows are held out now, so they are not replayed")
    return left


def origins(example: Example) -> set[str]:
    """What may not stand on both sides: the row's documents, and its group."""
    group = example.groups.get(TOGETHER)
    return {*example.origin.documents, *([group] if group else [])}


def content_of(example: Example, root: Path) -> str:
    """Equal for rows that say the same."""
    return file_hash(root / example.image) if example.image else same_words(example)
