"""Progressive networks (Rusu et al. 2016): a new column for every task beside frozen older ones, with learned reads of
what those say. What an older column answers never changes, not by a bit.

Two sizes. A full column is a whole network of its own; where its backbone opens its layers (`walk`), every layer reads
the older columns' layer below it, as in the paper; of other backbones the head reads the pooled features. An adapter
column is a set of low-rank matrices beside one frozen base that all columns share, with a head of its own that reads
the older columns' features.

The network answers in two ways. `asked` gives it for one task: that column's answers. Without a task a router chooses a
column for each row (`luthier.adapt.router`); it looks at the untouched base model's features, since those of a network
that was trained on the first task tell that one's classes from each other, and not tasks.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from luthier.adapt.column_adapters import add_adapters, using
from luthier.adapt.head import Head
from luthier.adapt.lateral import Lateral
from luthier.adapt.network import HEAD, Network, Pool
from luthier.adapt.router import Router
from luthier.errors import ModelError

if TYPE_CHECKING:
    from luthier.adapt.backbones.base import Backbone
    from luthier.task import Task

NEVER = -1e4
"""Logit of a class that is not asked about: its probability is exactly 0 in float32 and float64."""
FLAT = 1e-3
"""What a row's log probabilities are multiplied by where the router abstains: nearly even, in the same order."""


class Column(nn.Module):
    """One task's own part: its whole backbone or its adapters' facts, its pooling, its reads and its head."""

    def __init__(self, name: str, labels: Sequence[str], network: Network, *, own: bool, older: Sequence[Sequence[int]],
                 reads: int = 0, adapter: Mapping[str, Any] | None = None):
        """`network` gives the parts; its backbone becomes the column's own, or is the shared base (`own` False).
        `older` are the widths of the layers that older columns show, by column; `reads` the units of a read's
        projection, 0 for none. Reads are drawn by torch's generator."""
        super().__init__()
        self.name, self.labels, self.units = name, tuple(labels), reads if older else 0
        self.adapter = None if adapter is None else dict(adapter)
        self.spec, self.pooling = network.spec, network.pooling
        self.backbone = network.backbone if own else None
        self.pool, self.head = network.pool, network.head
        self.reads = nn.ModuleDict()
        if not self.units:
            return
        shown = shown_widths(network.backbone) if own else [network.backbone.width]
        for at in range(1, len(shown)):
            self.reads[f"layer_{at}"] = Lateral([widths[at - 1] for widths in older], reads, shown[at])
        self.reads["head"] = Lateral([widths[-1] for widths in older], reads, len(labels))

    def describe(self) -> dict[str, Any]:
        """JSON-ready facts from which `restore` builds the same column."""
        return {"name": self.name, "labels": list(self.labels), "head": self.spec.dump(), "pooling": self.pooling,
                "reads": self.units, "adapter": self.adapter}


def shown_widths(backbone: Backbone) -> list[int]:
    """Widths of the layers that a backbone shows to newer columns, the features last."""
    return [*getattr(backbone, "units", (backbone.width,))] if hasattr(backbone, "walk") else [backbone.width]


class ProgressiveNetwork(Network):
    """Columns, and the frozen base: what adapter columns share, and what a router looks at. Looks like one Network:
    `backbone`, `head` and `spec` are those of the column that trains or is asked (`active`), else the first one's.

    Logits: of the active column, [rows, its labels]; with `spread`, and where no column is active, [rows, all
    `outputs`].
    """

    def __init__(self, columns: Sequence[Column], task: Task, *, base: Backbone | None, shared: bool):
        """`base` is the untouched base model, `shared` by adapter columns; None for full columns without a router."""
        nn.Module.__init__(self)
        self.base, self.columns, self.task_type = base, nn.ModuleList(columns), task.type
        self.shared = shared
        pooling = columns[0].pooling
        even = base is not None and base.reads == "text"
        # a pooling that learns belongs to a column, and the router looks at the base alone
        self.base_pool = Pool("mean" if pooling == "attention" else pooling, base.width) if base and even else None
        self.frozen: frozenset[str] = frozenset()
        self.active: int | None = None
        self.spread = False
        self.outputs: tuple[str, ...] = ()
        """All labels, in the order of the model's."""
        self.router: Router | None = None

    # What a Network shows

    @property
    def column(self) -> Column:
        """The active column, else the first."""
        found = self.columns[self.active or 0]
        assert isinstance(found, Column)
        return found

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        found = self.base if self.shared else self.column.backbone
        assert found is not None
        return found

    @property
    def head(self) -> nn.Sequential:  # type: ignore[override]
        return self.column.head

    @property
    def pool(self) -> Pool | None:  # type: ignore[override]
        return self.column.pool

    @property
    def spec(self) -> Head:  # type: ignore[override]
        return self.column.spec

    @property
    def pooling(self) -> str:  # type: ignore[override]
        return self.column.pooling

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, oldest first."""
        return tuple(column.name for column in self.columns)  # type: ignore[misc]

    def asked(self, name: str) -> ProgressiveNetwork:
        """The same network answering for one task; all labels keep their places, those of other tasks are impossible.
        ModelError for a task that no column has."""
        if name not in self.names:
            raise ModelError(f"the model has no task '{name}'; it has: {', '.join(self.names)}")
        return self.view(self.names.index(name), spread=True)

    def view(self, active: int | None, *, spread: bool = False) -> ProgressiveNetwork:
        """The same modules with another column active."""
        found = copy.copy(self)
        found.active, found.spread = active, spread
        return found

    # Reading

    def features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The frozen base's features [rows, width] where no column is active (what the router looks at); else those of
        the columns that the active one reads, and its own last, side by side [rows, columns · width]."""
        if "features" in inputs:
            return inputs["features"]
        if self.active is None:
            return self._base_features(inputs)
        return torch.cat(self._features(inputs, self.active), -1)

    def own(self, features: torch.Tensor | Any) -> Any:
        """Of `features`, those that the active column's head stands on."""
        return features[..., -self.backbone.width :]

    def _base_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.base is None:  # full columns without a router: the first column's, for whoever wants features
            return self._features(inputs, 0)[0]
        with using(""):
            found = self.base(inputs)
        return found if self.base_pool is None else self.base_pool(found, inputs.get("attention_mask"))

    def _features(self, inputs: dict[str, torch.Tensor], last: int) -> list[torch.Tensor]:
        """Pooled features [rows, width] of the columns up to `last`; of `last` alone where it reads no others."""
        needed = range(last + 1) if len(self.columns[last].reads) else [last]  # type: ignore[arg-type]
        said: list[list[torch.Tensor]] = []
        for at in needed:
            said.append(self._layers(inputs, at, said))
        return [layers[-1] for layers in said]

    def _layers(self, inputs: dict[str, torch.Tensor], at: int, older: Sequence[Sequence[torch.Tensor]]
                ) -> list[torch.Tensor]:
        """What a column's layers say, its pooled features last. `older`: the same of the columns before it."""
        column: Any = self.columns[at]
        if column.backbone is not None and hasattr(column.backbone, "walk"):
            def added(layer: int) -> torch.Tensor | None:
                name = f"layer_{layer}"
                if name not in column.reads:
                    return None
                return column.reads[name]([layers[layer - 1] for layers in older])

            return column.backbone.walk(inputs, added)
        if column.backbone is not None:
            found = column.backbone(inputs)
        else:
            assert self.base is not None
            with using(str(at)), _still(self.base) if at != self.active else contextlib.nullcontext():
                found = self.base(inputs)
        return [found if column.pool is None else column.pool(found, inputs.get("attention_mask"))]

    # Answering

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.active is None:
            return self._routed(inputs) if self.router is not None else self._mean(inputs)
        logits = self._logits(self.features(inputs), self.active)
        return self._placed(logits, self.active, NEVER) if self.spread else logits

    def _logits(self, features: torch.Tensor, at: int) -> torch.Tensor:
        """A column's own logits [rows, its labels] from the features that `_features` gave, side by side."""
        column: Any = self.columns[at]
        parts = features.split(self.backbone.width, -1)
        last = column.head[-1].weight.dtype
        found = column.head(parts[-1].to(last))
        return found + column.reads["head"](parts[:-1]).to(last) if "head" in column.reads else found

    def _placed(self, logits: torch.Tensor, at: int, rest: float) -> torch.Tensor:
        """A column's values at the places of its labels among all, and `rest` at the others."""
        column: Any = self.columns[at]
        found = logits.new_full((len(logits), len(self.outputs)), rest)
        found[:, [self.outputs.index(label) for label in column.labels]] = logits
        return found

    def route(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The column of each row, int64 [rows], and whether the row is in scope, bool [rows]."""
        assert self.router is not None
        return self.router(self._base_features(inputs))

    def _routed(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Log probabilities of all classes from each row's column. The share of validation rows that went to a wrong
        column is left to the other columns' classes, evenly."""
        chosen, inside = self.route(inputs)
        found = torch.empty(len(chosen), len(self.outputs), device=chosen.device)
        for at in sorted({int(one) for one in chosen}):
            mine = (chosen == at).nonzero().squeeze(-1)
            picked = {name: value[mine] for name, value in inputs.items()}
            logs = self._logits(torch.cat(self._features(picked, at), -1), at).float().log_softmax(-1)
            others = len(self.outputs) - logs.shape[-1]
            if others:
                assert self.router is not None  # no class of another column is likelier than the column's likeliest
                error = min(max(float(self.router.error), 1e-6), 0.5 * others / len(self.outputs))
                rest = torch.tensor(error / others).log().item()
                found[mine] = self._placed(logs + torch.tensor(1 - error).log(), at, rest)
            else:
                found[mine] = self._placed(logs, at, NEVER)
        return torch.where(inside[:, None], found, FLAT * found)

    def _mean(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Log of the mean of all columns' probabilities: without a router every column is as likely as the others."""
        logs = []
        for at in range(len(self.columns)):
            own = self._logits(torch.cat(self._features(inputs, at), -1), at).float().log_softmax(-1)
            logs.append(self._placed(own, at, NEVER))
        return torch.stack(logs).logsumexp(0) - torch.tensor(float(len(logs))).log()

    # Training

    def groups(self) -> dict[str, list[str]]:
        """Names of the active column's parameters (and of the shared base's) by layer group; without an active column,
        of all columns."""
        if self.active is None:
            found: dict[str, list[str]] = {}
            for at in range(len(self.columns)):
                for group, names in self.view(at).groups().items():
                    found.setdefault(group, []).extend(name for name in names if name not in found[group])
            return found
        inside, own = ("base.", "") if self.shared else \
            (f"columns.{self.active}.backbone.", f"columns.{self.active}.backbone.")
        found = {group: [inside + name for name in names] for group, names in self.backbone.groups().items()}
        layers, top = [*found], []
        for name, _ in self.column.named_parameters():
            whole = f"columns.{self.active}.{name}"
            if own and whole.startswith(own):
                continue
            read = name.split(".")[1].partition("_")[2] if name.startswith("reads.layer_") else ""
            (found[layers[int(read)]] if read else top).append(whole)
        return {**found, HEAD: top}

    def train(self, mode: bool = True) -> ProgressiveNetwork:
        """Only the active column is ever in training mode."""
        Network.train(self, mode and self.active is not None)
        for at, column in enumerate(self.columns):
            if at != self.active:
                column.eval()
        if self.base is not None and not self.shared:
            self.base.eval()
        return self

    @property
    def pool_trains(self) -> bool:
        return self.column.pool is not None and self.column.pool.score is not None


@contextlib.contextmanager
def _still(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: an older column speaks through the base that a newer one is training beside."""
    training = [inner for inner in module.modules() if inner.training]
    for inner in training:
        inner.training = False
    try:
        yield
    finally:
        for inner in training:
            inner.training = True


def describe(network: ProgressiveNetwork) -> dict[str, Any]:
    """What network.json says of a progressive network, under `columns`."""
    return {"shared": network.shared, "base": network.base is not None, "outputs": list(network.outputs),
            "router": None if network.router is None else network.router.describe(),
            "each": [column.describe() for column in network.columns]}  # type: ignore[operator]


def num_backbones(facts: Mapping[str, Any]) -> int:
    """How many backbones `restore` takes."""
    return 1 if facts["shared"] else len(facts["each"]) + facts["base"]


def restore(facts: Mapping[str, Any], backbones: Sequence[Backbone], task: Task) -> ProgressiveNetwork:
    """The architecture that `describe` described, on the shared backbone, or on one for each full column and one for
    the base; its weights are still to be filled in."""
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and none of them is kept
        found = ProgressiveNetwork(_restored(facts, backbones, task), task, shared=facts["shared"],
                                   base=backbones[-1] if facts["base"] else None)
    found.outputs = tuple(facts["outputs"])
    if facts["router"] is not None:
        found.router = Router(**facts["router"])
    return found


def _restored(facts: Mapping[str, Any], backbones: Sequence[Backbone], task: Task) -> list[Column]:
    columns: list[Column] = []
    older: list[list[int]] = []
    for at, told in enumerate(facts["each"]):
        backbone = backbones[0] if facts["shared"] else backbones[at]
        backbone.processor = backbones[0].processor
        network = Network(backbone, task, outputs=len(told["labels"]), head=Head(**told["head"]),
                          pooling=told["pooling"], seed=0)
        if told["adapter"] is not None:
            add_adapters(backbone, str(at), told["adapter"]["targets"], told["adapter"])
        columns.append(Column(told["name"], told["labels"], network, own=not facts["shared"], older=older,
                              reads=told["reads"], adapter=told["adapter"]))
        older.append([backbone.width] if facts["shared"] else shown_widths(backbone))
    return columns
