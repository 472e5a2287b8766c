"""Counterfactual swaps (Zhao et al. 2018; Lu et al. 2018, counterfactual data augmentation, CDA)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from luthier.errors import DataError
from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS, Setting
from luthier.train.augments._words import pattern_of, read_groups, swap

if TYPE_CHECKING:
    import numpy as np


@register(AUGMENTS, "counterfactual")
class Counterfactual(Spec):
    """Exchanges the words of pairs that should not matter for the label, such as he and she, or two names."""

    reads: ClassVar[Literal["text", "image"]] = "text"

    path: str = Field(min_length=1)
    """Text file with one pair a line, a comma between: `he, she`. Swaps go both ways; where a word stands in several
    pairs, its first one decides. A line that begins with # is a comment."""
    chance: float = Field(default=0.5, ge=0, le=1)
    """Probability of a text to be swapped, all its words at once; half makes both worlds equally frequent."""

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The list's hash."""
        from luthier.models.sources import file_hash

        return {"counterfactual": file_hash(pairs_file(root, self.path))}

    def bind(self, setting: Setting) -> BoundCounterfactual:
        """Read the pairs; DataError names the line that does not fit."""
        return BoundCounterfactual(self, Swaps.read(pairs_file(setting.root, self.path)))


class Swaps:
    """Both ways of every pair."""

    def __init__(self, pairs: list[list[str]]):
        self.other: dict[str, str] = {}
        for one, two in pairs:
            self.other.setdefault(one, two)
            self.other.setdefault(two, one)
        self.pattern = pattern_of([*self.other])

    @classmethod
    def read(cls, path: Path) -> Swaps:
        return cls(read_groups(path, field="the list of pairs", least=2, most=2))

    def twin(self, text: str) -> str:
        """The text in the other world; the same text where it names no word of the list."""
        return swap(text, self.pattern, self.other.__getitem__)


class BoundCounterfactual:
    """`counterfactual` with its pairs."""

    kind: ClassVar[str] = "counterfactual"
    reads: ClassVar[Literal["text", "image"]] = "text"

    def __init__(self, spec: Counterfactual, swaps: Swaps):
        self.spec, self.swaps = spec, swaps

    def dump(self) -> dict[str, Any]:
        return self.spec.dump()

    def apply(self, data: str, rng: np.random.Generator) -> str:
        return self.swaps.twin(data) if rng.random() < self.spec.chance else data


def pairs_file(root: Path, path: str) -> Path:
    """DataError where there is none."""
    found = root / path
    if not found.is_file():
        raise DataError(f"counterfactual.path: there is no file {found}; write one pair a line, such as: he, she")
    return found
