"""k-fold cross-validation (Stone 1974): every train row is judged once by a model that has not seen it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.seams import STRATEGIES

if TYPE_CHECKING:
    from luthier.train.labelled.base import Fitted, Job
    from luthier.train.strategies._folds import Folded


@register(STRATEGIES, "crossval")
class CrossVal(Spec):
    """Fits once for each fold, scores the rows held out, and comes to one model.

    `oof.json` keeps what the folds' models say of the rows that they did not see (classify, image), for finding label
    errors, choosing thresholds and weighing models; `crossval.json` the value of every fold.
    """

    folds: int = Field(default=5, ge=2, le=50)
    """Parts that the train rows are divided into: rows of one document or group stay together, and every part has its
    share of each label."""
    final: Literal["refit", "best_fold", "ensemble"] = "refit"
    """The model that comes out: `refit` trains on all rows for the median of the folds' best numbers of updates,
    `best_fold` takes the fold model with the best value, `ensemble` all of them as one model."""
    with_validation: bool = False
    """Divide the validation rows too, for very small data. A fold's weights are then chosen on the rows that it holds
    out, which makes its value a little optimistic, and the final model has seen every validation row."""

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        """See `luthier.train.seams.Strategy`. DataError where there are fewer documents than folds."""
        from luthier.train.labelled import kept
        from luthier.train.labelled.base import Fitted
        from luthier.train.labelled.pool import pooled
        from luthier.train.labelled.score import LOWER
        from luthier.train.strategies._folds import fit_folds
        from luthier.train.strategies._members import adopt_contract, judged, look_for_leaks, together

        job = pooled(look_for_leaks(job), [*job.train, *job.validation])
        done = fit_folds(fit, job, self.folds, with_validation=self.with_validation)
        report = _report(done, job)
        metric = report["metric"]
        scratch = [kept.file_of(one) for one in done.jobs]
        if self.final == "refit":
            last = _refit(job, done)
            final, scratch = fit(last), [*scratch, kept.file_of(last)]
            adopt_contract(job, last.folder)
        elif self.final == "best_fold":
            sign = -1 if metric in LOWER else 1
            best = max(range(self.folds), key=lambda at: (sign * (done.fitted[at].value or 0.0), -at))
            report["chosen"] = best + 1
            final = done.fitted[best]
        else:
            final = together(done.fitted, job)
        if self.final != "refit":
            adopt_contract(job, done.jobs[0].folder)
        final = judged(final, job.but(validation=()) if self.with_validation else job)
        summary = {**final.summary, "cross_validation": {k: v for k, v in report.items() if k != "rows"}}
        if self.with_validation:  # nothing is left that the final model has not seen
            summary["validation"] = {"metric": metric, "value": report["value"], "n": report["n"], "how": "out of fold",
                                     "better": "lower" if metric in LOWER else "higher"}
        job.progress.say(f"  {self.folds} folds: {metric} {report['mean']:.4f} ({report['low']:.4f} to "
                         f"{report['high']:.4f})")
        artifacts = {**final.artifacts, "crossval.json": report}
        logits = done.logits()
        if logits is not None:
            artifacts["oof.json"] = {
                "labels": list(final.model.labels), "multi_label": final.model.task.multi_label,
                "ids": [done.rows[at].id for at in done.held], "folds": [done.folds[at] + 1 for at in done.held],
                "logits": [[round(float(value), 5) for value in row] for row in logits]}
        return Fitted(model=final.model, value=report["value"] if self.with_validation else final.value,
                      loss=final.loss, logits=final.logits, summary=summary, artifacts=artifacts,
                      scratch=(*scratch, *final.scratch))


def _report(done: Folded, job: Job) -> dict[str, Any]:
    """The folds' values, their interval, and the metric over all held-out rows at once (where the task has classes)."""
    import numpy as np

    from luthier.train.labelled.score import score_labels
    from luthier.train.strategies._folds import ALWAYS, mean_and_interval

    model = done.fitted[0].model
    metric, logits = model.task.metric, done.logits()
    spread = mean_and_interval([fitted.value or 0.0 for fitted in done.fitted])
    value = spread["mean"]
    if logits is not None:
        targets = [row.target for row in model.rows([done.rows[at] for at in done.held])]
        value = score_labels(metric, np.stack(targets), logits, multi_label=model.task.multi_label)
    return {"metric": metric, "value": value, "n": len(done.held), **spread,
            "sizes": [sum(own == fold for own in done.folds) for fold in range(len(done.fitted))],
            "never_held_out": sum(own == ALWAYS for own in done.folds),
            "best_steps": [fitted.summary["best_step"] for fitted in done.fitted],
            "memorises": [bool((fitted.summary.get("gap") or {}).get("memorises")) for fitted in done.fitted]}


def _refit(job: Job, done: Folded) -> Job:
    """All rows, for as many epochs as the median fold was best after."""
    import math
    from statistics import median

    size = job.spec.update_size(done.fitted[0].model.task)
    epochs = [fitted.summary["best_step"] / math.ceil(len(one.train) / size)
              for fitted, one in zip(done.fitted, done.jobs)]
    steps = round(median(epochs) * math.ceil(len(done.rows) / size))
    job.progress.say(f"  all {len(done.rows):,} rows for {steps:,} updates (the folds' median)")
    return job.but(train=done.rows, validation=(), stop_after=steps, keep=True, look_for_leaks=False, note="all folds",
                   folder=job.folder / "refit")

