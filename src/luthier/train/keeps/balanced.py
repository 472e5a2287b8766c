"""A class-balanced store (Chrysakis & Moens 2020; greedy balancing of Prabhu et al. 2020), random within each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from luthier.errors import SpecError
from luthier.plugins import register
from luthier.train.keeps import KEEPS, Candidates, Keep

if TYPE_CHECKING:
    from luthier.task import Task


@register(KEEPS, "balanced")
class Balanced(Keep):
    """As many rows of every class (assistant: of every document), an even sample within each. Classes with few rows
    keep them all and leave their places to the others; when classes are added, each gives up places."""

    reads_losses: ClassVar[bool] = False

    def choose(self, rows: Candidates) -> Sequence[int]:
        import numpy as np

        from luthier.train.keeps._order import by_turns, lots

        return by_turns(rows.classes, np.zeros(len(rows.ids)), lots(rows.ids, rows.seed), self.size)

    def refuse_misfits(self, task: Task) -> None:
        if task.type == "embed":
            raise SpecError("train.keep: 'balanced' balances classes, and the task 'embed' has none; take reservoir")
