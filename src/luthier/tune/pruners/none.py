"""No pruning: every trial runs to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.plugins import register
from luthier.spec import Spec
from luthier.tune.seams import PRUNERS, Better, Trial


@register(PRUNERS, "none")
class NoPruner(Spec):
    """Every trial runs to its end."""

    def stop(self, trials: Sequence[Trial], number: int, *, better: Better) -> tuple[bool, Mapping[str, Any]]:
        return False, {}
