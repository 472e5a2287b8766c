"""The watch with real updates, on a small project that grows: killed at every kind of moment it ends as undisturbed,
and an update that was killed between going live and the note of it is noted by the next."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
from update_kit import FAST, label, live, make, opened, texts, write

from luthier.release import folder as on_disk
from luthier.release.base import read_release
from luthier.watch import update as module
from luthier.watch.queue import Queue
from luthier.watch.update import update
from luthier.watch.worker import watch

pytestmark = pytest.mark.slow
SETTINGS = (*FAST, "watch.settle_s=0", "watch.poll_s=0.1", "watch.retry_s=0.2", "watch.retries=50",
            "train.checkpoint_every_s=0.2")
WATCH = "import sys; from luthier.watch.worker import watch; watch(__import__('pathlib').Path(sys.argv[1]), " \
        "overrides=sys.argv[2:], once=True)"


def history(folder: Path) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "at"}
            for row in on_disk.read_history(live(folder).parent)]


def weights(folder: Path) -> dict[str, str]:
    return {name: hash for name, hash in read_release(live(folder)).files.items() if name.startswith("model/")}


def ends(folder: Path) -> list[tuple]:
    queue = Queue(folder / ".luthier" / "watch" / "queue.sqlite")
    found = [(job.key, job.state, job.outcome["state"]) for job in queue.jobs()]
    queue.close()
    return found


@pytest.mark.parametrize("moment", ["released", "live", "update"])
def test_a_kill_right_after_a_line_of_the_history_or_before_it_loses_and_doubles_nothing(first, tmp_path, monkeypatch,
                                                                                          moment):
    calm, rough = tmp_path / "calm" / "p", tmp_path / "rough" / "p"
    for folder in (calm, rough):
        shutil.copytree(first, folder)
        write(folder, "b.csv", texts(45, seed=11))
    wanted = update(opened(calm)).data()
    write_line = on_disk.append

    def killed(folder, event, **facts):
        if event == moment:
            raise SystemExit("killed")  # no handler of ours takes it for an error
        write_line(folder, event, **facts)

    monkeypatch.setattr(on_disk, "append", killed)
    monkeypatch.setattr(module.on_disk, "append", killed)
    with pytest.raises(SystemExit):
        update(opened(rough))
    monkeypatch.undo()
    found = update(opened(rough)).data()
    assert {**found, "release": None, "sentence": ""} == {**wanted, "release": None, "sentence": ""}
    assert found["sentence"].replace(str(rough), "") == wanted["sentence"].replace(str(calm), "")
    assert history(rough) == history(calm) and weights(rough) == weights(calm)
    assert update(opened(rough)).state == "nothing"


def test_months_go_through_the_watch_killed_or_not(first, tmp_path):
    """Month 1 is poisoned; month 2 comes in its place and is learned."""
    def months(folder: Path, work) -> None:
        for month in (1, 2):
            (folder / "data" / "b1.csv").unlink(missing_ok=True)
            write(folder, f"b{month}.csv", texts(60 if month == 1 else 45, seed=month + 5, wrong=month == 1))
            work(folder, month)

    def start(folder: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", WATCH, str(folder), *SETTINGS], stderr=subprocess.DEVNULL)

    def killed(folder: Path, month: int) -> None:
        rng = random.Random(month)
        one = start(folder)
        time.sleep(rng.uniform(3, 9))
        one.kill()
        one.wait()
        start(folder).wait()
        assert len(ends(folder)) == month

    calm, rough = tmp_path / "calm" / "p", tmp_path / "rough" / "p"
    shutil.copytree(first, calm), shutil.copytree(first, rough)
    months(calm, lambda folder, month: watch(folder, overrides=SETTINGS, once=True))
    months(rough, killed)
    assert [(state, came_to) for _, state, came_to in ends(calm)] == [("refused", "refused"), ("done", "promoted")]
    assert ends(rough) == ends(calm) and history(rough) == history(calm) and weights(rough) == weights(calm)
    assert label(rough) == label(calm) == "p/2"


def test_the_first_watch_of_a_project_makes_its_first_release(tmp_path):
    folder = make(tmp_path)
    ended = watch(folder, overrides=SETTINGS, once=True)
    assert [state for _, state in ended] == ["done"] and label(folder) == "p/1"
    assert watch(folder, overrides=SETTINGS, once=True) == []
