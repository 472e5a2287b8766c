"""Image networks of the transformers library, from a local folder: ResNet, EfficientNet, ConvNeXt, ViT and their kin.

Features are what the library's own classifier of the family reads: the mean over positions, or the class token.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from luthier.adapt.backbones.image_processor import ImageBackbone, ImageProcessor, Resample
from luthier.errors import ModelError, need
from luthier.models.sources import SourceFiles

FAMILY = "transformers-image"
KNOWN = ("convnext", "convnextv2", "deit", "dinov2", "efficientnet", "mobilenet_v1", "mobilenet_v2", "regnet",
         "resnet", "swin", "swinv2", "vit")
SQUEEZED = ("deit", "dinov2", "swin", "swinv2", "vit")  # a bare number in `size` means the square, not the shorter side
DEFAULT_SIZE = 224
_STEM = re.compile(r"^(embedder|embeddings|conv_stem)\.")
_LAYER = re.compile(r"^(?:encoder\.)?(stages|layers|layer|blocks)\.(\d+)\.")


class TransformersImage(ImageBackbone):
    """Features [rows, width] of a transformers image model without its classifier."""

    family = FAMILY

    def __init__(self, module: nn.Module, processor: ImageProcessor):
        super().__init__()
        self.module, self.processor = module, processor
        self.config: Any = module.config
        self.has_class_token = any(name.endswith("cls_token") for name, _ in module.named_parameters())
        self.interpolates = "interpolate_pos_encoding" in inspect.signature(module.forward).parameters
        self.width = self._width()

    def _width(self) -> int:
        """From one forward pass, which also shows that the network can read the image size at all."""
        size = self.processor.size
        training = self.training
        self.eval()
        kind = next(self.parameters()).dtype
        try:
            with torch.no_grad():
                found = self({"pixels": torch.zeros(1, 3, size, size, dtype=kind)})
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"the {self.config.model_type} network cannot read images of {size} x {size} pixels "
                             f"({reason}); choose another image size") from None
        finally:
            self.train(training)
        return found.shape[1]

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        pixels = inputs["pixels"].to(next(self.module.parameters()).dtype)
        options = {"interpolate_pos_encoding": True} if self.interpolates else {}
        output = self.module(pixel_values=pixels, **options)
        last = output.last_hidden_state
        if last.dim() == 4:
            pooled = getattr(output, "pooler_output", None)
            return last.mean(dim=(2, 3)) if pooled is None else pooled.flatten(1)
        return last[:, 0] if self.has_class_token else last.mean(1)

    def groups(self) -> dict[str, list[str]]:
        """stem, then the network's own stages, layers or blocks by number, then top."""
        stages = self._block_stages()
        found: dict[str, list[str]] = {"stem": []}
        numbered: dict[tuple[str, int], list[str]] = {}
        top = []
        for name, _ in self.named_parameters():
            inner = name.removeprefix("module.")
            layer = _LAYER.match(inner)
            if layer is not None:
                kind, number = layer[1].rstrip("s"), int(layer[2])
                place = ("stage", stages[number]) if kind == "block" and number < len(stages) else (kind, number)
                numbered.setdefault(place, []).append(name)
            elif _STEM.match(inner):
                found["stem"].append(name)
            else:
                top.append(name)
        found |= {f"{kind}{number + 1}": names for (kind, number), names in sorted(numbered.items(), key=_by_number)}
        found["top"] = top
        return {group: names for group, names in found.items() if names}

    def _block_stages(self) -> list[int]:
        """EfficientNet numbers its blocks through; the stage of each."""
        if self.config.model_type != "efficientnet":
            return []
        repeats = [math.ceil(n * self.config.depth_coefficient) for n in self.config.num_block_repeats]
        return [stage for stage, count in enumerate(repeats) for _ in range(count)]

    def describe(self) -> dict[str, Any]:
        return {"architecture": self.config.model_type, "config": self.config.to_dict()}


def _by_number(item: tuple[tuple[str, int], list[str]]) -> int:
    return item[0][1]


def open_transformers(files: SourceFiles, *, image_size: int | None, pretrained: bool) -> TransformersImage:
    """The model in a Hugging Face folder; ModelError where weights are missing or the family is unknown."""
    transformers = need("transformers", extra="train")
    try:
        config = transformers.AutoConfig.from_pretrained(files.folder)
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"model '{files.source}': {files.folder / 'config.json'} names no known model: {reason}"
                         ) from None
    cls, options = _class(config, files.source)
    processor = _processor(files, config, strict=pretrained)
    if image_size is not None:
        processor.size = image_size
    if not pretrained:
        return TransformersImage(cls(config, **options), processor)
    transformers.utils.logging.disable_progress_bar()
    try:
        module, report = cls.from_pretrained(files.folder, dtype=torch.float32, use_safetensors=True,
                                             output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"model '{files.source}': the weights in {files.folder} cannot be loaded: {reason}") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(f"model '{files.source}': {files.folder} lacks {len(missing)} weights, such as {missing[0]}; "
                         "they would be random")
    return TransformersImage(module, processor)


def restore_transformers(facts: dict[str, Any], processor: ImageProcessor) -> TransformersImage:
    """The architecture that `describe` told of, its weights still to be loaded."""
    transformers = need("transformers", extra="train")
    config = transformers.AutoConfig.for_model(facts["architecture"], **{
        key: value for key, value in facts["config"].items() if key not in ("model_type", "transformers_version")})
    cls, options = _class(config, facts["architecture"])
    return TransformersImage(cls(config, **options), processor)


def _class(config: Any, source: str) -> tuple[Any, dict[str, Any]]:
    transformers = need("transformers", extra="train")
    if config.model_type not in KNOWN:
        raise ModelError(f"model '{source}' is a '{config.model_type}', which is not an image network that Luthier "
                         f"divides into layer groups; there are: {', '.join(KNOWN)}, and Keras (keras:NAME)")
    cls = transformers.MODEL_MAPPING[type(config)]
    pools = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    return cls, {"add_pooling_layer": False} if pools else {}  # ViT's pooler is not part of its classifier


def _processor(files: SourceFiles, config: Any, *, strict: bool) -> ImageProcessor:
    """What preprocessor_config.json says, as our processor."""
    file = files.folder / "preprocessor_config.json"
    size = getattr(config, "image_size", None)
    size = size if isinstance(size, int) else DEFAULT_SIZE
    if not file.is_file():
        if strict:
            raise ModelError(f"model '{files.source}': {files.folder} has no preprocessor_config.json, so it is not "
                             "known how images were prepared for it; copy that file from where the model came from")
        return ImageProcessor(size=size)
    return read_preprocessor(file, model_type=config.model_type, default=size)


def read_preprocessor(file: Path, *, model_type: str, default: int) -> ImageProcessor:
    """A Hugging Face preprocessor_config.json as an ImageProcessor that gives the same tensors for square images."""
    try:
        facts = json.loads(file.read_text("utf-8"))
        facts = facts.get("image_processor", facts)
        resized = facts.get("size", default) if facts.get("do_resize", True) else default
        side, exact = _side(resized, squeezed=model_type in SQUEEZED)
        cropped = side
        if facts.get("do_center_crop"):
            cropped, _ = _side(facts.get("crop_size", side), squeezed=True)
        elif model_type.startswith("convnext") and side < 384:  # its processor enlarges by 1 / crop_pct, then crops
            side = int(side / (facts.get("crop_pct") or 224 / 256))
        norm = facts.get("do_normalize", True)
        mean = tuple(float(v) for v in facts.get("image_mean", (0.485, 0.456, 0.406))) if norm else (0.0, 0.0, 0.0)
        std = tuple(float(v) for v in facts.get("image_std", (0.229, 0.224, 0.225))) if norm else (1.0, 1.0, 1.0)
        scale = float(facts.get("rescale_factor", 1 / 255)) if facts.get("do_rescale", True) else 1.0
        if facts.get("rescale_offset"):  # scaled to -1 … 1 before mean and std
            mean = tuple(value + 1 for value in mean)
        if model_type == "efficientnet" and facts.get("include_top", True):
            std = tuple(value * value for value in std)  # its processor divides twice
        names: dict[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
        resample = names[facts.get("resample", 2)]
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(f"{len(mean)} channels")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} does not describe how an image is prepared: {error}") from None
    return ImageProcessor(size=cropped, mean=mean, std=std, scale=scale, resize="exact" if exact else "crop",
                          crop=min(cropped / side, 1.0), resample=resample)


def _side(size: Any, *, squeezed: bool) -> tuple[int, bool]:
    """Pixels, and whether the image is squeezed to a square of that side."""
    if isinstance(size, dict):
        if "shortest_edge" in size:
            return int(size["shortest_edge"]), False
        if size["height"] != size["width"]:
            raise ValueError(f"images of {size['height']} x {size['width']} pixels are not square")
        return int(size["height"]), True
    return (int(size), squeezed) if not isinstance(size, list | tuple) else (int(size[0]), True)
