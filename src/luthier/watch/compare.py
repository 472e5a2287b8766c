"""`compare`: champion and challenger side by side, on new and old test rows, row by row.

The artifact holds `compare.json` (values with paired 95 % intervals on each set of test rows, flips, the matrix of
releases × data so far) and `outcomes.jsonl` (one line per test row: what both say, and who is right).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.progress import Progress
from luthier.project.base import Project
from luthier.release.gate import System
from luthier.store import Artifact, write_json
from luthier.types import Example, write_jsonl
from luthier.watch.champion import Champion
from luthier.watch.data import FIRST, SINCE, batches, read_described

VERSION = 2
FILE, OUTCOMES = "compare.json", "outcomes.jsonl"
OLD, NEW, ALL = "old", "new", "all"
SIDES = ("champion", "challenger")
SHOWN = 40
"""Flips of each kind in compare.json; outcomes.jsonl has all."""
LEAST_SURE = 10
"""With fewer new rows that the champion is sure of, their labels are judged by how often it agrees with them."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Everything that is compared."""

    champion: Champion
    data: Artifact
    model: Artifact
    run: Artifact
    report: Artifact
    index: Artifact | None
    choice: System
    """The system that the challenger would be released as."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What a kind of task measures: `compare_labels` and `compare_text`."""

    examples: Sequence[Example]
    """The test rows, in the order of the rows below."""
    rows: list[dict[str, Any]]
    """One per test row: example, where, text, right (answer), systems: {champion, challenger: {said, right}}; `right`
    is None where neither is plainly right or wrong."""
    metrics: Mapping[str, Mapping[str, Any]]
    """Name → label, better (higher or lower), relative (whether differences are shares of the champion's value)."""
    measure: Callable[[str, Sequence[int]], dict[str, Any] | None]
    """(metric, places of rows) → champion, challenger and difference with intervals; None where it has no value."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of compare.json: contradicted, retention."""


def compare(sides: Sides, project: Project, *, progress: Progress) -> Artifact:
    """Measure; a killed comparison is made again from what the caches hold."""
    spec, champion = project.spec, sides.champion

    def make(folder: Path) -> dict[str, Any]:
        if spec.task.labelled:
            from luthier.watch.compare_labels import compare_labels as measure
        else:
            from luthier.watch.compare_text import compare_text as measure
        found = measure(sides, project, progress=progress)
        told = summarise(found, sides)
        write_json(folder / FILE, told)
        write_jsonl(folder / OUTCOMES, found.rows)
        return {"metric": spec.task.metric, "sets": {name: one["n"] for name, one in told["sets"].items()},
                "better": told["flips"]["num_better"], "worse": told["flips"]["num_worse"]}

    inputs = {"champion": champion.record.key, "champion_run": champion.run, "data": sides.data, "model": sides.model,
              "run": sides.run, "report": sides.report, "index": sides.index or "none",
              "champion_index": champion.index or "none", "before": champion.compare or "none",
              "choice": sides.choice}
    settings = {"evaluate": spec.evaluate.dump(), "sure": spec.watch.gate.sure, "rag": spec.rag.dump()}
    return project.store.build("compare", version=VERSION, spec=settings, inputs=inputs, make=make)


def read_compare(artifact: Artifact) -> dict[str, Any]:
    """The content of compare.json."""
    return json.loads((artifact.path / FILE).read_text("utf-8"))


def summarise(found: Compared, sides: Sides) -> dict[str, Any]:
    """The content of compare.json."""
    names = batches(sides.data)
    fresh = {*(told := read_described(sides.data))["new"], *(row["id"] for row in told["changed"])}
    since = [example.groups.get(SINCE, FIRST) for example in found.examples]
    sets = {NEW: [at for at, example in enumerate(found.examples) if example.id in fresh],
            OLD: [at for at, example in enumerate(found.examples) if example.id not in fresh],
            **{name: [at for at, one in enumerate(since) if one == name] for name in names},
            ALL: [*range(len(found.examples))]}
    measured = {name: {"n": len(places), "metrics": {
        metric: one for metric in found.metrics if places and (one := found.measure(metric, places)) is not None}}
        for name, places in sets.items()}
    for row, example, when in zip(found.rows, found.examples, since, strict=True):
        row |= {"since": when, "new": example.id in fresh}
    return {"metric": next(iter(found.metrics)), "metrics": {name: dict(one) for name, one in found.metrics.items()},
            "champion": {"release": sides.champion.record.label, "choice": sides.champion.record.choice},
            "challenger": {"choice": sides.choice, "run": sides.run.id}, "batches": names,
            "sets": measured, "flips": flips(found.rows), "matrix": _matrix(measured, names, found, sides),
            **found.extra}


def flips(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Which rows got better or worse: a right answer became wrong, or the other way round."""
    better, worse = [], []
    for row in rows:
        was, now = (row["systems"][side]["right"] for side in SIDES)
        if was is None or now is None or was == now:
            continue
        told = {**{name: row[name] for name in ("example", "where", "text", "right", "since", "new") if name in row},
                **{side: row["systems"][side]["said"] for side in SIDES}}
        (better if now else worse).append(told)
    return {"num_better": len(better), "num_worse": len(worse), "better": better[:SHOWN], "worse": worse[:SHOWN]}


def _matrix(measured: Mapping[str, Any], names: Sequence[str], found: Compared, sides: Sides) -> list[dict[str, Any]]:
    """Releases × data, on the task's metric: earlier releases as they were measured then, the last row is the
    challenger, whose name is not known yet."""
    metric = next(iter(found.metrics))

    def values(side: str) -> dict[str, Any]:
        return {name: {**measured[name]["metrics"][metric][side], "n": measured[name]["n"]} for name in names
                if metric in measured[name]["metrics"]}

    earlier: list[dict[str, Any]] = []
    if sides.champion.compare is not None:
        earlier = read_compare(sides.champion.compare)["matrix"][:-1]
    return [*earlier, {"release": sides.champion.record.label, "values": values("champion")},
            {"release": None, "values": values("challenger")}]
