"""Laws of `luthier tune` on a real project: trials share the earlier stages, a killed search goes on, the best settings
can be used, and the test split is looked at only when asked, and counted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from luthier.project import Project
from luthier.testing import tiny_chat_model
from luthier.tune.journal import Journal

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
YAML = """\
# a project for the tests
name: tuned
ingest: {sources: []}
prepare: {makers: [{kind: pairs, path: pairs.jsonl}]}
adapt: {model: tiny, dtype: float32, method: {kind: lora, rank: 4}}
train:
  # stays where it is
  max_steps: 6   # short
  verify_resume: false
  validate_every: 2
evaluate: {max_questions: 4, max_new_tokens: 4, min_questions: 2, bootstrap_samples: 200, latency_questions: 0}
tune:
  trials: 4
  pruner: {kind: median, startup: 1}
  compare_random: true
  space:
    train.learning_rate: {log: [1e-4, 1e-1]}
    adapt.method.rank: {int: [2, 4]}
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "luthier.cli", "tune", *words]


def tuned(root: Path, *words: str) -> dict:
    done = subprocess.run(command("--json", *words), cwd=root, env=ENV, capture_output=True, text=True, check=False,
                          timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, list]:
    """A project whose search was killed in its second trial, and the trials that stood then."""
    root = tmp_path_factory.mktemp("tune") / "p"
    tiny_chat_model(root / "tiny", hidden=32)
    lines = [json.dumps({"messages": [{"role": "user", "content": f"Code of shelf {n}?"},
                                      {"role": "assistant", "content": f"It is {n * 37 % 10}."}]}) for n in range(40)]
    (root / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (root / "luthier.yaml").write_text(YAML, encoding="utf-8")
    process = subprocess.Popen(command(), cwd=root, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(1200):
        journals = [*root.glob(".luthier/tune/*/trials.jsonl")]
        if journals and journals[0].read_text().count('"event": "start"') == 2:
            break
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return root, Journal(next(root.glob(".luthier/tune/*"))).trials()


@pytest.fixture(scope="module")
def finished(killed) -> tuple[Path, dict]:
    return killed[0], tuned(killed[0])


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_same_points(killed, finished):
    _, before = killed
    _, result = finished
    assert [t.state for t in before] == ["done", "running"]
    assert len(result["trials"]) == 4 and {row["state"] for row in result["trials"]} <= {"done", "pruned"}
    for old, new in zip(before, result["trials"], strict=False):
        assert dict(old.point) == new["point"] and (old.state == "running" or old.value == new["value"])
    assert result["random"]["trials"] == 4
    assert result["best"]["value"] == min(row["value"] for row in result["trials"] if row["state"] == "done")


@pytest.mark.slow
def test_earlier_stages_are_made_once_and_only_the_best_model_stays(finished):
    root, result = finished
    store = root / ".luthier/store"
    assert len([*store.glob("prepare/*/DONE")]) == 1
    assert len([*store.glob("adapt/*/DONE")]) <= 3, "one for each rank"
    kept = [path.parent.name for path in store.glob("train/*/DONE")]
    assert kept == [result["best"]["facts"]["train"]]
    assert not [*store.glob("train/*.part")]
    assert not (root / ".luthier/latest.json").exists(), "trials are not the project's newest model"


@pytest.mark.slow
def test_no_trial_reads_the_test_split(finished):
    root, result = finished
    assert result["test_looks"] == [] and not [*root.glob(".luthier/store/evaluate/*")]


@pytest.mark.slow
def test_the_result_is_written_for_people_and_machines(finished):
    _root, result = finished
    folder = Path(result["folder"])
    assert json.loads((folder / "result.json").read_text())["best"] == result["best"]
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["train"]["learning_rate"] == result["best"]["point"]["train.learning_rate"]
    page = (folder / "report.html").read_text("utf-8")
    assert page.count("<svg") >= 3 and "train.learning_rate" in page and "same seed" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page


@pytest.mark.slow
def test_the_same_command_says_finished_and_the_best_settings_can_be_used(finished):
    """Applied settings do not start a new search, training with them is found in the store, one look at the test is
    counted once."""
    root, result = finished
    again = tuned(root, "--apply", "--evaluate")
    assert again["study"] == result["study"] and again["trials"] == result["trials"]
    assert len(again["test_looks"]) == 1 and again["test_looks"][0]["score"]["n"] == 4
    text = (root / "luthier.yaml").read_text()
    assert "# stays where it is" in text and "max_steps: 6   # short" in text
    spec = Project.open(root).spec
    assert spec.train.learning_rate == result["best"]["point"]["train.learning_rate"]
    assert spec.adapt.method.rank == result["best"]["point"]["adapt.method.rank"]
    done = subprocess.run([sys.executable, "-m", "luthier.cli", "train", "--json"], cwd=root, env=ENV,
                          capture_output=True, text=True, check=False, timeout=120)
    assert {row["stage"]: row["made"] for row in json.loads(done.stdout)["stages"]}["train"] is False
    assert len(tuned(root, "--evaluate")["test_looks"]) == 1
