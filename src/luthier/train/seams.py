"""Where strategies (ways to fit more than once) and regularizers (something added to the loss) dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from luthier.plugins import Seam

if TYPE_CHECKING:
    from luthier.train.fit import StepDone
    from luthier.train.labelled.base import Fitted, Job

STRATEGIES = Seam("strategy", package="luthier.train.strategies")

Watch = Callable[["StepDone"], None]
"""Sees every update of a run."""


class Pruned(Exception):
    """Raised by a watcher to give a run up: it has shown that it will not be the best. What it did stays on disk."""


class Strategy(Protocol):
    """Comes to one model by fitting as often as it likes. Registered with `@register(STRATEGIES, "name")` on a Spec."""

    kind: ClassVar[str]

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        """`job` is the training that would be run without a strategy; `fit` runs one. Vary a job with `job.but(...)`,
        giving every fit a folder of its own below `job.folder` and a name, so that each resumes by itself."""
        ...

    def dump(self) -> dict[str, Any]: ...
