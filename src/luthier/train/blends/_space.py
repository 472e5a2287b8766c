"""Turns a mix of models into a model: weight arithmetic for the three ways in which runs keep their weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from luthier.adapt.base import Model, load_module, open_base, read_facts, trainable
from luthier.adapt.labelled import load_label_model, save_label_model
from luthier.adapt.network import LabelModel
from luthier.errors import ModelError
from luthier.store import Artifact, tell_disk_trouble
from luthier.train.blends import BARE, RUN, START, Mix

State = dict[str, torch.Tensor]


class Space(Protocol):
    """Models whose weights can be mixed."""

    def open(self, mix: Mix) -> Any:
        """The mix as a LabelModel or Model in evaluation mode; good until the next call."""
        ...

    def save(self, mix: Mix, folder: Path) -> None:
        """Write the mix in the format of a run's `best/`."""
        ...


def mixed(parts: Sequence[tuple[float, torch.Tensor]]) -> torch.Tensor:
    """θ₀ + Σ shareᵢ · (θᵢ - θ₀), the weighted mean where shares sum to 1: tensors that are equal in all models come out
    bit for bit, and so does a single one. Whole numbers (a batch norm's count) are the last model's."""
    first = parts[0][1]
    if len(parts) == 1:
        return first.clone()
    if not first.is_floating_point():
        return parts[-1][1].clone()
    found = first.float().clone()
    for share, value in parts[1:]:
        found += share * (value.float() - first.float())
    return found


def mix_states(mix: Mix, state_of: Callable[[str], State]) -> State:
    """The state dict of a mix. ModelError where the models have different weights."""
    states = {name: state_of(name) for name in mix}
    names = [*mix]
    shapes = {name: {key: tuple(value.shape) for key, value in state.items()} for name, state in states.items()}
    for name in names[1:]:
        if shapes[name] != shapes[names[0]]:
            odd = next(key for key in sorted({*shapes[name], *shapes[names[0]]})
                       if shapes[name].get(key) != shapes[names[0]].get(key))
            raise ModelError(f"the models '{names[0]}' and '{name}' have different weights ({odd}), so there is "
                             "nothing between them; blend runs of one network (no ensemble, no new columns)")
    return {key: mixed([(mix[name], states[name][key]) for name in names]) for key in states[names[0]]}


def copied(mix: Mix, run: Artifact, folder: Path) -> bool:
    """Whether the mix is the run itself, whose files were then copied."""
    if dict(mix) != {RUN: 1.0}:
        return False
    with tell_disk_trouble(folder):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run.path / "best", folder)
    return True


class LabelSpace:
    """Labelled tasks: every weight and buffer of the network, adapters merged into the weights they stand beside."""

    def __init__(self, run: Artifact, opened: Callable[[], LabelModel], begin: Callable[[], LabelModel],
                 others: Mapping[str, Artifact], *, lora: bool):
        """`opened` gives the trained model, `begin` the one that its training began from."""
        self.run, self.begin, self.others, self.lora = run, begin, others, lora
        self.model = opened()
        self.states: dict[str, State] = {RUN: _state(self.model)}

    def state(self, name: str) -> State:
        if name not in self.states:
            if name == START:
                self.states[name] = _state(self.begin())
            elif name == BARE:
                start = self.state(START)
                self.states[name] = {key: start.get(key, value) if key.startswith("backbone.") else value
                                     for key, value in self.states[RUN].items()}
            else:
                self.states[name] = _state(load_label_model(self.others[name].path / "best"))
        return self.states[name]

    def open(self, mix: Mix) -> LabelModel:
        if BARE in mix and not self.lora:
            raise ModelError(f"blend.method: lora_scale makes an adapter smaller, and run {self.run.id} trained "
                             "without one; take wise")
        self.model.module.load_state_dict(mix_states(mix, self.state), strict=True)
        return self.model

    def save(self, mix: Mix, folder: Path) -> None:
        if not copied(mix, self.run, folder):
            save_label_model(self.open(mix), folder)


def _state(model: LabelModel) -> State:
    network = model.module
    state = model.method.merged_state(network) if model.method.kind == "lora" else network.state_dict()
    return {name: value.detach().cpu().clone() for name, value in state.items()}


class FullSpace:
    """Language models whose own weights trained."""

    def __init__(self, run: Artifact, model: Artifact, start: Artifact | None, others: Mapping[str, Artifact]):
        facts = read_facts(model)
        self.run, self.adapted, self.dtype = run, model, facts["dtype"]
        self.folders = {RUN: run.path / "best", **{name: other.path / "best" for name, other in others.items()},
                        START: Path(facts["folder"]) if start is None else start.path / "best"}
        self.states: dict[str, State] = {}

    def state(self, name: str) -> State:
        if name not in self.folders:
            raise ModelError(f"blend.method: lora_scale makes an adapter smaller, and run {self.run.id} trained "
                             "without one; take wise")
        if name not in self.states:
            module = load_module(self.folders[name], source=str(self.folders[name]), dtype="float32")
            self.states[name] = dict(module.state_dict())
        return self.states[name]

    def _module(self, mix: Mix, dtype: str) -> Any:
        module = load_module(self.folders[RUN], source=str(self.folders[RUN]), dtype=dtype)
        module.load_state_dict(mix_states(mix, self.state))
        return module.requires_grad_(True).eval()

    def open(self, mix: Mix) -> Model:
        base = open_base(self.adapted)
        return trainable(base, self._module(mix, self.dtype))

    def save(self, mix: Mix, folder: Path) -> None:
        if not copied(mix, self.run, folder):
            module = self._module(mix, "float32")
            with tell_disk_trouble(folder):
                open_base(self.adapted).method.save(module, dict(module.named_parameters()), folder)
