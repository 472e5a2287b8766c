"""Filters over the stream of steps: validation, early stopping, best weights, checkpoints, logs, progress."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from luthier.progress import Progress
from luthier.store import tell_disk_trouble
from luthier.train.average import Mean
from luthier.train.fit import Learner, StepDone
from luthier.train.plans import Plan

Steps = Iterable[StepDone]

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"


@dataclasses.dataclass
class Memory:
    """What the filters know beyond the weights; saved with every checkpoint."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    """Validation loss of the best weights so far; None before the first."""
    best_score: list[float] = dataclasses.field(default_factory=list)
    """What they were chosen by, lower is better; empty before the first."""
    first_loss: float | None = None
    """Validation loss before training."""
    misses: int = 0
    """Validations in a row in which neither the score nor the loss was better than the best one while training."""
    run_score: list[float] = dataclasses.field(default_factory=list)
    """The best score: what training began with does not count, or a head that begins well would end the run before its
    learning rate has come down."""
    run_loss: float | None = None
    """The lowest loss while training; None before the first."""
    tokens: int = 0
    supervised: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    frozen: str = ""
    """Hash of the parameters that must not move."""
    phase: int = 0
    """Phase of the plan."""
    phase_start: int = 0
    """Updates done when it began."""
    scale: float = 1.0
    """What the schedule `plateau` has made of the learning rate."""
    plateau: int = 0
    """Validations without a new best since the rate was last lowered."""
    averaged: int = 0
    """Weights in the running mean."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """One measurement on the validation set."""

    score: tuple[float, ...]
    """What the best weights go by: lower is better, ties are broken by the next number."""
    loss: float
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)


def counted(steps: Steps, memory: Memory) -> Iterator[StepDone]:
    """Keep the totals of the run."""
    for done in steps:
        memory.step = done.step
        memory.tokens += done.tokens
        memory.supervised += done.supervised
        memory.cpu_s += done.cpu_s
        memory.wall_s += done.wall_s
        yield done


def judge(found: Validation, memory: Memory, step: int, keep_best: Callable[[], None]) -> bool:
    """Whether this is the best validation so far; its weights are then kept."""
    score = [*found.score]
    better = not memory.best_score or score < memory.best_score
    if better:
        memory.best_score, memory.best_loss, memory.best_step = score, found.loss, step
        keep_best()
    if step:
        # Few validation rows make a metric move in coarse steps: while the loss still falls, training is not over.
        improved = memory.run_loss is None or score < memory.run_score or found.loss < memory.run_loss
        memory.run_score = score if memory.run_loss is None else min(memory.run_score, score)
        memory.run_loss = found.loss if memory.run_loss is None else min(memory.run_loss, found.loss)
        memory.misses = 0 if improved else memory.misses + 1
    return better


def validated(steps: Steps, memory: Memory, measure: Callable[[], Validation], keep_best: Callable[[], None], *,
              every: int, total: int) -> Iterator[StepDone]:
    """Measure after every `every` updates and after the last; keep the weights whenever they are the best so far."""
    for done in steps:
        if done.step % every == 0 or done.step == total:
            found = measure()
            better = judge(found, memory, done.step, keep_best)
            done = dataclasses.replace(done, validation=found.loss, values=found.values, best=better,
                                       improved=memory.misses == 0)
        yield done


def planned(steps: Steps, plan: Plan, learner: Learner, groups: Mapping[str, Sequence[str]], memory: Memory, *,
            per_epoch: int, begun: Callable[[], None] = lambda: None) -> Iterator[StepDone]:
    """Carry out a plan: freeze, unfreeze and set the rates of layer groups between updates. `begun` is called when the
    groups of a phase have been set, also after a resume."""
    names = [*groups]

    def begin() -> None:
        factors = plan.factors(names, memory.phase)
        learner.train_only({name: factor for group, factor in factors.items() for name in groups[group]})
        freeze = getattr(learner.module, "freeze", None)
        if freeze is not None:
            freeze(frozenset(group for group in names if not factors.get(group)))
        begun()

    begin()
    for done in steps:
        misses = memory.misses if done.validation is not None else None
        if memory.phase + 1 < plan.phases(names) and plan.ends(
                memory.phase, epochs=(done.step - memory.phase_start) / per_epoch, misses=misses):
            memory.phase, memory.phase_start, memory.misses = memory.phase + 1, done.step, 0
            begin()
        yield done


def lowered(steps: Steps, learner: Learner, memory: Memory, *, patience: int) -> Iterator[StepDone]:
    """The schedule `plateau`: halve the rate after `patience` validations in a row without a new best while training
    (`Memory.misses`: a warm start that nothing has beaten yet does not count)."""
    learner.scale = memory.scale
    for done in steps:
        if done.validation is not None:
            memory.plateau = 0 if done.improved else memory.plateau + 1
            if memory.plateau >= patience:
                memory.plateau, memory.scale = 0, memory.scale / 2
                learner.scale = memory.scale
        yield done


def watched(steps: Steps, watch: Callable[[StepDone], None]) -> Iterator[StepDone]:
    """Show every update to a watcher, who may end the run by raising."""
    for done in steps:
        watch(done)
        yield done


def patient(steps: Steps, memory: Memory, *, patience: int, last_phase: int = 0) -> Iterator[StepDone]:
    """End the stream after `patience` validations without a new best (0: never), but not before the plan's last phase
    has begun: a head that has learned what it can is no reason to leave the layers below it frozen."""
    def over() -> bool:
        return bool(patience) and memory.misses >= patience and memory.phase >= last_phase

    if over():  # killed between the last update and the end of the run
        return
    for done in steps:
        yield done
        if over():
            return


def logged(steps: Steps, folder: Path, *, start: int) -> Iterator[StepDone]:
    """steps.jsonl, one line per update, and TensorBoard events; a resumed run continues both after update `start`."""
    from torch.utils.tensorboard import SummaryWriter

    file = folder / "steps.jsonl"
    kept = []
    if start and file.is_file():
        for line in file.read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a killed process may have left half a line
                if json.loads(line)["step"] <= start:
                    kept.append(line)
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
    with tell_disk_trouble(folder), file.open("w", encoding="utf-8") as out, contextlib.closing(writer):
        out.writelines(line + "\n" for line in kept)
        for done in steps:
            out.write(json.dumps(dataclasses.asdict(done)) + "\n")
            out.flush()
            writer.add_scalar("train/loss", done.loss, done.step)
            writer.add_scalar("train/learning_rate", done.learning_rate, done.step)
            writer.add_scalar("train/grad_norm", done.grad_norm, done.step)
            writer.add_scalar("train/tokens_per_cpu_s", done.tokens / max(done.cpu_s, 1e-9), done.step)
            if done.validation is not None:
                writer.add_scalar("validation/loss", done.validation, done.step)
                for name, value in done.values.items():
                    writer.add_scalar(f"validation/{name}", value, done.step)
                writer.flush()
            yield done


def shown(steps: Steps, progress: Progress, *, total: int, start: int) -> Iterator[StepDone]:
    """A progress bar with loss and time left."""
    with progress.track("train", total, unit="updates", done=start) as bar:
        for done in steps:
            extra = {} if done.validation is None else {"validation": done.validation, **done.values}
            bar.advance(1, loss=done.loss, **extra)
            yield done


def saved(steps: Steps, save: Callable[[], None], *, every_s: float) -> Iterator[StepDone]:
    """A checkpoint every `every_s` seconds, and one before leaving when asked to end (SIGTERM, Ctrl-C)."""
    asked: list[int] = []
    last = time.monotonic()
    with _signals(asked.append):
        for done in steps:
            if asked:
                save()
                if asked[0] == signal.SIGINT:
                    raise KeyboardInterrupt
                raise SystemExit(128 + asked[0])
            if time.monotonic() - last >= every_s:
                save()
                last = time.monotonic()
            yield done


@contextlib.contextmanager
def _signals(note: Callable[[int], None]) -> Iterator[None]:
    """Turn the first SIGTERM or SIGINT into a note; a second one acts as usual. Only the main thread may do so."""
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        note(number)
        signal.signal(number, before[number])

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, handle)
    except ValueError:
        before.clear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], note: Mapping[str, Any]) -> None:
    """One file, atomic and synced: a killed process leaves the old one or the new one."""
    aside = path.with_name(f".{path.name}.tmp")
    with tell_disk_trouble(path.parent):
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, aside,
                  metadata={"note": json.dumps(note)})
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(str(path), framework="pt") as file:  # type: ignore[no-untyped-call]
        note = json.loads((file.metadata() or {}).get("note", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, note  # noqa: SIM118  (not a dict)


def save_checkpoint(path: Path, learner: Learner, memory: Memory, mean: Mean | None = None) -> None:
    """Weights, optimizer, random state, running mean and position: all that the next update depends on."""
    tensors = {**learner.state(), "random/cpu": torch.get_rng_state()}
    if mean is not None:
        memory.averaged = mean.count
        tensors |= {f"mean/{name}": value for name, value in mean.tensors.items()}
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    write_tensors(path, tensors, dataclasses.asdict(memory))


def load_checkpoint(path: Path, learner: Learner, mean: Mean | None = None) -> Memory:
    """Continue where `save_checkpoint` stood."""
    tensors, note = read_tensors(path)
    learner.load(tensors)
    if mean is not None:
        mean.tensors = {name.removeprefix("mean/"): value for name, value in tensors.items()
                        if name.startswith("mean/")}
        mean.count = int(note["averaged"])
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
    return Memory(**note)
