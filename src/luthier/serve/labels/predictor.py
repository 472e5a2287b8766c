"""A release with labels, opened: from texts and images to rows, logits, and decisions as the release makes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from luthier.errors import DataError, ModelError, UsageError
from luthier.release.folder import ReleaseRecord
from luthier.types import Example, Origin

if TYPE_CHECKING:
    from luthier.adapt.backbones.base import Row
    from luthier.adapt.network import LabelModel

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


@dataclass(frozen=True)
class Asked:
    """One input, ready for the network."""

    row: Row
    text: str = ""
    """Empty for an image."""
    truncated: bool = False
    """The text is longer than the model reads; its end was left out."""


class Predictor:
    """Everything but concurrency: `logits` must be called from one thread at a time, the rest from any."""

    def __init__(self, record: ReleaseRecord, model: LabelModel, session: Any = None):
        assert record.labels is not None
        self.record, self.model, self.task = record, model, record.task
        self.labels = model.labels
        columns = zip(getattr(model.module, "names", ()), getattr(model.module, "columns", ()))
        self.parts = {name: tuple(labels) for name, labels in model.parts.items()} or {
            name: tuple(column.labels) for name, column in columns}
        """Labels by the name of the task that they were learned as; empty for a model that learned one task."""
        self.abstain = float(record.labels["abstain"])
        self.thresholds = {str(name): float(value) for name, value in record.labels["thresholds"].items()}
        self._session = session
        self._reading = threading.Lock()  # a fast tokenizer keeps its truncation setting inside

    @classmethod
    def open(cls, record: ReleaseRecord, *, runtime: Literal["torch", "onnx"] = "torch",
             threads: int | None = None) -> Predictor:
        """Load the release's model. UsageError for a release without labels, ModelError for one without model.onnx
        where `runtime` asks for it."""
        from luthier.adapt.labelled import load_label_model

        if record.labels is None:
            raise UsageError(f"release {record.label} is an assistant; ask it with: luthier chat")
        session = None
        if runtime == "onnx":
            from luthier.release.export_onnx import open_onnx

            if not (record.folder / "model.onnx").is_file():
                raise ModelError(f"release {record.label} holds no model.onnx; set release.onnx to true and release "
                                 "again, or serve.labels.runtime to torch")
            session = open_onnx(record.folder / "model.onnx", threads=threads or 1)
        return cls(record, load_label_model(record.folder / "model"), session)

    # Reading

    def texts(self, texts: Sequence[str]) -> list[Asked]:
        """DataError for a text in which the model reads nothing."""
        processor: Any = self.model.processor
        examples = [_example(str(at), text) for at, text in enumerate(texts)]
        with self._reading:
            rows = processor.read_many(examples)
            full = [at for at, row in enumerate(rows) if row.size >= processor.max_length]
            lengths = dict(zip(full, processor.lengths([texts[at] for at in full]))) if full else {}
        for at, row in enumerate(rows):
            if not row.size:
                raise DataError(f"input {at} holds nothing that the model reads")
        return [Asked(row, text, lengths.get(at, 0) > row.size) for at, (row, text) in enumerate(zip(rows, texts))]

    def image(self, data: bytes, *, most_pixels: int, name: str = "the image") -> Asked:
        """DataError for bytes that are no image of a usual kind, or a damaged or too large one."""
        from PIL import Image, UnidentifiedImageError

        from luthier.adapt.backbones.base import Row

        try:
            with Image.open(_stream(data), formats=FORMATS) as opened:  # reads the header only
                width, height = opened.size
        except UnidentifiedImageError:
            raise DataError(f"{name} is not an image that can be read; send {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            raise DataError(f"{name} has too many pixels; at most {most_pixels:,} are decoded") from None
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{name} is damaged and cannot be decoded: {error}") from None
        if width * height > most_pixels:
            raise DataError(f"{name} has {width} × {height} pixels; at most {most_pixels:,} are decoded")
        processor: Any = self.model.processor
        return Asked(Row(name, processor.decode_bytes(data, name=name), 1))

    def offsets(self, asked: Asked) -> list[tuple[int, int]]:
        """First and one past the last character of the text's tokens; (0, 0) for special ones."""
        processor: Any = self.model.processor
        with self._reading:
            return processor.offsets(asked.text)[: asked.row.size]

    # Computing

    def logits(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """One float32 array a row: [classes]; tag: [tokens, outputs]; embed: a unit vector."""
        from luthier.adapt import predict

        if self._session is None:
            if self.task.type == "tag":
                return predict.tag_logits(self.model, rows)
            return list(predict.logits(self.model, rows))
        from luthier.release.export_onnx import full_inputs

        found: list[Any] = [None] * len(rows)
        for group in predict.batches(rows):
            inputs = full_inputs(self.model, [rows[at] for at in group])
            values = self._session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
            for place, at in enumerate(group):
                found[at] = values[place, : rows[at].size] if values.ndim == 3 else values[place]
        return found

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated, float64, over the last axis."""
        from luthier.adapt.predict import probabilities

        return probabilities(logits, multi_label=self.task.multi_label, temperature=self.model.temperature)

    def named(self, asked: Sequence[Asked], part: str) -> list[Asked]:
        """The inputs as belonging to a task that the model learned. UsageError for one that it does not know."""
        if part not in self.parts:
            raise UsageError(f"the model has no part '{part[:100]}'; " + (
                f"it has: {', '.join(self.parts)}" if self.parts else "it learned one task"))
        if self._session is not None and hasattr(self.model.module, "asked"):
            raise UsageError("model.onnx answers without a named part; set serve.labels.runtime to torch")
        return [replace(one, row=one.row.but(part=part)) for one in asked]

    # Deciding

    def decide(self, logits: np.ndarray, *, top_k: int, everything: bool = False, part: str = "") -> dict[str, Any]:
        """label, probability, abstained and top; for several labels a text: labels. `logits` [classes]; with `part`
        the answer is among that task's labels alone."""
        open_to = np.isin(self.labels, self.parts[part]) if part else np.ones(len(self.labels), dtype=bool)
        probs = self.probabilities(np.where(open_to, logits, -np.inf))
        order = np.argsort(-probs, kind="stable")
        order = order[open_to[order]]
        found: dict[str, Any] = self._several(probs, order) if self.task.multi_label else self._single(probs, order)
        if top_k:
            found["top"] = [self._pair(probs, int(at)) for at in order[:top_k]]
        if everything:
            found["probabilities"] = {label: round(float(probs[at]), 6) for at, label in enumerate(self.labels)
                                      if open_to[at]}
        return found

    def _single(self, probs: np.ndarray, order: np.ndarray) -> dict[str, Any]:
        best = int(order[0])
        for label, limit in self.thresholds.items():  # two classes: the costly one, from its own probability on
            own = self.labels.index(label)
            best = own if probs[own] >= limit else next((int(at) for at in order if at != own), own)
        guess = self._pair(probs, best)
        abstained = guess["probability"] < self.abstain
        return {"label": None if abstained else guess["label"], "probability": guess["probability"],
                "abstained": abstained, "best_guess": guess["label"]}

    def _several(self, probs: np.ndarray, order: np.ndarray) -> dict[str, Any]:
        given = [int(at) for at in order if probs[at] >= self.thresholds.get(self.labels[at], 0.5)]
        return {"labels": [self._pair(probs, at) for at in given]}

    def _pair(self, probs: np.ndarray, at: int) -> dict[str, Any]:
        return {"label": self.labels[at], "probability": round(float(probs[at]), 6)}

    def spans(self, asked: Asked, logits: np.ndarray) -> list[dict[str, Any]]:
        """The pieces of a text that carry a label: start, end, label, probability (mean over their tokens), text."""
        from luthier.adapt.spans import decode_spans

        with self._reading:
            tags = decode_spans(self.model, [_example("0", asked.text)], [asked.row], [logits])[0]
        offsets = self.offsets(asked)
        sure = self.probabilities(logits).max(-1)
        found = []
        for tag in tags:
            inside = [at for at, (start, end) in enumerate(offsets)
                      if end > start and start < tag.end and end > tag.start]
            found.append({"start": tag.start, "end": tag.end, "label": tag.label,
                          "probability": round(float(np.mean(sure[inside])), 6),
                          "text": asked.text[tag.start : tag.end]})
        return found

    def log_odds(self, label: str) -> Callable[[np.ndarray], np.ndarray]:
        """From calibrated logits [n, classes] to the log-odds [n] of a label: what explanations divide up."""
        at = self.labels.index(label)
        temperature, several = self.model.temperature, self.task.multi_label

        def score(logits: np.ndarray) -> np.ndarray:
            scaled = np.asarray(logits, dtype=np.float64) / temperature
            if several:
                return scaled[:, at]
            others = np.delete(scaled, at, axis=1)
            top = others.max(1, keepdims=True)
            return scaled[:, at] - top[:, 0] - np.log(np.exp(others - top).sum(1))

        return score


def _example(id: str, text: str) -> Example:
    return Example(id=id, input=text, target=None, origin=Origin(maker="human", step="request"))


def _stream(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


def open_release(folder: Path, *, runtime: Literal["torch", "onnx"] = "torch", threads: int | None = None) -> Predictor:
    """The predictor of a release folder."""
    from luthier.release.folder import read_release

    return Predictor.open(read_release(folder), runtime=runtime, threads=threads)
