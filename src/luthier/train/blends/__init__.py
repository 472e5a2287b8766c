"""The blend seam: after training, one model out of the weights of several. One file each.

A blend is a line of weights from the model that training began from (a = 0) to an end (a = 1), which is the trained
model or a mean of several. `_space` turns a mix of models into a model; a kind says only which mixes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from luthier.plugins import Seam
from luthier.spec import Spec

BLENDS = Seam("blend", package="luthier.train.blends")

Mix = Mapping[str, float]
"""Name of a model → its share of the weights; shares sum to 1."""

START = "start"
"""The model that training began from: the base, or the model of an earlier run."""
RUN = "run"
"""The trained model."""
BARE = "bare"
"""The trained model without its adapters: what trained beside them (the head of a labelled task) stays."""


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """What a kind may read while it chooses its end."""

    others: Sequence[str] = ()
    """Names of other finished runs from the same base model and rows."""
    score: Callable[[Mix], float]
    """What a mix reaches on the new validation rows; higher is better."""


class Blending(Spec):
    """Base of every blend."""

    def end(self, kitchen: Kitchen) -> Mix:
        """The mix at a = 1."""
        return {RUN: 1.0}

    def begin(self) -> str:
        """The model at a = 0."""
        return START

    def wants(self) -> tuple[str, ...] | None:
        """Ids of other runs that are mixed in: none by default; None stands for all that fit."""
        return ()

    def mix(self, share: float, end: Mix) -> Mix:
        """The mix at `share` = a of the way, models without a share left out."""
        found = {self.begin(): 1 - share, **{name: share * part for name, part in end.items()}}
        return {name: part for name, part in found.items() if part}
