"""Map a pure function over items in worker processes, each item under a time limit and a memory limit.

`Local` is the executor of one machine; another one (Ray) docks at the same `Executor` protocol. Parsers of other
people's files crash, hang and eat memory: here that costs one item, never the run.

Workers are plain Python processes that run this very file, not `multiprocessing` children: those import the user's
main script again, which breaks every script without an `if __name__ == "__main__"` line. A worker imports nothing but
the standard library until the function arrives.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import IO, Any, Literal, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

START_TIMEOUT_S = 120
"""A worker that has not imported the function after this many seconds is broken, not slow."""


@dataclass(frozen=True)
class Failure:
    """What the executor yields in place of a result when an item could not be worked on."""

    reason: Literal["timeout", "memory", "crashed", "error"]
    detail: str
    """One line for a person: the limit that was met, the signal, or the exception."""


class Executor(Protocol):
    """Where the work of a stage runs."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], *, timeout_s: float,
            memory_mb: float) -> Iterator[tuple[Item, Result | Failure]]:
        """Yield (item, result or `Failure`) in the order of the items.

        `function` and its results must pickle; it may not rely on state left by other items. `timeout_s` is wall time
        for one item; `memory_mb` is the resident memory (MiB) that the process working on it may reach.
        """
        ...


class Local:
    """Worker processes on this machine, reused from item to item and replaced when they fail.

    They die with the parent, also when it is killed with `kill -9`.
    """

    def __init__(self, workers: int = 0):
        """`workers` processes at most; 0 means one per processor that this process may use."""
        self.workers = workers or _num_processors()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], *, timeout_s: float,
            memory_mb: float) -> Iterator[tuple[Item, Result | Failure]]:
        """See `Executor.map`. Items are drawn as they are needed; at most 16 per worker wait for their turn.

        Raises RuntimeError when a worker cannot start or cannot import `function`.
        """
        start = pickle.dumps((list(sys.path), os.getpid(), _by_reference(function)))
        source = iter(enumerate(items))
        waiting: dict[int, Item] = {}  # drawn and not yet yielded
        finished: dict[int, Any] = {}
        workers: list[_Worker] = []
        upcoming = 0
        exhausted = False
        try:
            while True:
                while upcoming in finished:
                    yield waiting.pop(upcoming), finished.pop(upcoming)
                    upcoming += 1
                while not exhausted and len(waiting) < 16 * self.workers:
                    idle = next((worker for worker in workers if worker.job is None), None)
                    if idle is None and len(workers) >= self.workers:
                        break
                    number, item = next(source, (-1, None))
                    if number < 0:
                        exhausted = True
                        break
                    if idle is None:
                        idle = _Worker(start)
                        workers.append(idle)
                    waiting[number] = item  # type: ignore[assignment]
                    idle.give(number, item, timeout_s, memory_mb)
                busy = [worker for worker in workers if worker.job is not None]
                if not busy:
                    if exhausted and not waiting:
                        return
                    continue
                wait([worker.pipe for worker in busy], timeout=_POLL_S)
                for worker in busy:
                    outcome = worker.look(memory_mb)
                    if outcome is None:
                        continue
                    assert worker.job is not None
                    finished[worker.job] = outcome.value
                    worker.job = None
                    if not outcome.reusable:
                        worker.stop()
                        workers.remove(worker)
        finally:
            for worker in workers:
                worker.stop()


_POLL_S = 0.05
"""How often limits are looked at. A process that allocates faster than this meets its own limit first."""


@dataclass
class _Outcome:
    value: Any
    reusable: bool


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, start: bytes):
        near, far = _pair()
        self.lifeline_read, self.lifeline = os.pipe()
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop(); what a crash says
        main = "main" if threading.current_thread() is threading.main_thread() else "thread"
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(far.fileno()), str(self.lifeline_read), main],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.errors, env=environment,
                pass_fds=(far.fileno(), self.lifeline_read), start_new_session=True,
            )
        finally:
            far.close()
            os.close(self.lifeline_read)
        self.pipe = near
        self.job: int | None = None
        self.deadline = self.timeout_s = 0.0
        self.ready = False
        self.peak = 0.0
        self.queued: tuple[int, bytes, float, float] | None = None
        with contextlib.suppress(OSError):  # a child that died at once is seen as end of file in look()
            self.pipe.send_bytes(start)
        self.deadline = time.monotonic() + START_TIMEOUT_S

    def give(self, number: int, item: Any, timeout_s: float, memory_mb: float) -> None:
        self.job, self.timeout_s, self.peak = number, timeout_s, 0.0
        self.queued = (number, pickle.dumps((memory_mb, item)), timeout_s, memory_mb)
        if self.ready:
            self._send()

    def _send(self) -> None:
        assert self.queued is not None
        self.errors.seek(0)
        self.errors.truncate()
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(self.queued[1])
        self.deadline = time.monotonic() + self.timeout_s  # import time of the function is not the item's fault

    def look(self, memory_mb: float) -> _Outcome | None:
        """None while the item is being worked on."""
        if self.pipe.poll():
            return self._receive(memory_mb)
        used = _resident_mb(self.process.pid)
        self.peak = max(self.peak, used)
        if self.ready and used > memory_mb:
            return _Outcome(Failure("memory", f"needed more than {memory_mb:.0f} MB of memory"), False)
        if time.monotonic() > self.deadline:
            if not self.ready:
                raise RuntimeError(f"a worker process did not start within {START_TIMEOUT_S} s")
            return _Outcome(Failure("timeout", f"took more than {self.timeout_s:g} s"), False)
        return None

    def _receive(self, memory_mb: float) -> _Outcome | None:
        try:
            kind, value = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._died(memory_mb)
        if kind == "ready":
            self.ready = True
            self._send()
            return None
        if kind == "refused":
            raise RuntimeError(f"the worker cannot import the function to run: {value}")
        if kind == "result":
            # A worker that a big item left fat would make the next one look guilty: start a fresh one.
            return _Outcome(value, _resident_mb(self.process.pid) < memory_mb / 2)
        if kind == "memory":
            return _Outcome(Failure("memory", f"needed more than {memory_mb:.0f} MB of memory"), False)
        return _Outcome(Failure("error", value), True)

    def _died(self, memory_mb: float) -> _Outcome:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        if not self.ready:
            raise RuntimeError(f"a worker process died while starting: {self._last_words() or self.process.returncode}")
        code = self.process.returncode
        # Native code that gets no memory aborts or faults: near the limit that is what it was.
        if self.peak > 0.7 * memory_mb or b"bad_alloc" in self._stderr() or b"memory allocation" in self._stderr():
            return _Outcome(Failure("memory", f"needed more than {memory_mb:.0f} MB of memory"), False)
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        said = self._last_words()
        return _Outcome(Failure("crashed", f"the worker process ended with {how}{f': {said}' if said else ''}"), False)

    def _stderr(self) -> bytes:
        self.errors.seek(0)
        return self.errors.read()[-4000:]

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._stderr().decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""

    def stop(self) -> None:
        self.pipe.close()
        os.close(self.lifeline)
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)  # the whole session: a parser may have started helpers
        self.process.wait()
        self.errors.close()


def _pair() -> tuple[Connection, Connection]:
    from multiprocessing import Pipe

    return Pipe(duplex=True)  # type: ignore[return-value]


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _resident_mb(pid: int) -> float:
    """Resident memory in MiB; 0 where the system does not tell (the worker's own limit still holds)."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except (OSError, IndexError, ValueError):
        return 0.0


def _by_reference(function: Callable[..., Any]) -> bytes:
    inner = getattr(function, "func", function)  # functools.partial
    if getattr(inner, "__module__", None) == "__main__":
        raise RuntimeError(f"'{getattr(inner, '__name__', inner)}' is defined in the main script, where worker "
                           "processes cannot find it; move it into a module")
    return pickle.dumps(function)


# --------------------------------------------------------------------------------------------- inside the worker


def _work(pipe: Connection, lifeline: int, started_by: str) -> None:
    """Serve items until the parent hangs up."""
    paths, parent, pickled = pickle.loads(pipe.recv_bytes())
    _die_with(parent, lifeline, started_by)
    sys.path[:] = paths
    try:
        function = pickle.loads(pickled)
    except Exception as error:  # whatever an import can raise is told to the parent, which raises it
        pipe.send_bytes(pickle.dumps(("refused", f"{type(error).__name__}: {error}")))
        return
    pipe.send_bytes(pickle.dumps(("ready", None)))
    for _ in itertools.count():
        try:
            memory_mb, item = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        pipe.send_bytes(_one(function, item, memory_mb))


def _one(function: Callable[[Any], Any], item: Any, memory_mb: float) -> bytes:
    _limit_memory(memory_mb)
    try:
        answer = pickle.dumps(("result", function(item)))
    except MemoryError:
        answer = b""
    except BaseException as error:  # a parser may raise anything, SystemExit included; it costs this item only
        text = " ".join(str(error).split())[:500]
        answer = pickle.dumps(("error", f"{type(error).__name__}: {text}" if text else type(error).__name__))
    return answer or pickle.dumps(("memory", None))


def _limit_memory(memory_mb: float) -> None:
    """Bound this process's private memory at what it has now plus the item's allowance.

    RLIMIT_DATA, not RLIMIT_AS: mapped libraries and files would count towards the latter. The parent also watches
    resident memory; this limit catches one huge allocation between two looks.
    """
    try:
        with open("/proc/self/status", "rb") as file:
            used = next(int(line.split()[1]) for line in file if line.startswith(b"VmData:")) * 1024
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bound = used + int(memory_mb * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (bound if hard < 0 else min(bound, hard), hard))
    except (OSError, ValueError, StopIteration):
        return  # not Linux: the time limit remains


def _die_with(parent: int, lifeline: int, started_by: str) -> None:
    def watch() -> None:
        os.read(lifeline, 1)  # returns at end of file: the parent is gone
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # The thread cannot run while native code holds the interpreter lock; the kernel can. Its signal is bound to the
    # thread that started us, so it is asked for only when that was the parent's main thread.
    if started_by == "main" and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        _work(Connection(int(sys.argv[1])), int(sys.argv[2]), sys.argv[3])
