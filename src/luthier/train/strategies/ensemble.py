"""Several models as one: their errors differ, so the mean of their probabilities errs less and knows better how sure it
may be (Breiman 1996, bagging; Lakshminarayanan et al. 2017, deep ensembles)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from luthier.errors import DataError, SpecError
from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.seams import STRATEGIES

if TYPE_CHECKING:
    from luthier.train.labelled.base import Fitted, Job


@register(STRATEGIES, "ensemble")
class Ensemble(Spec):
    """Trains several members and releases them as one model, or averages their weights, or distils them into one.

    `ensemble.json` says what each member and the whole reach on the validation rows: the task's metric, log loss and
    calibration error.
    """

    members: Literal["folds", "seeds", "snapshots"] = "folds"
    """What makes members differ: each leaves out another fold of the train rows; another seed draws its head, order and
    dropout; or `snapshots` (Huang et al. 2017): one run whose learning rate falls to zero and starts again `count`
    times, for the price of one training."""
    count: int = Field(default=5, ge=2, le=50)
    """How many members."""
    combine: Literal["mean", "weighted", "soup"] = "mean"
    """`mean` of the probabilities; `weighted` by shares that a greedy selection on the validation rows finds (Caruana
    et al. 2004); `soup` (Wortsman et al. 2022): the mean of the weights, where a member joins only if the validation
    value does not fall; the result is as fast and small as one member."""
    distill: bool = False
    """Distil the ensemble into one model that is as fast as a single member: strategy `distill` with its defaults."""

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        """See `luthier.train.seams.Strategy`. DataError where a way to combine needs validation rows."""
        if self.distill:
            from luthier.train.strategies.distill import Distill

            return Distill(teacher=self.but(distill=False)).run(fit, job)
        return self._trained(fit, job)

    def _trained(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        from luthier.train.labelled import kept
        from luthier.train.labelled.base import Fitted
        from luthier.train.labelled.pool import pooled
        from luthier.train.strategies import _members

        if self.combine != "mean" and not job.validation:
            raise DataError(f"train.strategy: combine: {self.combine} chooses members by the validation rows, and "
                            "there are none; add some, or take combine: mean")
        task = job.open(job.seed).task
        if task.type == "embed" and self.combine != "soup":
            raise SpecError("train.strategy: vectors of different models do not live in one space, so the task 'embed' "
                            "has no ensemble; take combine: soup")
        job = pooled(_members.look_for_leaks(job), [*job.train, *job.validation])
        ways = {"folds": self._folds, "seeds": self._seeds, "snapshots": self._snapshots}
        jobs, fitted = ways[self.members](fit, job)
        _members.adopt_contract(job, jobs[0].folder)
        report: dict[str, Any] = {"members": self.members, "combine": self.combine}
        logits, targets = _validation_logits(fitted, job)
        if self.combine == "soup":
            found, chosen = _members.soup(fitted, job)
            report["in_the_soup"] = [at + 1 for at in chosen]
        else:
            shares = None
            if self.combine == "weighted":
                if logits is None:
                    raise SpecError(f"train.strategy: combine: weighted is for classes, and the task is '{task.type}'; "
                                    "take combine: mean")
                shares = _members.greedy_weights(logits, targets, multi_label=task.multi_label)
                report["shares"] = shares
            found = _members.together(fitted, job, shares)
        found = _members.judged(found, job)
        if logits is not None and found.logits is not None:
            report["each"] = [_members.figures(one, targets, task.metric, multi_label=task.multi_label)
                              for one in logits]
            report["together"] = _members.figures(found.logits, targets, task.metric, multi_label=task.multi_label)
            report["n"] = len(targets)
        return Fitted(model=found.model, value=found.value, loss=found.loss, logits=found.logits,
                      summary={**found.summary, "ensemble": report}, artifacts={"ensemble.json": report},
                      scratch=tuple(kept.file_of(one) for one in jobs))

    def _folds(self, fit: Callable[[Job], Fitted], job: Job) -> tuple[Sequence[Job], Sequence[Fitted]]:
        from luthier.train.strategies._folds import fit_folds

        done = fit_folds(fit, self._one_start(job), self.count, with_validation=False)
        return done.jobs, done.fitted

    def _seeds(self, fit: Callable[[Job], Fitted], job: Job) -> tuple[Sequence[Job], Sequence[Fitted]]:
        job = self._one_start(job)
        jobs = [job.but(folder=job.folder / f"member-{at + 1}", seed=job.seed + at, keep=True,
                        note=f"member {at + 1} of {self.count}") for at in range(self.count)]
        return jobs, [fit(one) for one in jobs]

    def _snapshots(self, fit: Callable[[Job], Fitted], job: Job) -> tuple[Sequence[Job], Sequence[Fitted]]:
        """Each cycle begins with the last one's weights and a high rate, and ends with its last weights at a rate of
        almost zero; no early stopping inside."""
        model = job.open(job.seed)
        if job.spec.plan.phases([*model.groups]) > 1:
            raise SpecError(f"train.strategy: snapshots need a plan with one phase, and '{job.spec.plan.kind}' has "
                            "several; each cycle would freeze the layers again")
        if job.spec.epochs < self.count:
            raise SpecError(f"train.strategy: {self.count} snapshots need at least {self.count} epochs, and "
                            f"train.epochs is {job.spec.epochs}")
        spec = job.spec.but(epochs=job.spec.epochs // self.count, schedule="cosine", average=None)
        jobs, fitted = [], []
        for at in range(self.count):
            one = job.but(folder=job.folder / f"snapshot-{at + 1}", seed=job.seed + at, validation=(), spec=spec,
                          keep=True, warm=job.warm and at == 0, note=f"snapshot {at + 1} of {self.count}",
                          open=_starting_from(job, fitted[-1] if fitted else None))
            jobs.append(one)
            fitted.append(fit(one))
        return jobs, fitted

    def _one_start(self, job: Job) -> Job:
        """A soup is made of weights that began in one place: heads drawn apart have no useful mean."""
        if self.combine != "soup":
            return job
        opened, seed = job.open, job.seed
        return job.but(open=lambda _: opened(seed))


def _starting_from(job: Job, before: Fitted | None) -> Callable[[int], Any]:
    """The base model, or the one that the last cycle ended with, always with the same head's beginning."""
    import torch

    from luthier.train.labelled.pool import learns_head_only

    def opened(seed: int) -> Any:
        model = job.open(job.seed)
        if before is not None:
            weights = before.model.module.state_dict()
            with torch.no_grad():
                for name, value in model.module.state_dict().items():
                    value.copy_(weights[name])
            if not learns_head_only(job, model):
                model = model.but(fingerprint="")  # its features are no longer the base model's
        return model

    return opened


def _validation_logits(fitted: Sequence[Fitted], job: Job) -> tuple[list[Any] | None, Any]:
    """Every member's logits on the validation rows, and their targets; None where the task has no classes, or there
    are no such rows."""
    import numpy as np

    from luthier.adapt import predict
    from luthier.train.labelled.pool import rows_for

    task = fitted[0].model.task
    if not job.validation or task.type not in ("classify", "image"):
        return None, None
    rows = rows_for(job, fitted[0].model, job.validation)
    return [predict.logits(one.model, rows) for one in fitted], np.stack([row.target for row in rows])
