"""Counterfactual data augmentation as more rows (Lu et al. 2018; Zhao et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from luthier.errors import SpecError
from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments.counterfactual import Swaps, pairs_file
from luthier.train.seams import STRATEGIES

if TYPE_CHECKING:
    from luthier.train.labelled.base import Fitted, Job


@register(STRATEGIES, "counterfactual")
class CounterfactualTwins(Spec):
    """Adds to every train text that names a word of your list its twin with the words exchanged, under the same label.
    The augmentation of the same name exchanges them at random instead."""

    path: str = Field(min_length=1)
    """Text file with one pair a line, a comma between: `he, she`. Swaps go both ways."""
    weight: float = Field(default=1.0, gt=0, le=1)
    """What a twin counts, compared with its row."""

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The list's hash."""
        from luthier.models.sources import file_hash

        return {"counterfactual": file_hash(pairs_file(root, self.path))}

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        from dataclasses import replace

        if any(example.labels is None for example in job.train):
            raise SpecError("train.strategy: 'counterfactual' is for the task classify: swapped words would move away "
                            "from tags, and pairs of texts would no longer match")
        swaps = Swaps.read(pairs_file(job.root, self.path))
        twins = [replace(example, id=f"{example.id}-twin", input=twin, weight=example.weight * self.weight,
                         tags=(*example.tags, "twin"),
                         origin=replace(example.origin, maker="rule", step="counterfactual"))
                 for example in job.train if (twin := swaps.twin(str(example.input))) != example.input]
        job.progress.say(f"  {len(twins):,} of {len(job.train):,} train rows got a twin with exchanged words")
        fitted = fit(job.but(train=[*job.train, *twins]))
        return replace(fitted, summary={**fitted.summary, "twins": len(twins)})
