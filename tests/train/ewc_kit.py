"""What the tests of elastic weight consolidation share."""

from __future__ import annotations

from typing import Any

import torch

from luthier.progress import Silent

QUICK: dict[str, Any] = {"verify_resume": False, "validate_every": 100}


class Said(Silent):
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str, **fields: Any) -> None:
        self.lines.append(message)


def move(model: Any, seed: int = 9) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.module.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.1)
