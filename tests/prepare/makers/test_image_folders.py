"""One folder of images a class: every image decoded once, bad ones told, a table about them used."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from luthier.errors import DataError, SpecError
from luthier.prepare.base import MAKERS, read_examples
from luthier.prepare.makers.image_folders import ImageFolders
from luthier.spec import parse
from luthier.task import Task
from luthier.testing import check_spec
from tests.prepare.label_kit import DATA
from tests.prepare.label_kit import run as prepare_in


def picture(color, size=(6, 4), format="PNG"):
    written = io.BytesIO()
    Image.new("RGB", size, color).save(written, format)
    return written.getvalue()


@pytest.fixture
def read(context, run, tmp_path):
    def go(files, **fields):
        for name, content in files.items():
            path = tmp_path / "pics" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return run(ImageFolders(path="pics", **fields), context(task=Task(type="image")))

    return go


def test_spec_conforms():
    check_spec(MAKERS, ImageFolders(path="pics", labels="labels.csv", group_by="slide"))


def test_columns_without_a_table_are_refused():
    with pytest.raises(SpecError, match="name the table as `labels`"):
        parse(ImageFolders, {"path": "pics", "group_by": "slide"})


def test_the_folder_is_the_class_whatever_the_image_format(read):
    examples, dropped = read({"a/1.png": picture("red"), "b/2.jpg": picture("blue", format="JPEG"),
                              "b/deep/3.gif": picture("white", format="GIF"), "README": "hello"})
    assert [(e.image, e.labels) for e in examples] == [
        ("pics/a/1.png", ("a",)), ("pics/b/2.jpg", ("b",)), ("pics/b/deep/3.gif", ("b",))]
    assert not dropped and all(e.input == "" for e in examples)


def test_broken_huge_and_foreign_files_are_set_aside_with_the_reason(read):
    good = picture("red", (200, 200), "JPEG")
    examples, dropped = read({"a/1.jpg": good, "a/2.jpg": good[: len(good) // 2], "a/3.txt": "no image",
                              "b/4.png": picture("blue", (1200, 1000)), "b/5.png": picture("green"), "6.png": good},
                             max_megapixels=1)
    assert [e.image for e in examples] == ["pics/a/1.jpg", "pics/b/5.png"]
    assert {d.item.rpartition("/")[2]: d.reason for d in dropped} == {
        "2.jpg": "corrupt-image", "3.txt": "not-an-image", "4.png": "too-many-pixels", "6.png": "no-class-folder"}


def test_top_folders_may_be_splits(read):
    examples, _ = read({"train/a/1.png": picture("red"), "val/a/2.png": picture("blue"),
                        "test/unlabelled/3.png": picture("green")})
    assert {(e.image, e.split, e.labels) for e in examples} == {
        ("pics/train/a/1.png", "train", ("a",)), ("pics/val/a/2.png", "validation", ("a",)),
        ("pics/test/unlabelled/3.png", "test", None)}


def test_a_table_gives_labels_and_groups_and_is_compared_with_the_files(read):
    table = "file,label,slide\na/1.png,sick,s1\na/2.png,well,s2\na/9.png,well,s2\n"
    examples, dropped = read({"a/1.png": picture("red"), "a/2.png": picture("blue"), "a/3.png": picture("green"),
                              "labels.csv": table}, labels="labels.csv", group_by="slide")
    assert [(e.labels, e.groups) for e in examples] == [
        (("sick",), {"together": "slide=s1"}), (("well",), {"together": "slide=s2"})]
    assert sorted(d.reason for d in dropped) == ["missing-file", "not-in-table"]
    with pytest.raises(DataError, match="no column 'patient'"):
        read({}, labels="labels.csv", group_by="patient")


def test_equal_images_in_two_classes_contradict_each_other(tmp_path):
    for at in range(60):
        path = tmp_path / "pics" / ("a" if at % 2 else "b") / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture((at, 0, 0)))
    (tmp_path / "pics" / "a" / "same.png").write_bytes(picture((0, 0, 0)))  # the bytes of b/0.png
    made = prepare_in(tmp_path, {"kind": "image_folders", "path": "pics"}, task="image")
    assert made.summary["examples"] == 59 and made.summary["dropped"] == 2
    assert "data:image/png;base64," in (made.path / "card.html").read_text()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data")
def test_blood_cells_are_split_by_slide(tmp_path):
    made = prepare_in(DATA.resolve(), {"kind": "image_folders", "path": "blood_cells/images", "labels": "../labels.csv",
                                       "group_by": "source_image"}, task="image", store=tmp_path)
    assert made.summary["examples"] == 990 and made.summary["labels"] == 3 and made.summary["dropped"] == 0
    slides = {split: {e.groups["together"] for e in read_examples(made, split)} for split in
              ("train", "validation", "test")}
    assert not slides["train"] & slides["test"] and not slides["train"] & slides["validation"]
    assert 0.1 <= made.summary["test"] / 990 <= 0.2
