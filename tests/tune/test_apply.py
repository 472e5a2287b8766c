"""Laws of --apply: the fields change, every other character of the file stays, or nothing is written at all."""

import pytest
import yaml

from luthier.errors import SpecError
from luthier.project.apply import apply
from luthier.project.base import ProjectSpec
from luthier.project.yaml_file import commented_yaml
from luthier.spec import load_yaml

TEXT = """\
# top comment
name: p   # a name
train:
  # about epochs
  epochs: 3     # three
  learning_rate: auto

adapt: {model: tiny, method: lora}  # short form
"""


def test_scalars_change_in_place_and_comments_stay(tmp_path):
    file = tmp_path / "luthier.yaml"
    file.write_text(TEXT)
    told = apply(file, {"train.learning_rate": 3e-4, "train.epochs": 5})
    assert file.read_text() == TEXT.replace("auto", "0.0003").replace("epochs: 3 ", "epochs: 5 ")
    assert told == ["luthier.yaml:6: train.learning_rate = 0.0003", "luthier.yaml:5: train.epochs = 5"]


def test_missing_fields_and_sections_are_added(tmp_path):
    file = tmp_path / "luthier.yaml"
    file.write_text(TEXT)
    apply(file, {"train.batch_size": 16, "adapt.method.rank": 4, "prepare.split.seed": 1, "train.warmup_share": 1e-5})
    text = file.read_text()
    data = yaml.safe_load(text)
    assert data["train"]["batch_size"] == 16 and data["prepare"] == {"split": {"seed": 1}}
    assert data["adapt"] == {"model": "tiny", "method": {"kind": "lora", "rank": 4}}
    kept = [line for line in TEXT.splitlines() if "adapt" not in line]
    assert [line for line in text.splitlines() if line in kept] == kept and text.count("#") == TEXT.count("#")


def test_every_field_of_a_generated_project_file_can_be_set(tmp_path):
    file = tmp_path / "luthier.yaml"
    file.write_text(commented_yaml(ProjectSpec(name="p")), encoding="utf-8")
    before = file.read_text().splitlines()
    apply(file, {"train.learning_rate": 1.5e-05, "adapt.method": {"kind": "full"}, "train.batch_size": 4})
    after = file.read_text().splitlines()
    assert len(before) == len(after) and sum(a != b for a, b in zip(before, after)) == 3
    spec = load_yaml(file, ProjectSpec)
    assert spec.train.learning_rate == 1.5e-05 and spec.adapt.method.kind == "full" and spec.train.batch_size == 4


@pytest.mark.parametrize("text, path", [
    ("a: &x {b: 1}\nc: *x\n", "a.b"),
    ("a:\n  - {b: 1}\n", "a.0.b"),
    ("a: |\n  many\n  lines\n", "a"),
    ("a:\n  b:\n    c: 1\n", "a.b"),
])
def test_what_cannot_be_edited_safely_is_refused_and_left_alone(tmp_path, text, path):
    file = tmp_path / "luthier.yaml"
    file.write_text(text)
    with pytest.raises(SpecError, match="yourself"):
        apply(file, {path: 2})
    assert file.read_text() == text
