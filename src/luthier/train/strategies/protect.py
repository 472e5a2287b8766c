"""How strongly to protect: several strengths are trained, and held-back old rows and new validation rows choose.

Chosen on rows that are tested on, a strength flatters itself (De Lange et al. 2022, "A continual learning survey",
section 5: the trade-off must be set without the tests of the tasks). So neither test rows nor replayed rows judge here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from luthier.errors import DataError, ModelError, SpecError
from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.seams import STRATEGIES

if TYPE_CHECKING:
    from luthier.train.labelled.base import Fitted, Job
    from luthier.types import Example

END = 0.1
"""Share of a fit's updates, the last ones, over which penalty and loss are compared."""
LOT = 1_000_003
"""Seed of the lots that hold rows back: never that of a store, whose lots decide who is in it at all."""


@register(STRATEGIES, "protect")
class Protect(Spec):
    """Trains with several strengths of `train.regularizers` and keeps the model that is best on new and old rows alike.

    For trainings that begin from an earlier model which stored rows (train.keep); the first training is fitted once.
    `strengths.json` holds, for every strength, the task's metric on the validation rows and on stored rows that were
    held back, and how the penalty stood to the loss in the end. Costs one training for each strength.
    """

    strengths: tuple[float, ...] = Field(default=(0.0, 0.1, 1.0, 10.0, 100.0), min_length=1)
    """Each regularizer's `strength` is multiplied by these, all regularizers together; 0 is no protection."""
    held_back: float = Field(default=0.3, gt=0, lt=1)
    """Share of the stored rows that are never replayed here but judge what was forgotten: the same rows in every
    training, chosen by hash, at least one. The earlier model was trained on them, so their figure compares strengths
    and is no estimate of accuracy."""
    weight_new: float = Field(default=0.5, ge=0, le=1)
    """Share of the new rows' figure in the mean that decides; the rest is the old rows'."""

    @field_validator("strengths")
    @classmethod
    def _different(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) < 0 or len({*value}) < len(value):
            raise ValueError("name each multiplier once, none below 0")
        return value

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        """See `luthier.train.seams.Strategy`. DataError where there are no rows to choose by."""
        from luthier.train.fit import Diverged
        from luthier.train.labelled import kept
        from luthier.train.labelled.score import LOWER
        from luthier.train.past import FOLDER
        from luthier.train.strategies._members import adopt_contract, look_for_leaks

        self._refuse(job)
        if job.past is None:
            job.progress.say("  nothing to protect yet: training begins from a base model, and is run once")
            return fit(job)
        held = self._held(job)
        ids = {example.id for example in held}
        job = look_for_leaks(job).but(replay=[example for example in job.replay if example.id not in ids])
        metric = job.open(job.seed).task.metric
        sign = -1 if metric in LOWER else 1
        tried: list[dict[str, Any]] = []
        best: tuple[float, Fitted, Path] | None = None
        scratch: list[Path] = []
        for at, times in enumerate(sorted(self.strengths)):
            one = self._job(job, times, job.folder / f"strength-{at + 1}")
            said: dict[str, Any] = {"times": times, "strengths": strengths_of(one)}
            try:
                found = fit(one)
            except Diverged as error:  # a penalty that is too steep for the learning rate is no reason to give up
                tried.append({**said, "diverged": str(error)})
                job.progress.say(f"  strength × {times:g}: {error}")
                continue
            new, old = found.value or 0.0, score(found.model, held, one)
            mean = self.weight_new * new + (1 - self.weight_new) * old
            tried.append({**said, "new": new, "old": old, "mean": mean, "steps": found.summary["steps"],
                          "penalty_to_loss": penalty_to_loss(one.folder / "steps.jsonl")})
            job.progress.say(f"  strength × {times:g}: {metric} {new:.4f} on new rows, {old:.4f} on {len(held)} old "
                             "ones")
            scratch += [kept.file_of(one), *(one.folder / FOLDER).glob("*")]
            if best is None or sign * mean > best[0]:  # equal: the weaker one, which hinders learning less
                best = (sign * mean, found, one.folder)
        if best is None:
            raise ModelError("train.strategy: protect: training diverged with every strength; lower "
                             "train.learning_rate")
        _, chosen, folder = best
        adopt_contract(job, folder)
        report = self._report(job, tried, held, metric, sign)
        job.progress.say(f"  {report['sentence']}")
        return replace(chosen, summary={**chosen.summary, "protect": report},
                       artifacts={**chosen.artifacts, "strengths.json": report}, scratch=(*chosen.scratch, *scratch))

    def _refuse(self, job: Job) -> None:
        """SpecError where there is no strength to choose; DataError without validation rows."""
        bare = [one.kind for one in job.spec.regularizers if "strength" not in type(one).model_fields]
        if bare or not job.spec.regularizers:
            raise SpecError("train.strategy: protect chooses the strength of train.regularizers, and "
                            + (f"'{bare[0]}' has none" if bare else "none is named; name one, such as lwf or ewc"))
        if not job.validation:
            raise DataError("train.strategy: protect judges what was learned on validation rows, and there are none; "
                            "set prepare.split.validation, or remove the strategy")

    def _held(self, job: Job) -> list[Example]:
        """The stored rows that judge. DataError where the earlier model stored none that both models can answer."""
        from luthier.train.labelled.checks import names_of

        assert job.past is not None
        known = {*job.open(job.seed).labels} & {*(job.past.labels or job.past.open().labels)}
        known |= {label.partition("-")[2] for label in known}
        rows = [example for example in job.past.rows if known >= {*names_of(example)}]
        if not rows:
            raise DataError("train.strategy: protect judges what was forgotten on rows that the earlier model stored, "
                            "and it stored none of these labels; train it again with train.keep, or remove the "
                            "strategy and set the strengths yourself")
        return held_back(rows, self.held_back)

    def _job(self, job: Job, times: float, folder: Path) -> Job:
        regularizers = tuple(one.but(strength=one.strength * times) for one in job.spec.regularizers)  # type: ignore[attr-defined]
        return job.but(spec=job.spec.but(regularizers=regularizers), folder=folder, note=f"strength × {times:g}",
                       keep=True)

    def _report(self, job: Job, tried: Sequence[dict[str, Any]], held: Sequence[Example], metric: str, sign: int
                ) -> dict[str, Any]:
        assert job.past is not None
        best = max((one for one in tried if "mean" in one), key=lambda one: (sign * one["mean"], -one["times"]))
        before = score(job.past.open(), held, job)
        told = ", ".join(f"{kind} {value:g}" for kind, value in best["strengths"].items())
        sentence = (f"Strength × {best['times']:g} ({told}) is kept: {metric} {best['new']:.4f} on "
                    f"{len(job.validation)} new rows and {best['old']:.4f} on {len(held)} old ones ({before:.4f} "
                    "before training).")
        if len(tried) > 1 and best["times"] == max(one["times"] for one in tried):
            sentence += " It is the largest that was tried; a larger one may be better still."
        return {"metric": metric, "better": "lower" if sign < 0 else "higher", "weight_new": self.weight_new,
                "n_new": len(job.validation), "n_old": len(held), "old_before": before, "chosen": best["times"],
                "sentence": sentence, "strengths": [*tried]}


def strengths_of(job: Job) -> dict[str, float]:
    """Strength by kind of regularizer."""
    return {one.kind: one.strength for one in job.spec.regularizers}  # type: ignore[attr-defined]


def held_back(rows: Sequence[Example], share: float) -> list[Example]:
    """About that share of the rows, at least one: which ones depends on each row's id alone."""
    from luthier.train.keeps._order import lots

    drawn = lots([example.id for example in rows], LOT)
    limit = max(share, float(drawn.min()) + 1e-12)
    return [example for example, lot in zip(rows, drawn) if lot < limit]


def score(model: Any, examples: Sequence[Example], job: Job) -> float:
    """The task's metric of a model on these rows, each among the classes of its part."""
    from luthier.train.labelled.pool import rows_for
    from luthier.train.labelled.score import validate

    rows = [row.but(part=job.part_of.get(row.id, "")) for row in rows_for(job, model, examples)]
    return validate(model, examples, rows, parts=job.parts)[0]


def penalty_to_loss(steps: Path) -> float | None:
    """How much regularizers added (penalties on weights, and what teachers said) for each nat of the task's own loss,
    over the last tenth of the updates: what makes strengths of different kinds comparable. None where nothing is
    written."""
    if not steps.is_file():
        return None
    rows = [json.loads(line) for line in steps.read_text("utf-8").splitlines()]
    if not rows:
        return None
    last = rows[-max(1, round(END * len(rows))):]
    added = sum(row["penalty"] + row["taught"] for row in last)
    own = sum(row["loss"] - row["taught"] for row in last)
    return added / own if own > 0 else None
