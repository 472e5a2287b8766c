"""Swaps by the user's own synonyms (synonym replacement as in EDA, Wei & Zou 2019, with a list that fits the field)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS, Setting
from luthier.train.augments._words import others, pattern_of, read_groups, swap

if TYPE_CHECKING:
    import numpy as np


@register(AUGMENTS, "synonyms")
class Synonyms(Spec):
    """Replaces words or phrases by others of the same group in your own list."""

    reads: ClassVar[Literal["text", "image"]] = "text"

    path: str = Field(min_length=1)
    """Text file with one group a line, commas between its words or phrases: `invoice, bill`. A line that begins with #
    is a comment."""
    share: float = Field(default=0.3, ge=0, le=1)
    """Probability of each word or phrase of the list to be replaced where it stands."""

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The list's hash."""
        from luthier.models.sources import file_hash

        return {"synonyms": file_hash(_list(root, self.path))}

    def bind(self, setting: Setting) -> BoundSynonyms:
        """Read the list; DataError names the line that does not fit."""
        return BoundSynonyms(self, read_groups(_list(setting.root, self.path), field="train.augments.synonyms.path"))


class BoundSynonyms:
    """`synonyms` with its list."""

    kind: ClassVar[str] = "synonyms"
    reads: ClassVar[Literal["text", "image"]] = "text"

    def __init__(self, spec: Synonyms, groups: list[list[str]]):
        self.spec, self.others = spec, others(groups)
        self.pattern = pattern_of([*self.others])

    def dump(self) -> dict[str, Any]:
        return self.spec.dump()

    def apply(self, data: str, rng: np.random.Generator) -> str:
        def choose(phrase: str) -> str:
            hit, drawn = rng.random(2)
            choices = self.others[phrase]
            return choices[int(drawn * len(choices))] if hit < self.spec.share else phrase

        return swap(data, self.pattern, choose)


def _list(root: Path, path: str) -> Path:
    from luthier.errors import DataError

    found = root / path
    if not found.is_file():
        raise DataError(f"train.augments.synonyms.path: there is no file {found}; write one group of synonyms a line, "
                        "such as: invoice, bill")
    return found
