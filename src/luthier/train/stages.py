"""Several trainings in a row for one assistant or completion model: domain text, then instructions, then preferences of
format, say. Each stage learns some of the train rows and begins with the weights that the one before ended with.

After every stage the loss on the validation rows of all stages is measured: R[i, j], in nats per token, says what stage
i did to what stage j teaches (Lopez-Paz & Ranzato 2017, section 2, with a loss in the place of accuracy).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from luthier.errors import DataError
from luthier.progress import Progress
from luthier.spec import Spec
from luthier.store import Artifact, write_json, write_text
from luthier.train.regularizers import REGULARIZERS, Regularizer
from luthier.types import Example

if TYPE_CHECKING:
    from luthier.train.base import Train
    from luthier.train.run import TextRun
    from luthier.train.seams import Watch

FOLDER = "stages"
DONE, START = "summary.json", "start.json"


class Rows(Spec):
    """Which rows a stage learns: those that fit every field that is given. Without any, all rows."""

    step: tuple[str, ...] = ()
    """The maker or step that made the row, such as `text`, `section`, `faq` or `pairs`: one of these."""
    maker: tuple[Literal["human", "document", "rule", "teacher", "pseudo"], ...] = ()
    """Who wrote the answer: one of these."""
    tags: tuple[str, ...] = ()
    """The row has at least one of these tags, such as `grounded` or `unanswerable`."""
    groups: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Group → values: the row has one of the values in every group named."""

    def fits(self, example: Example) -> bool:
        """Whether a row belongs here."""
        origin = example.origin
        return ((not self.step or origin.step in self.step) and (not self.maker or origin.maker in self.maker)
                and (not self.tags or bool({*self.tags} & {*example.tags}))
                and all(example.groups.get(name) in values for name, values in self.groups.items()))


class Stage(Spec):
    """One training in a row of several."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^[\w-]+$")
    """How it is called in reports and folders: letters, digits, `_` and `-`."""
    rows: Rows = Rows()
    """What it learns."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over its rows; null takes train.epochs."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate; null takes train.learning_rate."""
    regularizers: tuple[Annotated[Regularizer, REGULARIZERS], ...] | None = None
    """What protects the stages before; `lwf` distils from the last one. Null takes train.regularizers, [] none."""

    @model_validator(mode="after")
    def _kinds_once(self) -> Stage:
        kinds = [one.kind for one in self.regularizers or ()]
        if len({*kinds}) < len(kinds):
            raise ValueError(f"stage '{self.name}' names the regularizer '{max(kinds, key=kinds.count)}' twice")
        return self

    def spec(self, train: Train) -> Train:
        """The settings of this stage's training."""
        own = {name: value for name in ("epochs", "learning_rate", "regularizers")
               if (value := getattr(self, name)) is not None}
        return train.but(stages=(), **own)


def run_stages(folder: Path, model: Artifact, data: Artifact, spec: Train, *, root: Path, progress: Progress,
               watch: Watch | None = None, start: Artifact | None = None) -> dict[str, Any]:
    """Train every stage, each in a folder of its own below `folder/stages`, and leave the last one's model in
    `folder/best`; returns the summary. A killed run goes on inside the stage it was in."""
    from luthier.train.run import read_splits

    examples = read_splits(data)
    rows = {split: {stage.name: [row for row in examples[split] if stage.rows.fits(row)] for stage in spec.stages}
            for split in ("train", "validation")}
    for stage in spec.stages:
        if not rows["train"][stage.name]:
            raise DataError(f"train.stages: '{stage.name}' finds no train row with {stage.rows!r}; the rows were made "
                            f"by the steps {', '.join(sorted({row.origin.step for row in examples['train']}))}")
    used = {row.id for some in rows["train"].values() for row in some}
    if left := sum(row.id not in used for row in examples["train"]):
        progress.say(f"  {left} of {len(examples['train'])} train rows are in no stage, so they are not learned")
    done: list[dict[str, Any]] = []
    before = start.path if start is not None else None
    for number, stage in enumerate(spec.stages):
        place = folder / FOLDER / f"{number + 1}-{stage.name}"
        place.mkdir(parents=True, exist_ok=True)
        if not (place / DONE).is_file():
            progress.say(f"  stage {number + 1} of {len(spec.stages)}, {stage.name}: "
                         f"{len(rows['train'][stage.name]):,} rows")
            mine = {"train": rows["train"][stage.name], "validation": rows["validation"][stage.name],
                    # whatever else is held out may not be in this stage's rows either
                    "test": examples["test"] + [row for row in examples["validation"] if not stage.rows.fits(row)]}
            _one(place, model, mine, data, stage.spec(spec), asked=rows["validation"], root=root, progress=progress,
                 watch=watch, before=before, first=number == 0)
        done.append(_read(place / DONE))
        before = place
    return _finish(folder, spec.stages, done, {name: len(some) for name, some in rows["train"].items()}, left)


def _one(place: Path, model: Artifact, examples: dict[str, list[Example]], data: Artifact, spec: Train, *,
         asked: Mapping[str, Sequence[Example]], root: Path, progress: Progress, watch: Watch | None,
         before: Path | None, first: bool) -> None:
    """Train one stage; its summary, written last, says that it is done."""
    from luthier.train.run import TextRun, started

    def measure(run: TextRun) -> dict[str, Any]:
        held = {name: run.held_rows(some) for name, some in asked.items()}
        return {"losses": {name: run.learner.evaluate(some) if some else None for name, some in held.items()},
                "n": {name: len(some) for name, some in held.items()}}

    def begin(run: TextRun) -> None:
        if first and not (place / START).is_file():
            write_json(place / START, measure(run))

    with started(spec) as where:  # seeds anew, so that a stage does not depend on where the run was killed
        run = TextRun(place, model, examples, data, spec, root=root, where=where, progress=progress, watch=watch,
                      start=before)
        summary = run.go(begin)
        write_json(place / DONE, {**summary, **measure(run)})


def _finish(folder: Path, stages: Sequence[Stage], done: Sequence[Mapping[str, Any]], rows: Mapping[str, int],
            left: int) -> dict[str, Any]:
    """The last stage's model and memory, what all of them logged, and the matrix."""
    places = [folder / FOLDER / f"{number + 1}-{stage.name}" for number, stage in enumerate(stages)]
    for name in ("best", "memory"):
        source, target = places[-1] / name, folder / name
        if source.is_dir() and not target.is_dir():
            aside = folder / f".{name}.tmp"
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(source, aside)
            os.replace(aside, target)  # a kill leaves all of it or nothing
    names = [stage.name for stage in stages]
    start = _read(places[0] / START)
    matrix = {"tasks": names, "measure": "loss", "n": [start["n"][name] for name in names],
              "matrix": {"loss": [[one["losses"][name] for name in names] for one in done]},
              "start": {"loss": [start["losses"][name] for name in names]}}
    write_json(folder / "matrix.json", matrix)
    _join(folder, places, names)
    for place in places:  # only what the finished run does not need; the stages' logs and contracts stay
        for name in ("best", "memory"):
            shutil.rmtree(place / name, ignore_errors=True)
    summed = ("steps", "planned_steps", "tokens", "supervised_tokens", "train_cpu_s", "train_s")
    whole = {**{name: value for name, value in done[-1].items() if name not in ("losses", "n")},
             **{name: round(sum(one[name] for one in done), 1) for name in summed}}
    whole["tokens_per_cpu_s"] = round(whole["tokens"] / max(whole["train_cpu_s"], 1e-9), 1)
    return {**whole, "train_examples": sum(rows.values()), "rows_in_no_stage": left,
            "stages": [{"name": name, "rows": rows[name], "steps": one["steps"], "best_step": one["best_step"],
                        "validation_before": one["validation_before"], "validation_best": one["validation_best"],
                        "learning_rate": one["learning_rate"]} for name, one in zip(names, done, strict=True)],
            "matrix": matrix}


def _join(folder: Path, places: Sequence[Path], names: Sequence[str]) -> None:
    """One log of updates, numbered through, one contract, and the first stage's preview and environment."""
    lines, first = [], 0
    for place, name in zip(places, names, strict=True):
        steps = [json.loads(line) for line in (place / "steps.jsonl").read_text("utf-8").splitlines()]
        lines += [json.dumps({**step, "step": first + step["step"], "stage": name}) for step in steps]
        first += len(steps)
    write_text(folder / "steps.jsonl", "".join(f"{line}\n" for line in lines))
    points: dict[int, dict[str, Any]] = {}
    for place, name in zip(places, names, strict=True):
        for row in _read(place / "contract.json"):
            text, known = f"{name}: {row['text']}", points.get(row["point"])
            points[row["point"]] = {**row, "text": text, "facts": {name: row["facts"]}} if known is None else {
                **known, "state": row["state"] if known["state"] == "does not apply" else known["state"],
                "text": f"{known['text']}; {text}", "facts": {**known["facts"], name: row["facts"]}}
    write_json(folder / "contract.json", [points[point] for point in sorted(points)])
    write_text(folder / "contract.txt", "\n".join(
        f"Stage {name}\n\n{(place / 'contract.txt').read_text('utf-8')}"
        for place, name in zip(places, names, strict=True)))
    for file in ("preview.html", "environment.json"):
        shutil.copyfile(places[0] / file, folder / file)


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
