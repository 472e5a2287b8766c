"""Laws of the proposal against forgetting: one for each rule, valid YAML, a person's own setting before all, and old
data that may not be kept is kept nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from luthier.errors import SpecError
from luthier.project import Project, ProjectSpec
from luthier.project.protection import RULES, Advice, Facts, own_settings, recommend
from luthier.spec import parse

LABELS = {"task": "classify", "method": "full", "labels": 10, "train_rows": 5000}
CASES = {
    "halfway, adapter": Facts(task="assistant", method="lora"),
    "halfway, all weights": Facts(task="completion", method="full", updates=2),
    "few rows": Facts(**{**LABELS, "train_rows": 150}),
    "first training": Facts(**LABELS),
    "many named tasks": Facts(**LABELS, updates=2, task_named=True),
    "past rows": Facts(**LABELS, updates=1, new_labels=3),
    "new labels without data": Facts(**LABELS, updates=1, new_labels=3, keep_data=False),
    "distillation": Facts(**LABELS, updates=1, keep_data=False),
    "near the old weights": Facts(task="tag", method="full", train_rows=5000, updates=1, keep_data=False),
    "own": Facts(**LABELS, updates=3, own=("train.regularizers: ewc",)),
}


def settings(advice: Advice) -> dict:
    """What the YAML lines say, read as a person would paste them."""
    return yaml.safe_load("\n".join(line[4:] for line in advice.lines()[1:])) or {}


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_speaks_for_its_case(rule):
    found = recommend(CASES[rule])
    assert found.rule == rule and found.sentence
    assert settings(found) == json.loads(json.dumps(found.settings))
    assert bool(found.evidence) == (rule not in ("own", "first training"))


def test_every_rule_has_a_case():
    assert {rule.name for rule in RULES} == set(CASES)


@pytest.mark.parametrize("rule", CASES)
def test_the_proposed_lines_are_a_valid_project_for_the_task(rule):
    facts = CASES[rule]
    told = settings(recommend(facts))
    given = {} if facts.keep_data else {"watch": {"past": 0}}
    spec = parse(ProjectSpec, {"task": {"type": facts.task}, "protection": {"keep_data": facts.keep_data}, **given,
                               **told})
    spec.train.refuse_misfits(spec.task)
    from luthier.train.base import Train

    parse(Train, {**spec.train.dump(), **spec.watch.train}).refuse_misfits(spec.task)


def test_class_incremental_updates_are_never_told_to_rely_on_penalties_alone():
    """Buzzega et al. 2020: EWC and LwF alone do not help there; replay and columns do."""
    for keep_data in (True, False):
        for updates in (1, 5):
            found = recommend(Facts(**LABELS, updates=updates, new_labels=2, keep_data=keep_data))
            assert "regularizers" not in str(found.settings)


def test_where_no_data_may_be_kept_no_proposal_keeps_any():
    for task in ("classify", "image", "tag", "embed"):
        for updates in (1, 4):
            for new in (0, 2):
                found = recommend(Facts(task=task, method="full", labels=4, train_rows=900, updates=updates,
                                        new_labels=new, keep_data=False))
                later = found.settings["watch"]
                assert later["past"] == 0 and later["removed"] == "keep"
                assert "keep" not in later["train"] and "past" not in str(later["train"])


def project(root: Path, **sections) -> Project:
    root.mkdir(exist_ok=True)
    (root / "luthier.yaml").write_text(yaml.safe_dump({"task": {"type": "classify"}, **sections}))
    return Project.open(root)


def test_a_person_s_settings_are_named_and_nothing_else_is_proposed(tmp_path):
    assert own_settings(project(tmp_path).spec) == ()
    for sections, told in (({"train": {"regularizers": ["ewc"]}}, "train.regularizers: ewc"),
                           ({"watch": {"train": {"replay": {"source": "past"}}}}, "watch.train.replay"),
                           ({"blend": {"at": "auto"}}, "blend.at: auto"),
                           ({"train": {"plan": "head"}}, "train.plan: head"),
                           ({"watch": {"past": 0.2}}, "watch.past: 0.2")):
        found = own_settings(project(tmp_path, **sections).spec)
        assert found == (told,) and recommend(Facts(**LABELS, own=found)).settings == {}


@pytest.mark.parametrize(("sections", "named"), [
    ({}, "watch.past: 0.5"), ({"train": {"keep": {"kind": "balanced"}}, "watch": {"past": 0}}, "train.keep"),
    ({"train": {"replay": {"source": "past"}}, "watch": {"past": 0}}, "train.replay of 'past'"),
    ({"train": {"regularizers": ["dark"]}, "watch": {"past": 0}}, "train.regularizers: dark"),
    ({"watch": {"past": 0, "train": {"keep": {"kind": "balanced"}}}}, "watch.train.keep")])
def test_data_that_may_not_be_kept_is_refused_everywhere(tmp_path, sections, named):
    with pytest.raises(SpecError, match=named.replace(".", r"\.")):
        project(tmp_path, protection={"keep_data": False}, **sections)
    project(tmp_path, protection={"keep_data": False}, watch={"past": 0})


def test_check_reads_releases_and_new_labels(tmp_path, monkeypatch):
    """A live release without a label that the data has now: the next training is class-incremental."""
    from luthier.project.protection import facts_of
    from luthier.release.folder import ReleaseRecord
    from luthier.store import Store, write_json

    found = project(tmp_path)
    made = Store(tmp_path / "store").build("prepare", version=1, spec={}, inputs={}, make=lambda folder: write_json(
        folder / "labels.json", {"labels": ["a", "b", "c"], "multi_label": False}) or {"train": 300})
    record = type("Record", (), {"name": "assistant", "stage": "live", "labels": {"names": ["a", "b"]}})
    assert {"name", "stage", "labels"} <= set(dir(ReleaseRecord)) | set(ReleaseRecord.__dataclass_fields__)
    monkeypatch.setattr("luthier.release.base.list_releases", lambda _: [record])
    facts = facts_of(found, {"prepare": made})
    assert (facts.updates, facts.labels, facts.new_labels, facts.train_rows) == (1, 3, 1, 300)
    assert recommend(facts).rule == "past rows"


def test_check_prints_the_proposal_and_gives_it_as_data(tmp_path):
    pytest.importorskip("torch")
    from luthier.project.check import check

    found = check(project(tmp_path, task={"type": "assistant"}))
    assert "Against forgetting: release the model halfway" in found.text() and "at: 0.5" in found.text()
    assert found.data()["protection"]["rule"] == "halfway, adapter"
