"""Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights along the end of a run lies in a flatter
place than the last ones, and often generalises better. Batch norms' running figures are averaged with the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from luthier.spec import Spec

if TYPE_CHECKING:
    import torch

    from luthier.train.fit import Learner, StepDone


class Average(Spec):
    """The mean of the weights along the last part of the run."""

    start: float = Field(default=0.5, ge=0, lt=1)
    """Share of all updates after which the averaging starts."""
    every: int = Field(default=1, ge=1)
    """Updates between two weights that enter the mean."""


class Mean:
    """A running mean of weights, as tensors that a checkpoint holds."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, weights: dict[str, torch.Tensor]) -> None:
        """Include one set of weights."""
        self.count += 1
        for name, value in weights.items():
            if not value.is_floating_point():
                self.tensors[name] = value.clone()
            elif name in self.tensors:
                self.tensors[name] += (value - self.tensors[name]) / self.count
            else:
                self.tensors[name] = value.clone()


def averaged(steps: Iterable[StepDone], spec: Average, mean: Mean, learner: Learner, *, total: int
             ) -> Iterator[StepDone]:
    """Collect the mean from `start` on. Whoever runs the loop puts it to use afterwards, also after an early stop."""
    first = int(total * spec.start)
    for done in steps:
        if done.step > first and (done.step - first) % spec.every == 0:
            mean.add(learner.weights())
        yield done
