"""Systems that need no tuning, as models that can be saved and served: what the report measured, made again.

All are deterministic: the train rows and the penalty in the report give the fit that was measured, which parity checks
against the report's answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError
from luthier.progress import Progress
from luthier.release.gate import System
from luthier.store import Artifact, Store
from luthier.task import Task

if TYPE_CHECKING:
    import numpy as np

    from luthier.adapt.backbones.base import Backbone
    from luthier.adapt.network import LabelModel
    from luthier.evaluate.labels.bench import Bench


def untuned_model(choice: System, *, found: Mapping[str, Any], task: Task, model: Artifact, data: Artifact,
                  store: Store, root: Path, progress: Progress) -> tuple[LabelModel, dict[str, Any]]:
    """(the report's system `choice` as a network, how it was fitted).

    features: the untouched base model with a logistic regression for a head; tfidf and pixels: the same on words and
    letters, and on a few pixels, without a base model; base: the untouched encoder. DataError for settings that
    contradict `choice`.
    """
    from luthier.evaluate.base import Evaluate
    from luthier.evaluate.labels.bench import open_bench

    bench = open_bench(data=data, model=model, run=None, task=task, spec=Evaluate(), store=store, root=root,
                       progress=progress)
    if choice == "base":
        return bench.open_base(()), {}
    strength = found["systems"][choice].get("C")
    if strength is None:
        raise DataError(f"release.system '{choice}' learned nothing that could be released (no train text holds a "
                        "word); look at the column that the texts are read from")
    make = {"features": _features, "tfidf": _tfidf, "pixels": _pixels}[choice]
    return make(bench, float(strength)), {"C": float(strength), "rows": len(bench.train)}


def _features(bench: Bench, strength: float) -> LabelModel:
    from torch import nn

    from luthier.adapt import predict
    from luthier.evaluate.labels.baselines import linear_on_features

    opened = bench.open_base(bench.labels)
    network = opened.module
    if network.spec.hidden or network.pool_trains or not isinstance(network.head[-1], nn.Linear):
        raise DataError("release.system 'features' is a linear layer on frozen features; set adapt.head.hidden to 0 "
                        "and adapt.head.pooling to auto, mean, cls, max or last, and evaluate again")
    values = predict.features(opened, opened.rows(bench.train, targets=False), cache=bench.store.cache("features"),
                              progress=bench.progress, what="features of the base model")
    _fill(opened, *linear_on_features(values, bench.split(bench.train), len(bench.labels), strength))
    return opened


def _tfidf(bench: Bench, strength: float) -> LabelModel:
    import numpy as np
    import torch

    from luthier.adapt.backbones.ngrams import Ngrams
    from luthier.adapt.backbones.tfidf import TfidfBackbone, TfidfProcessor
    from luthier.evaluate.labels.baselines import counted, linear

    bench.progress.say("  TF-IDF + logistic regression, fitted as in the report")
    train, classes = bench.split(bench.train), len(bench.labels)
    (words, letters), inside = counted(train)
    weight, bias = linear(inside, train, classes, strength)
    ngrams = Ngrams([*words.get_feature_names_out()], [*letters.get_feature_names_out()], words.idf_, letters.idf_)
    table = torch.from_numpy(np.ascontiguousarray(weight.T, dtype=np.float32))
    found = _network(bench, TfidfBackbone(TfidfProcessor(ngrams), table), "TF-IDF")
    _fill(found, np.eye(classes), bias)
    return found


def _pixels(bench: Bench, strength: float) -> LabelModel:
    from luthier.adapt.backbones.pixels import shrink
    from luthier.evaluate.labels.baselines import linear_on_features, pixels

    backbone = shrink(bench.open_base(bench.labels).processor)
    found = _network(bench, backbone, "pixels")
    values = pixels(bench.train, lambda example: backbone.processor.read(example).data, backbone.processor.side)
    _fill(found, *linear_on_features(values, bench.split(bench.train), len(bench.labels), strength))
    return found


def _network(bench: Bench, backbone: Backbone, name: str) -> LabelModel:
    """A backbone with a single linear layer on top, without dropout."""
    from luthier.adapt.full import Full
    from luthier.adapt.head import Head
    from luthier.adapt.network import LabelModel, Network

    network = Network(backbone, bench.task, outputs=len(bench.labels), head=Head(dropout=0, warm_start=False),
                      pooling="mean", seed=0)
    return LabelModel(module=network.eval(), task=bench.task, labels=bench.labels, name=name, method=Full())


def _fill(model: LabelModel, weight: np.ndarray, bias: np.ndarray) -> None:
    """Put weights [classes, width] and biases [classes] into the last layer."""
    import torch
    from torch import nn

    last = model.module.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight))
        last.bias.copy_(torch.from_numpy(bias))
