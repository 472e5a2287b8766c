"""What simple methods reach on the same rows: a tuned model must beat them, or it is not worth owning.

Every baseline is deterministic, reads train rows only (validation chooses the strength of its penalty) and is kept in
the store under the content of everything that it read.
"""

from __future__ import annotations

import io
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luthier.adapt.backbones.ngrams import LETTERS, TOKEN, WORDS
from luthier.errors import need
from luthier.evaluate.labels.spans import WORD, Piece, as_pieces, word_tags
from luthier.store import Cache, canonical
from luthier.types import Example, digest

VERSION = 1
TOLERANCE = 1e-3
NEVER = 40.0
"""By how much a class without a train row lies below all others, in logits: its probability is 4e-18 or less."""


@dataclass(frozen=True)
class Split:
    """Rows with their right answers as numbers."""

    examples: Sequence[Example]
    targets: np.ndarray
    """int64 [n], or bool [n, classes] where a row may have several."""

    @property
    def texts(self) -> list[str]:
        return [example.question for example in self.examples]

    @property
    def weights(self) -> np.ndarray:
        return np.array([example.weight for example in self.examples], dtype=np.float64)


@dataclass(frozen=True)
class Fit:
    """What a baseline says: probabilities [n, classes] of the validation and the test rows, and how it was made."""

    validation: np.ndarray
    test: np.ndarray
    facts: dict[str, Any]


def kept(cache: Cache | None, name: str, parts: Sequence[str], make: Callable[[], Fit]) -> Fit:
    """The fit from the cache, else made and put there; `parts` name everything that it depends on."""
    import json

    key = digest("label-baseline", str(VERSION), name, *parts, length=40)
    found = None if cache is None else cache.get(key)
    if found is not None:
        with np.load(io.BytesIO(found), allow_pickle=False) as data:
            return Fit(data["validation"], data["test"], json.loads(str(data["facts"])))
    made = make()
    if cache is not None:
        out = io.BytesIO()
        np.savez_compressed(out, validation=made.validation, test=made.test, facts=np.array(canonical(made.facts)))
        cache.put(key, out.getvalue())
    return made


def content(*splits: Split) -> str:
    """Hash of rows, texts, images, right answers and weights."""
    return digest(*(canonical([[e.id, e.question, e.image, e.labels, e.weight] for e in split.examples])
                    for split in splits), length=40)


def majority(train: Split, validation: Split, test: Split, classes: int) -> Fit:
    """The share of each class among the train rows, for every row: always the commonest class."""
    hot = train.targets if train.targets.ndim == 2 else train.targets[:, None] == np.arange(classes)
    share = np.average(hot.astype(np.float64), axis=0, weights=train.weights)
    return Fit(np.tile(share, (len(validation.examples), 1)), np.tile(share, (len(test.examples), 1)), {})


def tfidf(train: Split, validation: Split, test: Split, classes: int, strengths: Sequence[float]) -> Fit:
    """Logistic regression on TF-IDF of words (1 to 2) and letters (2 to 5, within words)."""
    need("sklearn", extra="train")
    from scipy.sparse import hstack

    began = time.process_time()
    try:
        makers, inside = counted(train)
    except ValueError:  # no text holds a word: nothing to learn from
        return majority(train, validation, test, classes)
    others = [hstack([maker.transform(split.texts) for maker in makers]).tocsr() if split.examples
              else inside[:0] for split in (validation, test)]
    made = logistic(inside, train, others[0], validation, others[1], classes, strengths)
    made.facts.update(columns=int(inside.shape[1]), cpu_s=round(time.process_time() - began, 1))
    return made


def counted(train: Split) -> tuple[list[Any], Any]:
    """(scikit-learn's vectorisers of words and of letters, fitted; the train rows as a sparse matrix, words first).

    ValueError when no train text holds a word.
    """
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    common = 2 if len(train.examples) >= 200 else 1
    makers = [TfidfVectorizer(ngram_range=WORDS, sublinear_tf=True, token_pattern=TOKEN),
              TfidfVectorizer(analyzer="char_wb", ngram_range=LETTERS, sublinear_tf=True, min_df=common)]
    return makers, hstack([maker.fit_transform(train.texts) for maker in makers]).tocsr()


def on_features(values: Sequence[np.ndarray], train: Split, validation: Split, test: Split, classes: int,
                strengths: Sequence[float]) -> Fit:
    """Logistic regression on vectors of the train, validation and test rows, each scaled as the train rows are."""
    began = time.process_time()
    middle, scale = scaling(values[0])
    scaled = [(one - middle) / scale for one in values]
    made = logistic(scaled[0], train, scaled[1], validation, scaled[2], classes, strengths)
    made.facts.update(columns=int(values[0].shape[1]), cpu_s=round(time.process_time() - began, 1))
    return made


def scaling(values: np.ndarray) -> tuple[np.ndarray, float]:
    """(mean [columns], spread) that features are brought to 0 and about 1 by.

    One scale for all columns: the columns' own spread is part of what the base model learned.
    """
    spread = values.std(0)
    return values.mean(0), float(np.sqrt((np.where(spread > 1e-8, spread, 1.0) ** 2).mean()))


def linear(inside: Any, train: Split, classes: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """(weights [classes, columns], biases [classes]) whose softmax (several labels a row: sigmoid) gives the
    probabilities that `logistic` gives at this strength."""
    need("sklearn", extra="train")
    return _fit(inside, train, classes, strength).linear(int(inside.shape[1]))


def linear_on_features(values: np.ndarray, train: Split, classes: int, strength: float
                       ) -> tuple[np.ndarray, np.ndarray]:
    """`linear` for unscaled features, as `on_features` fits them."""
    middle, scale = scaling(values)
    weight, bias = linear((values - middle) / scale, train, classes, strength)
    weight = np.asarray(weight, dtype=np.float64) / scale
    return weight, bias - weight @ middle.astype(np.float64)


def logistic(inside: Any, train: Split, outside: Any, validation: Split, test: Any, classes: int,
             strengths: Sequence[float]) -> Fit:
    """scikit-learn's logistic regression; of several strengths the one whose validation log loss is least."""
    need("sklearn", extra="train")
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None
    tried = {}
    for strength in strengths:
        predict = _fit(inside, train, classes, strength)
        own = predict(outside) if len(validation.examples) else np.zeros((0, classes))
        loss = _loss(own, validation.targets) if len(own) else 0.0
        tried[str(strength)] = round(loss, 5)
        if best is None or loss < best[0]:
            best = loss, strength, own, predict(test)
        if not len(own):
            break  # nothing to choose by
    assert best is not None
    return Fit(best[2], best[3], {"C": best[1], "validation_log_loss": tried})


@dataclass(frozen=True)
class Fitted:
    """A fitted logistic regression: probabilities when called, and the same as one linear layer."""

    classes: int
    rules: Sequence[Any]
    """scikit-learn's model; several labels a row: one for each, or the share of a label that no or every row has."""
    several: bool
    only: int = 0
    """The class of all rows, where there is no model."""

    def __call__(self, values: Any) -> np.ndarray:
        if self.several:
            return np.stack([np.full(values.shape[0], rule) if isinstance(rule, float)
                             else rule.predict_proba(values)[:, 1] for rule in self.rules], 1)
        if not self.rules:
            return np.tile(np.eye(self.classes)[self.only], (values.shape[0], 1))
        found = np.zeros((values.shape[0], self.classes))
        found[:, self.rules[0].classes_] = self.rules[0].predict_proba(values)
        return found

    def linear(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """(float64 [classes, columns], float64 [classes])."""
        weight, bias = np.zeros((self.classes, columns)), np.zeros(self.classes)
        if self.several:
            for at, rule in enumerate(self.rules):
                if isinstance(rule, float):
                    bias[at] = NEVER if rule > 0.5 else -NEVER
                else:
                    weight[at], bias[at] = rule.coef_[0], rule.intercept_[0]
            return weight, bias
        if not self.rules:
            bias[:] = -NEVER
            bias[self.only] = 0
            return weight, bias
        model = self.rules[0]
        coef, intercept = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # one row for two classes: half of it for each side
            coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
        weight[model.classes_], bias[model.classes_] = coef, intercept
        absent = np.setdiff1d(np.arange(self.classes), model.classes_)
        bias[absent] = intercept.min() - NEVER
        return weight, bias


def _fit(inside: Any, train: Split, classes: int, strength: float) -> Fitted:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    def one(targets: np.ndarray) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=strength, tol=TOLERANCE, max_iter=300).fit(
                inside, targets, sample_weight=train.weights)

    if train.targets.ndim == 2:
        return Fitted(classes, [one(column) if 0 < column.sum() < len(column) else float(column.mean())
                                for column in train.targets.T], several=True)
    if len(set(train.targets.tolist())) < 2:
        return Fitted(classes, [], several=False, only=int(train.targets[0]))
    return Fitted(classes, [one(train.targets)], several=False)


def _loss(probs: np.ndarray, targets: np.ndarray) -> float:
    from luthier.evaluate.labels.metrics import Classes, Sets
    from luthier.evaluate.labels.metrics.soft import log_losses

    return float(log_losses(Sets(targets, probs) if targets.ndim == 2 else Classes(targets, probs)).mean())


def pixels(examples: Sequence[Example], read: Callable[[Example], np.ndarray], side: int = 16) -> np.ndarray:
    """float32 [n, side · side · 3]: images shrunk to a few pixels; `read` gives uint8 [height, width, 3]."""
    from luthier.adapt.backbones.pixels import shrunk

    return np.stack([shrunk(read(example), side) for example in examples]) if examples \
        else np.zeros((0, side * side * 3), dtype=np.float32)


def lookup(train: Sequence[Example], test: Sequence[Example]) -> list[list[Piece]]:
    """Tags by each word's commonest tag in the train rows; neighbouring words with one tag make one piece."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for example in train:
        words = WORD.findall(example.question)
        for word, tag in zip(words, word_tags(example.question, as_pieces(example.spans or ())), strict=True):
            seen[word][tag] += 1
    usual = {word: max(sorted(tags), key=lambda tag: tags[tag]) for word, tags in seen.items()}
    found = []
    for example in test:
        pieces: list[Piece] = []
        last = ""
        for match in WORD.finditer(example.question):
            tag = usual.get(match.group(), "")
            if tag and tag == last:
                pieces[-1] = (pieces[-1][0], match.end(), tag)
            elif tag:
                pieces.append((match.start(), match.end(), tag))
            last = tag
        found.append(pieces)
    return found
