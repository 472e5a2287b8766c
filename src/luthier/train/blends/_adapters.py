"""Mixes of LoRA adapters on one base model, in the space of the products.

The change that an adapter makes is s · B A with s = alpha / rank. A and B have no meaning by themselves (A · c and
B / c are the same change), so the mean of factors is not the mean of models. Here Σ shareᵢ · sᵢ · Bᵢ Aᵢ is written
exactly as one adapter of the summed rank: A = [A₁; A₂; …], B = [share₁ s₁ B₁, share₂ s₂ B₂, …]. The base model is
the product 0.

Updates that go on from a blend would make the rank grow with each one, so beyond `GROWTH` times adapt.method.rank
the nearest adapter of that rank is taken (the truncated singular value decomposition; Eckart & Young 1936).
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from luthier.adapt.base import Model, open_base, read_facts, trainable
from luthier.errors import ModelError
from luthier.store import Artifact, tell_disk_trouble, write_json
from luthier.train.blends import BARE, RUN, START, Mix
from luthier.train.blends._space import copied

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
A, B = ".lora_A.weight", ".lora_B.weight"
GROWTH = 4


@dataclass(frozen=True)
class Adapter:
    """One run's adapter: A [rank, in] and B [out, rank] of every layer by the layer's name, and s."""

    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """ModelError for a folder that holds something else than plain LoRA."""
        try:
            config = json.loads((folder / CONFIG).read_text("utf-8"))
            tensors = load_file(folder / WEIGHTS)
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder} holds no adapter that could be blended: {error}") from None
        odd = next((name for name in tensors if not name.endswith((A, B))), None)
        if odd or config.get("use_dora") or config.get("rank_pattern") or config.get("alpha_pattern"):
            raise ModelError(f"{folder} holds more than plain LoRA matrices ({odd or 'patterns of ranks'}), which "
                             "cannot be blended")
        return cls(config, tensors)

    @property
    def layers(self) -> list[str]:
        return sorted(name.removesuffix(A) for name in self.tensors if name.endswith(A))

    @property
    def scale(self) -> float:
        rank = self.config["r"]
        return self.config["lora_alpha"] / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def scaled(self, share: float) -> Adapter:
        """share · s · B A: the same rank, B smaller."""
        return Adapter(self.config, {name: value * share if name.endswith(B) else value
                                     for name, value in self.tensors.items()})

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tell_disk_trouble(folder):
            save_file({name: value.contiguous() for name, value in self.tensors.items()}, folder / WEIGHTS,
                      metadata={"format": "pt"})
            write_json(folder / CONFIG, dict(self.config))


def joined(parts: Mapping[str, tuple[float, Adapter]]) -> Adapter:
    """Σ share · s · B A as one adapter of the summed rank, whose own scale is 1. ModelError for different layers."""
    (name, (_, first)), *rest = parts.items()
    for other, (_, adapter) in rest:
        if adapter.layers != first.layers:
            raise ModelError(f"the adapters of '{name}' and '{other}' stand on different layers, so they are not "
                             "blended; compare adapt.method of the two")
    tensors = {}
    for layer in first.layers:
        tensors[layer + A] = torch.cat([adapter.tensors[layer + A].float() for _, adapter in parts.values()])
        tensors[layer + B] = torch.cat([share * adapter.scale * adapter.tensors[layer + B].float()
                                        for share, adapter in parts.values()], dim=1)
    return _ranked(first.config, sum(adapter.config["r"] for _, adapter in parts.values()), tensors)


def _ranked(config: Mapping[str, Any], rank: int, tensors: Mapping[str, torch.Tensor]) -> Adapter:
    """An adapter whose own scale is 1."""
    return Adapter({**config, "r": rank, "lora_alpha": rank, "use_rslora": False}, tensors)


def reduced(adapter: Adapter, most: int) -> Adapter:
    """The adapter itself, or the nearest one of rank `most` in the sum of squares of every layer's product, found in
    rank x rank: with B = Q R and Aᵀ = P S, the singular values of B A are those of R Sᵀ."""
    if adapter.config["r"] <= most:
        return adapter
    tensors = {}
    for layer in adapter.layers:
        q, r = torch.linalg.qr((adapter.scale * adapter.tensors[layer + B]).double())
        p, s = torch.linalg.qr(adapter.tensors[layer + A].double().T)
        u, values, v = torch.linalg.svd(r @ s.T)
        kept = min(most, len(values))
        root = values[:kept].sqrt()
        wide, tall = (p @ v.T[:, :kept] * root).T, q @ u[:, :kept] * root
        tensors[layer + A] = torch.zeros(most, wide.shape[1]).index_copy(0, torch.arange(kept), wide.float())
        tensors[layer + B] = torch.zeros(tall.shape[0], most).index_copy(1, torch.arange(kept), tall.float())
    return _ranked(adapter.config, most, tensors)


class AdapterSpace:
    """Language models that trained with LoRA on one base model."""

    def __init__(self, run: Artifact, model: Artifact, start: Artifact | None, others: Mapping[str, Artifact]):
        self.run, self.adapted = run, model
        self.most = GROWTH * int(read_facts(model)["method"]["rank"])
        folders = {RUN: run.path / "best", **{name: other.path / "best" for name, other in others.items()}}
        if start is not None:
            folders[START] = start.path / "best"
        self.adapters = {name: Adapter.read(folder) for name, folder in folders.items()}

    def adapter(self, mix: Mix) -> Adapter:
        """The mix as one adapter; START without an earlier run and BARE are the base model, which adds nothing."""
        parts = {name: (share, self.adapters[name]) for name, share in mix.items() if name in self.adapters}
        if not set(mix) <= {*parts, START, BARE}:
            raise ModelError(f"no run by the name of {', '.join(sorted(set(mix) - {*parts}))}")
        if not parts:
            return self.adapters[RUN].scaled(0.0)
        if len(parts) == 1:
            (share, adapter), = parts.values()
            return adapter.scaled(share)
        return reduced(joined(parts), self.most)

    def open(self, mix: Mix) -> Model:
        base = open_base(self.adapted)
        folder = Path(tempfile.mkdtemp(prefix="luthier-blend-"))
        try:
            self.adapter(mix).write(folder)
            return trainable(base, base.method.restore(base.module, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def save(self, mix: Mix, folder: Path) -> None:
        if not copied(mix, self.run, folder):
            self.adapter(mix).write(folder)
