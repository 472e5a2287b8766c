"""Write a tuned image model whose backbone is a Keras network as `.keras` or as a TensorFlow SavedModel."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from luthier.adapt.backbones.image_processor import ImageProcessor
from luthier.adapt.backbones.keras_image import KerasImage, keras_on_torch
from luthier.adapt.backbones.keras_tensorflow import to_saved_model
from luthier.adapt.columns import ProgressiveNetwork
from luthier.adapt.ensemble import EnsembleNetwork
from luthier.adapt.network import LabelModel
from luthier.errors import ModelError, UsageError
from luthier.store import tell_disk_trouble, write_json


def export_keras(model: LabelModel, path: Path) -> Path:
    """Write backbone, head and normalisation as one `.keras` file, and the labels as `NAME.labels.json` beside it.

    The file takes RGB images [rows, size, size, 3] with values from 0 to 255 and gives probabilities [rows, classes].
    Any Keras 3 backend opens it. ModelError for a model whose backbone is not a Keras network.
    """
    if path.suffix != ".keras":
        raise UsageError(f"{path} must end in .keras")
    whole = _assemble(model)
    with tell_disk_trouble(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.stem}.{os.getpid()}.keras")
        try:
            whole.save(aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        write_json(path.with_suffix(".labels.json"), {"labels": list(model.labels)})
    return path


def export_saved_model(model: LabelModel, folder: Path) -> Path:
    """Write what `export_keras` writes as a SavedModel folder; MissingExtra where TensorFlow is not installed."""
    if folder.exists():
        raise UsageError(f"{folder} exists already; name a new folder")
    with tempfile.TemporaryDirectory() as place, tell_disk_trouble(folder.parent):
        file = export_keras(model, Path(place) / "model.keras")
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        try:
            to_saved_model(file, aside)
            write_json(aside / "labels.json", {"labels": list(model.labels)})
            os.replace(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _assemble(model: LabelModel) -> Any:
    backbone, keras = model.module.backbone, keras_on_torch()
    if isinstance(model.module, EnsembleNetwork):
        raise ModelError(f"'{model.name}' is an ensemble, and a Keras form would be one member's; release it as ONNX, "
                         "or train with strategy ensemble and distill: true")
    if isinstance(model.module, ProgressiveNetwork):
        raise ModelError(f"'{model.name}' has several columns, and a Keras form would be one of them; serve the folder "
                         "that Luthier releases")
    if not isinstance(backbone, KerasImage):
        raise ModelError(f"'{model.name}' is not a Keras network, so it has no Keras form; release it as ONNX instead")
    backbone.describe()  # marks every layer as trainable, as the exported model should be
    processor = backbone.processor
    with keras.device("cpu"):
        inputs = keras.Input((processor.size, processor.size, 3), name="image")
        normalise = keras.layers.Conv2D(3, 1, trainable=False, name="normalise")
        x = backbone.model(normalise(inputs))
        normalise.set_weights(_normalisation(processor))
        for at, layer in enumerate(model.module.head):
            if isinstance(layer, nn.Dropout):
                x = keras.layers.Dropout(layer.p, name=f"head_dropout_{at}")(x)
            elif isinstance(layer, nn.Tanh):
                x = keras.layers.Activation("tanh", name=f"head_tanh_{at}")(x)
            elif isinstance(layer, nn.Linear):
                scale = model.temperature if layer is model.module.head[-1] else 1.0
                dense = keras.layers.Dense(layer.out_features, name=f"head_dense_{at}")
                x = dense(x)
                dense.set_weights([array(layer.weight).T / scale, array(layer.bias) / scale])
            else:
                raise ModelError(f"the head of '{model.name}' holds a {type(layer).__name__}, which has no Keras form")
        ends = keras.layers.Activation("softmax", name="probabilities")
        return keras.Model(inputs, ends(x), name="luthier")


def array(tensor: Any) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _normalisation(processor: ImageProcessor) -> list[np.ndarray]:
    """Kernel [1, 1, 3, 3] and bias [3]: channel order, scale, mean and deviation in one step."""
    mean, std = np.array(processor.mean), np.array(processor.std)
    kernel = np.diag(processor.scale / std)
    if processor.order == "bgr":
        kernel = kernel[::-1]
    return [kernel[None, None].astype(np.float32), (-mean / std).astype(np.float32)]
