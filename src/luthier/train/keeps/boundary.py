"""The rows nearest to the decision: margin sampling (Scheffer et al. 2001), turned to what is worth rehearsing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from luthier.errors import SpecError
from luthier.plugins import register
from luthier.train.keeps import KEEPS, Candidates, Keep

if TYPE_CHECKING:
    from luthier.task import Task


@register(KEEPS, "boundary")
class Boundary(Keep):
    """The rows whose two likeliest classes are closest, as many of every class: they say where the border runs. A wrong
    label is not preferred, for the finished model mostly sits far on the other side of it."""

    def choose(self, rows: Candidates) -> Sequence[int]:
        from luthier.train.keeps._order import by_turns, lots

        return by_turns(rows.classes, rows.margins, lots(rows.ids, rows.seed), self.size)

    def refuse_misfits(self, task: Task) -> None:
        if task.type not in ("classify", "image", "tag"):
            raise SpecError("train.keep: 'boundary' looks for rows between two classes, and the task "
                            f"'{task.type}' has none; take {'hardest or ' if not task.labelled else ''}reservoir")
