"""Laws of the chain: a set blend stands between training and evaluation everywhere, an unset one changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from luthier.project import Project
from luthier.project.base import needed
from luthier.project.check import check
from luthier.project.gc import reachable
from luthier.project.new import new
from luthier.project.show import headline, show
from luthier.project.trace import trace
from luthier.release.base import live_release, read_release
from luthier.testing import tiny_encoder

FAST = ("train.epochs=3", "train.batch_size=16", "train.verify_resume=false", "evaluate.bootstrap_samples=200",
        "evaluate.labels.latency_rows=0", "release.gate.min_questions=1", "release.force_reason=a test",
        "adapt.model=tiny", "release.system=tuned", "release.probes=2")
WORDS = {"card": "my plastic card was stolen", "loan": "how much can I borrow", "visa": "do I need a stamp to travel"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    kinds = list(WORDS)
    (folder / "rows.jsonl").write_text("".join(json.dumps(
        {"text": f"{WORDS[kinds[at % 3]]} case {at}", "label": kinds[at % 3]}) + "\n" for at in range(90)))
    new(folder / "p", task="classify", data=folder / "rows.jsonl")
    tiny_encoder(folder / "p" / "tiny")
    return folder / "p"


def test_a_blend_is_a_stage_between_train_and_evaluate():
    assert needed("evaluate").index("blend") == needed("evaluate").index("train") + 1
    assert "blend" in needed("release") and "blend" not in needed("train")


@pytest.mark.slow
def test_set_in_the_project_it_is_made_shown_traced_kept_and_released(root):
    plain, blended = Project.open(root, overrides=FAST), Project.open(root, overrides=[*FAST, "blend.at=0.5"])
    done = {step.stage: step for step in plain.run(force=True)}
    assert "blend" not in done and not any(step.stage == "blend" for step in check(plain).steps)
    before = {step.stage: step.state for step in check(blended).steps}
    assert before["train"] == "kept" and before["blend"] == before["evaluate"] == "would run"
    done = {step.stage: step for step in blended.run(force=True)}
    assert not done["train"].fresh and done["blend"].fresh and done["evaluate"].fresh
    assert headline(done["blend"], blended).startswith("a = 0.5: new ")
    assert all(step.state == "kept" for step in check(blended).steps if step.stage != "release")
    data, text = show(lambda: blended, "blend")
    assert data["summary"]["at"] == 0.5 and "pareto.html" in data["files"] and "new skill:" in text
    run, id = blended.artifact("train"), blended.artifact("blend").id
    assert {("blend", id), ("train", run.id)} <= reachable(blended)
    record = read_release(live_release(blended.releases, "p"))
    assert record.lineage["blend"] == f"blend/{id}" and record.lineage["train"] == f"train/{run.id}"
    row = trace(blended, "rows.jsonl:1")
    assert row["models"] and f"p/{record.version}" in row["releases"]
    again = {step.stage: step for step in plain.run(force=True)}  # taken out again: the run itself, nothing trained
    assert not again["train"].fresh and not again["evaluate"].fresh


@pytest.mark.slow
def test_the_command_prints_the_table_and_only_apply_writes(root):
    if not (root / ".luthier").exists():
        list(Project.open(root, overrides=FAST).run(to="train"))
    file = root / "luthier.yaml"
    text = file.read_text()
    luthier = [str(Path(sys.executable).parent / "luthier"), "blend", "-C", str(root), "-s", "blend.points=[0.5]"]
    told = subprocess.run(luthier, capture_output=True, text=True, check=True).stdout
    assert "Proposed: a = " in told and file.read_text() == text
    applied = subprocess.run([*luthier, "--apply", "--json"], capture_output=True, text=True, check=True)
    found = json.loads(applied.stdout)
    assert [row["share"] for row in found["points"]] == [0.0, 0.5, 1.0] and found["old"] is None
    assert Project.open(root).spec.blend.at == found["knee"]
    assert found["applied"] == [line for line in found["applied"] if "blend.at = " in line] != []
    file.write_text(text)
