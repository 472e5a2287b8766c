"""Keras 3 networks on the torch backend: VGG, Inception and the rest of keras.applications, and a user's own models.

A Keras model lists its weights several times, counts running means among its parameters, and switches batch norms by
an argument of the call. Here every Keras layer has one small torch module that holds its trainable weights as
parameters and the others as buffers (the same memory), so that a Keras network trains, freezes, moves and is saved as
any other. Keras networks compute in float32.
"""

from __future__ import annotations

import copy
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from luthier.adapt.backbones.image_processor import ImageBackbone, ImageProcessor
from luthier.errors import ModelError, need

FAMILY = "keras-image"
PARTS = 6  # layer groups of a network whose layers' names tell nothing

_JOIN = re.compile(r"^mixed_?(\d+[a-z]?)$")  # Inception: the layer in which the branches of a block meet
_BLOCK = (
    (re.compile(r"^(block_?\d+)"), "{0}"),  # VGG, Xception, EfficientNet, MobileNetV2, Inception-ResNet
    (re.compile(r"^(?:conv|pool)([2-9])_"), "conv{0}"),  # ResNet, DenseNet
    (re.compile(r"^convnext_\w+?_stage_(\d+)"), "stage{0}"),
    (re.compile(r"^expanded_conv(?:_(\d+))?_"), "block_{0}"),  # MobileNetV3
    (re.compile(r"^conv_(?:dw|pw|pad)_(\d+)"), "block_{0}"),  # MobileNet
)
_TOP = re.compile(r"^(top_\w+|post_bn|bn|conv_1(_bn)?|Conv_1(_bn)?|conv_7b\w*)$")


def keras_on_torch() -> Any:
    """The keras module with its torch backend; MissingExtra or ModelError says what to do."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    keras = need("keras", extra="keras")
    if keras.backend.backend() != "torch":
        raise ModelError(f"Keras was imported with its {keras.backend.backend()} backend before Luthier needed it; set "
                         "KERAS_BACKEND=torch in the environment and start again")
    return keras


class Weights(nn.Module):
    """The weights of one Keras layer, shared with it."""

    def __init__(self, layer: Any):
        super().__init__()
        self._shared: list[tuple[str, Any]] = []
        trainable = {id(variable) for variable in layer.trainable_weights}
        for variable in layer.weights:
            name, number = variable.name, 1
            while name in self._parameters or name in self._buffers:
                name, number = f"{variable.name}_{number}", number + 1
            if id(variable) in trainable:
                self.register_parameter(name, variable._value)
            else:
                self.register_buffer(name, variable._value.data)
                self._shared.append((name, variable))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True):
        """Moving to a device makes new buffers: the Keras layer must use those."""
        super()._apply(fn, recurse)
        for name, variable in self._shared:
            variable._value.data = self._buffers[name]
        return self


class KerasImage(ImageBackbone):
    """Features [rows, width] of a Keras model without its classifier."""

    family = FAMILY

    def __init__(self, model: Any, processor: ImageProcessor):
        super().__init__()
        model.trainable = True
        if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2 or model.outputs[0].shape[-1] is None:
            raise ModelError(f"the Keras model '{model.name}' must end in one feature vector a row; it ends in "
                             f"{[tuple(output.shape) for output in model.outputs]}")
        self.processor, self.width = processor, int(model.outputs[0].shape[-1])
        object.__setattr__(self, "model", model)  # not as a submodule: it would list its weights a second time
        self.layers = nn.ModuleDict()
        self._pairs: list[tuple[list[Any], Weights]] = []
        self._groups: dict[str, list[str]] = {}
        flat = list(leaves(model))
        groups = _layer_groups([layer.name for layer in flat], [bool(layer.weights) for layer in flat])
        counts: dict[str, int] = {}
        for layer, group in zip(flat, groups):
            if not layer.weights:
                continue
            name = _steady_name(layer, counts)
            weights = self.layers[name] = Weights(layer)
            self._pairs.append(([layer, *layer._flatten_layers(include_self=False)], weights))
            self._groups.setdefault(group, []).extend(f"layers.{name}.{own}" for own, _ in weights.named_parameters())
        self._groups = {group: names for group, names in self._groups.items() if names}

    model: Any

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        keras = keras_on_torch()
        pixels = inputs["pixels"]
        for layers, weights in self._pairs:  # a batch norm asks its layer, not the call, whether it is frozen
            for layer in layers:
                object.__setattr__(layer, "_trainable", weights.training)
        with keras.device("gpu" if pixels.device.type == "cuda" else pixels.device.type):
            return self.model(pixels.float().permute(0, 2, 3, 1), training=self.training)

    def groups(self) -> dict[str, list[str]]:
        """Blocks by the names that the architecture gives them, with stem and top; six equal parts where layers have
        no such names."""
        return {group: list(names) for group, names in self._groups.items()}

    def describe(self) -> dict[str, Any]:
        for layers, _ in self._pairs:
            for layer in layers:
                object.__setattr__(layer, "_trainable", True)
        return {"architecture": self.model.name, "config": json.loads(self.model.to_json())}

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasImage:
        """A network with weights of its own; Keras' own copy would share none of our modules."""
        twin = memo[id(self)] = _rebuilt(self.describe(), copy.copy(self.processor), self.state_dict())
        for mine, theirs in zip(self.modules(), twin.modules()):
            theirs.training = mine.training
        for mine, theirs in zip(self.parameters(), twin.parameters()):
            theirs.requires_grad_(mine.requires_grad)
        return twin.to(next(self.parameters()).device)

    def __reduce__(self):
        return _rebuilt, (self.describe(), self.processor, self.state_dict())


def _rebuilt(facts: dict[str, Any], processor: ImageProcessor, state: dict[str, torch.Tensor]) -> KerasImage:
    backbone = restore_keras(facts, processor)
    backbone.load_state_dict(state)
    return backbone


def restore_keras(facts: dict[str, Any], processor: ImageProcessor) -> KerasImage:
    """The architecture that `describe` told of, its weights still to be loaded."""
    keras = keras_on_torch()
    try:
        with keras.device("cpu"):
            model = keras.models.model_from_json(json.dumps(facts["config"]))
    except (ValueError, TypeError) as error:
        raise ModelError(f"the Keras network '{facts.get('architecture')}' cannot be rebuilt: "
                         f"{str(error).splitlines()[0]}") from None
    return KerasImage(model, processor)


def leaves(model: Any) -> Iterator[Any]:
    """Layers in the order of the computation, those of inner models in the place of the model."""
    for layer in model.layers:
        if hasattr(layer, "layers") and hasattr(layer, "to_json"):
            yield from leaves(layer)
        else:
            yield layer


def _steady_name(layer: Any, counts: dict[str, int]) -> str:
    """A key that does not depend on how many models this process has built: Keras numbers unnamed layers through."""
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__).lower()
    name = kind if re.fullmatch(rf"{kind.replace('_', '_?')}(_\d+)?", layer.name) else layer.name.replace(".", "_")
    counts[name] = counts.get(name, 0) + 1
    unnamed = name == kind
    return f"{name}_{counts[name]}" if unnamed or counts[name] > 1 else name


def _layer_groups(names: list[str], weighted: list[bool]) -> list[str]:
    """The layer group of every layer, from their names in the order of the computation."""
    found = [_block(name) for name in names]
    joins = any(_JOIN.match(name) for name in names)
    if len({group for group in found if group and group != "top"}) < 2:
        total, seen, parts = max(sum(weighted), 1), 0, []
        count = min(PARTS, total)
        for has in weighted:
            parts.append(f"part{min(seen * count // total, count - 1) + 1}")
            seen += has
        return parts
    if joins:  # an Inception block's branches stand before the layer in which they meet
        here = "top"
        for at in range(len(found) - 1, -1, -1):
            here = found[at] = found[at] or here
        first = next(at for at, name in enumerate(names) if _JOIN.match(name))
        pools = [at for at, name in enumerate(names[:first]) if name.startswith("max_pooling2d")]
        started = pools[-1] if pools else -1  # the last pooling before the first block ends the stem
        return ["stem" if at <= started else str(group) for at, group in enumerate(found)]
    here = "stem"
    for at, group in enumerate(found):
        here = found[at] = group or here
    return [str(group) for group in found]


def _block(name: str) -> str | None:
    if _TOP.match(name):
        return "top"
    join = _JOIN.match(name)
    if join is not None:
        return f"mixed{join[1]}"
    for pattern, label in _BLOCK:
        match = pattern.match(name)
        if match is not None:
            return label.format(match[1] or "0")
    return None
