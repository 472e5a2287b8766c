"""What the truth is when several noisy sources vote and few people have said: a small generative label model.

The model of Dawid & Skene (1979, "Maximum likelihood estimation of observer error-rates using the EM algorithm"), which
data programming (Ratner et al. 2016, 2017, Snorkel) uses for labelling rules: a row has one true class; given the
class, every source votes by itself, with its own chances. Expectation-maximisation estimates the chances and the truth
together; rows that a person labelled are fixed, so that they hold the sources' accuracies in place.

Where we differ. A source has too few votes for a full table of classes × votes, so its table is drawn towards one made
of two things: how often it votes for what (seen), and how often it is right when it votes (one number). `strength`
says how hard. Silence is a vote as well: a rule about one class that says nothing speaks a little against that class.
A vote may be spread over several classes.

Sources are never quite independent, so the model believes itself too much; `temperature` mends that by the rows that a
person labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_TINY = 1e-12


@dataclass(frozen=True)
class Votes:
    """What one source said, as a list of (row, class, share); a row that it said nothing about is not in it."""

    name: str
    rows: np.ndarray
    """int [votes]"""
    classes: np.ndarray
    """int [votes]"""
    shares: np.ndarray
    """float [votes]: 1 for a vote for one class; the shares of a row come to 1."""

    @classmethod
    def single(cls, name: str, votes: Sequence[int] | np.ndarray) -> Votes:
        """From one class number a row, -1 where the source is silent."""
        votes = np.asarray(votes)
        rows = np.flatnonzero(votes >= 0)
        return cls(name, rows, votes[rows], np.ones(len(rows)))

    @classmethod
    def several(cls, name: str, votes: Sequence[Sequence[int]]) -> Votes:
        """From a list of class numbers a row: it is one of these."""
        rows = [at for at, found in enumerate(votes) for _ in found]
        classes = [one for found in votes for one in found]
        shares = [1 / len(found) for found in votes for _ in found]
        return cls(name, np.array(rows, dtype=int), np.array(classes, dtype=int), np.array(shares, dtype=float))

    def dense(self, rows: int, classes: int) -> np.ndarray:
        """float [rows, classes], zero where the source is silent."""
        found = np.zeros((rows, classes))
        np.add.at(found, (self.rows, self.classes), self.shares)
        return found


@dataclass(frozen=True)
class Fitted:
    """The model's belief."""

    chances: np.ndarray
    """float64 [rows, classes]: probability of every class; a row that a person labelled has 1 at that label."""
    accuracy: np.ndarray
    """float64 [sources]: estimated share of right votes among a source's votes."""
    tables: np.ndarray
    """float64 [sources, classes, classes + 1]: chance of a vote (last: of silence) given the true class."""
    prior: np.ndarray
    """float64 [classes]: estimated shares of the classes."""
    rounds: int
    log_likelihood: float
    """Of the votes, in nats over all rows."""


def majority(sources: Sequence[Votes], rows: int, classes: int) -> np.ndarray:
    """float64 [rows, classes]: share of the votes; all alike where nobody voted. The yardstick."""
    total = np.zeros((rows, classes))
    for source in sources:
        np.add.at(total, (source.rows, source.classes), source.shares)
    said = total.sum(1, keepdims=True)
    return np.where(said > 0, total / np.maximum(said, _TINY), 1 / classes)


def fit(sources: Sequence[Votes], rows: int, classes: int, *, human: np.ndarray | None = None,
        human_weight: float = 10.0, strength: float = 100.0, believed: float = 0.7, silence: bool = True,
        rounds: int = 40, tolerance: float = 1e-5) -> Fitted:
    """Estimate the sources' chances and the truth together.

    `human`: int [rows], the class that a person gave, -1 for none; such a row counts as `human_weight` rows.
    `strength`: rows of belief that draw a source's table towards its one accuracy; 0 is plain Dawid–Skene. `believed`:
    the accuracy that a source is given before anything is known (it counts as five votes). `silence`: whether a
    source that says nothing is evidence, too.
    """
    human = np.full(rows, -1) if human is None else np.asarray(human)
    known = human >= 0
    weight = np.where(known, human_weight, 1.0)
    fixed = np.zeros((rows, classes))
    fixed[known, human[known]] = 1
    chances = np.where(known[:, None], fixed, majority(sources, rows, classes))
    spoke = np.zeros(rows, dtype=bool)
    for source in sources:
        spoke[source.rows] = True
    counts = spoke | known if not silence else np.ones(rows, dtype=bool)  # no vote and no label says nothing
    weight = weight * counts
    before, done = -np.inf, 0
    while True:
        tables, accuracy, prior = _maximise(sources, chances, weight, strength, believed)
        chances, each = _expect(sources, tables, prior, silence, rows=rows)
        said = np.where(known, np.log(np.maximum((chances * fixed).sum(1), _TINY)), 0)
        likelihood = float((said + each)[counts].sum())
        chances = np.where(known[:, None], fixed, chances)
        done += 1
        if done == rounds or abs(likelihood - before) <= tolerance * max(1, counts.sum()):
            return Fitted(chances, accuracy, tables, prior, done, likelihood)
        before = likelihood


def posterior(fitted: Fitted, sources: Sequence[Votes], *, silence: bool = True) -> np.ndarray:
    """float64 [rows, classes]: what the sources alone say about every row, a person's word left out."""
    return _expect(sources, fitted.tables, fitted.prior, silence, rows=len(fitted.chances))[0]


def temperature(chances: np.ndarray, right: np.ndarray) -> float:
    """What the logarithms of probabilities must be divided by so that they fit the right classes best (Guo et al.
    2017): above 1 where the model believes itself too much. 0.5 to 10, by least log loss."""
    log = np.log(np.maximum(chances, 1e-9))
    best = (np.inf, 1.0)
    for step in np.geomspace(0.5, 10, 60):
        scaled = soften(chances, float(step), log)
        best = min(best, (float(-np.log(np.maximum(scaled[np.arange(len(right)), right], 1e-9)).mean()), float(step)))
    return best[1]


def soften(chances: np.ndarray, temperature: float, log: np.ndarray | None = None) -> np.ndarray:
    """Probabilities at another temperature."""
    log = (np.log(np.maximum(chances, 1e-9)) if log is None else log) / temperature
    found = np.exp(log - log.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


def _maximise(sources: Sequence[Votes], chances: np.ndarray, weight: np.ndarray, strength: float, believed: float
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    classes = chances.shape[1]
    belief = chances * weight[:, None]
    of_class = belief.sum(0)
    prior = (of_class + 1) / (of_class.sum() + classes)
    total = max(float(weight.sum()), _TINY)
    tables = np.zeros((len(sources), classes, classes + 1))
    accuracy = np.zeros(len(sources))
    for at, source in enumerate(sources):
        seen = np.zeros((classes, classes))  # [true, voted]
        np.add.at(seen.T, source.classes, belief[source.rows] * source.shares[:, None])
        right, votes = np.trace(seen), seen.sum()
        accuracy[at] = sure = (right + 5 * believed) / (votes + 5)
        often = np.minimum(seen.sum(0) / total * classes, 0.999)  # as if the classes were equally common
        drawn = np.tile(often * (1 - sure) / max(classes - 1, 1), (classes, 1))
        np.fill_diagonal(drawn, often * sure)
        table = (seen + strength * drawn) / np.maximum(of_class + strength, _TINY)[:, None]
        said = table.sum(1, keepdims=True)
        table = np.where(said > 0.999, table * 0.999 / np.maximum(said, _TINY), table)
        tables[at, :, :classes] = table
        tables[at, :, classes] = 1 - table.sum(1)
    return tables, accuracy, prior


def _expect(sources: Sequence[Votes], tables: np.ndarray, prior: np.ndarray, silence: bool, rows: int | None = None
            ) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities of the classes, log likelihood of each row's votes)."""
    classes = len(prior)
    rows = rows if rows is not None else max((int(source.rows.max()) + 1 for source in sources if len(source.rows)),
                                             default=0)
    quiet = np.log(np.maximum(tables[:, :, classes], _TINY)) if silence else np.zeros((len(sources), classes))
    log = np.tile(np.log(prior) + quiet.sum(0), (rows, 1))
    for source, table, nothing in zip(sources, tables, quiet):
        if not len(source.rows):
            continue
        spoke, place = np.unique(source.rows, return_inverse=True)
        found = np.zeros((len(spoke), classes))
        np.add.at(found, place, source.shares[:, None] * table[:, source.classes].T)
        log[spoke] += np.log(np.maximum(found, _TINY)) - nothing
    top = log.max(1, keepdims=True)
    each = top[:, 0] + np.log(np.exp(log - top).sum(1))
    return np.exp(log - each[:, None]), each
