"""What the image tests share: small real data, and the law every backbone obeys when groups are frozen."""

from __future__ import annotations

import copy
import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from luthier.adapt.backbones.base import Backbone, Row

DATA = Path(__file__).resolve().parents[2] / "../shared/data"


def blood(limit: int) -> list[tuple[Path, str, str]]:
    """Image file, label and source image, `limit` of each class."""
    file = DATA / "blood_cells/labels.csv"
    if not file.is_file():
        pytest.skip(f"no data at {file}")
    kept: dict[str, list[tuple[Path, str, str]]] = {}
    for row in csv.DictReader(file.open()):
        kept.setdefault(row["label"], []).append((file.parent / row["path"], row["label"], row["source_image"]))
    return [item for items in kept.values() for item in items[:limit]]


def noise_rows(count: int, size: int, seed: int = 0) -> list[Row]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return [Row(str(at), image, 1) for at, image in enumerate(pixels)]


def features(backbone: Backbone, rows: list[Row]) -> np.ndarray:
    backbone.eval()
    with torch.inference_mode():
        return backbone(backbone.processor.batch(rows)).float().numpy()


def check_groups(backbone: Backbone) -> None:
    """Every parameter stands in one group, once; every group has some; a batch norm belongs to its group."""
    groups = backbone.groups()
    named = [name for names in groups.values() for name in names]
    assert sorted(named) == sorted(name for name, _ in backbone.named_parameters())
    assert all(groups.values()) and len(groups) >= 3
    owners = [id(module) for group in groups for module in backbone.modules_of(group)]
    normed = {id(m) for m in backbone.modules() if getattr(m, "running_mean", None) is not None}
    assert normed <= set(owners)


def check_freezing(backbone: Backbone, rows: list[Row], frozen: int) -> None:
    """The `frozen` lowest groups and their running figures stay bit-identical over two steps; the others move."""
    groups = backbone.groups()
    low = list(groups)[:frozen]
    still = {name for group in low for name in groups[group]}
    still_buffers = {id(b) for group in low for m in backbone.modules_of(group) for b in m.buffers(recurse=False)}
    head = torch.nn.Linear(backbone.width, 3)
    parameters = dict(backbone.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name not in still)
    before = {name: value.detach().clone() for name, value in parameters.items()}
    buffers = {name: (value, value.clone()) for name, value in backbone.named_buffers()}
    moving = [p for p in parameters.values() if p.requires_grad]
    optimiser = torch.optim.SGD([*moving, *head.parameters()], lr=0.05)
    targets = torch.arange(len(rows)) % 3
    for _ in range(2):
        backbone.train()
        for group in low:
            for module in backbone.modules_of(group):
                module.eval()
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(head(backbone(backbone.processor.batch(rows))), targets).backward()
        optimiser.step()
    moved = {name for name, value in parameters.items() if not torch.equal(value.detach(), before[name])}
    assert not moved & still
    for group in list(groups)[frozen:]:
        assert moved & set(groups[group]), f"group {group} should have moved"
    changed = [name for name, (now, then) in buffers.items() if not torch.equal(now, then)]
    assert not [name for name in changed if id(buffers[name][0]) in still_buffers]
    if any("mean" in name for name in buffers):
        assert any("mean" in name for name in changed), "running means above the frozen groups should move"
    parameters_with_grad = [name for name, p in parameters.items() if p.grad is not None]
    assert not set(parameters_with_grad) & still


def check_round_trip(backbone: Backbone, rows: list[Row], folder: Path) -> None:
    """Saved, restored and loaded, the network gives equal features and reads images equally."""
    from safetensors.torch import load_file, save_file

    from luthier.adapt.backbones.image import restore_image_backbone

    expected = features(backbone, rows)
    backbone.save(folder)
    save_file({name: value.contiguous().clone() for name, value in backbone.state_dict().items()},
              folder / "model.safetensors")
    again = restore_image_backbone(folder)
    again.load_state_dict(load_file(folder / "model.safetensors"))
    assert list(again.groups()) == list(backbone.groups())
    np.testing.assert_array_equal(features(again, rows), expected)
    twin = copy.deepcopy(backbone)
    np.testing.assert_array_equal(features(twin, rows), expected)
