"""Several models of a labelled task as one: the mean of their probabilities, saved, served and exported as one folder.

Its logits are the logarithm of the members' mean probability (with `multi_label`, and for one class by itself, its log
odds), so that a softmax (sigmoid) gives that mean back and a temperature calibrates it like any other model's. Members
whose backbone has the same bits share one: it is stored and computed once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from luthier.adapt.head import Head
from luthier.adapt.network import LabelModel, Network
from luthier.errors import ModelError

if TYPE_CHECKING:
    from luthier.adapt.backbones.base import Backbone
    from luthier.task import Task


class EnsembleNetwork(Network):
    """The members' weighted mean. Looks like one Network: `backbone`, `head` and `spec` are the first member's."""

    def __init__(self, members: Sequence[Network], weights: Sequence[float], *, multi_label: bool):
        nn.Module.__init__(self)
        if not members:
            raise ModelError("an ensemble needs at least one member")
        if any(member.task_type == "embed" for member in members):
            raise ModelError("vectors of different models do not live in one space; average their weights (`soup`)")
        self.members = nn.ModuleList(members)
        self.multi_label, self.task_type = multi_label, members[0].task_type
        self.pooling, self.spec = members[0].pooling, members[0].spec
        self.frozen = frozenset()
        share = torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("shares", share / share.sum(), persistent=False)
        self.shared = all(member.backbone is members[0].backbone for member in members) \
            and not any(member.pool_trains for member in members)

    @property
    def first(self) -> Network:
        found = self.members[0]
        assert isinstance(found, Network)
        return found

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        return self.first.backbone

    @property
    def head(self) -> nn.Sequential:  # type: ignore[override]
        return self.first.head

    @property
    def pool(self) -> Any:  # type: ignore[override]
        return self.first.pool

    @property
    def pool_trains(self) -> bool:
        return any(member.pool_trains for member in self.members)  # type: ignore[attr-defined]

    def features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Shared features [rows, width], or the members' own side by side [rows, members · width]."""
        if "features" in inputs:
            return inputs["features"]
        if self.shared:
            return self.first.features(inputs)
        return torch.cat([member.features(inputs) for member in self.members], -1)  # type: ignore[operator]

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        found = self.features(inputs)
        parts = [found] * len(self.members) if self.shared else found.chunk(len(self.members), -1)
        logits = torch.stack([member({"features": part}).float() for member, part in zip(self.members, parts)])
        share = self.shares.log().reshape(-1, *[1] * (logits.ndim - 1))  # type: ignore[union-attr, operator]
        if self.multi_label:
            log = nn.functional.logsigmoid
            return (log(logits) + share).logsumexp(0) - (log(-logits) + share).logsumexp(0)
        return (logits.log_softmax(-1) + share).logsumexp(0)

    def groups(self) -> dict[str, list[str]]:
        """The members' groups of one name together, every parameter once."""
        names = {name for name, _ in self.named_parameters()}
        found: dict[str, list[str]] = {}
        for at, member in enumerate(self.members):
            for group, inner in member.groups().items():  # type: ignore[operator]
                own = [name for part in inner if (name := f"members.{at}.{part}") in names]
                found.setdefault(group, []).extend(own)
        return found

    def freeze(self, groups: frozenset[str]) -> None:
        self.frozen = groups
        for member in self.members:
            member.freeze(groups)  # type: ignore[operator]

    def train(self, mode: bool = True) -> EnsembleNetwork:
        nn.Module.train(self, mode)
        return self


def combine(models: Sequence[LabelModel], weights: Sequence[float] | None = None) -> LabelModel:
    """One model of several with the same outputs; members of weight 0 are left out. A single one is returned as it is.

    LoRA members must have been merged. Backbones that are equal bit for bit become one.
    """
    chosen = [(model, weight) for model, weight in zip(models, weights or [1.0] * len(models)) if weight > 0]
    if not chosen:
        raise ModelError("no member of the ensemble has a positive weight")
    first = chosen[0][0]
    if any(model.labels != first.labels or model.task != first.task for model, _ in chosen):
        raise ModelError("the members of an ensemble must have the same task and the same labels in the same order")
    if len(chosen) == 1:
        return first
    networks = [model.module for model, _ in chosen]
    if all(same_backbone(networks[0], network) for network in networks[1:]) and not networks[0].pool_trains:
        networks = [networks[0], *(_on(network, networks[0]) for network in networks[1:])]
    module = EnsembleNetwork(networks, [weight for _, weight in chosen], multi_label=first.task.multi_label)
    return first.but(module=module.requires_grad_(False).eval(), fingerprint="", temperature=1.0)


def same_backbone(a: Network, b: Network) -> bool:
    """Whether two networks' backbones have the same weights and buffers, bit for bit."""
    if a.backbone is b.backbone:
        return True
    mine, theirs = a.backbone.state_dict(), b.backbone.state_dict()
    return a.pooling == b.pooling and mine.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in mine.items())


def _on(network: Network, base: Network) -> Network:
    """The same head on another network's backbone."""
    found = copy.copy(network)
    found._modules = {**network._modules, "backbone": base.backbone}
    return found


def describe(network: EnsembleNetwork) -> dict[str, Any]:
    """What network.json says of an ensemble, under `ensemble`."""
    return {"shared": network.shared, "members": [
        {"weight": float(share), "head": member.spec.dump(), "pooling": member.pooling}  # type: ignore[operator]
        for member, share in zip(network.members, network.shares)]}  # type: ignore[arg-type]


def restore(facts: Mapping[str, Any], backbones: Sequence[Backbone], task: Task, outputs: int) -> EnsembleNetwork:
    """The architecture that `describe` described, on one backbone for each member or a single shared one."""
    told = facts["members"]
    networks = [Network(backbones[0] if facts["shared"] else backbones[at], task, outputs=outputs,
                        head=Head(**member["head"]), pooling=member["pooling"], seed=0)
                for at, member in enumerate(told)]
    return EnsembleNetwork(networks, [member["weight"] for member in told], multi_label=task.multi_label)

