"""The classes of a prepared labelled data set, and what a row's classes are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from luthier.errors import DataError
from luthier.store import Artifact
from luthier.types import Example

FILE = "labels.json"
OUT_OF_SCOPE = "out-of-scope"
"""Tag of a row that belongs to none of the classes where a row has one (`labels` is empty): it is never trained on as a
class and never scored as an answer, and shows how well such inputs are recognised."""


def read_labels(artifact: Artifact) -> tuple[str, ...]:
    """Names of the classes (classify, image) or of the tags without B- and I- (tag) in the order of the outputs; empty
    for embed. DataError for an artifact that was not prepared for a labelled task."""
    path = artifact.path / FILE
    if not path.is_file():
        raise DataError(f"{artifact.path} holds no {FILE}; it was not prepared for a task with labels")
    return tuple(json.loads(path.read_text("utf-8"))["labels"])


def labels_of(example: Example) -> tuple[str, ...]:
    """The different classes or tags of a row, in order of appearance; empty for none and for an unlabelled row."""
    if example.labels is not None:
        return example.labels
    return tuple(dict.fromkeys(tag.label for tag in example.spans or ()))


def file_of(where: str) -> str:
    """The file in a row's place: `data.csv` of `data.csv:12`, `set/train` of `set/train, row 3`, `val.json`
    of `val.json, image 7, box 2 at 0,0,40,30`."""
    return re.sub(r"(:\d+|, (?:\S+ )?row \d+|, image \S+?(?:, box \d+(?: at [\d,]+)?)?)$", "", where)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted; by value where all are whole numbers."""
    found = set(names)
    if all(name.isdecimal() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))
