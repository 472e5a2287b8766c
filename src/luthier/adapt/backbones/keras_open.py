"""Open Keras models: `keras:VGG16`, with weights `keras:VGG16@file`, a `.keras` or `.h5` file, a SavedModel."""

from __future__ import annotations

import difflib
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from luthier.adapt.backbones.image_processor import ImageProcessor
from luthier.adapt.backbones.keras_image import KerasImage, keras_on_torch, leaves
from luthier.errors import ModelError
from luthier.models.sources import KERAS, SourceFiles

SIZES = {"InceptionV3": 299, "InceptionResNetV2": 299, "Xception": 299}
DEFAULT_SIZE = 224
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "scale": 1.0}
"""Values from 0 to 255: the network has its own normalisation inside."""
CENTRED = {"mean": (1.0, 1.0, 1.0), "std": (1.0, 1.0, 1.0), "scale": 1 / 127.5}
"""Values from -1 to 1."""
CAFFE = {"mean": (103.939, 116.779, 123.68), "std": (1.0, 1.0, 1.0), "scale": 1.0, "order": "bgr"}
PREPARED = (  # by the beginning of the network's name in keras.applications, in lower case; the first match counts
    (("resnet50v2", "resnet101v2", "resnet152v2", "inception", "xception", "mobilenet_", "mobilenetv2"), CENTRED),
    (("vgg", "resnet"), CAFFE),
    (("densenet",), {}),  # ImageNet's mean and deviation, as the processor's defaults
    (("efficientnet", "mobilenetv3", "convnext"), RAW),
    (("mobilenet",), CENTRED),
)


def open_keras(files: SourceFiles, *, image_size: int | None, pretrained: bool, seed: int) -> KerasImage:
    """The network that a Keras source names; random weights are drawn from `seed`."""
    keras = keras_on_torch()
    state = random.getstate()
    random.seed(seed)  # Keras draws the seeds of its initialisers from here
    try:
        with keras.device("cpu"):
            if files.source.startswith(KERAS):
                return _named(keras, files, image_size, pretrained)
            return _own(keras, files, image_size, pretrained)
    finally:
        random.setstate(state)


def _named(keras: Any, files: SourceFiles, image_size: int | None, pretrained: bool) -> KerasImage:
    """A network of keras.applications."""
    name = files.name
    networks = [kind for kind in dir(keras.applications) if kind[0].isupper()]
    if name not in networks:
        near = difflib.get_close_matches(name, networks, n=1)
        hint = f"did you mean 'keras:{near[0]}'?" if near else f"there are: {', '.join(networks)}"
        raise ModelError(f"model '{files.source}': Keras has no network '{name}'; {hint}")
    size = image_size or SIZES.get(name, DEFAULT_SIZE)
    try:
        model = getattr(keras.applications, name)(weights=None, include_top=False, pooling="avg",
                                                  input_shape=(size, size, 3))
    except ValueError as error:
        raise ModelError(f"model '{files.source}' at {size} x {size} pixels: {str(error).splitlines()[0]}") from None
    if "@" in files.source and pretrained:
        _fill(files, model)
    return KerasImage(model, ImageProcessor(size=size, **prepared(name.lower(), model)))


def _fill(files: SourceFiles, model: Any) -> None:
    """Weights from a file of Keras, or from a SavedModel of the same architecture."""
    if (files.folder / "saved_model.pb").is_file():
        from luthier.adapt.backbones.keras_tensorflow import saved_weights

        found = saved_weights(files.folder)
        wanted = [(weight.name, tuple(weight.shape)) for weight in model.weights]
        there = [(name.split(":")[0].rpartition("/")[2], value.shape) for name, value in found]
        starts = [at for at in range(len(there) - len(wanted) + 1) if there[at:at + len(wanted)] == wanted]
        if not starts:  # what stands before and behind, such as a normalisation and a head, does not matter
            raise ModelError(f"model '{files.source}': {files.folder} is not that network: its {len(there)} weights "
                             f"hold no run of {len(wanted)} with the names and shapes of {files.name}'s")
        for weight, (_, value) in zip(model.weights, found[starts[0]:]):
            weight.assign(value)
        return
    _load_weights(files, model, files.folder)


def _load_weights(files: SourceFiles, model: Any, file: Path) -> None:
    """All weights from a file. Keras only warns when it finds none for a layer and keeps random ones: so every weight
    is made invalid first, and those that still are were not found."""
    for weight in model.weights:
        if "float" in str(weight.dtype):
            weight.assign(np.full(weight.shape, np.nan, dtype=np.float32))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it warns of containers that merely list layers again, too
            model.load_weights(file)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"model '{files.source}': the weights in {files.folder} do not fit: "
                         f"{str(error).splitlines()[0]}") from None
    absent = [weight.path for weight in model.weights if bool(weight.value.isnan().any())]
    if absent:
        raise ModelError(f"model '{files.source}': {files.folder} lacks {len(absent)} weights or they are not numbers: "
                         f"{absent[0]}")


def _own(keras: Any, files: SourceFiles, image_size: int | None, pretrained: bool) -> KerasImage:
    """A user's model file."""
    if files.folder.is_dir():
        from luthier.adapt.backbones.keras_tensorflow import legacy_to_h5

        with legacy_to_h5(files.folder) as file:
            model = _load(keras, files, file)
    else:
        model = _load(keras, files, files.folder)
    if not pretrained:
        model = keras.models.clone_model(model)
    body = without_head(keras, model, files.source)
    shape = body.inputs[0].shape
    if len(body.inputs) != 1 or len(shape) != 4 or shape[-1] != 3:
        raise ModelError(f"model '{files.source}' takes {[tuple(i.shape) for i in body.inputs]}; Luthier needs one "
                         "input of colour images, (rows, height, width, 3)")
    if shape[1] != shape[2]:
        raise ModelError(f"model '{files.source}' takes images of {shape[1]} x {shape[2]} pixels, which are not square")
    size = image_size or shape[1] or DEFAULT_SIZE
    if shape[1] not in (None, size):
        raise ModelError(f"model '{files.source}' takes images of {shape[1]} x {shape[2]} pixels only; leave the image "
                         f"size {size} out")
    return KerasImage(body, ImageProcessor(size=size, **prepared(model.name.lower(), body)))


def _load(keras: Any, files: SourceFiles, file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model = keras.models.load_model(file, compile=False, safe_mode=True)  # code inside the file never runs
        if not hasattr(model, "inputs") or not model.inputs:
            raise ValueError("it has no fixed inputs; build it with keras.Input and save it again")
    except (ValueError, TypeError, OSError, KeyError, NotImplementedError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"model '{files.source}': {files.folder} cannot be opened by Keras: {reason:.200}") from None
    if file.suffix == ".keras":
        _load_weights(files, model, file)
    return model


def without_head(keras: Any, model: Any, source: str) -> Any:
    """The model up to what its last dense layer reads, averaged over positions where that is a map."""
    layers = list(model.layers)
    end = layers[-1]
    while type(end).__name__ in ("Softmax", "Activation") and len(layers) > 1:
        layers.pop()
        end = layers[-1]
    if type(end).__name__ == "Dense":
        features = end.input
        layers.pop()
        while type(layers[-1]).__name__ == "Dropout":
            features = layers.pop().input
    else:
        features = model.outputs[0]
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="features")(features)
    if len(features.shape) != 2:
        raise ModelError(f"model '{source}': before its classifier it has values of the shape {tuple(features.shape)}; "
                         "Luthier needs a vector or a map of features")
    return keras.Model(model.inputs, features, name=model.name)


def prepared(name: str, model: Any) -> dict[str, Any]:
    """How values are scaled for a network: by its name where keras.applications has it, raw where it scales them
    itself, else from 0 to 1."""
    for names, settings in PREPARED:
        if name.startswith(names):
            return dict(settings)
    inside = {type(layer).__name__ for layer in list(leaves(model))[:4]}
    return dict(RAW) if inside & {"Rescaling", "Normalization"} else {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
