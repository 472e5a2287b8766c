"""Laws of `update`, on a small project that grows: what is known stays tested, what is poisoned stays out, what was
done is not done again, and a kill anywhere changes nothing."""

import json
import shutil

import pytest

pytest.importorskip("torch")
from update_kit import Counting, artifacts, label, live, make, opened, texts, write

from luthier.errors import UsageError
from luthier.prepare.base import read_examples
from luthier.release import folder as on_disk
from luthier.release.base import read_release, rollback
from luthier.store import Store
from luthier.types import read_jsonl
from luthier.watch.champion import find, open_champion
from luthier.watch.compare import read_compare
from luthier.watch.update import update

pytestmark = pytest.mark.slow


def test_three_updates_keep_the_old_test_carry_the_matrix_and_do_nothing_twice(project):
    assert update(opened(project)).state == "nothing" and label(project) == "p/1"
    tests = {example.input for example in read_examples(open_champion(opened(project)).data, "test")}
    first_run = open_champion(opened(project)).run
    for step in (1, 2, 3):
        fox = [(text.replace("a", "f"), "fox") for text, said in texts(30, seed=77) if said == "ant"]
        write(project, f"b{step}.csv", [*texts(45, seed=10 + step), *(fox if step == 2 else [])])
        before = open_champion(opened(project))
        outcome = update(opened(project))
        assert outcome.state == "promoted", outcome.text()
        record = read_release(live(project))
        record.verify()
        assert record.label == f"p/{step + 1}" and record.parent == f"p/{step}"
        champion = open_champion(opened(project))
        now = read_examples(champion.data, "test")
        assert tests <= {example.input for example in now}  # the frozen test only grows
        tests = {example.input for example in now}
        assert champion.run.inputs["start"] == f"train/{before.run.id}"
        trained = read_examples(find(opened(project).store, champion.run.inputs["data"]), "train")
        whole = read_examples(champion.data, "train")
        assert len(trained) < len(whole) and {e.groups["since"] for e in trained} > {f"update {step}"}
        matrix = read_compare(champion.compare)["matrix"]
        assert [row["release"] for row in matrix] == [*(f"p/{at + 1}" for at in range(step)), None]
        assert set(matrix[-1]["values"]) == {"first data", *(f"update {at + 1}" for at in range(step))}
        known = artifacts(project)
        again = update(opened(project))
        assert again.state == "nothing" and artifacts(project) == known and label(project) == record.label
    assert "fox" in record.labels["names"]
    assert champion.run.id != first_run.id and matrix[-1]["values"]["update 2"]["value"] > 0.6
    page = (live(project) / "changes.md").read_text()
    assert "| p/1 |" in page and "| p/4 |" in page and "data/b3.csv: 45 new" in page
    assert (live(project) / "changes.html").read_text().count("<section>") == page.count("\n## ")


def test_a_poisoned_batch_is_refused_not_tried_again_and_forgiven_when_it_is_gone(project):
    write(project, "c.csv", texts(60, seed=5, wrong=True))
    outcome = update(opened(project))
    assert outcome.state == "refused" and label(project) == "p/1"
    failed = [check["name"] for check in outcome.checks if check["outcome"] == "failed"]
    assert "max_contradicted" in failed and "data/c.csv:" in outcome.text()
    known, progress = artifacts(project), Counting()
    again = update(opened(project), progress=progress)
    assert (again.state, again.again) == ("refused", True) and artifacts(project) == known
    assert not any("[train]" in line for line in progress.lines)
    events = [row for row in on_disk.read_history(live(project).parent) if row["event"] == "update"]
    assert [row["state"] for row in events] == ["refused"] and events[0]["checks"]
    (project / "data" / "c.csv").unlink()
    assert update(opened(project)).state == "nothing" and label(project) == "p/1"


def test_a_corrected_label_is_trained_on_and_told(project):
    file = project / "data" / "a.csv"
    lines = file.read_text().splitlines()
    train = {example.input for example in read_examples(open_champion(opened(project)).data, "train")}
    at = next(at for at, line in enumerate(lines) if line.split(",")[0] in train and line.endswith(",ant"))
    text = lines[at].split(",")[0]
    file.write_text("\n".join([*lines[:at], f"{text},bee", *lines[at + 1:]]) + "\n")
    outcome = update(opened(project, "watch.gate.max_contradicted=null"))
    assert outcome.state == "promoted" and outcome.changes["counts"]["changed"] == 1
    champion = open_champion(opened(project))
    rows = {e.input: e for e in read_examples(find(opened(project).store, champion.run.inputs["data"]), "train")}
    assert rows[text].labels == ("bee",) and len(rows) == 1 + 24  # the row, and watch.least_past
    assert f"| {text} | 'ant' | 'bee' |" in (live(project) / "changes.md").read_text()


@pytest.mark.parametrize("removed", ["base", "keep"])
def test_rows_that_went_are_trained_away_from_the_base_model_unless_told_otherwise(project, removed):
    file = project / "data" / "a.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *lines[13:]]) + "\n")
    gone = {line.split(",")[0] for line in lines[1:13]}
    before = open_champion(opened(project)).run
    outcome = update(opened(project, f"watch.removed={removed}"))
    assert outcome.state == "promoted" and outcome.changes["counts"]["removed"] == 12
    champion = open_champion(opened(project))
    if removed == "base":
        assert "start" not in champion.run.inputs and champion.run.id != before.id
    else:
        assert champion.run.id == before.id  # nothing to train on, and the model is not asked to forget
    assert not gone & {example.input for example in read_examples(champion.data)}


def test_a_person_decides_what_is_asked_and_reject_is_final(project):
    write(project, "b.csv", texts(45, seed=2))
    settings = ("watch.gate.approval=required",)
    with pytest.raises(UsageError, match="no update waits"):
        update(opened(project, *settings), approve="Eva")
    asked = update(opened(project, *settings))
    assert asked.state == "pending" and label(project) == "p/1" and "--approve" in asked.text()
    known = artifacts(project)
    assert update(opened(project, *settings)).again and artifacts(project) == known
    done = update(opened(project, *settings), approve="Eva")
    assert done.state == "promoted" and read_release(live(project)).approved_by == "Eva"
    assert {stage for stage, _ in artifacts(project) - known} == set()  # what was asked about is what is released
    write(project, "c.csv", texts(45, seed=3))
    assert update(opened(project, *settings)).state == "pending"
    assert update(opened(project, *settings), reject="Eva").state == "refused"
    again = update(opened(project, *settings))
    assert again.state == "refused" and "by Eva" in again.sentence and label(project) == "p/2"


def test_a_rollback_stays_and_the_next_change_starts_from_what_is_live(project):
    write(project, "b.csv", texts(45, seed=2))
    assert update(opened(project)).state == "promoted"
    rollback(opened(project).releases, "p")
    assert label(project) == "p/1"
    outcome = update(opened(project))
    assert (outcome.state == "nothing" and "rolled back" in outcome.sentence) or "made live again" in outcome.sentence
    assert label(project) == "p/1"
    write(project, "c.csv", texts(45, seed=3))
    assert update(opened(project)).state == "promoted"
    record = read_release(live(project))
    assert record.label == "p/3" and record.parent == "p/1"
    assert open_champion(opened(project)).run.inputs["start"] == record_run(project, 1)


def record_run(folder, version):
    return read_release(opened(folder).releases / "p" / str(version)).lineage["train"]


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_killed_after_every_stage_and_every_write_the_end_is_the_same(project, tmp_path, monkeypatch):
    write(project, "b.csv", texts(45, seed=2))
    twin = tmp_path / "twin" / "p"
    shutil.copytree(project, twin)
    assert update(opened(twin)).state == "promoted"
    build, kills = Store.build, []

    def killed_build(self, stage, **named):
        made = build(self, stage, **named)
        if made.fresh:
            kills.append(stage)
            raise Killed
        return made

    monkeypatch.setattr(Store, "build", killed_build)
    append = on_disk.append

    def killed_append(folder, event, **facts):
        append(folder, event, **facts)
        if ("append", event) not in kills:
            kills.append(("append", event))
            raise Killed

    monkeypatch.setattr(on_disk, "append", killed_append)
    outcome, rounds = None, 0
    while outcome is None:
        rounds += 1
        assert rounds < 30, kills
        try:
            outcome = update(opened(project))
        except Killed:
            continue
    assert {"prepare", "update-data", "update-rows", "train", "evaluate", "compare", ("append", "released"),
            ("append", "live")} <= set(kills), kills  # after "live" the pointer follows at the next call
    mine, other = read_release(live(project)), read_release(live(twin))
    assert mine.label == other.label == "p/2" and mine.lineage == other.lineage and mine.key == other.key
    assert {name: sha for name, sha in mine.files.items() if name.startswith("model/")} == \
        {name: sha for name, sha in other.files.items() if name.startswith("model/")}
    assert mine.files["changes.md"] == other.files["changes.md"]
    assert sum(row["event"] == "released" for row in on_disk.read_history(live(project).parent)) == 2


def test_another_base_model_is_trained_from_the_base(project):
    from luthier.testing import tiny_encoder

    tiny_encoder(project / "other", layers=2, dropout=0.0)
    write(project, "b.csv", texts(45, seed=2))
    outcome = update(opened(project, "adapt.model=./other"))
    assert outcome.state == "promoted", outcome.text()
    assert "start" not in open_champion(opened(project)).run.inputs
    assert "another one than the live release's" in (live(project) / "changes.md").read_text()


def test_flips_are_what_the_two_models_say(project):
    write(project, "b.csv", texts(45, seed=2))
    assert update(opened(project)).state == "promoted"
    champion = open_champion(opened(project))
    rows = list(read_jsonl(champion.compare.path / "outcomes.jsonl"))
    tests = read_examples(champion.data, "test")
    assert {row["example"] for row in rows} == {example.id for example in tests}
    told = read_compare(champion.compare)
    better = sum(not row["systems"]["champion"]["right"] and row["systems"]["challenger"]["right"] for row in rows)
    worse = sum(row["systems"]["champion"]["right"] and not row["systems"]["challenger"]["right"] for row in rows)
    assert (told["flips"]["num_better"], told["flips"]["num_worse"]) == (better, worse)
    for side in ("champion", "challenger"):
        share = sum(row["systems"][side]["right"] for row in rows) / len(rows)
        assert told["sets"]["all"]["metrics"]["accuracy"][side]["value"] == pytest.approx(share, abs=1e-6)


def test_without_a_live_release_the_user_is_told_to_run(tmp_path):
    with pytest.raises(UsageError, match="luthier run"):
        update(opened(make(tmp_path)))


def test_the_command_line_says_the_same_and_ends_with_the_codes(project):
    from typer.testing import CliRunner
    from update_kit import FAST

    from luthier.cli import app

    write(project, "c.csv", texts(60, seed=5, wrong=True))
    settings = [word for setting in FAST for word in ("-s", setting)]
    done = CliRunner().invoke(app, ["update", "-C", str(project), "--json", *settings])
    assert done.exit_code == 7 and json.loads(done.stdout)["state"] == "refused"
    (project / "data" / "c.csv").unlink()
    done = CliRunner().invoke(app, ["update", "-C", str(project), *settings])
    assert done.exit_code == 0 and "Nothing to do" in done.stdout


