"""Image networks by source: which family a model belongs to, and the same network again from what was saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch

from luthier.adapt.backbones.base import read_config
from luthier.adapt.backbones.image_processor import ImageBackbone, ImageProcessor
from luthier.adapt.backbones.lite0 import ARCHITECTURE, Lite0, load_lite0
from luthier.adapt.backbones.mlp import FAMILY as PERCEPTRON
from luthier.adapt.backbones.mlp import open_mlp, restore_mlp
from luthier.errors import ModelError
from luthier.models.generate import compute_dtype
from luthier.models.sources import KERAS, KERAS_FILES, MLP, SourceFiles, resolve

SMALLEST, LARGEST = 16, 2048


def open_image_backbone(source: SourceFiles | str, *, root: Path | None = None, image_size: int | None = None,
                        dtype: torch.dtype | str = "auto", pretrained: bool = True, seed: int = 0) -> ImageBackbone:
    """The image network that `source` names, without its classifier, in evaluation mode.

    `image_size` is the side in pixels that images are brought to; None is what the network was trained with.
    `dtype` is `float32`, `bfloat16` or `auto`: bfloat16 where the processor computes in it (Keras: float32 always).
    `pretrained=False` draws the weights at random from `seed` (training from scratch). `root` is the folder that
    relative paths, of the source and of the images, start from. ModelError or MissingExtra says what is wrong.
    """
    if image_size is not None and not SMALLEST <= image_size <= LARGEST:
        raise ModelError(f"image size {image_size} is out of range; choose {SMALLEST} to {LARGEST} pixels")
    files = resolve(source, purpose="image", root=root) if isinstance(source, str) else source
    keras = _is_keras(files)
    kind = dtype if isinstance(dtype, torch.dtype) else \
        torch.float32 if keras and dtype == "auto" else compute_dtype(dtype)
    if keras and kind is not torch.float32:
        raise ModelError(f"model '{files.source}': Keras networks compute in float32; set adapt.dtype to float32 or "
                         "auto")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = _open(files, image_size, pretrained, seed)
    if not pretrained:
        _quicken(backbone)
    backbone.processor.root = root
    return _finish(backbone.to(kind))


def _quicken(backbone: torch.nn.Module) -> None:
    """Batch statistics that start from nothing must be there after some dozens of updates: networks made for a million
    images average over a hundred batches and more, and would answer from their first guess."""
    for module in backbone.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, 0.1)
        elif type(module).__name__ == "BatchNormalization":  # Keras counts the other way round
            cast(Any, module).momentum = min(cast(Any, module).momentum, 0.9)


def _open(files: SourceFiles, image_size: int | None, pretrained: bool, seed: int) -> ImageBackbone:
    if _is_keras(files):
        from luthier.adapt.backbones.keras_open import open_keras

        return open_keras(files, image_size=image_size, pretrained=pretrained, seed=seed)
    if files.source.startswith(MLP):
        return open_mlp(files.source, image_size=image_size, seed=seed)
    config = _config(files)
    if config.get("model_type") == ARCHITECTURE:
        backbone = load_lite0(files.folder) if pretrained else Lite0()
        if image_size is not None:
            backbone.processor = ImageProcessor(**{**vars(backbone.processor), "size": image_size})
        return backbone
    from luthier.adapt.backbones.transformers_image import open_transformers

    return open_transformers(files, image_size=image_size, pretrained=pretrained)


def restore_image_backbone(folder: Path, *, dtype: torch.dtype | str = torch.float32) -> ImageBackbone:
    """The network and processor that `Backbone.save` described in `folder`, its weights still to be loaded."""
    facts = read_config(folder)
    family = facts.get("family")
    if family == PERCEPTRON:
        backbone: ImageBackbone = restore_mlp(folder, facts)
        return _finish(backbone.to(dtype if isinstance(dtype, torch.dtype) else compute_dtype(dtype)))
    processor = ImageProcessor.restore(folder)
    if family == Lite0.family:
        backbone = Lite0(processor)
    elif family == "transformers-image":
        from luthier.adapt.backbones.transformers_image import restore_transformers

        backbone = restore_transformers(facts, processor)
    elif family == "keras-image":
        from luthier.adapt.backbones.keras_image import restore_keras

        backbone = restore_keras(facts, processor)
    else:
        raise ModelError(f"{folder} holds a backbone of the family '{family}', which is not an image network")
    kind = dtype if isinstance(dtype, torch.dtype) else compute_dtype(dtype)
    return _finish(backbone if family == "keras-image" else backbone.to(kind))


def _finish(backbone: ImageBackbone) -> ImageBackbone:
    """Convolutions are two to three times faster on a CPU when channels come last in memory."""
    for parameter in backbone.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return backbone.eval()


def _is_keras(files: SourceFiles) -> bool:
    return (files.source.startswith(KERAS) or files.folder.suffix.lower() in KERAS_FILES
            or (files.folder / "saved_model.pb").is_file())


def _config(files: SourceFiles) -> dict[str, Any]:
    try:
        return json.loads((files.folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"model '{files.source}': {files.folder / 'config.json'} cannot be read: {error}") from None
