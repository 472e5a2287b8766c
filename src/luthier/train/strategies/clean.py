"""Training that finds probably wrong labels first, by confident learning (Northcutt et al. 2021), and trusts less."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.prepare.decisions import DECIDED
from luthier.spec import Spec
from luthier.train.seams import STRATEGIES

if TYPE_CHECKING:
    import numpy as np

    from luthier.train.labelled.base import Fitted, Job
    from luthier.train.strategies._features import Space


@register(STRATEGIES, "clean")
class Clean(Spec):
    """Shows the rows whose label is probably wrong (`suspects.json`, with file and line), and trains without them or
    with little weight on them. Your file stays as it is: correct the rows with `luthier label`, or in the file."""

    weight: float = Field(default=0.0, ge=0, le=1)
    """What a suspected row counts in training; 0 leaves it out, 1 only shows it."""
    method: Literal["noise_rate", "confident"] = "noise_rate"
    """`noise_rate` suspects as many rows of each pair of classes as the estimated joint says; `confident` every row
    that is confidently of another class."""
    folds: int = Field(default=5, ge=2)
    """Parts of the train rows; each is judged by a model of the others (logistic regression on frozen features)."""
    most: float = Field(default=0.3, gt=0, le=1)
    """At most this share of the train rows is left out or weighed less, the least believable first."""
    trust_decided: bool = True
    """Never suspect a row whose label a person decided (`labels/decisions.jsonl`, `luthier review`)."""

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        from dataclasses import replace

        from luthier.train.strategies._features import space_of

        space = space_of(job, who=self.kind, unlabelled=False)
        job.progress.say("  looking for wrong labels")
        found = self.find(space, job.seed)
        if self.trust_decided:
            found = [one for one in found if DECIDED not in job.train[one[0]].tags]
        found = found[: int(self.most * len(job.train))]
        rows = [{"id": job.train[at].id, "where": job.train[at].origin.where, "text": str(job.train[at].input)[:300],
                 **({"image": job.train[at].image} if job.train[at].image else {}),
                 "labels": list(job.train[at].labels or ()),
                 "proposed": proposed, "probability": round(chance, 4), "probability_of_given": round(own, 4)}
                for at, proposed, chance, own in found]
        spared = _spared(space.y, [at for at, *_ in found])
        weights = {at: job.train[at].weight * self.weight for at, *_ in found if at not in spared}
        kept = [replace(example, weight=weights[at]) if at in weights else example
                for at, example in enumerate(job.train) if weights.get(at, 1.0) > 0]
        share = len(rows) / len(job.train)
        what = "left out" if not self.weight else f"weighed {self.weight:g}" if self.weight < 1 else "kept as they are"
        sentence = f"{len(rows):,} of {len(job.train):,} train rows ({share:.1%}) probably carry a wrong label; {what}."
        if rows:
            sentence += f" Least believable: {rows[0]['where']}, {rows[0]['labels']} → {rows[0]['proposed']}."
        job.progress.say(f"  {sentence}")
        fitted = fit(job.but(train=kept))
        return replace(fitted, summary={**fitted.summary, "suspects": len(rows), "suspects_sentence": sentence},
                       artifacts={**fitted.artifacts, "suspects.json": {
                           "method": self.method, "folds": self.folds, "weight": self.weight, "sentence": sentence,
                           "rows": rows}})

    def find(self, space: Space, seed: int) -> list[tuple[int, list[str], float, float]]:
        """(place, proposed labels, their probability, that of the given label) of every suspect, the least believable
        first. Where several labels may apply, a row is suspected through any one of them."""
        import numpy as np

        from luthier.train.labelled.noise import out_of_fold, suspects

        labels = space.model.labels
        several = space.model.task.multi_label
        chances = out_of_fold(space.x, space.y, space.weights, num_outputs=len(labels), folds=self.folds, seed=seed,
                              multi_label=several, groups=space.groups)
        if not several:
            return [(int(at), [labels[int(chances[at].argmax())]], float(chances[at].max()),
                     float(chances[at, space.y[at]])) for at in suspects(space.y, chances, method=self.method)]
        belief: dict[int, float] = {}
        flips: dict[int, set[int]] = {}
        for one in range(len(labels)):
            given = (space.y[:, one] > 0.5).astype(int)
            both = np.stack([1 - chances[:, one], chances[:, one]], axis=1)
            for at in suspects(given, both, method=self.method):
                flips.setdefault(int(at), set()).add(one)
                belief[int(at)] = min(belief.get(int(at), 1.0), float(both[at, given[at]]))
        found: list[tuple[int, list[str], float, float]] = []
        for at in sorted(belief, key=lambda at: (belief[at], at)):
            proposed: Any = [name for one, name in enumerate(labels) if (space.y[at, one] > 0.5) != (one in flips[at])]
            found.append((at, proposed, 1 - belief[at], belief[at]))
        return found


def _spared(y: np.ndarray, found: Sequence[int]) -> set[int]:
    """Suspects that must stay, or their class would have no row left: the most believable, which come last."""
    import numpy as np

    rank = {at: number for number, at in enumerate(found)}
    columns = [np.flatnonzero(y == k) for k in np.unique(y)] if y.ndim == 1 else \
        [np.flatnonzero(y[:, k] > 0.5) for k in range(y.shape[1])]
    return {max(map(int, rows), key=lambda at: rank[at]) for rows in columns
            if len(rows) and all(int(at) in rank for at in rows)}
