"""Folds that keep a document's rows together and give every fold its share of every label, and the fits on them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luthier.errors import DataError
from luthier.prepare.base import TOGETHER
from luthier.train.labelled.base import Fitted, Job
from luthier.train.labelled.checks import names_of
from luthier.train.labelled.pool import pooled, rows_for
from luthier.types import Example

ALWAYS = -1
"""Fold of a row that is never held out."""


def units_of(examples: Sequence[Example]) -> list[int]:
    """A number for each row; rows that share a document or a group have the same one."""
    parent = list(range(len(examples)))

    def find(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    owner: dict[tuple[str, str], int] = {}
    for at, example in enumerate(examples):
        keys = [("document", name) for name in example.origin.documents]
        keys += [("group", example.groups[TOGETHER])] if TOGETHER in example.groups else []
        for key in keys:
            other = owner.setdefault(key, at)
            parent[find(at)] = find(other)
    return [find(at) for at in range(len(examples))]


def assign(examples: Sequence[Example], folds: int, *, seed: int) -> list[int]:
    """The fold of each row, 0-based. Deterministic; DataError where there are too few documents.

    Units (see `units_of`) are placed one after the other, large ones first and those with rare labels before others,
    each into the fold that has the smallest share of the unit's rarest labels (after Sechidis et al. 2011, "On the
    stratification of multi-label data"). Rows whose label would be missing from train if they were held out are never
    held out (fold -1).
    """
    members: dict[int, list[int]] = defaultdict(list)
    for at, unit in enumerate(units_of(examples)):
        members[unit].append(at)
    counts = {unit: Counter(label for at in rows for label in names_of(examples[at]))
              for unit, rows in members.items()}
    spread = Counter(label for count in counts.values() for label in count)
    pinned = {unit for unit, count in counts.items() if any(spread[label] == 1 for label in count)}
    while True:
        placed = _place(members, counts, [unit for unit in members if unit not in pinned], spread, folds, seed)
        homes: dict[str, set[int]] = defaultdict(set)
        for unit, count in counts.items():
            for label in count:
                homes[label].add(placed.get(unit, ALWAYS))
        lonely = {label for label, found in homes.items() if len(found) == 1 and found != {ALWAYS}}
        if not lonely:
            break
        pinned |= {unit for unit, count in counts.items() if lonely & set(count)}
    if len(set(placed.values())) < folds:
        raise DataError(f"{folds} folds need at least {folds} documents or groups whose labels occur elsewhere too, "
                        f"and the train rows have {len(placed)}; lower the number of folds, or add rows")
    found = [ALWAYS] * len(examples)
    for unit, fold in placed.items():
        for at in members[unit]:
            found[at] = fold
    return found


def _place(members: Mapping[int, Sequence[int]], counts: Mapping[int, Counter[str]], units: Sequence[int],
           spread: Counter[str], folds: int, seed: int) -> dict[int, int]:
    rng = np.random.default_rng([seed, 5])
    drawn = [units[at] for at in rng.permutation(len(units))]
    drawn.sort(key=lambda unit: (-len(members[unit]), min((spread[label] for label in counts[unit]), default=1 << 30)))
    have: dict[str, list[int]] = defaultdict(lambda: [0] * folds)
    sizes = [0] * folds
    placed = {}
    for unit in drawn:
        rarest = sorted(counts[unit], key=lambda label: (spread[label], label))
        fold = min(range(folds), key=lambda fold: (*(have[label][fold] for label in rarest), sizes[fold], fold))
        placed[unit] = fold
        sizes[fold] += len(members[unit])
        for label, count in counts[unit].items():
            have[label][fold] += count
    return placed


@dataclass(frozen=True)
class Folded:
    """What the fits on all folds found."""

    rows: Sequence[Example]
    """Everything that was divided."""
    folds: Sequence[int]
    """The fold of each row; -1 was never held out."""
    fitted: Sequence[Fitted]
    """One for each fold; `value` and `logits` are of its own held-out rows."""
    jobs: Sequence[Job]
    """The job of each."""

    @property
    def held(self) -> list[int]:
        """Places of the rows that were held out once."""
        return [at for at, fold in enumerate(self.folds) if fold != ALWAYS]

    def logits(self) -> np.ndarray | None:
        """float32 [held rows, classes], in the order of `held`; None for tag and embed."""
        found: dict[int, np.ndarray] = {}
        for fold, fitted in enumerate(self.fitted):
            if fitted.logits is None:
                return None
            found |= dict(zip((at for at, own in enumerate(self.folds) if own == fold), fitted.logits))
        return np.stack([found[at] for at in self.held])


def fit_folds(fit: Callable[[Job], Fitted], job: Job, folds: int, *, with_validation: bool
              ) -> Folded:
    """Fit once for each fold on the other folds' rows. The job's validation rows choose each fit's best weights, and
    the held-out fold is only scored. `with_validation` divides the validation rows too; every fold's fit then chooses
    its weights on the rows that it holds out.

    Every fit is kept in its folder, so that a killed run goes on with the fold it was in.
    """
    from luthier.train.labelled.score import validate

    rows = [*job.train, *job.validation] if with_validation else list(job.train)
    places = assign(rows, folds, seed=job.seed)
    job = pooled(job, [*job.train, *job.validation])
    jobs, found = [], []
    for fold in range(folds):
        held = [example for example, own in zip(rows, places) if own == fold]
        one = job.but(folder=job.folder / f"fold-{fold + 1}", seed=job.seed + fold, look_for_leaks=False,
                      note=f"fold {fold + 1} of {folds}", keep=True,
                      train=[example for example, own in zip(rows, places) if own != fold],
                      validation=held if with_validation else job.validation)
        job.progress.say(f"  {one.note}: {len(one.train):,} rows, {len(held):,} held out")
        fitted = fit(one)
        if not with_validation:
            value, loss, logits = validate(fitted.model, held, rows_for(one, fitted.model, held))
            fitted = Fitted(model=fitted.model, value=value, loss=loss, logits=logits, summary=fitted.summary)
        jobs.append(one)
        found.append(fitted)
    return Folded(rows, places, found, jobs)


def mean_and_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean over folds with a 95 % interval: Student's, with the variance of Nadeau & Bengio (2003), because the folds'
    train rows overlap: var · (1/k + 1/(k - 1))."""
    from scipy.stats import t

    k, mean = len(values), float(np.mean(values))
    half = float(t.ppf(0.975, k - 1) * np.sqrt(np.var(values, ddof=1) * (1 / k + 1 / (k - 1))))
    return {"mean": mean, "low": mean - half, "high": mean + half, "values": [float(value) for value in values]}
