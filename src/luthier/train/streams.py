"""Filters over the stream of steps: validation, early stopping, best weights, checkpoints, logs, progress."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from luthier.progress import Progress
from luthier.store import tell_disk_trouble
from luthier.train.fit import Learner, StepDone

Steps = Iterable[StepDone]

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"


@dataclasses.dataclass
class Memory:
    """What the filters know beyond the weights; saved with every checkpoint."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    """Lowest validation loss so far; None before the first."""
    first_loss: float | None = None
    """Validation loss before training."""
    misses: int = 0
    """Validations since the best one."""
    tokens: int = 0
    supervised: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    frozen: str = ""
    """Hash of the parameters that must not move."""


def counted(steps: Steps, memory: Memory) -> Iterator[StepDone]:
    """Keep the totals of the run."""
    for done in steps:
        memory.step = done.step
        memory.tokens += done.tokens
        memory.supervised += done.supervised
        memory.cpu_s += done.cpu_s
        memory.wall_s += done.wall_s
        yield done


def validated(steps: Steps, memory: Memory, measure: Callable[[], float], keep_best: Callable[[], None], *,
              every: int, total: int) -> Iterator[StepDone]:
    """Measure after every `every` updates and after the last; keep the weights whenever they are the best so far."""
    for done in steps:
        if done.step % every == 0 or done.step == total:
            loss = measure()
            better = memory.best_loss is None or loss < memory.best_loss
            if better:
                memory.best_loss, memory.best_step, memory.misses = loss, done.step, 0
                keep_best()
            else:
                memory.misses += 1
            done = dataclasses.replace(done, validation=loss, best=better)
        yield done


def patient(steps: Steps, memory: Memory, *, patience: int) -> Iterator[StepDone]:
    """End the stream after `patience` validations without a new best (0: never)."""
    for done in steps:
        yield done
        if patience and memory.misses >= patience:
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
                writer.flush()
            yield done


def shown(steps: Steps, progress: Progress, *, total: int, start: int) -> Iterator[StepDone]:
    """A progress bar with loss and time left."""
    with progress.track("train", total, unit="updates", done=start) as bar:
        for done in steps:
            extra = {} if done.validation is None else {"validation": done.validation}
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


def save_checkpoint(path: Path, learner: Learner, memory: Memory) -> None:
    """Weights, optimizer, random state and position: all that the next update depends on."""
    tensors = {**learner.optimizer.state(), "random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    write_tensors(path, tensors, dataclasses.asdict(memory))


def load_checkpoint(path: Path, learner: Learner) -> Memory:
    """Continue where `save_checkpoint` stood."""
    tensors, note = read_tensors(path)
    learner.optimizer.load(tensors)
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
    return Memory(**note)
