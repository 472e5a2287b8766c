"""Laws of the search space: every value is one that the field accepts, or the space is refused before any trial."""

import itertools

import pytest
import yaml
from pydantic import ValidationError

from luthier.errors import SpecError
from luthier.project.base import Project
from luthier.project.tune import space_of
from luthier.store import canonical
from luthier.tune.space import Axis, Dimension, Space, assign, build, with_overrides


def project(tmp_path, space: str, more: str = "") -> Project:
    (tmp_path / "luthier.yaml").write_text(f"name: p\n{more}tune:\n  space:\n{space}", encoding="utf-8")
    return Project.open(tmp_path)


def found(tmp_path, space: str, more: str = "") -> Space:
    return space_of(project(tmp_path, space, more), tmp_path / "luthier.yaml")


@pytest.mark.parametrize("data, values", [
    ({"int": [1, 5]}, [1, 2, 3, 4, 5]),
    ({"int": [2, 9], "step": 3}, [2, 5, 8]),
    ({"range": [0, 0.5], "step": 0.1}, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
    ({"range": [0, 1], "points": 5}, [0, 0.25, 0.5, 0.75, 1]),
    ({"log": ["1e-5", "1e-3"], "points": 3}, [1e-5, 1e-4, 1e-3]),
    ({"choice": ["1e-4", {"kind": "focal"}, "a"]}, [1e-4, {"kind": "focal"}, "a"]),
])
def test_finite_dimensions_hold_their_values(data, values):
    dimension = Dimension(**data)
    assert [*dimension.values] == values
    assert [dimension.at((i + 0.5) / len(values)) for i in range(len(values))] == values
    assert [dimension.index(value) for value in values] == [*range(len(values))]
    assert Dimension(**yaml.safe_load(yaml.safe_dump(dimension.dump()))) == dimension


@pytest.mark.parametrize("bounds", [(1e-5, 1e-3), (0.3, 0.7), (1000.0, 1001.0)])
@pytest.mark.parametrize("scale", ["log", "range"])
def test_continuous_values_are_short_and_within_bounds(scale, bounds):
    dimension = Dimension(**{scale: bounds})
    values = [dimension.at(i / 997) for i in range(997)]
    assert values == sorted(values) and bounds[0] <= values[0] and values[-1] <= bounds[1]
    if bounds[0] < 1000 or scale == "range":
        assert len(set(values)) > 900
    assert all(len(f"{value:.12g}") <= 12 for value in values)


@pytest.mark.parametrize("data, message", [
    ({}, "exactly one"), ({"int": [1, 2], "log": [1, 2]}, "exactly one"), ({"log": [0, 1]}, "above 0"),
    ({"range": [1, 1]}, "below"), ({"choice": [1]}, "two values"), ({"choice": [1, 1]}, "twice"),
    ({"int": [1, 5], "step": 0.5}, "whole"), ({"int": [1, 5], "points": 2}, "points"),
    ({"choice": [1, 2], "step": 1}, "step"), ({"range": [0, 1], "step": 3}, "larger"),
])
def test_senseless_dimensions_are_refused(data, message):
    with pytest.raises(ValidationError, match=message):
        Dimension(**data)


@pytest.mark.parametrize("space, message", [
    ("    train.learning_rat: {log: [1e-5, 1e-3]}", r"luthier\.yaml:4: .*did you mean 'learning_rate'"),
    ("    trian.epochs: {int: [1, 3]}", r"luthier\.yaml:4: .*did you mean 'train'"),
    ("    train.epochs: {int: [0, 3]}", r"luthier\.yaml:4: tune\.space\.train\.epochs: the value 0 is refused"),
    ("    train.batch_size: {choice: [8, 16.5]}", r"the value 16\.5 is refused"),
    ("    train.epochs: {range: [1, 3]}", r"write int: \[1, 3\]"),
    ("    train.epochs.more: {int: [1, 3]}", r"holds a value"),
    ("    adapt.method.kind: {choice: [lora, full]}", r"search the whole field: adapt\.method: \{choice: \["),
    ("    adapt.method: {choice: [lora, ful]}", r"did you mean 'full'"),
    ("    adapt.method.no: {int: [1, 2]}", r"unknown field"),
    ("    serve.port: {int: [1, 2]}", r"cannot be searched"),
    ("    train.max_validation_examples: {int: [1, 2]}", r"cannot be searched"),
    ("    train.epochs: {int: [1, 3]}\n    train.epochs.x: {int: [1, 3]}", r"luthier\.yaml:5: .*numbers have no"),
])
def test_paths_and_values_are_checked_before_any_trial(tmp_path, space, message):
    with pytest.raises(SpecError, match=message):
        found(tmp_path, space)


def test_an_empty_space_says_how_to_fill_it(tmp_path):
    with pytest.raises(SpecError, match=r"tune\.space is empty.*learning_rate"):
        build({}, parse=lambda overrides: None)


CONDITIONAL = """\
    adapt.method.rank: {int: [2, 4]}
    adapt.method: {choice: [lora, full]}
    train.epochs: {int: [1, 2]}
"""


def test_fields_of_one_kind_exist_only_with_that_kind(tmp_path):
    space = found(tmp_path, CONDITIONAL)
    assert [axis.path for axis in space.axes].index("adapt.method") < [axis.path for axis in space.axes].index(
        "adapt.method.rank")
    points = [*space.grid()]
    assert len(points) == space.size == 2 * (3 + 1)
    for point in points:
        assert ("adapt.method.rank" in point) == (point["adapt.method"] == "lora")
    lora = space.overrides({"adapt.method": "lora", "adapt.method.rank": 3, "train.epochs": 1})
    assert lora == {"adapt.method": {"kind": "lora", "rank": 3}, "train.epochs": 1}


def test_a_field_that_no_choice_has_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"luthier\.yaml:5: .*adapt\.method\.speed.*unknown field"):
        found(tmp_path, "    adapt.method: {choice: [lora, full]}\n    adapt.method.speed: {int: [1, 2]}\n")


def test_grid_is_the_product():
    space = Space((Axis("a", Dimension(int=(1, 3))), Axis("b", Dimension(choice=("x", "y")))))
    assert {canonical(p) for p in space.grid()} == {
        canonical({"a": a, "b": b}) for a, b in itertools.product((1, 2, 3), "xy")}


def test_assign_makes_sections_and_leaves_the_original_alone():
    data = {"a": {"b": 1}, "plan": "gradual", "list": [{"x": 1}], "head": None}
    changed = with_overrides(data, {"a.b": 2, "plan.by": "epoch", "list.0.x": 5, "head.dropout": 0.1, "new.c": 3})
    assert changed == {"a": {"b": 2}, "plan": {"kind": "gradual", "by": "epoch"}, "list": [{"x": 5}],
                       "head": {"dropout": 0.1}, "new": {"c": 3}}
    assert data == {"a": {"b": 1}, "plan": "gradual", "list": [{"x": 1}], "head": None}
    with pytest.raises(ValueError, match="no position"):
        assign(data, ["list", "4"], 1)
