"""Laws of `forget`: it finds all that was reached, and the release after it never saw the document or the rows."""

import shutil

import pytest

pytest.importorskip("torch")
from update_kit import artifacts, label, live, make, opened, run, texts, write

from luthier.errors import UsageError
from luthier.ingest.forgotten import FILE, read_entries
from luthier.prepare.base import read_examples
from luthier.release.base import read_release, rollback
from luthier.watch.champion import ancestors, find, open_champion, past_rows
from luthier.watch.forget import find_target, forget, reached
from luthier.watch.update import update

pytestmark = pytest.mark.slow
KEEPS = ("train.keep={kind: reservoir, size: 60}", "watch.train={replay: {source: past, share: 0.2}}")


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Two releases: the second was trained from the first on data/b.csv, and both keep rows for later."""
    folder = make(tmp_path_factory.mktemp("grown"))
    run(folder, *KEEPS)
    write(folder, "b.csv", texts(45, seed=2))
    assert update(opened(folder, *KEEPS)).state == "promoted"
    return folder


@pytest.fixture
def project(grown, tmp_path):
    shutil.copytree(grown, tmp_path / "p")
    return tmp_path / "p"


def said(rows):
    return {example.input for example in rows}


def test_list_names_releases_runs_and_replay_stores_and_changes_nothing(project):
    known, record = artifacts(project), read_release(live(project))
    found = forget(opened(project, *KEEPS), "data/b.csv", only_list=True)
    assert [row["release"] for row in found.reached.releases] == ["p/2"] and found.reached.releases[0]["learned"]
    assert [row["run"] for row in found.reached.runs] == [record.lineage["train"]]
    theirs = {text for text, _ in texts(45, seed=2)}
    kept = sum(example.input in theirs for example in past_rows(open_champion(opened(project)).run))
    assert kept and [(row["run"], row["rows"]) for row in found.reached.stores] == [(record.lineage["train"], kept)]
    assert artifacts(project) == known and not (project / FILE).exists() and label(project) == "p/2"
    older = forget(opened(project, *KEEPS), "data/a.csv", only_list=True).reached
    assert {row["release"] for row in older.releases} == {"p/1", "p/2"}  # the second through the first


def test_the_release_after_it_never_saw_the_rows(project):
    gone = {text for text, _ in texts(45, seed=2)}
    found = forget(opened(project, *KEEPS), "data/b.csv", reason="withdrawn")
    assert found.update.state == "promoted" and label(project) == "p/3", found.text()
    champion = open_champion(opened(project))
    assert [*ancestors(champion.run, opened(project).store)] == [champion.run]  # from the base model
    data = find(opened(project).store, champion.run.inputs["data"])
    assert not gone & said(read_examples(data)) and not gone & said(past_rows(champion.run))
    assert (project / "data" / "b.csv").exists() and "delete it yourself" in found.text()
    assert "p/3 is live and replaces p/2" in found.text()
    entry, = read_entries(project)
    assert entry["file"] == "data/b.csv" and entry["reason"] == "withdrawn" and len(entry["rows"]) == 45
    again = forget(opened(project, *KEEPS), "data/b.csv")
    assert again.update is None and not again.recorded and label(project) == "p/3"
    write(project, "renamed.csv", texts(45, seed=2)[:20])
    assert update(opened(project, *KEEPS)).state == "nothing"


def test_a_model_that_learned_it_is_never_trained_on_again(project):
    assert forget(opened(project, *KEEPS), "data/b.csv").update.state == "promoted"
    rollback(opened(project).releases, "p")  # p/2 is live again, and its replay store holds the rows
    write(project, "c.csv", texts(45, seed=3))
    assert update(opened(project, "watch.removed=keep", *KEEPS)).state == "promoted"
    champion = open_champion(opened(project))
    assert champion.record.parent == "p/2" and "start" not in champion.run.inputs
    gone = {text for text, _ in texts(45, seed=2)}
    assert not gone & (said(read_examples(champion.data)) | said(past_rows(champion.run)))


def test_one_row(project):
    champion = open_champion(opened(project))
    row = read_examples(champion.data, "train")[0]
    target = find_target(opened(project), row.origin.where)
    assert len(target.entries) == 1 and len(target.entries[0]["rows"]) == 1
    found = forget(opened(project, *KEEPS), row.origin.where)
    assert found.update.state == "promoted"
    after = said(read_examples(open_champion(opened(project)).data))
    assert said(read_examples(champion.data)) - after == {row.input}
    assert row.input not in (project / FILE).read_text()
    assert not reached(opened(project), target.forgotten).stores or label(project) == "p/3"


def test_a_refusal_leaves_the_old_model_live_says_so_and_force_overrules_it(project):
    strict = ("watch.gate.approval=required", *KEEPS)
    found = forget(opened(project, *strict), "data/b.csv")
    assert found.update.state == "pending" and "STILL KNOWS IT" in found.text() and label(project) == "p/2"
    forced = forget(opened(project, *strict), "data/b.csv", force=True)
    assert forced.update.state == "promoted" and label(project) == "p/3"


def test_what_nobody_knows_is_an_error(project):
    with pytest.raises(UsageError, match=r"nothere\.pdf"):
        forget(opened(project), "nothere.pdf")
