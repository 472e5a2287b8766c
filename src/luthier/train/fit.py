"""The loop: one generator that yields after every update. Everything else filters its stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from luthier.errors import ContractError, ModelError
from luthier.train.attention import rows_of
from luthier.train.optim import MasterAdamW
from luthier.train.runtime import Runtime


class Batch(Protocol):
    """What goes through the model in one forward and backward pass."""

    targets: torch.Tensor
    """What is learned, one entry for each token or row that carries loss."""
    weights: torch.Tensor
    """float32, the weight of each of them in the mean; zero where there is none."""
    num_tokens: int
    lengths: tuple[int, ...] | None
    """Tokens of the examples that share one row; None where every example has its own."""

    def to(self, device: torch.device | str) -> Any: ...


class Feed(Protocol):
    """Turns an update's examples into passes."""

    def passes(self, examples: Sequence[Any], *, step: int | None = None) -> Sequence[Batch]:
        """`step` is the update (from 1) that they train, and seeds augmentation; None where nothing is trained, and
        examples are then taken as they are."""
        ...


class Order(Protocol):
    """Which examples form which update."""

    @property
    def updates_per_epoch(self) -> int: ...

    def epoch(self, epoch: int) -> Sequence[Sequence[int]]:
        """The updates of an epoch (0-based), in order; a pure function, so that a resumed run knows what comes next."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """One update."""

    step: int
    """Updates done, from 1."""
    epoch: int
    """0-based."""
    loss: float
    """Mean over the update's supervised tokens, in nats, before the update."""
    penalty: float
    """Sum of the regularizers' penalties on the weights, in nats."""
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    examples: int
    tokens: int
    supervised: int
    cpu_s: float
    """Process CPU seconds of the update."""
    wall_s: float
    validation: float | None = None
    """Mean loss on the validation set after the update, where it was measured."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Other figures measured on the validation set, such as accuracy."""
    best: bool = False
    """The validation is the best so far."""
    improved: bool = False
    """It is the best so far while training: weights that training began with do not count."""
    taught: float = 0.0
    """What the regularizers' teachers contributed to the loss, in nats."""


class Diverged(ModelError):
    """The loss or the gradient of an update is no longer a number."""


class Learner:
    """A model, its loss and its optimizer: what an update changes."""

    def __init__(self, module: Any, objective: Callable[[Any, float], torch.Tensor], optimizer: MasterAdamW,
                 runtime: Runtime, *, feed: Any, clip_norm: float,
                 penalties: Mapping[str, Callable[[], torch.Tensor]] | None = None):
        """`objective(batch, denominator)` is the weighted sum of the batch's losses divided by `denominator`; `feed`
        is a Feed."""
        self.module, self.objective, self.optimizer, self.runtime = module, objective, optimizer, runtime
        self.feed, self.clip_norm = feed, clip_norm
        self.penalties = dict(penalties or {})
        self.scale = 1.0
        """The learning rate is multiplied by this; a filter may lower it."""
        stored = module.state_dict()  # tells which buffers are more than a table that can be made again
        self.buffers = {name: value for name, value in module.named_buffers() if name in stored}
        """What else is part of the weights, such as a batch norm's running figures."""

    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of the float32 weights that may train, and of the buffers (`buffer/…`)."""
        return {**self.optimizer.weights(),
                **{f"buffer/{name}": value.detach().clone().cpu() for name, value in self.buffers.items()}}

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put back what `weights` gave."""
        self.optimizer.set_weights(weights)
        for name, value in self.buffers.items():
            value.copy_(weights[f"buffer/{name}"])

    def state(self) -> dict[str, torch.Tensor]:
        """Weights, buffers and moments, for a checkpoint."""
        return {**self.optimizer.state(), **{f"buffer/{name}": value.detach() for name, value in self.buffers.items()}}

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        self.optimizer.load(state)
        for name, value in self.buffers.items():
            value.copy_(state[f"buffer/{name}"])

    def train_only(self, factors: Mapping[str, float]) -> None:
        """From now on parameters learn at the rate times their factor; those without one, or with 0, are frozen."""
        for name, parameter in self.optimizer.parameters.items():
            parameter.requires_grad_(factors.get(name, 0.0) > 0)
        self.optimizer.set_factors(factors)

    def gradients(self, examples: Sequence[Any], *, step: int | None = None) -> tuple[float, float, Sequence[Batch]]:
        """Fill the masters' gradients for one update; returns loss, penalty and the passes.

        The loss is divided by the supervised weight of the whole update, known before the first pass, so that passes
        and ranks of any size give the same gradient.
        """
        self.module.train()
        passes = self.feed.passes(examples, step=step)
        denominator = float(sum(batch.weights.sum(dtype=torch.float64) for batch in passes))
        if denominator <= 0:
            raise ModelError("an update without a single target of positive weight; check the examples")
        loss = torch.zeros((), dtype=torch.float64)
        for batch in self.runtime.share(passes):
            with rows_of(batch.lengths):
                found = self.objective(batch.to(self.runtime.device), denominator)
                if not found.requires_grad:
                    raise ContractError("contract point 9 (layer groups): the loss does not depend on any parameter "
                                        "that may train, so nothing would be learned")
                found.backward()
            self.optimizer.gather()
            loss += found.detach().double().cpu()
        penalty = 0.0
        if self.penalties and self.runtime.is_main:
            extra = torch.stack([bound() for bound in self.penalties.values()]).sum()
            if extra.requires_grad:
                extra.backward()
            self.optimizer.gather()
            penalty = float(extra.detach())
        if self.runtime.ranks > 1:
            self.optimizer.fill()
            self.runtime.sum([*self.optimizer.gradients(), loss])
        return float(loss), penalty, passes

    def update(self, examples: Sequence[Any], *, learning_rate: float, step: int, epoch: int) -> StepDone:
        """One update; ModelError when loss or gradient stops being a number, before any weight changes."""
        cpu, wall = time.process_time(), time.monotonic()
        learning_rate *= self.scale
        take_taught = getattr(self.objective, "take_taught", float)
        take_taught()  # what was measured before is not part of this update
        loss, penalty, passes = self.gradients(examples, step=step)
        norm = self.optimizer.clip(self.clip_norm)
        if not all(map(_finite, (loss, penalty, norm))):
            raise Diverged(
                f"training diverged at update {step}: loss {loss:g}, penalty {penalty:g}, gradient norm {norm:g}; "
                f"lower the learning rate (now {learning_rate:g}), or set train.precision: float32"
            )
        self.optimizer.step(learning_rate)
        return StepDone(
            step=step, epoch=epoch, loss=loss, penalty=penalty, learning_rate=learning_rate, grad_norm=norm,
            examples=len(examples), tokens=sum(batch.num_tokens for batch in passes),
            supervised=sum(len(batch.targets) for batch in passes),
            cpu_s=time.process_time() - cpu, wall_s=time.monotonic() - wall, taught=take_taught(),
        )

    @torch.no_grad()
    def evaluate(self, examples: Sequence[Any]) -> float:
        """Mean loss over the targets of `examples`, each counted once, in nats, in evaluation mode."""
        self.module.eval()
        total = torch.zeros(2, dtype=torch.float64)
        for batch in self.runtime.share(self.feed.passes(examples)):
            batch.weights.copy_(batch.weights > 0)
            with rows_of(batch.lengths):
                total[0] += self.objective(batch.to(self.runtime.device), 1.0).double().cpu()
            total[1] += float(batch.weights.sum())
        self.runtime.sum([total])
        return float(total[0] / total[1])


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def fit(learner: Learner, examples: Sequence[Any], order: Order, *, total: int, rate: Callable[[int], float],
        start: int = 0) -> Iterator[StepDone]:
    """Train in place from update `start` up to `total`, yielding after each. Stop by no longer iterating."""
    per_epoch = order.updates_per_epoch
    step = start
    while step < total:
        epoch, offset = divmod(step, per_epoch)
        for indices in order.epoch(epoch)[offset:]:
            if step >= total:
                return
            done = learner.update([examples[index] for index in indices], learning_rate=rate(step), step=step + 1,
                                  epoch=epoch)
            step += 1
            yield done
