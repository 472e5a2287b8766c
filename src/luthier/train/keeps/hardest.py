"""The rows that the finished model finds hardest, class by class, without those whose label is probably wrong.

Rows with a large loss are worth rehearsing (Schaul et al. 2016, prioritised replay), but a wrong label has the largest
loss of all (Arpit et al. 2017; Jiang et al. 2018), and a store full of those would teach mistakes again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from luthier.errors import SpecError
from luthier.plugins import register
from luthier.train.keeps import KEEPS, Candidates, Keep

if TYPE_CHECKING:
    import numpy as np

    from luthier.task import Task


@register(KEEPS, "hardest")
class Hardest(Keep):
    """The rows with the largest loss, as many of every class (assistant: of every document)."""

    doubt: float = Field(default=0.1, ge=0, lt=1)
    """Share of every class's new rows, those with the very largest losses, that are taken for mislabelled: they come
    in only where their class has no others. Rows that are in the store already are not doubted again, for their loss
    may be large because they were forgotten."""

    def choose(self, rows: Candidates) -> Sequence[int]:
        import numpy as np

        from luthier.train.keeps._order import by_turns, lots

        values = -rows.losses.astype(np.float64)
        doubted = self._doubted(rows)
        if doubted.any():  # behind all others, the least doubtful first
            values[doubted] = rows.losses[doubted] + (values.max() - rows.losses.min()) + 1
        return by_turns(rows.classes, values, lots(rows.ids, rows.seed), self.size)

    def _doubted(self, rows: Candidates) -> np.ndarray:
        import numpy as np

        found = np.zeros(len(rows.ids), dtype=bool)
        new = np.arange(len(rows.ids)) >= rows.num_old
        for one in np.unique(rows.classes):
            own = np.flatnonzero(new & (rows.classes == one))
            found[own[np.argsort(-rows.losses[own], kind="stable")[: int(self.doubt * len(own))]]] = True
        return found

    def refuse_misfits(self, task: Task) -> None:
        if task.type == "embed":
            raise SpecError("train.keep: 'hardest' goes by each row's loss, and in the task 'embed' that depends on "
                            "the other rows of its batch; take reservoir")
