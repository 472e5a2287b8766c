"""`luthier tune`: trials are projects with some settings changed, run up to training; the best by validation wins.

The test split is never read by a trial. `score_test` evaluates the best settings afterwards, and each look at the test
is written down in the result.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from luthier.errors import DataError, LuthierError, ModelError, SpecError
from luthier.prepare.base import read_examples
from luthier.progress import Progress, Silent
from luthier.project.base import FILE, Project, ProjectSpec
from luthier.project.gc import reachable
from luthier.project.yaml_file import flow
from luthier.spec import line_numbers, parse
from luthier.store import Artifact, Store, canonical, write_json, write_text
from luthier.train.base import VERSION as TRAIN_VERSION
from luthier.train.base import train
from luthier.train.seams import Pruned, Watch
from luthier.tune.journal import Journal
from luthier.tune.pruners.none import NoPruner
from luthier.tune.result import nested, summarised
from luthier.tune.seams import Better, Outcome, Stopped, Trial, best_of
from luthier.tune.search import Attempt, search
from luthier.tune.searchers.random import Random
from luthier.tune.space import Space, assign, build, with_overrides
from luthier.types import digest

VERSION = 1
REFUSED = {
    "name": "names the project", "task": "says what is learned and measured; values of different tasks cannot be "
    "compared", "tune": "is the search itself", "evaluate": "is read after training", "release": "is read after "
    "training", "serve": "is read after training", "blend": "is read after training",
    "watch": "is read after training",
    "train.max_validation_examples": "decides what is measured; values on different rows cannot be compared",
    "train.best_by": "decides what is measured",
}
AFTER_TRAINING = ("name", "tune", "index", "blend", "evaluate", "release", "serve", "watch", "ingest")


class _Waiting(Store):
    """Waits where another worker makes the same artifact, and remembers the training it was asked for."""

    trained = ""

    def build(self, stage: str, *, version: int, spec: Any, inputs: Mapping[str, Any],
              make: Callable[[Path], Mapping[str, Any]]) -> Artifact:
        if stage == "train":
            self.trained = self.key(stage, version=version, spec=spec, inputs=inputs)
        return super().build(stage, version=version, spec=spec, inputs=inputs, make=make)


@dataclass(frozen=True)
class TrialProject(Project):
    """A project whose settings are being tried: it shares the store and leaves `latest.json` alone."""

    watch: Watch | None = None

    @cached_property
    def store(self) -> _Waiting:
        return _Waiting(self.state / "store", wait_s=-1)

    def _calls(self, progress: Progress) -> dict[str, Callable[[dict[str, Artifact]], Artifact]]:
        calls = super()._calls(progress)
        calls["train"] = lambda made: train(made["adapt"], made["prepare"], self.spec.train, store=self.store,
                                            root=self.root, progress=progress, watch=self.watch)
        return calls

    def remember(self, stage: str, artifact: Artifact) -> None:
        pass

    def made(self, to: str, progress: Progress | None = None) -> dict[str, Artifact]:
        """The artifacts of the stages up to `to`."""
        return {done.stage: done.artifact for done in self.run(to=to, progress=progress) if done.artifact}


@dataclass(frozen=True)
class TrainTrial:
    """The objective: train with a trial's settings, return what the best weights reach on the validation rows."""

    root: Path
    data: Mapping[str, Any]
    """The project's settings."""
    validation: str
    """Hash of the validation rows, which must be the same in all trials."""
    keep: frozenset[str] | None = frozenset()
    """Trained models that are never removed; None keeps all."""

    def __call__(self, attempt: Attempt) -> Outcome:
        spec = parse_with(self.root, self.data, attempt.overrides)
        project = TrialProject(self.root, spec, self._watch(spec, attempt))
        prepared = project.made("prepare")["prepare"]
        if validation_hash(prepared) != self.validation:
            raise DataError("these settings change which rows are for validation, so their value cannot be compared "
                            "with the others'")
        finished = False
        try:
            trained = project.made("train")["train"]
            finished = True
        except Pruned:
            if not attempt.stopped:
                finished = True  # cut by the clock: the checkpoint stays, to go on from
            raise Stopped from None
        except (KeyboardInterrupt, SystemExit):
            finished = True
            raise
        except RuntimeError as error:  # torch's own class cannot be named here without importing torch
            if type(error).__name__ != "OutOfMemoryError":
                raise
            raise ModelError(f"out of memory: {str(error).splitlines()[0]}") from None
        finally:
            if not finished and project.store.trained:
                part = project.store.root / "train" / f"{project.store.trained}.part"
                shutil.rmtree(part, ignore_errors=True)
                part.with_suffix(".lock").unlink(missing_ok=True)
        if self.keep is not None:
            sweep(project, attempt.journal.trials(), better_of(spec), self.keep)
        return Outcome(value_of(spec, trained), {"train": trained.id, "made": trained.fresh})

    def _watch(self, spec: ProjectSpec, attempt: Attempt) -> Watch | None:
        if spec.train.strategy is not None:
            return None  # several trainings for one model: the steps of one say nothing about the whole
        metric = spec.task.metric if spec.task.labelled else None

        def watch(done: Any) -> None:
            if done.validation is None:
                return
            value = done.validation if metric is None else done.values[metric]
            if attempt.report(done.step, value):
                raise Pruned

        return watch


def better_of(spec: ProjectSpec) -> Better:
    """Whether the figure that trials are compared by should be high or low."""
    return "higher" if spec.task.labelled and spec.task.metric != "log_loss" else "lower"


def value_of(spec: ProjectSpec, trained: Artifact) -> float:
    """What a trained model's best weights reach on the validation rows."""
    if not spec.task.labelled:
        return float(trained.summary["validation_best"])
    found = trained.summary["validation"]
    if found["better"] != better_of(spec):
        raise ModelError(f"training measures {spec.task.metric} as '{found['better']} is better', the search as "
                         f"'{better_of(spec)}'; please report it")
    return float(found["value"])


def validation_hash(prepared: Artifact) -> str:
    """Hash of the rows that trials are measured on."""
    return digest(canonical([example.id for example in read_examples(prepared, "validation")]))


def parse_with(root: Path, data: Mapping[str, Any], overrides: Mapping[str, Any]) -> ProjectSpec:
    """The project with settings changed; SpecError says what does not fit."""
    try:
        spec = parse(ProjectSpec, with_overrides(data, overrides), local=root)
    except ValueError as error:
        raise SpecError(str(error)) from None
    spec.train.refuse_misfits(spec.task)
    return spec


def sweep(project: Project, trials: Sequence[Trial], better: Better, keep: frozenset[str] = frozenset()) -> None:
    """Remove models that trials made, except the best one and what a release or the latest run stands on."""
    best = best_of(trials, better)
    kept = keep | ({str(best.facts.get("train"))} if best else frozenset())
    safe = reachable(project)
    for trial in trials:
        id = trial.facts.get("train")
        if trial.state == "done" and trial.facts.get("made") and id not in kept and ("train", id) not in safe:
            shutil.rmtree(project.store.root / "train" / str(id), ignore_errors=True)


@dataclass(frozen=True)
class Tuned:
    """A search and what it found."""

    id: str
    folder: Path
    result: Mapping[str, Any]
    overrides: Mapping[str, Any]
    """The best settings by path."""


def space_of(project: Project, file: Path) -> Space:
    """The project's search space, checked against its specs; SpecError names file, line and path."""
    lines = line_numbers(file.read_text("utf-8"), file.name) if file.is_file() else {}

    def where(path: str) -> str:
        line = lines.get(("tune", "space", path))
        return f"{file.name}:{line}: " if line else ""

    spec = project.spec.tune
    for path in spec.space:
        parts = path.split(".")
        prefixes = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
        stem = next((prefix for prefix in prefixes if prefix in REFUSED), None)
        if stem is not None:
            raise SpecError(f"{where(path)}tune.space.{path}: '{stem}' {REFUSED[stem]}; it cannot be searched")
    data = project.spec.dump()
    space = build(spec.space, parse=lambda overrides: parse_with(project.root, data, overrides), where=where)
    if project.spec.train.strategy is not None and not isinstance(spec.pruner, NoPruner):
        raise SpecError("tune.pruner cannot stop trials early while train.strategy trains several times for one model; "
                        "use pruner: none")
    return space


def study_id(project: Project, prepared: Artifact) -> str:
    """Depends on all that decides what a trial gives: not on budgets, and not on the values of searched fields."""
    spec = project.spec
    data = {key: value for key, value in spec.dump().items() if key not in AFTER_TRAINING}
    for path in spec.tune.space:
        assign(data, path.split("."), "searched")
    told = {name: spec.tune.dump()[name] for name in ("space", "searcher", "pruner", "seed")}
    return Store.key("tune", version=VERSION, spec={**told, "project": data, "train": TRAIN_VERSION},
                     inputs={"data": prepared})


def tune(project: Project, *, file: Path | None = None, score_test: bool = False,
         progress: Progress = Silent()) -> Tuned:
    """Search, or go on searching, or find that the search is finished; writes result.json, best.yaml, report.html.

    `file` is the project file, for error messages. Raises SpecError for a space that does not fit the project,
    DataError without validation rows, and LuthierError when no trial came to an end.
    """
    from luthier.project.tune_report import render

    spec = project.spec.tune
    space = space_of(project, file or project.root / FILE)
    against = spec.searcher.check(space)
    if against:
        raise SpecError(f"tune.searcher: {against}")
    base = TrialProject(project.root, project.spec)
    prepared = base.made("prepare", progress)["prepare"]
    if not prepared.summary["validation"]:
        raise DataError("the data has no validation rows to compare trials by; raise prepare.split.validation")
    id = study_id(project, prepared)
    folder = project.state / "tune" / id
    better = better_of(project.spec)
    progress.say(f"[tune] {id}: {len(space.axes)} fields, {spec.searcher.kind}", study=id)
    objective = TrainTrial(project.root, project.spec.dump(), validation_hash(prepared),
                           None if spec.keep_models else frozenset())
    trials = search(objective, space, spec, folder=folder, better=better, progress=progress)
    best = best_of(trials, better)
    if best is None:
        notes = sorted({f"trial {trial.number}: {trial.note}" for trial in trials if trial.note})
        raise LuthierError("no trial came to an end, so there is nothing to choose from"
                           + (f"; {'; '.join(notes[:3])}" if notes else ""))
    compared = _random(base, objective, space, trials, best, folder, better, progress) if (
        spec.compare_random and not isinstance(spec.searcher, Random)) else []
    if not spec.keep_models:
        sweep(base, [*trials, *compared], better, frozenset({str(best.facts.get("train"))}))
    overrides = space.overrides(best.point)
    journal = Journal(folder)
    if score_test or spec.score_test:
        _look(project, overrides, journal, progress)
    result = {
        "study": id, "folder": str(folder), "metric": project.spec.task.metric if project.spec.task.labelled else
        "validation loss", "searcher": spec.searcher.dump(), "pruner": spec.pruner.dump(), "seed": spec.seed,
        "minutes": round(journal.elapsed() / 60, 2), **summarised(space, trials, better, compared=compared),
        "test_looks": journal.looks(), "commands": commands(project, file or project.root / FILE, overrides),
    }
    write_json(folder / "result.json", result)
    write_text(folder / "best.yaml", f"# Best settings of search {id}: {result['metric']} {best.value:.6g}\n"
               + yaml.safe_dump(nested(overrides), sort_keys=False, allow_unicode=True))
    write_text(folder / "report.html", render(result, space))
    return Tuned(id, folder, result, overrides)


def _random(base: TrialProject, objective: TrainTrial, space: Space, trials: Sequence[Trial], best: Trial,
            folder: Path, better: Better, progress: Progress) -> list[Trial]:
    """As many trials of random search with the same seed; points that the search has tried are not run again."""
    spec = base.spec.tune.but(searcher=Random(), pruner=NoPruner(), trials=len(trials), minutes=0)
    known = {canonical(trial.point): trial for trial in trials if trial.state in ("done", "failed")}
    kept = None if objective.keep is None else frozenset({str(best.facts.get("train"))})
    return search(TrainTrial(objective.root, objective.data, objective.validation, kept), space, spec,
                  folder=folder / "random", better=better, progress=progress, known=known, what="random search")


def _look(project: Project, overrides: Mapping[str, Any], journal: Journal, progress: Progress) -> None:
    """Evaluate the best settings on the test split; the same evaluation is found again and is no second look."""
    best = TrialProject(project.root, parse_with(project.root, project.spec.dump(), overrides))
    evaluated = best.made("evaluate", progress)["evaluate"]
    if any(look["evaluate"] == evaluated.id for look in journal.looks()):
        return
    from luthier.evaluate.base import read_report

    report = read_report(evaluated)
    metric = report["metric"]
    journal.append("look", evaluate=evaluated.id, metric=metric, score=report["systems"]["tuned"]["metrics"][metric],
                   overrides=dict(overrides), report=str(evaluated.path / "report.html"))


def commands(project: Project, file: Path, overrides: Mapping[str, Any]) -> list[str]:
    """Shell commands that use the best settings."""
    settings = " ".join(f"-s {shlex.quote(f'{path}={flow(value)}')}" for path, value in overrides.items())
    here = project.root if file.name == FILE else file
    place = "" if here == Path.cwd() else f" -C {shlex.quote(str(here))}"
    try:
        Project.open(file, overrides=[f"{path}={flow(value)}" for path, value in overrides.items()])
    except LuthierError:  # a field inside a section that the file gives as a plain name
        return [f"luthier tune{place} --apply", f"luthier run{place}"]
    return [f"luthier run{place} {settings}", f"luthier tune{place} --apply"]


def text_of(tuned: Tuned, applied: Sequence[str] = ()) -> str:
    """The result for people."""
    result, best = tuned.result, tuned.result["best"]
    counts = ", ".join(f"{count} {state}" for state, count in sorted(result["counts"].items()))
    lines = [f"Best of {len(result['trials'])} trials ({counts}): {result['metric']} {best['value']:.4g}, trial "
             f"{best['trial']}", *(f"  {path} = {flow(value)}" for path, value in tuned.overrides.items())]
    if result["equals"]:
        lines.append(f"{result['equals']} other trial{'s' if result['equals'] > 1 else ''} reached the same value; the "
                     "earliest is taken")
    if result["importance"]:
        shares = ", ".join(f"{path} {100 * share:.0f} %" for path, share in
                           sorted(result["importance"].items(), key=lambda item: -item[1]))
        note = f" ({result['importance_note']})" if result["importance_note"] else ""
        lines.append(f"What mattered: {shares}{note}")
    if "random" in result:
        lines.append(f"Against chance: {result['random']['sentence']}.")
    looks = result["test_looks"]
    if looks:
        last = looks[-1]
        score = last["score"]
        lines.append(f"Test: {last['metric']} {score['value']:.4g} ({score['low']:.4g} to {score['high']:.4g}, "
                     f"n = {score['n']}); this search has looked at the test "
                     f"{'once' if len(looks) == 1 else f'{len(looks)} times'}")
    lines += ["", *(["Written:", *(f"  {line}" for line in applied)] if applied else
                    ["Use it:", *(f"  {command}" for command in result["commands"])]),
              f"Report: {tuned.folder / 'report.html'}"]
    return "\n".join(lines)
