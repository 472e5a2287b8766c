"""EfficientNet-Lite0 (Tan and Le 2019, "EfficientNet", the Lite variant of 2020): `starter:image`.

EfficientNet-B0 without squeeze-and-excitation and with ReLU6. The weights were trained in TensorFlow, so convolutions
pad as TensorFlow's "SAME" does (one more pixel at the right and bottom where the stride is 2), batch normalisation
adds 0.001 to the variance, and images are scaled to (value - 127) / 128. Parameters are named as in the package that
ships the weights.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from luthier.adapt.backbones.image_processor import ImageBackbone, ImageProcessor
from luthier.errors import ModelError

WIDTH, IMAGE_SIZE, CLASSES = 1280, 224, 1000
MEAN, STD = (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)
ARCHITECTURE = "efficientnet-lite0"

STAGES = ((1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
          (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320))
"""Blocks, kernel, stride of the first block, expansion, channels in, channels out."""


class SameConv(nn.Conv2d):
    """A convolution that pads like TensorFlow's "SAME": output side = ceil(input side / stride)."""

    def __init__(self, inside: int, outside: int, kernel: int, *, stride: int = 1, groups: int = 1):
        super().__init__(inside, outside, kernel, stride=stride, groups=groups, bias=False,
                         padding=(kernel - 1) // 2 if stride == 1 else 0)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        step = self.stride[0]
        if step > 1:
            h, w = (max((-(-side // step) - 1) * step + self.kernel_size[0] - side, 0) for side in input.shape[2:])
            input = F.pad(input, (w // 2, w - w // 2, h // 2, h - h // 2))
        return super().forward(input)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted bottleneck: expand 1 x 1, depthwise, project 1 x 1, and the input added where shapes agree."""

    def __init__(self, kernel: int, stride: int, expansion: int, inside: int, outside: int):
        super().__init__()
        middle = inside * expansion
        self.adds = stride == 1 and inside == outside
        if expansion > 1:
            self._expand_conv = SameConv(inside, middle, 1)
            self._bn0 = _norm(middle)
        self.expands = expansion > 1
        self._depthwise_conv = SameConv(middle, middle, kernel, stride=stride, groups=middle)
        self._bn1 = _norm(middle)
        self._project_conv = SameConv(middle, outside, 1)
        self._bn2 = _norm(outside)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y = x_BCHW
        if self.expands:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x_BCHW + y if self.adds else y


class Lite0(ImageBackbone):
    """Features [rows, 1280]: the mean over positions of the last convolution."""

    family = "lite0"
    width = WIDTH

    def __init__(self, processor: ImageProcessor | None = None):
        super().__init__()
        self.processor = processor or ImageProcessor(size=IMAGE_SIZE, mean=MEAN, std=STD)
        self._conv_stem = SameConv(3, 32, 3, stride=2)
        self._bn0 = _norm(32)
        blocks = []
        for count, kernel, stride, expansion, inside, outside in STAGES:
            blocks.append(Block(kernel, stride, expansion, inside, outside))
            blocks += [Block(kernel, 1, expansion, outside, outside) for _ in range(count - 1)]
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(320, WIDTH, 1)
        self._bn1 = _norm(WIDTH)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        pixels = inputs["pixels"].to(self._conv_stem.weight.dtype)
        x = F.relu6(self._bn0(self._conv_stem(pixels)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def groups(self) -> dict[str, list[str]]:
        """stem, stage1 … stage7, top."""
        owner, first = {}, 0
        for number, (count, *_) in enumerate(STAGES, start=1):
            owner.update({f"_blocks.{first + index}.": f"stage{number}" for index in range(count)})
            first += count
        found: dict[str, list[str]] = {"stem": [], **{f"stage{n}": [] for n in range(1, len(STAGES) + 1)}, "top": []}
        for name, _ in self.named_parameters():
            if name.startswith("_blocks."):
                found[owner[name[:name.index(".", len("_blocks.")) + 1]]].append(name)
            else:
                found["top" if name.startswith(("_conv_head", "_bn1")) else "stem"].append(name)
        return found

    def describe(self) -> dict[str, Any]:
        return {"architecture": ARCHITECTURE}


def load_lite0(folder: Path, *, processor: ImageProcessor | None = None) -> Lite0:
    """The network with the weights in `folder`/model.safetensors; ImageNet's own head (`_fc.*`) is left out."""
    from safetensors.torch import load_file

    backbone = Lite0(processor)
    weights = load_file(folder / "model.safetensors")
    try:
        backbone.load_state_dict({name: value for name, value in weights.items() if not name.startswith("_fc.")})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"{folder} does not hold EfficientNet-Lite0's weights: {reason}") from None
    return backbone


def imagenet_head(folder: Path) -> nn.Linear:
    """The classifier over ImageNet's 1,000 classes that the weights were trained with, [1280] → [1000]."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    head = nn.Linear(WIDTH, CLASSES)
    head.load_state_dict(OrderedDict(weight=weights["_fc.weight"], bias=weights["_fc.bias"]))
    return head
