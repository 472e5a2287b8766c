"""`luthier tune --rates`: the learning-rate range test on a project's own data and model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from luthier.errors import UsageError
from luthier.progress import Progress
from luthier.project.base import Project
from luthier.train.base import probe_rates
from luthier.tune.range_test import RangeFound, RangeTest

ROWS = 12
WIDTH = 40


@dataclass(frozen=True)
class Rates:
    """What the test saw, and the rate that it speaks for."""

    found: RangeFound

    @property
    def proposed(self) -> float:
        """The proposed peak learning rate, with two digits: more would be noise."""
        return float(f"{self.found.proposed:.1e}")

    def data(self) -> dict[str, Any]:
        return {"proposed": self.proposed, "rates": list(self.found.rates), "losses": list(self.found.losses)}

    def text(self, applied: list[str]) -> str:
        """A small curve for a person, and what to do with the result."""
        pairs = list(zip(self.found.rates, self.found.losses))
        rows = min(ROWS, len(pairs))
        shown = [pairs[round(at * (len(pairs) - 1) / max(1, rows - 1))] for at in range(rows)]
        most = max(loss for _, loss in shown)
        lines = ["learning rate  loss before the update"]
        lines += [f"{rate:12.1e}  {loss:8.4f}  {'█' * max(1, round(WIDTH * loss / most))}" for rate, loss in shown]
        lines += ["", f"Proposed peak learning rate: {self.proposed:.1e} (the loss falls fastest there; a batch's loss "
                      "is noisy, so try half and twice of it, too)"]
        lines += [f"Written: {', '.join(applied)}"] if applied else [
            f"Use it:  luthier run -s train.learning_rate={self.proposed:.1e}   or:  luthier tune --rates --apply"]
        return "\n".join(lines)


def find_rate(project: Project, *, progress: Progress, test: RangeTest | None = None) -> Rates:
    """Prepare and adapt as a run would, then train for a moment with a rising rate. Nothing is kept."""
    made = {}
    for stage in ("prepare", "adapt"):
        for done in project.run(to=stage, progress=progress):
            made[done.stage] = done.artifact
    if made.get("prepare") is None or made.get("adapt") is None:
        raise UsageError("the range test needs prepared data and a model; run: luthier prepare")
    spec = test or RangeTest()

    def run(update: Any) -> RangeFound:
        with progress.track("range test", spec.steps, unit="updates") as bar:
            def counted(rate: float) -> float:
                loss = update(rate)
                bar.advance(1, rate=rate, loss=loss)
                return loss

            return spec.run(counted)

    return Rates(probe_rates(made["adapt"], made["prepare"], project.spec.train, run, store=project.store,
                             root=project.root, progress=progress))
