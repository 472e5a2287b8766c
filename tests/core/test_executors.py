"""Laws of the executor: order is kept, one bad item costs one item, limits hold, nobody outlives the parent."""

import functools
import math
import operator
import os
import signal
import subprocess
import sys
import time

import pytest

from luthier.executors import Failure, Local


def run(function, items, *, workers=2, timeout_s=20.0, memory_mb=500.0):
    return list(Local(workers).map(function, items, timeout_s=timeout_s, memory_mb=memory_mb))


def test_results_come_in_the_order_of_the_items():
    naps = [0.3, 0.0, 0.1, 0.0, 0.05]
    assert run(time.sleep, naps, workers=3) == [(nap, None) for nap in naps]
    assert [result for _, result in run(math.sqrt, range(100))] == [math.sqrt(n) for n in range(100)]


def test_no_items_starts_nothing():
    assert run(math.sqrt, []) == []


def test_workers_are_reused():
    call = operator.methodcaller("__call__")
    pids = {result for _, result in run(call, [os.getpid] * 20)}
    assert 1 <= len(pids) <= 2 and os.getpid() not in pids


def test_an_exception_fails_only_its_item():
    found = dict(run(math.sqrt, [4.0, -1.0, 9.0]))
    assert found[4.0] == 2.0 and found[9.0] == 3.0
    assert found[-1.0].reason == "error" and "ValueError" in found[-1.0].detail


def test_a_hanging_item_is_killed_and_the_others_finish():
    began = time.monotonic()
    found = run(time.sleep, [60, 0, 0, 0], timeout_s=1.0)
    assert [getattr(result, "reason", None) for _, result in found] == ["timeout", None, None, None]
    assert time.monotonic() - began < 15


def test_a_crash_is_told_with_its_signal_and_the_worker_is_replaced():
    call = operator.methodcaller("__call__")
    found = run(call, [os.getpid, os.abort, functools.partial(os._exit, 3), os.getpid], workers=1)
    assert found[1][1] == Failure("crashed", "the worker process ended with signal SIGABRT")
    assert found[2][1] == Failure("crashed", "the worker process ended with exit code 3")
    assert found[0][1] != found[3][1], "the crashed worker was not replaced"


def test_memory_is_bounded_at_once_and_slowly():
    found = run(functools.partial(operator.mul, b"x"), [1000, 3_000_000_000, 10], memory_mb=200)
    assert [getattr(result, "reason", len(result) if isinstance(result, bytes) else None) for _, result in found] == [
        1000, "memory", 10]
    # many small allocations: repr of a long list of long numbers grows step by step
    slow = run(eval, ["[bytearray(1 << 20) for _ in range(4000)]", "1 + 1"], memory_mb=150)
    assert slow[0][1].reason == "memory" and slow[1][1] == 2


def test_output_of_libraries_stays_out_of_the_way(capfd):
    found = run(eval, ["__import__('os').system('echo loud; echo louder >&2')"])
    assert found[0][1] == 0
    assert capfd.readouterr() == ("", "")


def test_an_unpicklable_result_is_an_error_of_its_item():
    found = run(eval, ["lambda: 0", "5"])
    assert found[0][1].reason == "error" and found[1][1] == 5


def test_items_are_drawn_lazily_and_stopping_early_stops_the_workers():
    drawn = []

    def items():
        for n in range(100_000):
            drawn.append(n)
            yield n

    stream = Local(2).map(math.sqrt, items(), timeout_s=10, memory_mb=500)
    assert next(stream) == (0, 0.0)
    stream.close()
    assert len(drawn) < 200


def test_a_function_of_the_main_script_is_refused_with_advice():
    def inner():
        pass

    inner.__module__ = "__main__"
    with pytest.raises(RuntimeError, match="move it into a module"):
        run(inner, [1])


PARENT = """
import os, sys, time
from luthier.executors import Local
stream = Local(2).map(eval, ["__import__('os').getpid()", "__import__('time').sleep(100)"], timeout_s=99, memory_mb=500)
print(next(stream)[1], flush=True)
next(stream)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_die_with_a_killed_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)  # alive
        parent.send_signal(signal.SIGKILL)
    for _ in range(100):
        if not os.path.exists(f"/proc/{worker}") or _is_zombie(worker):
            return
        time.sleep(0.05)
    raise AssertionError("the worker outlived its parent")


def _is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
