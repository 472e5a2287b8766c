"""What a labelled task's model says: logits, features and probabilities of many rows, in batches of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from luthier.adapt.backbones.base import Row
from luthier.adapt.kept_features import KeptFeatures, row_key
from luthier.adapt.network import LabelModel
from luthier.progress import Progress, Silent
from luthier.store import Cache

BATCH_TOKENS = 4096
BATCH_ROWS = 128


def batches(rows: Sequence[Row], *, tokens: int = BATCH_TOKENS, most: int = BATCH_ROWS) -> Iterator[list[int]]:
    """Places of the rows in groups of nearly one length, longest first: at most `tokens` with pads, `most` rows."""
    order = sorted(range(len(rows)), key=lambda at: (-rows[at].size, at))
    group: list[int] = []
    for at in order:
        longest = rows[group[0]].size if group else 0
        if group and (len(group) == most or (len(group) + 1) * longest > tokens or rows[at].size < 0.85 * longest - 2):
            yield group
            group = []
        group.append(at)
    if group:
        yield group


def _each(model: LabelModel, rows: Sequence[Row], compute: Callable[[dict[str, torch.Tensor]], torch.Tensor], *,
          progress: Progress, what: str) -> list[np.ndarray]:
    found: list[Any] = [None] * len(rows)
    module = model.module
    was = module.training
    module.eval()
    device = next(module.parameters()).device
    with torch.inference_mode(), progress.track(what, len(rows), unit="rows") as bar:
        for group in batches(rows):
            picked = [rows[at] for at in group]
            if isinstance(picked[0].data, np.ndarray) and picked[0].data.dtype == np.float32:
                inputs = {"features": torch.from_numpy(np.stack([row.data for row in picked]))}
            else:
                inputs = model.processor.batch(picked)
            values = compute({name: value.to(device) for name, value in inputs.items()}).float().cpu().numpy()
            for place, at in enumerate(group):
                found[at] = values[place, : rows[at].size] if values.ndim == 3 else values[place]
            bar.advance(len(group))
    module.train(was)
    return found


def logits(model: LabelModel, rows: Sequence[Row], *, progress: Progress = Silent(),
           what: str = "predict") -> np.ndarray:
    """float32 [rows, classes], in evaluation mode, not yet divided by the temperature (embed: unit vectors)."""
    if not rows:
        return np.zeros((0, len(model.labels)), dtype=np.float32)
    if any(row.part for row in rows) and hasattr(model.module, "asked"):
        return _by_part(model, rows, progress=progress, what=what)
    return np.stack(_each(model, rows, model.module, progress=progress, what=what))


def _by_part(model: LabelModel, rows: Sequence[Row], *, progress: Progress, what: str) -> np.ndarray:
    """Rows whose task is named are answered by that task's column (`luthier.adapt.columns`)."""
    network: Any = model.module
    found = np.empty((len(rows), len(model.labels)), dtype=np.float32)
    for part in dict.fromkeys(row.part for row in rows):
        mine = [at for at, row in enumerate(rows) if row.part == part]
        one = model.but(module=network.asked(part) if part else network)
        found[mine] = logits(one, [rows[at].but(part="") for at in mine], progress=progress, what=what)
    return found


def tag_logits(model: LabelModel, rows: Sequence[Row], *, progress: Progress = Silent(),
               what: str = "predict") -> list[np.ndarray]:
    """One float32 [tokens, outputs] for each row (tag)."""
    return _each(model, rows, model.module, progress=progress, what=what)


def features(model: LabelModel, rows: Sequence[Row], *, cache: Cache | None = None,
             progress: Progress = Silent(), what: str = "features") -> np.ndarray:
    """Pooled features float32 [rows, width], in evaluation mode.

    Kept in `cache` row by row for a model whose weights are known (`fingerprint`): the head, searches over heads,
    folds and self-training then cost seconds.
    """
    if not rows:
        return np.zeros((0, model.module.backbone.width), dtype=np.float32)

    def compute(some: Sequence[Row]) -> np.ndarray:
        return np.stack(_each(model, some, model.module.features, progress=progress, what=what)).astype(np.float32)

    if cache is None or not model.fingerprint:
        return compute(rows)
    kept = KeptFeatures(cache, model.fingerprint, str(next(model.module.backbone.parameters()).dtype))
    keys = [row_key(row) for row in rows]
    found = kept.find(keys)
    new = {key: row for key, row in zip(keys, rows) if key not in found}
    if new:
        values = compute([*new.values()])
        kept.add([*new], values)
        found.update(zip(new, values))
    return np.stack([found[key] for key in keys])


def probabilities(values: np.ndarray, *, multi_label: bool = False, temperature: float = 1.0) -> np.ndarray:
    """float64 probabilities from logits: softmax over the classes, or each class by itself."""
    scaled = np.asarray(values, dtype=np.float64) / temperature
    if multi_label:
        return 1 / (1 + np.exp(-scaled))
    scaled = np.exp(scaled - scaled.max(-1, keepdims=True))
    return scaled / scaled.sum(-1, keepdims=True)
