"""Reservoir sampling (Vitter 1985): every row that was ever offered is in the store with the same chance.

Differs from his algorithm R: every row draws a lot once, by hash of its id, and the smallest lots stay (as in
Efraimidis & Spirakis 2006 with equal weights). The law is the same, and it also holds where the same row is learned
twice, where the size shrinks, and in whatever order rows come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from luthier.plugins import register
from luthier.train.keeps import KEEPS, Candidates, Keep


@register(KEEPS, "reservoir")
class Reservoir(Keep):
    """An even sample of all rows ever learned from, however many trainings ago."""

    reads_losses: ClassVar[bool] = False

    def choose(self, rows: Candidates) -> Sequence[int]:
        import numpy as np

        from luthier.train.keeps._order import lots

        return sorted(int(at) for at in np.argsort(lots(rows.ids, rows.seed), kind="stable")[: self.size])
