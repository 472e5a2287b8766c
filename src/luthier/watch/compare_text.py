"""Comparing two assistants (or completion models): answers and the loss of the right answers, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luthier.evaluate.compare import Bootstrap, Column, units
from luthier.evaluate.measure import _ask, _embedder, _Retrieval, _subjects
from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction
from luthier.evaluate.retention import retention
from luthier.evaluate.testset import test_set
from luthier.index.base import open_index
from luthier.prepare.base import read_examples, read_passages
from luthier.progress import Progress
from luthier.project.base import Project
from luthier.release.gate import TUNED
from luthier.types import Example, digest
from luthier.watch.compare import SIDES, Compared, Sides
from luthier.watch.data import FIRST, SINCE

LOSS = "answer_loss"
RIGHT = 0.5
"""Score from which an answer counts as right where flips are listed; the metric decides the rest."""


def compare_text(sides: Sides, project: Project, *, progress: Progress) -> Compared:
    """Ask both a bounded sample of the test rows of each data that came: `evaluate.max_questions` of every one."""
    spec, task = project.spec, project.spec.task
    rows = read_examples(sides.data)
    passages, seed = read_passages(sides.data), spec.evaluate.seed
    able = test_set(rows, passages, task, max_questions=len(rows), seed=seed).examples
    chosen = sample(able, spec.evaluate.max_questions, seed)
    tests = test_set([row for row in rows if row.split != "test" or row.id in chosen], passages, task,
                     max_questions=len(rows), seed=seed)
    names = list(dict.fromkeys((task.metric if task.type == "assistant" else LOSS, LOSS)))
    metrics: dict[str, Metric] = {name: METRICS.get(name)() for name in names}  # type: ignore[misc]
    answered: dict[str, list[Prediction]] = {}
    embed = None
    subjects: dict[str, Any] = {}
    for side in SIDES:
        champion = side == "champion"
        choice = sides.champion.record.choice if champion else sides.choice
        run = sides.champion.run if champion else sides.run
        model = sides.champion.model if champion else sides.model
        index = sides.champion.index if champion else sides.index
        retriever = open_index(index.path, root=project.root) if index is not None else None
        embed = _embedder(retriever) or embed
        subject = _subjects(model, run, project.store, progress)["tuned" if choice in TUNED else "base"]
        subjects[side] = subject
        found = _Retrieval(tests, retriever if "retrieval" in choice else None, spec.rag, task)
        progress.say(f"  {side}: {choice.replace('_', ' + ')}")
        answered[side] = _ask(subject, choice, tests, found, task, spec.evaluate, True)
        subject.close()
    kept = retention(subjects["champion"], subjects["challenger"], spec.evaluate.retention, system=task.system,
                     root=project.root, samples=spec.evaluate.bootstrap_samples, seed=spec.evaluate.seed)
    for subject in subjects.values():
        subject.close()
    context = Context(task, tests.sources, embed)
    columns = {(name, side): Column(metric.score(tests.examples, answered[side], context),
                                    metric.weights(answered[side]),
                                    None if type(metric).finish is Metric.finish else metric.finish)
               for name, metric in metrics.items() for side in SIDES}

    def measure(name: str, places: Sequence[int]) -> dict[str, Any] | None:
        draws = Bootstrap(units([tests.examples[at] for at in places]).ids, samples=spec.evaluate.bootstrap_samples,
                          seed=spec.evaluate.seed)
        mine, theirs = (_cut(columns[name, side], places) for side in ("challenger", "champion"))
        values = {side: draws.measure(_cut(columns[name, side], places)) for side in SIDES}
        gap = draws.difference(mine, theirs, relative=name == LOSS)
        if gap is None or None in values.values():
            return None
        return {**{side: one.dump() for side, one in values.items() if one is not None}, "difference": gap.dump()}

    return Compared(
        examples=tests.examples, rows=[_row(example, at, columns, answered, names[0])
                                       for at, example in enumerate(tests.examples)],
        metrics={name: {"label": metric.label, "better": metric.better, "relative": name == LOSS}
                 for name, metric in metrics.items()}, measure=measure, extra={"retention": kept})


def sample(tests: Sequence[Example], most: int, seed: int) -> set[str]:
    """Ids of at most `most` test rows of each data that came, by the hash that `evaluate` chooses by."""
    counts: dict[str, int] = {}
    kept = set()
    for example in sorted(tests, key=lambda one: digest(str(seed), one.id)):
        since = example.groups.get(SINCE, FIRST)
        counts[since] = counts.get(since, 0) + 1
        if counts[since] <= most:
            kept.add(example.id)
    return kept


def _cut(column: Column, places: Sequence[int]) -> Column:
    return Column([column.values[at] for at in places],
                  None if column.weights is None else [column.weights[at] for at in places], column.finish)


def _row(example: Example, at: int, columns: dict[tuple[str, str], Column], answered: dict[str, list[Prediction]],
         metric: str) -> dict[str, Any]:
    row: dict[str, Any] = {"example": example.id, "where": example.origin.where, "text": example.question[:500],
                           "right": [example.target], "systems": {}}
    for side in SIDES:
        value = columns[metric, side].values[at]
        loss = columns[LOSS, side].values[at]
        row["systems"][side] = {
            "said": [answered[side][at].text], "score": None if value is None else round(float(value), 6),
            "loss": None if loss is None else round(float(loss), 6),
            "right": None if metric == LOSS or value is None else value >= RIGHT}
    return row
