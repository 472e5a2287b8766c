"""Greedy soup (Wortsman et al. 2022, "Model soups", recipe 1): the mean of the weights of several finished runs from
one base model, the best first, where a run joins only if the score on held-out rows does not fall. No training.

The end of the line is the soup; a below 1 goes from there towards the model that training began from, as in `wise`.
Runs whose heads were drawn apart (other seeds of a labelled task without a start) have no useful mean; the score then
falls and they stay out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from luthier.plugins import register
from luthier.train.blends import BLENDS, RUN, Blending, Kitchen, Mix


@register(BLENDS, "soup")
class Soup(Blending):
    """The mean of several runs' weights, a run joining only if the held-out score does not fall (greedy soup)."""

    runs: Literal["auto"] | tuple[str, ...] = "auto"
    """Ids of the other runs, as `luthier trace` and the folders of the store name them; `auto` takes every finished run
    from the same base model and the same rows, such as those of other seeds or settings."""

    def wants(self) -> tuple[str, ...] | None:
        return None if self.runs == "auto" else self.runs

    def end(self, kitchen: Kitchen) -> Mix:
        return greedy([RUN, *kitchen.others], kitchen.score)


def greedy(names: Sequence[str], score: Callable[[Mix], float]) -> Mix:
    """The soup's mix: equal shares of the members that joined. Of equal scores the earlier name comes first."""
    alone = {name: score({name: 1.0}) for name in names}
    order = sorted(names, key=lambda name: (-alone[name], names.index(name)))
    members, best = order[:1], alone[order[0]]
    for name in order[1:]:
        tried = [*members, name]
        found = score({one: 1 / len(tried) for one in tried})
        if found >= best:
            members, best = tried, found
    return {name: 1 / len(members) for name in members}
