"""COCO-style annotations: categories become classes, boxes are honoured, nothing is taken silently."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("PIL", reason="needs the extra `images`")
from PIL import Image

from luthier.errors import DataError
from luthier.prepare.base import MAKERS, TOGETHER, read_dropped, read_examples
from luthier.prepare.makers.coco import CocoFiles, split_of
from luthier.testing import check_spec
from tests.prepare.label_kit import run

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 210)}


def scene(file, boxes, size=(64, 48)):
    """A grey picture with coloured boxes."""
    image = Image.new("RGB", size, (128, 128, 128))
    for name, (x, y, width, height) in boxes:
        image.paste(COLORS[name], (x, y, x + width, y + height))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def annotated(root, scenes, name="annotations/train.json", images="images"):
    """A COCO folder: scenes are (file, [(category, box)])."""
    number = {label: at for at, label in enumerate(COLORS, 3)}
    data = {"images": [], "annotations": [], "categories": [{"id": at, "name": label} for label, at in number.items()]}
    for id, (file, boxes) in enumerate(scenes, 10):
        scene(root / images / file, boxes)
        data["images"].append({"id": id, "file_name": file, "width": 64, "height": 48})
        data["annotations"] += [{"id": len(data["annotations"]) + at, "image_id": id, "category_id": number[label],
                                 "bbox": list(box), "area": box[2] * box[3]} for at, (label, box) in enumerate(boxes)]
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(data), encoding="utf-8")
    return data


BIG, SMALL, OTHER = (0, 0, 40, 40), (44, 2, 12, 12), (44, 20, 10, 20)
MIXED = [("a.png", [("red", BIG)]), ("b.png", [("red", SMALL), ("green", BIG)]), ("c.png", []),
         ("d.png", [("blue", SMALL), ("blue", OTHER), ("red", BIG)]), ("e.png", [("blue", BIG), ("blue", SMALL)])]


@pytest.fixture
def read(tmp_path):
    def go(**fields):
        from luthier.index.rag import Rag
        from luthier.prepare.base import MakeContext, no_split
        from luthier.progress import Silent
        from luthier.store import Store
        from luthier.task import Task
        from luthier.types import Example

        context = MakeContext(documents=(), passages=(), task=Task(type="image"), split_of=no_split, seed=0,
                              root=tmp_path, cache=Store(tmp_path / "store").cache("prepare"), progress=Silent(),
                              rag=Rag())
        found = list(CocoFiles(path="d", **fields).make(context))
        return ([one for one in found if isinstance(one, Example)],
                [(one.item, one.reason) for one in found if not isinstance(one, Example)])

    return go


def test_spec_conforms():
    check_spec(MAKERS, CocoFiles(path="d", several="crop"))


@pytest.mark.parametrize(("several", "labels", "gone"), [
    ("drop", {"a": "red", "c": None, "e": "blue"}, 2),
    ("largest", {"a": "red", "b": "green", "c": None, "d": "red", "e": "blue"}, 0),
    ("commonest", {"a": "red", "b": "green", "c": None, "d": "blue", "e": "blue"}, 0),
])
def test_one_class_an_image_as_several_says(several, labels, gone, read, tmp_path):
    annotated(tmp_path / "d", MIXED)
    examples, dropped = read(several=several)
    assert {one.image[-5]: one.labels and one.labels[0] for one in examples} == labels
    assert [reason for _, reason in dropped] == ["several-categories"] * gone
    assert all(one.split == "train" and one.origin.where.startswith("d/annotations/train.json, image 1")
               for one in examples)


def test_cropped_boxes_hold_what_was_in_the_box_and_stay_together(read, tmp_path):
    annotated(tmp_path / "d", [*MIXED, ("f.png", [("red", (60, 40, 3, 3)), ("red", (90, 90, 20, 20))])])
    examples, dropped = read(several="crop")
    assert len(examples) == 8
    for one in examples:
        with Image.open(tmp_path / one.image) as image:
            assert image.convert("RGB").getpixel((image.width // 2, image.height // 2)) == COLORS[one.labels[0]]
    of_d = [one for one in examples if ", image 13," in one.origin.where]
    assert len(of_d) == 3 and len({one.groups[TOGETHER] for one in of_d}) == 1
    assert of_d[0].origin.where.endswith("box 1 at 44,2,56,14")
    assert sorted(reason for _, reason in dropped) == ["no-box", "no-box", "small-box"]


def test_bad_images_and_annotations_are_set_aside(read, tmp_path):
    data = annotated(tmp_path / "d", MIXED[:1])
    data["images"] += [{"id": 90, "file_name": "gone.png"}, {"id": 91, "file_name": "../../secret.png"},
                       {"id": 92, "file_name": "cut.png"}, {"id": 93, "file_name": "odd.png"}]
    data["annotations"].append({"id": 9, "image_id": 93, "category_id": 77})
    scene(tmp_path / "secret.png", [])
    scene(tmp_path / "d/images/odd.png", [])
    (tmp_path / "d/images/cut.png").write_bytes((tmp_path / "d/images/a.png").read_bytes()[:60])
    (tmp_path / "d/annotations/train.json").write_text(json.dumps(data), encoding="utf-8")
    examples, dropped = read()
    assert len(examples) == 1
    assert [reason for _, reason in dropped] == ["missing-file", "missing-file", "corrupt-image", "unknown-category"]


@pytest.mark.parametrize(("text", "said"), [("{", "not valid JSON"), ("[]", "no COCO annotation file"),
                                            ('{"images": 3, "annotations": [], "categories": []}', "under 'images'")])
def test_what_is_no_annotation_file_is_told(text, said, tmp_path):
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        run(tmp_path, {"kind": "coco", "path": "x.json"}, task="image")


def test_the_split_is_in_the_name(tmp_path):
    names = {"instances_val2017.json": "validation", "train.json": "train", "test/_annotations.coco.json": "test",
             "labels.json": None}
    assert {name: split_of(tmp_path / name) for name in names} == names


def test_prepare_takes_several_files_with_their_splits_and_new_detects_them(tmp_path):
    for top, (split, count) in enumerate((("train", 24), ("valid", 6), ("test", 9))):  # one folder a split
        scenes = [(f"{at}.png", [(list(COLORS)[at % 3], (at, top, 20, 20))]) for at in range(count)]
        annotated(tmp_path / "d", scenes, f"{split}/_annotations.coco.json", images=split)
    made = run(tmp_path, {"kind": "coco", "path": "d"}, task="image")
    assert {split: len(read_examples(made, split)) for split in ("train", "validation", "test")} == {
        "train": 24, "validation": 6, "test": 9}
    assert not read_dropped(made)
    from luthier.project.detect import detect

    found = detect("image", tmp_path / "d", {})
    assert found.kind == "coco" and set(found.splits) == {"train", "validation", "test"}
    assert "39 images" in found.told[0]
