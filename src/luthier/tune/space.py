"""What is searched: fields by their path, each with the values it may take."""

from __future__ import annotations

import copy
import itertools
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import Field, field_validator, model_serializer, model_validator

from luthier.errors import SpecError
from luthier.spec import Spec
from luthier.store import canonical
from luthier.tune.seams import Point

Int = int  # the class below has fields of these names
MOST_POINTS = 1_000_000
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # YAML 1.1 reads 1e-4 as a string


class Dimension(Spec):
    """The values of one field: exactly one of `log`, `range`, `int` and `choice`."""

    log: tuple[float, float] | None = None
    """Lowest and highest value, searched on a logarithmic scale: for rates, `[1e-5, 1e-3]`."""
    range: tuple[float, float] | None = None
    """Lowest and highest value on a plain scale."""
    int: tuple[Int, Int] | None = None
    """Lowest and highest whole number, both included."""
    choice: tuple[Any, ...] | None = None
    """The values themselves, of any kind: `[16, 32]` or `[cross_entropy, {kind: focal}]`."""
    step: float | None = Field(default=None, gt=0)
    """range, int: only every `step`-th value, counted from the lowest."""
    points: Int | None = Field(default=None, ge=2)
    """log, range: only this many values, evenly spaced on the scale, both ends included; a grid needs it."""

    @field_validator("choice")
    @classmethod
    def _numbers(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return value and tuple(float(v) if isinstance(v, str) and _EXPONENT.fullmatch(v) else v for v in value)

    @model_validator(mode="after")
    def _sound(self) -> Dimension:
        given = [name for name in ("log", "range", "int", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of log: [low, high], range: [low, high], int: [low, high], choice: "
                             f"[a, b, …] (found {', '.join(given) or 'none'})")
        name = given[0]
        if name == "choice":
            if len(self.choice or ()) < 2:
                raise ValueError("choice needs at least two values; a single one belongs into the section itself")
            if len({canonical(value) for value in self.choice or ()}) < len(self.choice or ()):
                raise ValueError("choice holds a value twice")
        else:
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"{name}: the first value must be below the second (found {low:g}, {high:g})")
            if name == "log" and low <= 0:
                raise ValueError(f"log: values must be above 0 (found {low:g}); use range for values down to 0")
        if self.step is not None:
            if name not in ("range", "int"):
                raise ValueError(f"step goes with range and int, not with {name}")
            if name == "int" and self.step != round(self.step):
                raise ValueError(f"step of int must be a whole number (found {self.step:g})")
            low, high = getattr(self, name)
            if self.step > high - low:
                raise ValueError(f"step {self.step:g} is larger than the range {low:g} to {high:g}")
        if self.points is not None and (name not in ("log", "range") or self.step is not None):
            raise ValueError("points goes with log, or with range without step")
        return self

    @model_serializer
    def _short(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: [*value] if isinstance(value, tuple) else value for name, value in shown.items()
                if value is not None}

    @property
    def ordered(self) -> bool:
        return self.choice is None

    @cached_property
    def values(self) -> Sequence[Any] | None:
        """All values in order; None where there are infinitely many."""
        if self.choice is not None:
            return self.choice
        if self.int is not None:
            return range(self.int[0], self.int[1] + 1, round(self.step or 1))
        if self.points is not None:
            return [self._at(i / (self.points - 1)) for i in range(self.points)]
        if self.step is not None and self.range is not None:
            low, high = self.range
            count = math.floor((high - low) / self.step + 1e-9) + 1
            return [_neat(low + i * self.step, self.step) for i in range(count)]
        return None

    def _at(self, share: float) -> float:
        if self.log is not None:
            low, high = self.log
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            assert self.range is not None
            low, high = self.range
            value = low + share * (high - low)
        return self.neat(value)

    def neat(self, value: float) -> float:
        """Rounded to what a person would write (four digits, on the scale of the range), and within the bounds."""
        low, high = self.log or self.range or (value, value)
        rounded = float(f"{value:.4g}") if self.log is not None else _neat(value, (high - low) / 10)
        return min(max(rounded, low), high)

    def at(self, share: float) -> Any:
        """The value at a share (0 ≤ share < 1) of the scale."""
        return self._at(share) if self.values is None else self.values[int(share * len(self.values))]

    def index(self, value: Any) -> Int:
        """The position of a value among `values`."""
        assert self.values is not None
        if self.choice is not None:
            return [canonical(v) for v in self.choice].index(canonical(value))
        return self.values.index(value)

    def probes(self) -> list[Any]:
        """Values that the field must accept: all choices, or both ends and one between."""
        if self.choice is not None:
            return [*self.choice]
        if self.values is not None:
            return [self.values[0], self.values[-1], self.values[len(self.values) // 2]]
        return [*(self.log or self.range or ()), self._at(0.382)]


def _neat(value: float, unit: float) -> float:
    digits = max(0, 1 - math.floor(math.log10(unit)))
    return round(value, digits + 2)


@dataclass(frozen=True)
class Axis:
    """One searched field."""

    path: str
    dimension: Dimension
    parent: str = ""
    """The searched field that this one is a part of, if any."""
    when: tuple[int, ...] = ()
    """Positions of the parent's choices that have this field."""


@dataclass(frozen=True)
class Space:
    """All searched fields, parents before their parts."""

    axes: tuple[Axis, ...]

    @cached_property
    def _by_path(self) -> dict[str, Axis]:
        return {axis.path: axis for axis in self.axes}

    @property
    def conditional(self) -> bool:
        return any(axis.parent for axis in self.axes)

    def active(self, axis: Axis, point: Point) -> bool:
        """Whether the field exists, given the values chosen for its parents."""
        return not axis.parent or (axis.parent in point and
                                   self._by_path[axis.parent].dimension.index(point[axis.parent]) in axis.when)

    def fill(self, choose: Callable[[Axis], Any]) -> dict[str, Any]:
        """A point, asking `choose` for every field that exists."""
        point: dict[str, Any] = {}
        for axis in self.axes:
            if self.active(axis, point):
                point[axis.path] = choose(axis)
        return point

    def endless(self) -> list[str]:
        """Fields with infinitely many values."""
        return [axis.path for axis in self.axes if axis.dimension.values is None]

    @cached_property
    def size(self) -> int | None:
        """Number of points; None: infinitely many, or more than MOST_POINTS."""
        if self.endless():
            return None
        count = sum(1 for _ in itertools.islice(self.grid(), MOST_POINTS + 1))
        return count if count <= MOST_POINTS else None

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every point once, in the order of the fields and values."""
        yield from self._grid(0, {})

    def _grid(self, place: int, point: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if place == len(self.axes):
            yield dict(point)
        elif not self.active(self.axes[place], point):
            yield from self._grid(place + 1, point)
        else:
            axis = self.axes[place]
            for value in axis.dimension.values or ():
                yield from self._grid(place + 1, {**point, axis.path: value})

    def order(self, seed: int | None) -> list[tuple[str, Point]]:
        """Every point with its text, shuffled by the seed; None: as in `grid`."""
        if seed not in self._orders:
            points: list[tuple[str, Point]] = [(canonical(point), point) for point in self.grid()]
            if seed is not None:
                random.Random(seed).shuffle(points)
            self._orders[seed] = points
        return self._orders[seed]

    @cached_property
    def _orders(self) -> dict[int | None, list[tuple[str, Point]]]:
        return {}

    def overrides(self, point: Point) -> dict[str, Any]:
        """Settings by path, with the parts of a chosen value inside that value."""
        merged: dict[str, Any] = {}
        for axis in self.axes:
            if axis.path not in point:
                continue
            top = next((path for path in merged if axis.path.startswith(f"{path}.")), None)
            value = copy.deepcopy(point[axis.path])
            if top is None:
                merged[axis.path] = value
            else:
                holder = {"": merged[top]}
                assign(holder, ["", *axis.path[len(top) + 1:].split(".")], value)
                merged[top] = holder[""]
        return merged


def assign(data: dict[str, Any] | list[Any], path: Sequence[str], value: Any) -> None:
    """Set one field in raw data in place; a kind's name on the way becomes a mapping, a missing section is made.

    Raises ValueError, saying what is in the way, where the path leads nowhere.
    """
    here: Any = data
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                raise ValueError(f"'{'.'.join(path[:depth])}' is a list of {len(here)}; '{part}' is no position in it")
            key: Any = int(part)
        elif isinstance(here, dict):
            key = part
        else:
            raise ValueError(f"'{'.'.join(path[:depth])}' holds a value ({here!r:.40}), not fields")
        if last:
            here[key] = value
            return
        inner = here.get(key) if isinstance(here, dict) else here[key]
        if inner is None:
            inner = {}
        elif isinstance(inner, str):
            inner = {"kind": inner}
        here[key] = inner
        here = inner


def with_overrides(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of raw data with settings changed; ValueError as in `assign`."""
    changed = copy.deepcopy(dict(data))
    for path, value in overrides.items():
        assign(changed, path.split("."), copy.deepcopy(value))
    return changed


def build(dimensions: Mapping[str, Dimension], *, parse: Callable[[Mapping[str, Any]], object],
          where: Callable[[str], str] = lambda path: "") -> Space:
    """The space, after every field and its extreme values were proven to be acceptable; SpecError otherwise.

    `parse` validates a project with some settings changed and raises SpecError; `where` gives the start of an error
    message for a searched path, such as "luthier.yaml:12: ".
    """
    if not dimensions:
        raise SpecError("tune.space is empty: name the fields to search and their values, for example "
                        "space: {train.learning_rate: {log: [1e-5, 1e-3]}, train.batch_size: {choice: [8, 16]}}")
    found: dict[str, Axis] = {}

    def base(axis: Axis | None, choice: int | None = None) -> dict[str, Any]:
        """Settings under which a field exists."""
        if axis is None:
            return {}
        pick = axis.dimension.probes()[0 if choice is None else choice]
        above = found.get(axis.parent)
        return {**base(above, axis.when[0] if axis.when else None), axis.path: pick}

    for path in sorted(dimensions, key=lambda path: (path.count("."), list(dimensions).index(path))):
        dimension = dimensions[path]
        at = f"{where(path)}tune.space."
        if path.endswith(".kind"):
            field = path.removesuffix(".kind")
            raise SpecError(f"{at}{path}: a kind brings its own fields, so search the whole field: "
                            f"{field}: {{choice: [{', '.join(map(str, dimension.choice or ('KIND', 'KIND')))}]}}")
        parents = [other for other in found if path.startswith(f"{other}.")]
        parent = found[max(parents, key=len)] if parents else None
        if parent is None:
            for value in dimension.probes():
                _accept(parse, {path: value}, at, path, dimension, value)
            found[path] = Axis(path, dimension)
            continue
        if parent.dimension.choice is None:
            raise SpecError(f"{at}{path}: '{parent.path}' is searched too, and its numbers have no fields")
        fits, refusal = [], SpecError("")
        for place in range(len(parent.dimension.choice)):
            try:
                for value in dimension.probes():
                    merged = Space((*_line(found, parent), Axis(path, dimension))).overrides(
                        {**base(parent, place), path: value})
                    _accept(parse, merged, at, path, dimension, value)
                fits.append(place)
            except SpecError as error:
                refusal = error
        if not fits:
            raise refusal
        found[path] = Axis(path, dimension, parent.path, tuple(fits))
    order = list(dimensions)
    ranked = sorted(found.values(), key=lambda axis: (axis.path.count(".") if axis.parent else 0,
                                                      order.index(axis.path)))
    return Space(tuple(_parents_first(ranked)))


def _line(found: Mapping[str, Axis], axis: Axis) -> list[Axis]:
    above = found.get(axis.parent)
    return [*(_line(found, above) if above else []), axis]


def _parents_first(axes: Sequence[Axis]) -> Iterator[Axis]:
    given: set[str] = set()
    waiting = [*axes]
    while waiting:
        ready = next(axis for axis in waiting if not axis.parent or axis.parent in given)
        waiting.remove(ready)
        given.add(ready.path)
        yield ready


def _accept(parse: Callable[[Mapping[str, Any]], object], overrides: Mapping[str, Any], at: str, path: str,
            dimension: Dimension, value: Any) -> None:
    try:
        parse(overrides)
    except (SpecError, ValueError) as error:
        hint = ""
        if dimension.range is not None and isinstance(value, float) and "integer" in str(error):
            hint = f"; write int: [{dimension.range[0]:g}, {dimension.range[1]:g}]"
        if "unknown field" in str(error):
            raise SpecError(f"{at}{path}: {error}") from None
        raise SpecError(f"{at}{path}: the value {value!r:.80} is refused: {error}{hint}") from None
