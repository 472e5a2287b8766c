"""Reservoir sampling (Vitter 1985): every row that was ever offered is in the store with the same chance."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.plugins import register
from luthier.train.keeps import KEEPS, Candidates, Keep


@register(KEEPS, "reservoir")
class Reservoir(Keep):
    """An even sample of all rows ever learned from, however many trainings ago."""

    def choose(self, rows: Candidates) -> Sequence[int]:
        import numpy as np

        rng = np.random.default_rng([rows.seed, 11])
        seen = rows.num_seen - (len(rows.ids) - rows.num_old)
        kept = list(range(rows.num_old))
        for at in range(rows.num_old, len(rows.ids)):
            seen += 1
            if len(kept) < self.size:
                kept.append(at)
            elif (place := int(rng.integers(seen))) < self.size:
                kept[place] = at
        return sorted(kept[: self.size])
