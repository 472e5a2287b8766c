"""Class-balanced self-training with a hold-out veto.

Self-training: Scudder 1965; Yarowsky 1995. The same number of rows from every class, growing by round: Zou et al. 2018
(CBST), against the collapse in which large classes swallow small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.seams import STRATEGIES

if TYPE_CHECKING:
    import numpy as np

    from luthier.train.labelled.base import Fitted, Job
    from luthier.train.strategies._features import Space


@register(STRATEGIES, "selftrain")
class SelfTrain(Spec):
    """Labels the rows that have no label with the model's own most confident answers, as many of each class, and trains
    on both. Chosen on frozen features (seconds); held-out labelled rows decide whether it is done at all."""

    rounds: int = Field(default=4, ge=1)
    """Times that rows are chosen anew; each round takes more of them."""
    share: float = Field(default=0.8, gt=0, le=1)
    """Share of the unlabelled rows that the last round uses."""
    weight: float = Field(default=1.0, gt=0, le=1)
    """What a row with a pseudo-label counts, compared with a labelled one."""
    strength: float = Field(default=1.0, gt=0)
    """Inverse L2 strength of the logistic regression that chooses."""
    guard: bool = True
    """Ask held-out labelled rows after every round, and train without unlabelled rows where they do not help."""
    folds: int = Field(default=3, ge=2)
    """Parts of the labelled rows that the guard holds out in turn."""
    guard_rows: int = Field(default=3000, ge=1)
    """At most this many unlabelled rows take part in the guard's trials."""

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        from dataclasses import replace

        from luthier.train.strategies._features import as_pseudo, guard, some, space_of

        space = space_of(job, who=self.kind)
        trial = space.u[some(len(space.u), self.guard_rows, job.seed)]
        job.progress.say("  asking held-out rows whether the unlabelled ones help")
        found = guard(space, lambda x, y, weights, probe: [chances for chances, _, _ in self._rounds(
            space, x, y, weights, trial, probe)], folds=self.folds, seed=job.seed, ask=self.guard)
        rounds = self.rounds if found["rounds"] is None else found["rounds"]
        lineage = []
        pseudo = []
        if rounds:
            _, places, sure = self._rounds(space, space.x, space.y, space.weights, space.u, space.x[:1],
                                           rounds=rounds)[-1]
            for at, (label, confidence) in sorted(zip(places.tolist(), sure)):
                example, name = job.unlabelled[at], space.model.labels[label]
                pseudo.append(as_pseudo(example, name, step=self.kind, weight=self.weight))
                lineage.append({"id": example.id, "where": example.origin.where, "label": name,
                                "confidence": round(confidence, 4)})
        job.progress.say(f"  {found['sentence']}" + (f" {len(pseudo):,} rows labelled by the model" if pseudo else ""))
        fitted = fit(job.but(train=[*job.train, *pseudo], unlabelled=()))
        return replace(fitted, summary={**fitted.summary, "guard": found, "labelled_rows": len(job.train),
                                        "pseudo_rows": len(pseudo), "unlabelled_rows": len(job.unlabelled)},
                       artifacts={**fitted.artifacts, "pseudo.json": {"rounds": rounds, "rows": lineage}})

    def _rounds(self, space: Space, x: np.ndarray, y: np.ndarray, weights: np.ndarray, u: np.ndarray,
                probe: np.ndarray, *, rounds: int | None = None
                ) -> list[tuple[np.ndarray, np.ndarray, list[tuple[int, float]]]]:
        """For every round (0 is supervised): probabilities of `probe`, the unlabelled places that were learned from,
        and the label and confidence of each."""
        import numpy as np

        from luthier.train.strategies._features import Quick

        quick = Quick(len(space.model.labels), strength=self.strength).fit(x, y, weights)
        rounds = self.rounds if rounds is None else rounds
        found: list[tuple[np.ndarray, np.ndarray, list[tuple[int, float]]]] = [
            (quick.chances(probe), np.zeros(0, dtype=int), [])]
        for number in range(1, rounds + 1):
            chances = quick.chances(u)
            places = balanced(chances, self.share * number / self.rounds)
            labels = chances[places].argmax(1)
            sure = chances[places].max(1)
            quick.fit(np.concatenate([x, u[places]]), np.concatenate([y, labels]),
                      np.concatenate([weights, np.full(len(places), self.weight)]))
            found.append((quick.chances(probe), places, [*zip(labels.tolist(), sure.tolist())]))
        return found


def balanced(chances: np.ndarray, share: float) -> np.ndarray:
    """Places of the most confident rows of every class, as many of each: together `share` of the rows, fewer where a
    class is answered more rarely. `chances` is [rows, classes]."""
    import numpy as np

    answered, confidence = chances.argmax(1), chances.max(1)
    each = max(1, round(share * len(chances) / chances.shape[1]))
    parts: Sequence[np.ndarray] = [
        own[np.argsort(-confidence[own], kind="stable")[:each]]
        for label in range(chances.shape[1]) if len(own := np.flatnonzero(answered == label))]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=int)
