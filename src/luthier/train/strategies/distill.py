"""Distillation (Hinton, Vinyals & Dean 2015): one model learns what an ensemble says of every row, how sure it is and
which wrong classes it finds likely, and keeps much of its accuracy at the price of one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from luthier.errors import SpecError
from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.seams import STRATEGIES
from luthier.train.strategies.ensemble import Ensemble

if TYPE_CHECKING:
    from luthier.train.labelled.base import Fitted, Job


@register(STRATEGIES, "distill")
class Distill(Spec):
    """Trains an ensemble, then one model on its answers: alpha · L(labels) + (1 - alpha) · T² · KL(teacher ‖ model)."""

    teacher: Ensemble = Ensemble()
    """The ensemble that teaches."""
    temperature: float = Field(default=2.0, gt=0, le=20)
    """Logits of both sides are divided by this in the second term: the higher, the more unlikely classes count."""
    alpha: float = Field(default=0.3, ge=0, le=1)
    """Share of the rows' own labels; 0 learns from the teacher alone."""
    unlabelled: bool = True
    """Also learn what the teacher says of rows without a label, where there are any."""

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        """See `luthier.train.seams.Strategy`. SpecError for tasks without classes and for mixed images."""
        import numpy as np

        from luthier.adapt import predict
        from luthier.train.labelled import kept
        from luthier.train.labelled.base import Teacher
        from luthier.train.labelled.pool import pooled, rows_for
        from luthier.train.strategies._members import adopt_contract, figures, look_for_leaks

        task = job.open(job.seed).task
        if task.type not in ("classify", "image"):
            raise SpecError(f"train.strategy: distill is for the tasks classify and image, not for '{task.type}'")
        if job.spec.mix is not None:
            raise SpecError("train.strategy: distill cannot tell what the teacher says of two mixed images; remove "
                            "train.mix")
        if self.teacher.distill:
            raise SpecError("train.strategy: the teacher of distill is the ensemble itself; remove teacher.distill")
        job = look_for_leaks(job)
        rows = [*job.train, *(job.unlabelled if self.unlabelled else ())]
        job = pooled(job, [*rows, *job.validation])
        taught = self.teacher.run(fit, job.but(folder=job.folder / "teacher"))
        said = predict.logits(taught.model, rows_for(job, taught.model, rows), progress=job.progress, what="teacher")
        logits = dict(zip((example.id for example in rows), said))
        soft = {example.id: predict.probabilities(logits[example.id], multi_label=task.multi_label)
                for example in rows[len(job.train):]}
        one = job.but(train=rows, soft={**(job.soft or {}), **soft}, folder=job.folder / "student", note="student",
                      teacher=Teacher(logits=logits, temperature=self.temperature, alpha=self.alpha), keep=True)
        student = fit(one)
        adopt_contract(job, one.folder)
        report = {"temperature": self.temperature, "alpha": self.alpha, "rows": len(rows),
                  "unlabelled": len(rows) - len(job.train), "teacher": taught.summary.get("ensemble")}
        if student.logits is not None and taught.logits is not None:
            targets = np.stack([row.target for row in student.model.rows(job.validation)])
            report["student_figures"], report["teacher_figures"] = (
                figures(found, targets, task.metric, multi_label=task.multi_label)
                for found in (student.logits, taught.logits))
            report["agreement"] = float(np.mean((student.logits > 0) == (taught.logits > 0)) if task.multi_label else
                                        np.mean(student.logits.argmax(-1) == taught.logits.argmax(-1)))
        return replace(student, summary={**student.summary, "distilled": report},
                       artifacts={**taught.artifacts, "distill.json": report},
                       scratch=(*taught.scratch, kept.file_of(one)))
