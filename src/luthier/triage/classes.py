"""Which class a document belongs to: by its most like examples, by descriptions, by a released classifier, by a chat
model for what is still in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.errors import DataError
from luthier.index.recall import wilson
from luthier.prepare.weak.base import WeakContext, WeakRow, readable
from luthier.prepare.weak.label_model import temperature
from luthier.progress import Progress
from luthier.store import Store
from luthier.triage.base import Triage
from luthier.types import Document

if TYPE_CHECKING:
    from luthier.serve.labels.predictor import Predictor

HEAT = 0.05
"""Divides cosines before they become probabilities, where there are too few examples to measure it."""
ENOUGH = 12
"""Examples (two of each class at least) from which on it is measured."""
SURE = 0.9
"""Probability of a class that an endpoint wrote: it tells no probabilities."""
_PIECE = 1000


@dataclass
class Judged:
    """What is believed about one document."""

    name: str
    """The likeliest class."""
    probability: float
    similarity: float | None
    """Cosine with what speaks for that class; None where nothing was compared."""
    votes: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Method → its class and probability."""

    @property
    def disputed(self) -> bool:
        return len({name for name, _ in self.votes.values()}) > 1


class Classifier:
    """The classes of a triage, ready to judge."""

    def __init__(self, spec: Triage, examples: Mapping[str, Sequence[Document]], *, store: Store, root: Path,
                 release: Predictor | None, progress: Progress):
        """DataError for a class that neither an example nor a description nor a release tells of."""
        self.spec, self.store, self.root, self.progress = spec, store, root, progress
        self.names = tuple(one.name for one in spec.classes)
        self.release = release
        self.by_examples = all(examples.get(name) for name in self.names)
        bare = [one.name for one in spec.classes if not examples.get(one.name) and not one.description]
        if bare and release is None:
            raise DataError(f"triage: the class '{bare[0]}' has neither an example document nor a description; add one")
        texts = [(name, document) for name in self.names for document in examples.get(name, ())]
        self.owner = np.array([self.names.index(name) for name, _ in texts], dtype=int)
        self.vectors = self.embed([document for _, document in texts])
        self.described = None if self.by_examples else self._encoder().encode(
            [one.description or readable(one.name) for one in spec.classes], progress=progress, what="embed classes")
        self.heat, self.loo = self._measure()

    def _encoder(self) -> Any:
        from luthier.index.embed import Encoder

        return Encoder(self.spec.encoder, root=self.root, cache=self.store.cache("embeddings"))

    def embed(self, documents: Sequence[Document]) -> np.ndarray:
        """float32 [documents, d]: the mean of the first pieces, unit length."""
        encoder = self._encoder()
        pieces = [_pieces(document, self.spec.passages) for document in documents]
        vectors = encoder.encode([text for texts in pieces for text in texts], progress=self.progress,
                                 what="embed documents")
        found = np.zeros((len(documents), vectors.shape[1]), dtype=np.float32)
        at = 0
        for number, texts in enumerate(pieces):
            mean = vectors[at : at + len(texts)].mean(0) if texts else np.zeros(vectors.shape[1])
            found[number], at = mean / max(float(np.linalg.norm(mean)), 1e-9), at + len(texts)
        return found

    def _scores(self, vectors: np.ndarray, out: Sequence[int | None]) -> np.ndarray:
        """[documents, classes]: mean cosine of the `k` most like examples of each class (without the one numbered in
        `out`), or with its description where that is more or there are no examples."""
        scores = np.full((len(vectors), len(self.names)), -1.0)
        alike = vectors @ self.vectors.T if len(self.owner) else np.zeros((len(vectors), 0))
        for row, leave in enumerate(out):
            for at in range(len(self.names)):
                own = [float(alike[row, place]) for place in np.flatnonzero(self.owner == at) if place != leave]
                if own:
                    scores[row, at] = np.mean(sorted(own)[-self.spec.k :])
        if self.described is not None:
            scores = np.maximum(scores, vectors @ self.described.T)
        return scores

    def _measure(self) -> tuple[float, dict[str, Any] | None]:
        """The heat that fits the examples, each judged by the others; and how often that is right."""
        counts = np.bincount(self.owner, minlength=len(self.names)) if len(self.owner) else np.zeros(len(self.names))
        if len(self.owner) < ENOUGH or counts.min() < 2:
            return HEAT, None
        scores = self._scores(self.vectors, [*range(len(self.owner))])
        heat = HEAT * temperature(_softmax(scores / HEAT), self.owner)
        hits = int((scores.argmax(1) == self.owner).sum())
        low, high = wilson(hits, len(self.owner))
        return heat, {"accuracy": hits / len(self.owner), "low": low, "high": high, "n": len(self.owner)}

    def judge(self, documents: Sequence[Document]) -> list[Judged]:
        """One a document. The probability is the mean of what the methods say that were asked."""
        found: list[dict[str, np.ndarray]] = [{} for _ in documents]
        scores = None
        if len(self.owner) or self.described is not None:
            scores = self._scores(self.embed(documents), [None] * len(documents))
            for at, row in enumerate(_softmax(scores / self.heat)):
                found[at]["examples" if self.by_examples else "descriptions"] = row
        if self.release is not None:
            for at, row in enumerate(self._released(documents)):
                found[at]["release"] = row
        if self.spec.chat:
            doubtful = [at for at, said in enumerate(found) if _mean(said).max() < self.spec.min_probability]
            for at, row in zip(doubtful, self._asked([documents[at] for at in doubtful])):
                if row is not None:
                    found[at]["chat"] = row
        judged = []
        for at, said in enumerate(found):
            mean = _mean(said)
            best = int(mean.argmax())
            judged.append(Judged(
                self.names[best], float(mean[best]), float(scores[at, best]) if scores is not None else None,
                {method: (self.names[int(row.argmax())], round(float(row.max()), 4)) for method, row in said.items()}))
        return judged

    def _released(self, documents: Sequence[Document]) -> list[np.ndarray]:
        assert self.release is not None
        missing = [label for label in self.release.labels if label not in self.names]
        if missing:
            raise DataError(f"triage: the release knows the class '{missing[0]}', which triage.classes does not name; "
                            "add it, or set triage.release to null")
        rows = []
        for logits in self.release.logits([one.row for one in self.release.texts([_text(d) for d in documents])]):
            chances = np.zeros(len(self.names))
            for label, chance in zip(self.release.labels, self.release.probabilities(logits)):
                chances[self.names.index(label)] = chance
            rows.append(chances)
        return rows

    def _asked(self, documents: Sequence[Document]) -> list[np.ndarray | None]:
        """What the chat model says; None where an endpoint names no class."""
        from luthier.prepare.weak.teacher import Teacher
        from luthier.prepare.weak.zero_shot import ZeroShotLabeler

        if not documents:
            return []
        assert self.spec.chat is not None
        context = WeakContext(
            rows=[WeakRow(document.id, _text(document), document.path, {}) for document in documents],
            labels=self.names, descriptions={one.name: one.description or readable(one.name)
                                             for one in self.spec.classes},
            multi_label=False, root=self.root, store=self.store, progress=self.progress)
        if self.spec.base_url:
            votes = Teacher(base_url=self.spec.base_url, model=self.spec.chat, api_key_env=self.spec.api_key_env,
                            max_rows=None).vote(context)[0].votes
            names, rest = np.array(self.names), (1 - SURE) / (len(self.names) - 1)
            return [np.where(names == vote[0], SURE, rest) if vote else None for vote in votes]
        return list(ZeroShotLabeler(model=self.spec.chat).chances([row.text for row in context.rows], context))


def _mean(said: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.mean([*said.values()], axis=0)


def _softmax(log: np.ndarray) -> np.ndarray:
    found = np.exp(log - log.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


def _text(document: Document) -> str:
    return document.text or document.title or document.path


def _pieces(document: Document, most: int) -> list[str]:
    text = _text(document)
    return [text[at : at + _PIECE] for at in range(0, min(len(text), most * _PIECE), _PIECE)]
