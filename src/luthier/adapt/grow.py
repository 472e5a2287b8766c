"""A trained labelled model as the beginning of the next training: its outputs follow the new data's labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from luthier.adapt.columns import ProgressiveNetwork
from luthier.adapt.ensemble import EnsembleNetwork
from luthier.adapt.labelled import outputs_of
from luthier.adapt.network import LabelModel
from luthier.errors import ModelError


def grown(model: LabelModel, labels: Sequence[str], *, method: object = None, seed: int = 0) -> LabelModel:
    """The model with one output for each of `labels` (the data's), every parameter requiring gradients.

    An output that it had keeps its row of the head bit for bit, wherever it comes to stand; a new one begins with small
    random weights (std 0.02) and the mean of the old biases, so that it neither attracts nor repels all inputs. An
    output whose label the data no longer has is dropped. `method` LoRA puts fresh adapters beside the weights. Changes
    the model's network in place. ModelError for an ensemble, which has no one set of weights to go on from, and
    for a progressive network, whose columns stay as they are.
    """
    network = model.module
    if isinstance(network, ProgressiveNetwork):
        raise ModelError(f"{model.name} has columns, which never change; it learns something new by another column: "
                         "set train.strategy: {kind: progressive}")
    if isinstance(network, EnsembleNetwork):
        raise ModelError(f"{model.name} is an ensemble, and training cannot go on from several models at once; release "
                         "one model (train.strategy: distill) to update it later")
    model = with_outputs(model, labels, seed=seed)
    network.requires_grad_(True)
    chosen = model.method if method is None else method
    if getattr(chosen, "kind", "") == "lora":
        chosen.attach(network, seed=seed)  # type: ignore[attr-defined]
    return model.but(method=chosen, fingerprint="", module=network.eval())


def with_outputs(model: LabelModel, labels: Sequence[str], *, seed: int = 0) -> LabelModel:
    """The model with one output for each of `labels`, and nothing else changed; see `grown`. Changes its network in
    place."""
    outputs, network = outputs_of(model.task, labels), model.module
    if outputs == model.labels:
        return model
    last = network.head[-1]
    assert isinstance(last, nn.Linear)
    network.head[-1] = _resized(last, model.labels, outputs, seed=seed)
    left = {name: tuple(label for label in names if label in outputs) for name, names in model.parts.items()}
    return model.but(labels=outputs, parts={name: names for name, names in left.items() if names})


def _resized(last: nn.Linear, old: Sequence[str], new: Sequence[str], *, seed: int) -> nn.Linear:
    found = nn.Linear(last.in_features, len(new), dtype=last.weight.dtype)
    places = {label: at for at, label in enumerate(old)}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        found.weight.copy_(torch.randn(found.weight.shape, generator=generator) * 0.02)
        found.bias.fill_(float(last.bias.mean()) if len(old) else 0.0)
        for at, label in enumerate(new):
            if label in places:
                found.weight[at] = last.weight[places[label]]
                found.bias[at] = last.bias[places[label]]
    return found


def spread_outputs(values: np.ndarray, old: Sequence[str], new: Sequence[str]) -> np.ndarray:
    """Logits float32 [rows, old labels] at the places of the same labels in `new`; NaN for labels that `old` has
    not. [rows, new labels]"""
    places = {label: at for at, label in enumerate(new)}
    found = np.full((len(values), len(new)), np.nan, dtype=np.float32)
    for at, label in enumerate(old):
        if label in places:
            found[:, places[label]] = values[:, at]
    return found
