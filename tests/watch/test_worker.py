"""Laws of the watch: what changed is queued once and only when it is at rest, jobs run in a process of their own, a
failing one stops nothing, trouble that may pass is tried again, and `kill -9` anywhere changes nothing in the end."""

import contextlib
import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from luthier.errors import DataError, GateRefused, SpecError, StoreError
from luthier.project.new import new
from luthier.store import tell_disk_trouble
from luthier.watch.process import PASSING, answer_file
from luthier.watch.queue import Queue
from luthier.watch.status import status, text_of
from luthier.watch.trouble import describe, may_pass
from luthier.watch.worker import Worker, watch

FAST = ("watch.settle_s=0", "watch.poll_s=0.05", "watch.retry_s=0.2", "watch.stop_s=20")
JOB = """
import hashlib, json, os, sys, time
from pathlib import Path
from luthier.watch.attempt import end_with_parent, run
from luthier.watch.process import Answer

end_with_parent()
root, pause, answer = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])

def work():
    rows = "".join(sorted(file.read_text() for file in (root / "data").glob("*.csv")))
    if "crash" in rows:
        os.kill(os.getpid(), 11)
    if "full" in rows:
        raise OSError(28, "No space left on device")
    if "wrong" in rows:
        from luthier.errors import DataError
        raise DataError("the label column is missing")
    if "poison" in rows:
        from luthier.errors import GateRefused
        raise GateRefused("the gate refuses")
    with (root / "log").open("a") as log:
        log.write(f"{os.getpid()} {time.time()} begins\\n")
    time.sleep(pause)
    made = hashlib.sha256(rows.encode()).hexdigest()[:8]   # content-addressed and idempotent, as an update is
    (root / "made" / made).write_text(rows)
    with (root / "log").open("a") as log:
        log.write(f"{os.getpid()} {time.time()} ends\\n")
    return Answer("done", {"sentence": f"made {made}"})

raise SystemExit(run(work, answer))
"""


def project(folder: Path) -> Path:
    new(folder / "p", task="classify")
    (folder / "p" / "made").mkdir()
    write(folder / "p", "a.csv", "text,label\nhello,x\n")
    file = folder / "p" / "luthier.yaml"
    file.write_text(file.read_text().replace("data/data.csv", "data"))
    return folder / "p"


def write(root: Path, name: str, text: str) -> None:
    (root / "data" / name).write_text(text)


def command(root: Path, pause: float = 0.0):
    return lambda job: [sys.executable, "-c", JOB, str(root), str(pause)]


@pytest.fixture
def root(tmp_path):
    return project(tmp_path)


def once(root: Path, pause: float = 0.0, *more: str):
    return [state for _, state in watch(root, overrides=(*FAST, *more), once=True, command=command(root, pause))]


def jobs(root: Path):
    queue = Queue(root / ".luthier" / "watch" / "queue.sqlite")
    try:
        return queue.jobs()
    finally:
        queue.close()


def test_a_change_is_queued_once_a_touch_never_and_going_back_is_a_change(root):
    assert once(root) == ["done"] and once(root) == []
    os.utime(root / "data" / "a.csv", (1, 1))
    assert once(root) == []
    (root / "data" / "~$a.csv").write_text("an office program's lock file")
    assert once(root) == []
    before = (root / "data" / "a.csv").read_text()
    for text in ("text,label\nother,x\n", before, "text,label\nother,x\n"):
        write(root, "a.csv", text)
        assert once(root) == ["done"]
    (root / "data" / "a.csv").rename(root / "data" / "b.csv")
    assert once(root) == ["done"]
    (root / "labels" / "decisions.jsonl").write_text(json.dumps({"text": "other", "labels": ["y"]}) + "\n")
    assert once(root) == ["done"]
    (root / "labels" / "proposed.jsonl").write_text("{}\n")
    assert once(root) == []
    assert len({job.key for job in jobs(root)}) == len(jobs(root)) == 6


def test_files_that_are_still_copied_are_waited_for(root):
    """With `settle_s` 1, a file that grows every 0.1 s for 2 s is seen whole: one job, over the last content."""
    def grow():
        for at in range(20):
            write(root, "b.csv", "text,label\n" + "row,x\n" * (at + 1))
            time.sleep(0.1)

    growing = threading.Thread(target=grow)
    growing.start()
    assert once(root, 0, "watch.settle_s=1") == ["done"]
    growing.join()
    made = [file.read_text() for file in (root / "made").iterdir()]
    assert len(made) == 1 and made[0].count("row,x") == 20


def test_missing_or_empty_folders_start_nothing(root):
    (root / "data").rename(root / "elsewhere")
    assert once(root) == []
    (root / "data").mkdir()
    assert once(root) == []
    (root / "data").rmdir()
    (root / "elsewhere").rename(root / "data")
    assert once(root) == ["done"]


@pytest.mark.parametrize(("row", "state", "said"), [
    ("wrong", "failed", "the label column is missing"), ("poison", "refused", "the gate refuses")])
def test_mistakes_and_refusals_are_not_tried_again_and_stop_nothing(root, row, state, said):
    write(root, "b.csv", row)
    assert once(root) == [state]
    (root / "data" / "b.csv").unlink()
    assert once(root) == ["done"]
    first, second = jobs(root)
    assert (first.attempts, first.outcome["error"], second.state) == (1, said, "done")


@pytest.mark.parametrize(("row", "said"), [("full", "No space left"), ("crash", "ended by SIGSEGV")])
def test_trouble_that_may_pass_is_tried_again_later_each_time_and_ends_as_failed(root, row, said):
    write(root, "b.csv", row)
    more, end = ("watch.retries=2",), time.monotonic() + 60
    assert once(root, 0, *more) == []  # it waits for its time
    (waiting,) = jobs(root)
    assert waiting.state == "queued" and said in waiting.error and waiting.attempts == 1
    assert "tried again at" in text_of(status_of(root))
    found: list[str] = []
    while not found:
        assert time.monotonic() < end
        found = once(root, 0, *more)
    (job,) = jobs(root)
    assert found == ["failed"] and job.attempts == 3 and said in job.outcome["error"]
    write(root, "b.csv", "fine")
    assert once(root, 0, *more) == ["done"]


def status_of(root: Path):
    from luthier.project import Project

    return status(Project.open(root, overrides=FAST))


def test_errors_are_sorted_by_whether_they_may_pass(tmp_path):
    with pytest.raises(StoreError) as full, tell_disk_trouble(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StoreError) as denied, tell_disk_trouble(tmp_path):
        raise OSError(errno.EACCES, "Permission denied")
    passing = [full.value, MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
               RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), ConnectionRefusedError()]
    lasting = [denied.value, DataError("no"), RuntimeError("shapes differ"), GateRefused("no"), FileNotFoundError()]
    assert [may_pass(error) for error in passing] == [True] * 5
    assert [may_pass(error) for error in lasting] == [False] * 5
    assert describe(GateRefused("the gate")).state == "refused" and describe(DataError("x")).state == "failed"
    assert describe(MemoryError()).state == PASSING
    assert "trace" in describe(RuntimeError("a bug")).facts and "trace" not in describe(DataError("x")).facts


def test_a_lock_that_another_process_holds_may_pass(tmp_path):
    from luthier.store import Store

    store = Store(tmp_path)
    held = store.build("a", version=1, spec={}, inputs={}, make=lambda folder: {})

    def make(folder):
        with pytest.raises(StoreError, match="another luthier process") as error:
            store.build("b", version=1, spec={}, inputs={}, make=lambda folder: {})
        assert may_pass(error.value)
        return {}

    store.build("b", version=1, spec={}, inputs={}, make=make)
    assert held.stage == "a"


def test_the_schedule_queues_each_slot_once_and_missed_ones_together(root):
    clock = [time.time()]
    settings = (*FAST, "watch.on_change=false", "watch.schedule=every 6h")
    worker = Worker(root, overrides=settings, clock=lambda: clock[0], command=command(root))
    worker.look()
    assert worker.queue.jobs() == [] and worker.next_slot() == pytest.approx(clock[0] + 6 * 3600)
    clock[0] += 6 * 3600 + 1
    worker.look(), worker.look()
    assert len(worker.queue.jobs()) == 1
    clock[0] += 100 * 3600  # the machine was off: one update, not sixteen
    worker.look()
    again = Worker(root, overrides=settings, clock=lambda: clock[0], command=command(root))
    again.look()
    assert [job.why["trigger"] for job in again.queue.jobs()] == ["schedule"] * 2
    assert worker.next_slot() > clock[0]
    worker.close(), again.close()


def test_nothing_to_watch_for_and_a_second_watch_are_told(root):
    with pytest.raises(SpecError, match=r"on_change is false and watch\.schedule is null"):
        watch(root, overrides=(*FAST, "watch.on_change=false"), once=True)


def test_changes_of_the_project_file_are_taken_up_and_wrong_ones_wait(root):
    said: list[str] = []

    class Told:
        def say(self, message, **fields):
            said.append(message)

    worker = Worker(root, overrides=FAST, progress=Told(), command=command(root))
    file = root / "luthier.yaml"
    good = file.read_text()
    file.write_text(good + "\nno_such_section: 1\n")
    worker.look()
    assert "luthier.yaml is wrong, so its changes do not count yet" in said[0]
    file.write_text(good.replace("retries: 5", "retries: 9"))
    worker.look()
    assert worker.spec.retries == 9
    worker.close()


def test_an_answer_that_the_watch_did_not_live_to_note_is_noted_by_the_next(root):
    """The watch dies between the job's end and the note of it: the job is not run again."""
    worker = Worker(root, overrides=FAST, command=command(root))
    worker.look()
    job = worker.queue.claim("dead")
    answer_file(worker.state, job).write_text(json.dumps({"state": "done", "facts": {"sentence": "made by the dead"}}))
    worker.queue.close()
    assert once(root) == ["done"]
    assert jobs(root)[0].outcome == {"sentence": "made by the dead"} and not (root / "log").exists()
    assert not list((root / ".luthier" / "watch").glob("answer-*"))


WATCH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_worker import FAST, command
from luthier.watch.worker import watch
root = Path(sys.argv[2])
watch(root, overrides=(*FAST, "watch.retries=100"), command=command(root, float(sys.argv[3])), once="once" in sys.argv)
"""


def start(root: Path, pause: float, *more: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WATCH, str(Path(__file__).parent), str(root), str(pause), *more],
                            stderr=subprocess.DEVNULL)


def wait_until(condition, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def lines(root: Path) -> list[list[str]]:
    return [line.split() for line in (root / "log").read_text().splitlines()] if (root / "log").exists() else []


def test_sigterm_stops_the_job_cleanly_and_the_next_watch_takes_it_up(root):
    first = start(root, 60)
    wait_until(lambda: lines(root))
    pid = int(lines(root)[0][0])
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    assert not Path(f"/proc/{pid}").exists()
    (job,) = jobs(root)
    assert job.state == "queued" and job.attempts == 0  # a stop is no attempt
    assert once(root) == ["done"] and jobs(root)[0].attempts == 1


def test_a_job_dies_with_its_watch(root):
    """kill -9 of the watch alone: its job ends by itself, so that the next watch's job never has company."""
    first = start(root, 60)
    wait_until(lambda: lines(root))
    pid = int(lines(root)[0][0])
    first.kill()
    first.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2], 20)


@pytest.mark.slow
def test_killed_at_random_points_everything_ends_as_undisturbed(tmp_path):
    """Three months of changes, one of them refused; the watch and its job are killed at random, alone or together."""
    def months(root: Path, work) -> None:
        for month, row in enumerate(("one,x", "poison", "three,y")):
            (root / "data" / "poison.csv").unlink(missing_ok=True)
            write(root, "poison.csv" if row == "poison" else f"{month}.csv", f"text,label\n{row}\n")
            work(root)

    kills: list[bool] = []

    def killed(root: Path) -> None:
        rng = random.Random(len(jobs(root)) if (root / ".luthier").exists() else 0)
        for _ in range(3):
            before = len(lines(root))
            one = start(root, 0.4, "once")
            wait_until(lambda one=one, before=before: len(lines(root)) > before or one.poll() is not None)
            time.sleep(rng.uniform(0, 0.2))  # the job takes 0.4 s
            if len(lines(root)) > before and rng.random() < 0.5:  # its job is killed, by the system for want of memory
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(lines(root)[-1][0]), signal.SIGKILL)
                time.sleep(rng.uniform(0, 0.3))
            one.kill()
            one.wait()
            kills.append(len(lines(root)) > before)
        end = time.monotonic() + 120
        start(root, 0, "once").wait()  # nobody disturbs this one; what a killed job left may wait for its next try
        while jobs(root)[-1].outcome is None:
            assert time.monotonic() < end
            start(root, 0, "once").wait()

    calm, rough = project(tmp_path / "calm"), project(tmp_path / "rough")
    months(calm, lambda root: start(root, 0, "once").wait())
    months(rough, killed)
    ends = {root: [(job.state, job.key, job.outcome) for job in jobs(root)] for root in (calm, rough)}
    assert ends[rough] == ends[calm] and [state for state, _, _ in ends[calm]] == ["done", "refused", "done"]
    assert {file.name for file in (rough / "made").iterdir()} == {file.name for file in (calm / "made").iterdir()}
    alive: dict[str, float] = {}
    spans = []
    for pid, at, what in lines(rough):
        if what == "begins":
            alive[pid] = float(at)
        else:
            spans.append((alive.pop(pid), float(at)))
    spans.sort()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))  # never two at a time
    assert any(kills), "nothing was disturbed, so nothing was shown"
