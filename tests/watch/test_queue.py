"""Laws of the queue: a key is queued once, run by one worker at a time, survives `kill -9`, and ends once."""


import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luthier.errors import StoreError
from luthier.watch.queue import LostJob, Queue, only_worker

SCRIPT = """
import json, os, sys, time
from pathlib import Path
from luthier.errors import StoreError
from luthier.watch.queue import Queue, only_worker

root, pause = Path(sys.argv[1]), float(sys.argv[2])
try:
    with only_worker(root, wait_s=0):
        queue = Queue(root / "queue.sqlite")
        for number in range(12):
            queue.add(f"key {number}", {"number": number})
        while (job := queue.claim(str(os.getpid()))) is not None:
            part = root / f"{job.key}.part"   # idempotent work: the same file whoever makes it, however often
            with (root / "log").open("a") as log:
                log.write(f"{os.getpid()} begins {job.key}\\n")
            part.write_text("half")
            time.sleep(pause)
            part.write_text(f"result of {job.why['number']}")
            os.replace(part, root / f"{job.key}.done")
            queue.beat(job)
            with (root / "log").open("a") as log:
                log.write(f"{os.getpid()} ends {job.key}\\n")
            queue.finish(job, "refused" if job.why["number"] == 5 else "done", {"made": job.why["number"] ** 2})
except StoreError:
    sys.exit(8)
"""


def start(root: Path, pause: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(root), str(pause)])


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def final(root: Path) -> list:
    queue = Queue(root / "queue.sqlite")
    found = [(job.key, job.state, job.outcome) for job in queue.jobs()]
    queue.close()
    return [*found, *((file.name, file.read_text()) for file in sorted(root.glob("*.done")))]


def test_killed_at_random_points_the_queue_ends_like_an_undisturbed_one(tmp_path):
    """Two processes at a time want to work; whoever lives is killed with SIGKILL after a random time."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir(), killed.mkdir()
    assert start(undisturbed, 0).wait() == 0
    rng, kills, turned_away, codes = random.Random(4), 0, 0, []
    for _ in range(60):
        before = size(killed / "log")
        two = [start(killed, 0.03), start(killed, 0.03)]
        while size(killed / "log") == before and any(one.poll() is None for one in two):
            time.sleep(0.005)  # until one of them is at work
        time.sleep(rng.uniform(0, 0.25))
        for one in two:
            one.send_signal(signal.SIGKILL)
        codes = [one.wait() for one in two]
        kills += codes.count(-signal.SIGKILL)
        turned_away += codes.count(8)
        if 0 in codes:
            break
    assert 0 in codes and kills >= 3 and turned_away >= 1
    assert final(killed) == final(undisturbed)
    assert [state for _, state, _ in final(killed)[:12]] == ["done"] * 5 + ["refused"] + ["done"] * 6
    ended = [line.split(" ", 2)[2] for line in (killed / "log").read_text().splitlines() if " ends " in line]
    begun = [line.split(" ", 2)[2] for line in (killed / "log").read_text().splitlines() if " begins " in line]
    assert list(dict.fromkeys(begun)) == [f"key {number}" for number in range(12)]  # none overtaken, none left out
    assert len(begun) > 12 or len(ended) == 12


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def queue(tmp_path, clock):
    made = Queue(tmp_path / "watch" / "queue.sqlite", clock=lambda: clock[0])
    yield made
    made.close()


def test_a_key_is_queued_once_whatever_became_of_it(queue):
    assert queue.add("a", {}) and not queue.add("a", {})
    queue.finish(queue.claim("w"), "failed", {"error": "no"})
    assert not queue.add("a", {}) and queue.claim("w") is None
    assert [job.state for job in queue.jobs()] == ["failed"]


def test_notes_and_job_are_written_together_or_not_at_all(queue):
    class Broken(dict):
        def items(self):
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        queue.add("a", {}, notes=Broken(x="1"))
    assert queue.jobs() == [] and queue.note("x") is None
    assert queue.add("a", {}, notes={"x": "1"}) and queue.note("x") == "1"
    assert queue.note("y") is None


def test_a_job_that_a_dead_worker_left_comes_first_and_counts_as_another_attempt(queue):
    queue.add("a", {}), queue.add("b", {})
    assert queue.claim("dead").key == "a"
    again = queue.claim("living")
    assert (again.key, again.attempts, again.worker) == ("a", 2, "living")
    assert queue.claim("living") is None  # its own job is at work


def test_the_outcome_is_written_once_and_by_the_job_s_worker_only(queue):
    queue.add("a", {})
    old = queue.claim("dead")
    mine = queue.claim("living")
    for write in (lambda: queue.finish(old, "done", {"by": "dead"}), lambda: queue.beat(old),
                  lambda: queue.retry(old, 1, "late")):
        with pytest.raises(LostJob, match="not run by this worker"):
            write()
    queue.finish(mine, "done", {"by": "living"})
    with pytest.raises(LostJob):
        queue.finish(mine, "done", {"by": "twice"})
    assert [job.outcome for job in queue.jobs()] == [{"by": "living"}]
    with pytest.raises(ValueError, match="not as queued"):
        queue.finish(mine, "queued", {})


def test_a_retry_waits_its_time_and_holds_back_the_jobs_behind_it(queue, clock):
    queue.add("a", {}), queue.add("b", {})
    queue.retry(queue.claim("w"), 60, "the disk is full")
    assert queue.claim("w") is None
    clock[0] += 61
    again = queue.claim("w")
    assert (again.key, again.attempts, again.error) == ("a", 2, "the disk is full")
    queue.finish(again, "done", {})
    assert queue.jobs()[0].error is None and queue.claim("w").key == "b"


def test_a_stop_is_no_attempt(queue):
    queue.add("a", {})
    queue.give_back(queue.claim("w"))
    assert queue.claim("w").attempts == 1


def test_what_was_written_is_there_in_another_connection(queue):
    queue.add("a", {"trigger": "change"})
    job = queue.claim("w")
    other = Queue(queue.file)
    assert other.jobs() == [job] and other.jobs()[0].why == {"trigger": "change"}
    assert sqlite3.connect(queue.file).execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    other.close()


def test_a_damaged_queue_and_a_second_worker_are_one_sentence(tmp_path):
    (tmp_path / "queue.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(StoreError, match=r"is damaged.*delete it"):
        Queue(tmp_path / "queue.sqlite")
    with (only_worker(tmp_path / "watch"), pytest.raises(StoreError, match="another `luthier watch` is at work"),
          only_worker(tmp_path / "watch", wait_s=0)):
        pass
    with only_worker(tmp_path / "watch", wait_s=0):
        pass
