"""Giving a progressive network its next column, and making one of a model that was trained without columns."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from luthier.adapt.column_adapters import ColumnLinear, add_adapters, chosen_targets, without_adapters
from luthier.adapt.columns import Column, ProgressiveNetwork, shown_widths
from luthier.adapt.ensemble import EnsembleNetwork
from luthier.adapt.full import Full
from luthier.adapt.grow import with_outputs
from luthier.adapt.network import LabelModel
from luthier.adapt.router import Router
from luthier.errors import ModelError

if TYPE_CHECKING:
    from luthier.adapt.backbones.base import Backbone
    from luthier.adapt.lora import LoRA


def as_column(model: LabelModel, name: str, *, shared: bool) -> LabelModel:
    """A model that was trained without columns as the first column of a progressive network; one that has columns is
    returned as it is. `shared` makes its backbone the frozen base of the adapter columns to come.

    ModelError for an ensemble, and for columns of the other size.
    """
    network = model.module
    if isinstance(network, ProgressiveNetwork):
        if network.shared != shared:
            found, wanted = ("adapter", "full") if network.shared else ("full", "adapter")
            raise ModelError(f"{model.name} has {found} columns, and train.strategy.size asks for {wanted} ones; take "
                             f"size: {found} (or auto)")
        return model
    if isinstance(network, EnsembleNetwork):
        raise ModelError(f"{model.name} is an ensemble, and a column is one network; release one model "
                         "(train.strategy: distill) to go on from it")
    first = Column(name, model.labels, network, own=not shared, older=())
    found = ProgressiveNetwork([first], model.task, base=network.backbone if shared else None, shared=shared)
    found.outputs = model.labels
    return model.but(module=found.requires_grad_(False).eval(), method=Full(), fingerprint="", parts={})


def with_column(old: LabelModel | None, fresh: LabelModel, name: str, labels: Sequence[str], *, reads: int,
                adapter: LoRA | None, seed: int, router: bool = True) -> LabelModel:
    """A model that answers with a new column's own `labels`, of whose parameters only the new column's may train.

    `old` has the columns so far (its network becomes part of the new one) or is None; `fresh` is the base model with a
    fresh head. `adapter` makes an adapter column, None a full one. `reads` are the units through which a layer reads
    the older columns; 0 reads nothing. `router`: one will be needed, which looks at the base model, so that full
    columns keep a copy of it. ModelError where the base model's shape is not that of the older columns.
    """
    fresh = with_outputs(fresh, labels, seed=seed)
    network = fresh.module
    columns: list[Column] = [] if old is None else [*old.module.columns]  # type: ignore[list-item]
    place = str(len(columns))
    base: Backbone | None = None if old is None else old.module.base  # type: ignore[assignment]
    facts: dict[str, Any] | None = None
    if old is not None:
        _fits(old, fresh, shared=adapter is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if adapter is not None:
            base = network.backbone if base is None else base
            without_adapters(base)
            facts = {"rank": adapter.rank, "alpha": adapter.alpha, "dropout": adapter.dropout,
                     "targets": chosen_targets(adapter, base)}
            add_adapters(base, place, facts["targets"], facts)
        else:
            if old is not None:
                network.backbone.processor = old.processor  # one way of reading, with its root and its cache
            if base is None and router:
                base = copy.deepcopy(network.backbone, {id(network.backbone.processor): network.backbone.processor})
        older = [shown_widths(column.backbone) if column.backbone is not None else [network.backbone.width]
                 for column in columns]
        columns.append(Column(name, labels, network, own=adapter is None, older=older, reads=reads, adapter=facts))
    found = ProgressiveNetwork(columns, fresh.task, base=base, shared=adapter is not None).requires_grad_(False)
    found.active = len(columns) - 1
    columns[-1].requires_grad_(True)
    for inner in () if adapter is None or base is None else base.modules():
        if isinstance(inner, ColumnLinear) and place in inner.down:
            inner.down[place].requires_grad_(True)
            inner.up[place].requires_grad_(True)
    untouched = old is None or (adapter is None and not reads)  # features are those of the base model by itself
    return fresh.but(module=found.eval(), labels=tuple(labels), method=adapter or Full(), parts={},
                     name=fresh.name if old is None else old.name, fingerprint=fresh.fingerprint if untouched else "")


def finished(model: LabelModel, outputs: Sequence[str], router: Router | None) -> LabelModel:
    """The model of all columns: it answers among all `outputs`, by its router or by the mean of its columns. Changes
    its network in place."""
    network = model.module
    assert isinstance(network, ProgressiveNetwork)
    network.active, network.spread, network.outputs, network.router = None, False, tuple(outputs), router
    parts = {column.name: column.labels for column in network.columns}
    return model.but(module=network.requires_grad_(False).eval(), labels=tuple(outputs), method=Full(), parts=parts,
                     fingerprint="")


def _fits(old: LabelModel, fresh: LabelModel, *, shared: bool) -> None:
    """ModelError where a column of the fresh model's shape cannot stand beside the older ones."""
    def shape(backbone: Backbone) -> dict[str, Any]:
        return {"family": backbone.family, **{key: value for key, value in backbone.describe().items()
                                              if key not in ("seed", "max_length")}}

    mine, theirs = old.module.backbone, fresh.module.backbone
    if (mine.width != theirs.width) if shared else (shape(mine) != shape(theirs)):
        raise ModelError(f"{old.name} was built on a network of another shape than {fresh.name} ({mine.family}, "
                         f"features of {mine.width} numbers, against {theirs.family}, {theirs.width}); columns stand "
                         "side by side only on one shape: name the earlier model's base under adapt.model")
