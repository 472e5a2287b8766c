"""`luthier new --task …`: the data is looked at, copied and named in a project file that reads back and prepares."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from luthier.cli import app
from luthier.errors import UsageError
from luthier.prepare.base import prepare
from luthier.project import Project
from luthier.project.new import new, place_of

DATA = Path(__file__).resolve().parents[2] / "../shared/data"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*words):
    done = CliRunner().invoke(app, ["new", *map(str, words)])
    if isinstance(done.exception, Exception):
        raise done.exception
    return done


def table(path, header="text,category", number=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "\n" + "".join(f"message {at},{('card', 'loan')[at % 2]}\n" for at in range(number)))
    return path


def summary_of(folder):
    project = Project.open(folder)
    return prepare(None, project.spec.task, project.spec.prepare, store=project.store, root=project.root).summary


def test_one_path_that_is_data_makes_a_project_named_after_it(here):
    table(here / "data.csv")
    done = invoke("--task", "classify", "data.csv")
    spec = Project.open("data").spec
    assert spec.task.type == "classify" and spec.adapt.model == "starter:encoder" and spec.ingest.sources == ()
    maker = spec.prepare.makers[0].dump()
    assert (maker["path"], maker["text"], maker["label"]) == ("data/data.csv", "text", "category")
    assert (here / "data/data/data.csv").read_bytes() == (here / "data.csv").read_bytes()
    assert "60 rows" in done.stdout and "2 labels: card (30), loan (30)" in done.stdout and "cd data\n" in done.stdout
    assert summary_of("data")["examples"] == 60


def test_the_three_ways_to_say_it_give_the_same_project(here):
    table(here / "rows.csv")
    invoke("a", "--task", "classify", "--data", "rows.csv")
    invoke("--task", "classify", "rows.csv", "b")
    invoke("--task", "classify", "rows.csv")
    texts = [(here / name / "luthier.yaml").read_text().replace(f"name: {name}\n", "") for name in ("a", "b", "rows")]
    assert texts[0] == texts[1] == texts[2]


def test_a_data_folder_in_place_is_not_turned_into_the_project(here):
    table(here / "tickets" / "train.csv")
    assert place_of(Path("tickets"), "classify") == (Path("tickets-classify"), Path("tickets"))
    invoke("--task", "classify", "tickets")
    assert not (here / "tickets" / "luthier.yaml").exists() and summary_of("tickets-classify")["labels"] == 2
    assert place_of(Path("fresh"), "classify") == (Path("fresh"), None)


def test_train_and_test_files_keep_their_sides(here):
    table(here / "train.csv")
    (here / "test.csv").write_text("text,category\nasked one,card\nasked two,loan\n")
    invoke("p", "--task", "classify", "--data", "train.csv", "--test", "test.csv")
    found = summary_of("p")
    assert found["test"] == 2 and found["train"] + found["validation"] == 60


def test_fields_that_do_not_apply_are_left_out_and_what_is_there_reads_back_equal(here):
    table(here / "rows.csv")
    invoke("p", "--task", "classify", "--data", "rows.csv")
    text = (here / "p" / "luthier.yaml").read_text()
    assert not any(f"\n{name}:" in text for name in ("rag", "index"))
    assert not any(f"\n  {name}:" in text for name in ("refusal", "chunk", "template", "image_size"))
    spec = Project.open("p").spec
    from luthier.project.yaml_file import commented_yaml

    assert commented_yaml(spec) == text


def test_columns_that_cannot_be_told_are_asked_for_and_can_be_named(here):
    rows = "".join(f"m {at},x{at % 2},y{at % 3}\n" for at in range(40))
    (here / "rows.csv").write_text("text,kind_a,kind_b\n" + rows)
    with pytest.raises(UsageError, match=r"label column.*columns: text, kind_a, kind_b.*--column"):
        invoke("p", "--task", "classify", "--data", "rows.csv")
    assert not (here / "p").exists()
    invoke("p", "--task", "classify", "--data", "rows.csv", "--column", "label=kind_b")
    assert summary_of("p")["labels"] == 3
    with pytest.raises(UsageError, match="different values"):
        invoke("q", "--task", "classify", "--data", "rows.csv", "--column", "label=text", "--column", "text=kind_a")


def test_several_labels_in_a_cell_make_the_task_multi_label(here):
    cells = ["a;b", "a", "b;c", "c"]
    (here / "rows.csv").write_text("text;x\n".replace(";x", ",labels") + "".join(
        f"message {at},{cells[at % 4]}\n" for at in range(60)))
    done = invoke("p", "--task", "classify", "--data", "rows.csv")
    spec = Project.open("p").spec
    assert spec.task.multi_label and spec.task.metric == "micro_f1" and "multi-label" in done.stdout
    assert spec.prepare.makers[0].dump()["label_separator"] == ";" and summary_of("p")["labels"] == 3


def test_a_column_of_documents_is_proposed_as_group(here):
    (here / "rows.csv").write_text("text,label,document_id\n" + "".join(
        f"message {at},{'xy'[at % 2]},d{at % 15}\n" for at in range(60)))
    done = invoke("p", "--task", "classify", "--data", "rows.csv")
    assert Project.open("p").spec.prepare.makers[0].dump()["group_by"] == "document_id" and "group_by" in done.stdout


def test_folders_of_texts_and_of_tagged_words_are_known(here):
    for at in range(40):
        path = here / "mail" / ("spam" if at % 2 else "ham") / f"{at}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"letter {at}")
    invoke("p", "--task", "classify", "--data", "mail")
    assert Project.open("p").spec.prepare.makers[0].dump()["kind"] == "text_folders" and summary_of("p")["labels"] == 2
    (here / "ner.conll").write_text("".join(f"Ann{at} B-PER\nruns O\nfar O\n\n" for at in range(60)))
    invoke("q", "--task", "tag", "--data", "ner.conll")
    assert Project.open("q").spec.prepare.makers[0].dump()["kind"] == "conll" and summary_of("q")["labels"] == 1


def test_without_data_the_project_waits_for_it(here):
    made = json.loads(invoke("p", "--task", "image", "--json").stdout)
    assert made["next"][0] == "cp YOUR_DATA p/data/images" and (here / "p" / "data").is_dir()
    assert Project.open("p").spec.adapt.model == "starter:image"


@pytest.mark.parametrize(("words", "said"), [
    (("p", "--task", "clasify"), "did you mean 'classify'"),
    (("p", "--data", "rows.csv"), "learns from documents"),
    (("p", "--task", "classify", "--documents", "."), "learns from labelled data"),
    (("p", "--task", "classify", "--test", "rows.csv"), "need --data"),
    (("p", "--task", "image", "--data", "rows.csv"), "image column"),
    (("p", "--task", "classify", "--data", "gone.csv"), "no such file or folder of data"),
    (("p", "--task", "classify", "--data", "rows.csv", "--column", "lable=x"), "is no role"),
    (("rows.csv",), "--task classify"),
])
def test_a_mistake_is_one_sentence_and_writes_nothing(here, words, said):
    table(here / "rows.csv")
    with pytest.raises(UsageError, match=said):
        invoke(*words)
    assert not (here / "p").exists()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data")
@pytest.mark.parametrize(("task", "name", "labels", "kind"), [
    ("classify", "snips", 7, "rows"), ("classify", "cuad_clauses", 14, "rows"), ("image", "blood_cells", 3,
                                                                               "image_folders"),
])
def test_real_data_sets_need_no_further_word(here, task, name, labels, kind):
    new(here / "p", task=task, data=DATA.resolve() / name)
    maker = Project.open("p").spec.prepare.makers[0].dump()
    assert maker["kind"] == kind and summary_of("p")["labels"] == labels
    assert name != "blood_cells" or maker["group_by"] == "source_image"


def test_labels_that_mean_none_of_the_classes_are_named_and_said(here):
    rows = "".join(f"message {at},{('card', 'loan', 'OOS', 'other')[at % 4]}\n" for at in range(60))
    (here / "rows.csv").write_text("text,label\n" + rows)
    done = invoke("p", "--task", "classify", "--data", "rows.csv")
    assert Project.open("p").spec.prepare.makers[0].dump()["out_of_scope"] == ["OOS"]
    assert "15 rows with the label 'OOS' count as rows of none" in done.stdout and "3 labels" in done.stdout
    assert "if the label 'other' (15 rows) means none of the classes" in done.stdout
    found = summary_of("p")
    assert found["labels"] == 3 and found["out_of_scope"] == 15


def check(folder, *settings):
    from luthier.project.check import check as look

    found = look(Project.open(folder, overrides=settings))
    return found.problems, found.notes


def test_check_names_what_does_not_fit_before_anything_is_spent(here):
    table(here / "rows.csv")
    invoke("p", "--task", "classify", "--data", "rows.csv")
    assert check("p")[0] == []
    for setting, said in [("adapt.model=starter:image", "adapt: .*no tokenizer.*such as starter:encoder"),
                          ("prepare.makers=[{kind: faq}]", "prepare.makers: .*'faq' does not read"),
                          ("prepare.split.by=passage", "prepare.split.by: 'passage' is for documents"),
                          ("train.recompute=true", "train.recompute = True does not apply"),
                          ("prepare.makers=[{kind: rows, path: data/nope.csv}]", "no file or folder at data/nope.csv"),
                          ("prepare.makers=[{kind: rows, path: data/rows.csv, label: kind}]", "no column 'kind'")]:
        problems, _ = check("p", setting)
        assert len(problems) == 1 and re.search(said, problems[0]), (setting, problems)
    assert not list((here / "p/.luthier").rglob("DONE"))


@pytest.mark.parametrize(("content", "problem", "note"), [
    ("message 1,\nmessage 2,\n", "no row has an answer to learn from", ""),
    ("message 1,a\nmessage 2,a\n", r"all rows have the same label \(a\)", ""),
    ("message 1,a\nmessage 2,b\nmessage 3,b\n", "", "1 class has a single row .*: a"),
    ("message 1,a\n,b\nmessage 3,b\n", "", "1 of the first 3 rows of data/rows.csv would be left out, .*rows.csv:3"),
    ("", "data/rows.csv holds no rows", ""),
])
def test_check_looks_at_the_first_rows(here, content, problem, note):
    table(here / "rows.csv")
    invoke("p", "--task", "classify", "--data", "rows.csv")
    (here / "p/data/rows.csv").write_text("text,category\n" + content)
    problems, notes = check("p")
    assert re.search(problem, "\n".join(problems)) and bool(problem) == bool(problems)
    assert re.search(note, "\n".join(notes))


def test_check_sees_a_broken_image_and_counts_the_rows_of_every_kind_of_file(here):
    from PIL import Image

    from luthier.project.check import check as look

    for name in ("red", "blue"):
        for at in range(3):
            (here / "scans" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), name).save(here / "scans" / name / f"{at}.png")
    (here / "scans/red/x.png").write_bytes(b"no image")
    invoke("p", "--task", "image", "--data", "scans")
    assert check("p", "adapt.model=starter:encoder")[0] == [
        "adapt: model 'starter:encoder' reads texts, and the task 'image' needs one that reads images, such as "
        "starter:image"]
    found = look(Project.open("p"))
    assert any("1 of the first 7 rows of data would be left out" in note for note in found.notes)
    assert next(step.work for step in found.steps if step.stage == "prepare") == "7 rows"
    table(here / "rows.csv", number=75)
    invoke("q", "--task", "classify", "--data", "rows.csv")
    assert look(Project.open("q")).steps[0].work == "75 rows"


def test_a_name_that_stands_in_many_cells_is_a_label_of_its_own(here):
    cells = ["banking;pin", "banking;card", "travel;visa", "travel;hotel"]
    (here / "rows.csv").write_text("text,labels\n" + "".join(f"message {at},{cells[at % 4]}\n" for at in range(60)))
    done = invoke("p", "--task", "classify", "--data", "rows.csv")
    assert Project.open("p").spec.task.multi_label and "6 labels" in done.stdout


@pytest.mark.parametrize("content", ["", "text,label\n"])
def test_an_empty_file_is_said_to_be_empty(here, content):
    (here / "rows.csv").write_text(content)
    with pytest.raises(UsageError, match=r"is empty$|holds no rows that can be read$"):
        invoke("p", "--task", "classify", "--data", "rows.csv")
