"""Learning tasks one after another, each stage beginning with the model of the last: continual learning within one
training (Lopez-Paz & Ranzato 2017 for the measurement; van de Ven & Tolias 2019 for the scenarios)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from luthier.errors import SpecError
from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.seams import STRATEGIES

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from luthier.adapt.network import LabelModel
    from luthier.train.labelled.base import Fitted, Job
    from luthier.train.strategies._stages import Chain
    from luthier.train.strategies._tasks import Tasks

STAGES = "stages.safetensors"


@register(STRATEGIES, "sequence")
class TaskSequence(Spec):
    """Learns tasks one after another. The train rows of a stage are its task's alone; what keeps the earlier tasks is
    `train.regularizers`, and `train.keep` with `train.replay` (source: past).

    `matrix.json` holds the share of right answers on every task's validation rows after every stage, and
    `stages.safetensors` what every stage's model answers to validation and test rows, from which `luthier evaluate`
    measures the same on the test rows.
    """

    by: str = "task"
    """Column of the rows (one of a maker's `groups`) that names each row's task."""
    labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Task by label instead of by column: `{task: [labels …]}`, every label of the data in one task."""
    order: Literal["appearance", "similarity", "curriculum"] | tuple[str, ...] = "appearance"
    """`appearance` as the train rows bring them; a list of the tasks' names; `similarity`: each task next to the one
    that is nearest to it (mean features of the base model); `curriculum`: easiest first, by a logistic regression on
    frozen features."""
    heads: Literal["shared", "own"] = "shared"
    """`shared`: every class competes with all classes of the tasks so far; `own`: only with those of its own task, as
    if each task had a head of its own."""
    choose_by: Literal["new", "all"] = "new"
    """The validation rows that choose a stage's best weights: those of its task, or of all tasks so far."""
    from_stage: int = Field(default=2, ge=1)
    """The first stage on which regularizers act; before, they only remember. Every stage is protected where training
    begins from an earlier model."""
    record: int = Field(default=2000, ge=1)
    """At most this many validation rows, and as many test rows, are answered after every stage, evenly chosen."""
    compare_orders: int = Field(default=0, ge=0)
    """Also learn the tasks in this many other orders, and in the same order with another seed, to report how much the
    order mattered; each costs as much as the sequence itself."""

    @model_validator(mode="after")
    def _one_division(self) -> TaskSequence:
        if self.labels and self.by != "task":
            raise ValueError("give `by` (a column) or `labels` (labels of each task), not both")
        return self

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        """See `luthier.train.seams.Strategy`. SpecError for tasks without classes; DataError where rows have no
        task."""
        from luthier.train.labelled import kept
        from luthier.train.labelled.pool import learns_head_only, pooled
        from luthier.train.run import spread
        from luthier.train.strategies._members import adopt_contract, judged
        from luthier.train.strategies._stages import ANSWERS, Way, run_chain

        base = job.open(job.seed)
        self._refuse(job, base)
        job = _checked(job, base)
        tasks = self._tasks(job, base)
        if learns_head_only(job, base):
            job = pooled(job, [*job.train, *job.validation, *job.test])
        tasks, why = self._ordered(tasks, job, base)
        job.progress.say(f"  tasks in order: {', '.join(tasks.names)}")
        way = Way(self.heads, self.choose_by, self.from_stage)
        asked = {"validation": spread(list(job.validation), self.record), "test": spread(list(job.test), self.record)}
        chain = run_chain(fit, job, base, tasks, way, asked)
        adopt_contract(job, chain.jobs[-1].folder)
        last = chain.fitted[-1]
        final = judged(replace(last, model=last.model.but(parts={**last.model.parts, **tasks.labels})), job)
        artifacts = {**final.artifacts, **self._write(chain, job.folder, [*base.labels], asked, why)}
        scratch = [one.folder / name for one in chain.jobs for name in (kept.FILE, ANSWERS)]
        if self.compare_orders and len(tasks.names) > 1:
            artifacts["orders.json"], more = self._other_orders(fit, job, base, chain, way, asked)
            scratch += more
        return replace(final, artifacts=artifacts, scratch=(*final.scratch, *scratch, job.folder / f"start-{ANSWERS}"),
                       summary={**final.summary, **_summary(chain, artifacts)})

    def _refuse(self, job: Job, base: LabelModel) -> None:
        task = base.task
        if task.type not in ("classify", "image") or task.multi_label:
            what = "rows with several labels" if task.multi_label else f"the task '{task.type}'"
            raise SpecError(f"train.strategy: sequence is for classes, one a row (classify, image), not for {what}")
        if job.spec.replay and job.spec.keep is None:
            raise SpecError("train.replay mixes in rows that earlier stages stored, and nothing is stored; set "
                            "train.keep, such as {kind: reservoir, size: 200}, or remove train.replay")
        if self.heads == "own" and job.spec.mix is not None:
            raise SpecError("train.strategy: with heads: own two rows of different tasks cannot be mixed; remove "
                            "train.mix, or take heads: shared")

    def _tasks(self, job: Job, base: LabelModel) -> Tasks:
        from luthier.train.strategies._tasks import divide_by_group, divide_by_label

        return divide_by_label(job, self.labels, base.labels) if self.labels else \
            divide_by_group(job, self.by, base.labels)

    def _ordered(self, tasks: Tasks, job: Job, base: LabelModel) -> tuple[Tasks, dict[str, Any]]:
        """The tasks as they are learned, and what the order was made from."""
        from luthier.train.strategies import _tasks

        if self.order == "appearance":
            return tasks, {}
        if isinstance(self.order, tuple):
            return tasks.ordered(_tasks.given_order(tasks, self.order)), {}
        choose = _tasks.by_similarity if self.order == "similarity" else _tasks.by_difficulty
        names, why = choose(tasks, job, base)
        return tasks.ordered(names), why

    def _write(self, chain: Chain, folder: Path, outputs: list[str], asked: dict[str, Any], why: dict[str, Any]
               ) -> dict[str, Any]:
        """`stages.safetensors`, and the contents of the JSON files beside it."""
        import torch

        from luthier.train import streams
        from luthier.train.labelled.matrix import told

        streams.write_tensors(folder / STAGES, {name: torch.from_numpy(values) for name, values
                                                    in chain.answers.items()}, {})
        tasks = chain.tasks
        facts = {"order": "given" if isinstance(self.order, tuple) else self.order, "heads": self.heads, "why": why}
        found: dict[str, Any] = {"stages.json": {
            **facts, "tasks": [*tasks.names], "labels": {name: [*tasks.labels[name]] for name in tasks.names},
            "outputs": outputs, "by": tasks.by, "has_start": chain.has_start,
            "ids": {name: [example.id for example in examples] for name, examples in asked.items()}}}
        if asked["validation"]:
            targets, owner = _right(asked["validation"], outputs, tasks)
            found["matrix.json"] = {**facts, "rows": "validation", **told(
                chain.answers["validation"], targets, owner, names=tasks.names, labels=tasks.labels, outputs=outputs,
                has_start=chain.has_start)}
        return found

    def _other_orders(self, fit: Callable[[Job], Fitted], job: Job, base: LabelModel, chain: Chain, way: Any,
                      asked: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Learn the same tasks in other orders, and in this one with another seed."""
        from luthier.train.labelled import kept
        from luthier.train.labelled.matrix import answers_by_mode
        from luthier.train.labelled.orders import compare_orders
        from luthier.train.strategies._stages import ANSWERS, run_chain

        if not asked["validation"]:
            raise SpecError("train.strategy: compare_orders compares answers to validation rows, and there are none")
        outputs, names = [*base.labels], chain.tasks.names
        targets, owner = _right(asked["validation"], outputs, chain.tasks)
        mode = "task_incremental" if self.heads == "own" else "class_incremental"
        labels_of = _labels_of(chain.tasks, outputs)
        chains = {" → ".join(names): chain}
        again = "again"
        scratch: list[Any] = []
        only = {"validation": asked["validation"]}
        runs = {again: (names, job.seed + 1000)} | {
            " → ".join(order): (order, job.seed) for order in other_orders(names, self.compare_orders, job.seed)}
        for at, (name, (order, seed)) in enumerate(runs.items()):
            one = job.but(folder=job.folder / f"order-{at}", seed=seed)
            chains[name] = run_chain(fit, one, one.open(seed), chain.tasks.ordered(order), way, only)
            scratch += [stage.folder / file for stage in chains[name].jobs for file in (kept.FILE, ANSWERS)]
        right = {name: answers_by_mode(one.answers["validation"][-1:], targets, owner, labels_of)[mode][0]
                 for name, one in chains.items()}
        return compare_orders(right, owner, chosen=" → ".join(names), again=again, seed=job.seed), scratch


def other_orders(names: tuple[str, ...], count: int, seed: int) -> list[tuple[str, ...]]:
    """At most `count` different orders of the names beside the given one, drawn by the seed."""
    import math

    import numpy as np

    rng = np.random.default_rng([seed, 21])
    found: list[tuple[str, ...]] = []
    while len(found) < min(count, math.factorial(len(names)) - 1):
        order = tuple(names[at] for at in rng.permutation(len(names)))
        if order != names and order not in found:
            found.append(order)
    return found


def _right(examples: Any, outputs: list[str], tasks: Tasks) -> tuple[np.ndarray, np.ndarray]:
    """Class and task of each row. int64 [rows] both"""
    import numpy as np

    return (np.array([outputs.index(example.labels[0]) for example in examples], dtype=np.int64),
            np.array([tasks.names.index(tasks.of(example)) for example in examples], dtype=np.int64))


def _labels_of(tasks: Tasks, outputs: list[str]) -> np.ndarray:
    import numpy as np

    return np.array([np.isin(outputs, tasks.labels[name]) for name in tasks.names])


def _checked(job: Job, base: LabelModel) -> Job:
    """Points 7 and 8 of the contract, once for all rows; the stages need not look again."""
    from luthier.train.contract import Contract
    from luthier.train.labelled import checks
    from luthier.train.strategies._stages import learned

    job.folder.mkdir(parents=True, exist_ok=True)
    contract = Contract(job.folder)
    held = [*job.validation, *job.test]
    if job.look_for_leaks:
        contract.add(checks.check_row_leak(job.train, held, root=job.root))
    contract.add(checks.check_class_labels(base, job.train, held, learned=learned(job.past)))
    contract.enforce()
    return job.but(look_for_leaks=False)


def _summary(chain: Chain, artifacts: dict[str, Any]) -> dict[str, Any]:
    """What the run's summary says of the sequence."""
    stages = [{"task": name, "train_rows": len(one.train), "replayed": len(one.replay),
               "steps": fitted.summary["steps"], "train_cpu_s": fitted.summary.get("train_cpu_s")}
              for name, one, fitted in zip(chain.tasks.names, chain.jobs, chain.fitted)]
    found: dict[str, Any] = {"tasks": [*chain.tasks.names], "stages": stages,
                             "train_examples": sum(row["train_rows"] for row in stages),
                             "steps": sum(row["steps"] for row in stages)}
    if "matrix.json" in artifacts:
        rows = {mode: [value for value in values[-1] if value is not None]
                for mode, values in artifacts["matrix.json"]["matrix"].items()}
        found["average_accuracy"] = {mode: round(sum(row) / len(row), 6) for mode, row in rows.items() if row}
    if "orders.json" in artifacts:
        found["orders"] = artifacts["orders.json"]["sentence"]
    return {"sequence": found}
