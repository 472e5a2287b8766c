"""Labelled rows in every file format people have them in: columns told or guessed, every bad row told with its line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from luthier.errors import DataError
from luthier.prepare.base import MAKERS
from luthier.prepare.makers.rows import Rows
from luthier.task import Task
from luthier.testing import check_spec
from luthier.types import Tag


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def read(context, run, tmp_path):
    """Examples and drops of a `rows` maker over a file of this text."""

    def go(content, name="data.csv", task=None, **fields):
        if content is not None:
            write(tmp_path, name, content)
        return run(Rows(path=name, **fields), context(task=task or Task(type="classify")))

    return go


def test_spec_conforms():
    check_spec(MAKERS, Rows(path="data.csv"))


@pytest.mark.parametrize(("name", "text"), [
    ("a.csv", "text,category\nhello there,x\nbye now,y\n"),
    ("a.tsv", "utterance\tintent\nhello there\tx\nbye now\ty\n"),
    ("a.csv", "clause;clause_type\nhello there;x\nbye now;y\n"),
    ("a.jsonl", '{"sentence": "hello there", "label": "x"}\n{"sentence": "bye now", "label": "y"}\n'),
    ("a.json", '[{"query": "hello there", "condition": "x"}, {"query": "bye now", "condition": "y"}]'),
    ("a.json", '{"train": [["hello there", "x"], ["bye now", "y"]]}'),
])
def test_columns_are_guessed_from_their_usual_names_in_every_text_format(read, name, text):
    examples, dropped = read(text, name)
    assert [(e.input, e.labels) for e in examples] == [("hello there", ("x",)), ("bye now", ("y",))] and not dropped


def test_an_ambiguous_or_missing_column_is_an_error_that_lists_them(read):
    with pytest.raises(DataError, match=r"two columns could be the label: 'category', 'intent'.*name the right one"):
        read("text,category,intent\na b,x,y\n")
    with pytest.raises(DataError, match=r"cannot tell the label column of data.csv \(columns: text, foo, bar\)"):
        read("text,foo,bar\na b,x,y\n")
    with pytest.raises(DataError, match=r"no column 'nope'.*it has: text, label"):
        read("text,label\na b,x\n", label="nope")


def test_the_column_that_repeats_is_the_label_where_names_do_not_tell(read):
    rows = "".join(f"kind{at % 2},some words number {at}\n" for at in range(10))
    examples, _ = read("first,second\n" + rows)
    assert examples[0].labels == ("kind0",) and examples[0].input == "some words number 0"


def test_numbers_truths_and_spaces_become_class_names_and_an_empty_cell_is_unlabelled(read):
    rows = [{"text": "a", "label": 3}, {"text": "b", "label": 3.0}, {"text": "c", "label": True},
            {"text": "d", "label": "  two   words "}, {"text": "e", "label": ""}, {"text": "f"}]
    examples, _ = read("\n".join(map(json.dumps, rows)), "a.jsonl")
    assert [e.labels for e in examples] == [("3",), ("3",), ("true",), ("two words",), None, None]
    assert [("unlabelled" in e.tags) for e in examples] == [False] * 4 + [True] * 2


def test_several_classes_come_as_lists_json_cells_or_behind_a_separator(read):
    many = Task(type="classify", multi_label=True)
    examples, _ = read('{"text": "a", "label": ["x", "y", "x"]}\n{"text": "b", "label": []}\n', "a.jsonl", many)
    assert [e.labels for e in examples] == [("x", "y"), ()]
    examples, _ = read('text,label\na,x; y\nb,"[""x"", ""z""]"\nc,\n', task=many, label_separator=";")
    assert [e.labels for e in examples] == [("x", "y"), ("x", "z"), None]
    with pytest.raises(DataError, match="multi_label: true"):
        read("text,label\na,x;y\n", label_separator=";")


def test_names_replace_class_numbers_and_a_number_without_a_name_is_a_bad_row(read):
    examples, dropped = read("text,label\na,0\nb,1\nc,2\n", names=("no", "yes"))
    assert [e.labels for e in examples] == [("no",), ("yes",)]
    assert dropped[0].item == "data.csv:4" and "class number 2 has no name" in dropped[0].detail


def test_bad_rows_are_left_out_with_line_and_reason_or_stop_a_strict_run(read):
    text = "text,label\ngood,x\n,y\n" + "z" * 200 + ",x\nfine,y,extra,cells\n"
    examples, dropped = read(text, max_chars=100)
    assert [e.input for e in examples] == ["good"]
    assert [(d.item, d.reason) for d in dropped] == [
        ("data.csv:3", "empty-text"), ("data.csv:4", "too-long"), ("data.csv:5", "wrong-number-of-cells")]
    with pytest.raises(DataError, match=r"3 of 4 rows of data.csv are bad[\s\S]*data.csv:3: empty-text"):
        read(text, max_chars=100, strict=True)
    with pytest.raises(DataError, match="none of the 1 rows"):
        read("text,label\n,x\n")


def test_split_weight_group_and_attributes_are_taken_from_their_columns(read):
    text = "text,label,split,w,client,lang\na,x,dev,2,7,de\nb,y,,0.5,8,en\nc,y,maybe,1,8,en\nd,y,,-1,8,en\ne,y,,1,,en\n"
    examples, dropped = read(text, weight="w", group_by="client", groups=("lang",))
    assert [(e.split, e.weight, e.groups) for e in examples] == [
        ("validation", 2.0, {"together": "client=7", "lang": "de"}),
        ("train", 0.5, {"together": "client=8", "lang": "en"})]
    assert [d.reason for d in dropped] == ["bad-split", "bad-row", "no-group"]
    examples, _ = read(text, split="test")
    assert {e.split for e in examples} == {"test"} and len(examples) == 5


def test_a_file_without_answers_is_read_as_unlabelled(read):
    examples, _ = read("text\na\nb\n", unlabelled=True)
    assert [(e.labels, e.tags) for e in examples] == [(None, ("unlabelled",))] * 2


def test_fields_of_another_task_are_refused(read):
    with pytest.raises(DataError, match="field 'query' is not for the task 'classify'"):
        read("text,label\na,x\n", query="text")


def test_tags_come_as_pieces_or_as_words_with_bio_tags(read):
    tag = Task(type="tag")
    rows = [{"text": "Ann met Bob", "spans": [{"start": 0, "end": 3, "label": "PER"}, [8, 11, "PER"]]},
            {"text": " so  ", "entities": []}, {"text": "x y", "spans": [[0, 9, "A"]]},
            {"text": "x y z", "spans": [[0, 3, "A"], [2, 5, "B"]]}]
    examples, dropped = read("\n".join(map(json.dumps, rows)), "a.jsonl", tag, spans="spans")
    assert examples[0].spans == (Tag(start=0, end=3, label="PER"), Tag(start=8, end=11, label="PER"))
    assert examples[1].spans is None  # no cell in the named column: nobody has looked at this text
    assert ["outside the text" in d.detail or "overlap" in d.detail for d in dropped] == [True, True]
    rows = [{"tokens": ["EU", "rejects", "German", "call"], "ner_tags": ["B-ORG", "O", "B-MISC", "O"]},
            {"tokens": ["a", "b"], "ner_tags": ["O"]}]
    examples, dropped = read("\n".join(map(json.dumps, rows)), "b.jsonl", tag)
    assert examples[0].input == "EU rejects German call"
    assert [examples[0].input[t.start:t.end] for t in examples[0].spans] == ["EU", "German"]
    assert dropped[0].reason == "tags-and-words"


def test_embed_makes_one_row_of_every_positive(read):
    row = {"query": "q", "positive": ["p1", "p2"], "negatives": ["n", "n"]}
    examples, _ = read(json.dumps(row), "a.jsonl", Task(type="embed"))
    assert [(e.input, e.target, e.negatives) for e in examples] == [("q", "p1", ("n",)), ("q", "p2", ("n",))]


def test_hugging_face_folders_and_parquet_give_class_names_for_class_numbers(read, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    train = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    test = datasets.Dataset.from_dict({"text": ["c"], "label": [-1]}, features=features)
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "saved"))
    examples, _ = read(None, "saved")
    assert [(e.labels, e.split) for e in examples] == [(("neg",), "train"), (("pos",), "train"), (None, "test")]
    (tmp_path / "hub").mkdir()
    train.to_parquet(str(tmp_path / "hub" / "train-00000-of-00001.parquet"))
    examples, _ = read(None, "hub")
    assert [(e.labels, e.split) for e in examples] == [(("neg",), "train"), (("pos",), "train")]
    words = datasets.Features({"tokens": datasets.List(datasets.Value("string")),
                               "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-X", "I-X"]))})
    datasets.Dataset.from_dict({"tokens": [["a", "b", "c"]], "ner_tags": [[1, 2, 0]]}, features=words).save_to_disk(
        str(tmp_path / "words"))
    examples, _ = read(None, "words", Task(type="tag"))
    assert examples[0].spans == (Tag(start=0, end=3, label="X"),)


def test_a_json_file_of_splits_keeps_them(read):
    text = json.dumps({"train": [["a", "x"]], "val": [["b", "x"]], "oos_test": [["c", "oos"]]}, indent=1)
    examples, _ = read(text, "full.json", text="column 1", label="column 2")
    assert [e.split for e in examples] == ["train", "validation", "test"]
    assert [e.origin.where for e in examples] == ["full.json:3", "full.json:9", "full.json:15"]


def test_images_in_a_table_are_relative_to_it_and_checked(read, tmp_path):
    from PIL import Image

    (tmp_path / "d" / "img").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "d" / "img" / "a.png")
    (tmp_path / "d" / "img" / "b.png").write_bytes((tmp_path / "d" / "img" / "a.png").read_bytes()[:6000])
    text = "path,label\nimg/a.png,x\nimg/b.png,y\nimg/c.png,y\n"
    examples, dropped = read(text, "d/labels.csv", Task(type="image"))
    assert [(e.image, e.labels, e.input) for e in examples] == [("d/img/a.png", ("x",), "")]
    assert [d.reason for d in dropped] == ["corrupt-image", "missing-file"]
    before = Rows(path="d/labels.csv").inputs(tmp_path)
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "d" / "img" / "a.png")
    assert Rows(path="d/labels.csv").inputs(tmp_path) != before


@pytest.mark.parametrize("pixels", ["bytes", "fractions", "channels-first"])
def test_arrays_of_images_become_files_with_the_same_pixels(read, tmp_path, pixels):
    from PIL import Image

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 6, 5, 3) if pixels == "channels-first" else (4, 6, 5), dtype=np.uint8)
    stored = {"bytes": images, "fractions": images / np.float32(255), "channels-first": images}[pixels]
    if pixels == "channels-first":
        stored = images.transpose(0, 3, 1, 2)
    np.savez(tmp_path / "a.npz", x_train=stored, y_train=[0, 1, 0, 1], x_test=stored[:1], y_test=[[1]])
    examples, _ = read(None, "a.npz", Task(type="image"), names=("cat", "dog"))
    assert [e.split for e in examples] == ["train"] * 4 + ["test"] and examples[1].labels == ("dog",)
    for example, image in zip(examples, images):
        assert np.array_equal(np.asarray(Image.open(tmp_path / example.image)), image)
    assert examples[4].image == examples[0].image  # the same pixels are one file


def test_arrays_that_are_no_images_are_an_error(read, tmp_path):
    np.savez(tmp_path / "a.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match="holds no images with labels"):
        read(None, "a.npz", Task(type="image"))
    np.savez(tmp_path / "a.npz", x=np.full((2, 3, 3), -5.0), y=[0, 1])
    with pytest.raises(DataError, match="pixel values run from -5"):
        read(None, "a.npz", Task(type="image"))


def test_labels_that_mean_no_class_leave_a_row_without_one_and_mark_it(read):
    text = "text,label,split\na b,x,\nwho won,oos,test\nwho lost,oos,\n"
    examples, dropped = read(text, out_of_scope=("oos",))
    assert [(e.labels, "out-of-scope" in e.tags) for e in examples] == [(("x",), False), ((), True), ((), True)]
    assert [e.split for e in examples] == ["train", "test", "train"] and not dropped
    many = Task(type="classify", multi_label=True)
    examples, dropped = read('{"text": "a", "label": ["oos"]}\n{"text": "b", "label": ["x", "oos"]}\n', "a.jsonl", many,
                             out_of_scope=("oos",))
    assert [(e.labels, e.tags) for e in examples] == [((), ())]  # with several labels a row, "none" is an answer
    assert [d.reason for d in dropped] == ["bad-row"] and "'x', too" in dropped[0].detail
    with pytest.raises(DataError, match=r"out_of_scope.*'embed'"):
        read("query,positive\na,b\n", task=Task(type="embed"), out_of_scope=("oos",))


@pytest.mark.parametrize(("name", "split"), [("train.csv", "train"), ("dev.csv", "validation"), ("test-2.csv", "test"),
                                             ("testimony.csv", None), ("data.csv", None)])
def test_a_single_file_named_after_a_split_belongs_to_it(read, name, split):
    text = "text,label,split\na b,x,\nc d,y,validation\n"
    (one, two), _ = read(text, name)
    assert one.split == (split or "train") and ("own-split" in one.tags) == (split is not None)
    assert two.split == "validation"  # a row's own word wins
    assert [e.split for e in read(text, name, split="test")[0]] == ["test", "test"]  # and the maker's over both
