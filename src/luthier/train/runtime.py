"""Device, precision, threads and ranks: the only place that knows them (accelerate does the work)."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Runtime:
    """Where a training runs."""

    device: torch.device
    rank: int
    ranks: int

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, passes: Sequence[T]) -> list[T]:
        """This rank's passes of an update; gradients are summed over ranks, so the split changes nothing."""
        return list(passes[self.rank :: self.ranks])

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add up tensors over all ranks, in place."""
        if self.ranks > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def wait(self) -> None:
        if self.ranks > 1:
            torch.distributed.barrier()


def start() -> Runtime:
    """The process group that `accelerate launch` or `torchrun` set up, or this process alone."""
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    assert state.device is not None  # accelerate types it as optional
    return Runtime(device=state.device, rank=state.process_index, ranks=state.num_processes)


def default_threads() -> int:
    """OMP_NUM_THREADS where it is set; one on a machine of two cores, torch's choice (one a core) on a larger one.

    Threads wait for each other by spinning: on a busy two-core machine, two took 8 times the CPU seconds and 8 times
    the wall time of one. Not chosen by a stopwatch, because the number of threads changes the last bits of a result.
    """
    return 1 if "OMP_NUM_THREADS" not in os.environ and (os.cpu_count() or 1) <= 2 else torch.get_num_threads()


@contextlib.contextmanager
def settings(*, threads: int, deterministic: bool, seed: int) -> Iterator[None]:
    """Threads, seeds and algorithms for a run; put back afterwards, because the process may be a notebook.

    `deterministic` also means that float32 is float32: by default convolutions on a GPU round their inputs to 10 bits
    (TF32), and a row's loss then depends on the batch that it stands in (measured: by 9e-4 on an H100).
    """
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
              torch.utils.deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined]
    torch.set_num_threads(threads or default_threads())
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs, proves nothing
    try:
        with torch.random.fork_rng(), full_float32() if deterministic else contextlib.nullcontext():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.utils.deterministic.fill_uninitialized_memory = before[2]  # type: ignore[attr-defined]


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Float32 with all of its bits, also where a GPU has a faster kind."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(meminfo["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: believe that half of the machine is free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes (on a GPU: its allocated peak)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
