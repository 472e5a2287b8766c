"""The loop: one generator that yields after every update. Everything else filters its stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from luthier.errors import ContractError, ModelError
from luthier.train.attention import rows_of
from luthier.train.batches import Batch, Layout, Plan, collate, split_passes
from luthier.train.objectives import Objective
from luthier.train.optim import MasterAdamW
from luthier.train.render import Rendered
from luthier.train.runtime import Runtime


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
    """Sum of the regularizers, in nats."""
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
    """Mean token loss on the validation set after the update, where it was measured."""
    best: bool = False
    """The validation loss is the lowest so far."""


class Learner:
    """A model, its loss and its optimizer: what an update changes."""

    def __init__(self, module: Any, objective: Objective, optimizer: MasterAdamW, runtime: Runtime, *,
                 layout: Layout, pass_tokens: int, clip_norm: float,
                 penalties: Mapping[str, Callable[[], torch.Tensor]] | None = None):
        self.module, self.objective, self.optimizer, self.runtime = module, objective, optimizer, runtime
        self.layout: Layout = layout
        self.pass_tokens, self.clip_norm = pass_tokens, clip_norm
        self.penalties = dict(penalties or {})

    def passes(self, examples: Sequence[Rendered]) -> list[Batch]:
        """The update's examples as batches, on the device's doorstep."""
        lengths = [len(example.ids) for example in examples]
        return [collate([examples[index] for index in group], self.layout)
                for group in split_passes(range(len(examples)), lengths, self.layout, self.pass_tokens)]

    def gradients(self, examples: Sequence[Rendered]) -> tuple[float, float, list[Batch]]:
        """Fill the masters' gradients for one update; returns loss, penalty and the passes.

        The loss is divided by the supervised weight of the whole update, known before the first pass, so that passes
        and ranks of any size give the same gradient.
        """
        self.module.train()
        passes = self.passes(examples)
        denominator = float(sum(batch.weights.sum(dtype=torch.float64) for batch in passes))
        if denominator <= 0:
            raise ModelError("an update without a single supervised token of positive weight; check the examples")
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

    def update(self, examples: Sequence[Rendered], *, learning_rate: float, step: int, epoch: int) -> StepDone:
        """One update; ModelError when loss or gradient stops being a number, before any weight changes."""
        cpu, wall = time.process_time(), time.monotonic()
        loss, penalty, passes = self.gradients(examples)
        norm = self.optimizer.clip(self.clip_norm)
        if not all(map(_finite, (loss, penalty, norm))):
            raise ModelError(
                f"training diverged at update {step}: loss {loss:g}, penalty {penalty:g}, gradient norm {norm:g}; "
                f"lower the learning rate (now {learning_rate:g}), or set train.precision: float32"
            )
        self.optimizer.step(learning_rate)
        return StepDone(
            step=step, epoch=epoch, loss=loss, penalty=penalty, learning_rate=learning_rate, grad_norm=norm,
            examples=len(examples), tokens=sum(batch.num_tokens for batch in passes),
            supervised=sum(len(batch.targets) for batch in passes),
            cpu_s=time.process_time() - cpu, wall_s=time.monotonic() - wall,
        )

    @torch.no_grad()
    def evaluate(self, examples: Sequence[Rendered]) -> float:
        """Mean loss over the supervised tokens of `examples`, in nats, in evaluation mode."""
        self.module.eval()
        total = torch.zeros(2, dtype=torch.float64)
        lengths = [len(example.ids) for example in examples]
        groups = split_passes(range(len(examples)), lengths, self.layout, self.pass_tokens)
        for group in self.runtime.share(groups):
            batch = collate([examples[index] for index in group], self.layout)
            batch.weights.fill_(1.0)
            with rows_of(batch.lengths):
                total[0] += self.objective(batch.to(self.runtime.device), 1.0).double().cpu()
            total[1] += len(batch.targets)
        self.runtime.sum([total])
        return float(total[0] / total[1])


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def fit(learner: Learner, examples: Sequence[Rendered], plan: Plan, *, total: int, rate: Callable[[int], float],
        start: int = 0) -> Iterator[StepDone]:
    """Train in place from update `start` up to `total`, yielding after each. Stop by no longer iterating."""
    per_epoch = plan.updates_per_epoch
    step = start
    while step < total:
        epoch, offset = divmod(step, per_epoch)
        for indices in plan.epoch(epoch)[offset:]:
            if step >= total:
                return
            done = learner.update([examples[index] for index in indices], learning_rate=rate(step), step=step + 1,
                                  epoch=epoch)
            step += 1
            yield done
