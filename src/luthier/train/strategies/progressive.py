"""Progressive networks (Rusu et al. 2016): every task gets a column of its own beside the frozen columns of older
tasks, and reads what they say. Nothing that was learned can be forgotten; what it costs is a larger network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from luthier.errors import DataError, SpecError
from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.seams import STRATEGIES

if TYPE_CHECKING:
    from luthier.adapt.network import LabelModel
    from luthier.train.labelled.base import Fitted, Job
    from luthier.train.strategies._columns import Chain, Shape
    from luthier.train.strategies._tasks import Tasks


@register(STRATEGIES, "progressive")
class Progressive(Spec):
    """Learns tasks one after another, each by a new column beside frozen ones (classify, image; one class a row).

    Where training begins from an earlier model, its columns stay, and tasks that have none yet get one; a model that
    was trained without columns becomes the first. `router.json` says how often the router finds the right column,
    `matrix.json` the share of right answers on every task after every column.
    """

    by: str = "task"
    """Column of the rows (one of a maker's `groups`) that names each row's task."""
    labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Task by label instead of by column: `{task: [labels …]}`, every label of the data in one task."""
    task: str = ""
    """All rows are one task of this name: the next column of an earlier model."""
    order: Literal["appearance"] | tuple[str, ...] = "appearance"
    """`appearance` as the train rows bring the tasks, or a list of their names."""
    size: Literal["auto", "full", "adapter"] = "auto"
    """`full`: every column is a whole network (small networks, image models); `adapter`: low-rank matrices and a head
    beside one frozen text model that all columns share (rank and layers as adapt.method: lora says, else rank 16);
    `auto` is adapter for transformers text models, full otherwise."""
    reads: int = Field(default=64, ge=0)
    """Units of the projection through which a layer reads the older columns; 0 reads nothing, and answers cost one
    column instead of all older ones too."""
    router: Literal["class", "task", "none"] = "class"
    """Who answers where no task is named: the column with the nearest centroid in the frozen base's features, with a
    centroid for each class or one for each task; `none`: all columns, by the mean of their probabilities."""
    abstain: float = Field(default=0.01, ge=0, lt=1)
    """Share of each task's own validation rows that the router may call out of scope; rows as far off are answered with
    even probabilities, which task.abstain turns into no answer. 0: nothing is out of scope."""
    earlier: str = "before"
    """Name of the first column, where training begins from a model that was trained without columns."""
    record: int = Field(default=2000, ge=1)
    """At most this many validation rows, and as many test rows, are answered for the matrix, evenly chosen."""

    @model_validator(mode="after")
    def _one_division(self) -> Progressive:
        given = [name for name, set_ in (("by", self.by != "task"), ("labels", bool(self.labels)),
                                         ("task", bool(self.task))) if set_]
        if len(given) > 1:
            raise ValueError(f"give {' or '.join(f'`{name}`' for name in given)}, not both")
        return self

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        """See `luthier.train.seams.Strategy`. SpecError for tasks without classes and for settings that columns make
        no use of; DataError where rows have no task, or every task has a column already."""
        from luthier.train.labelled import kept
        from luthier.train.strategies import _columns
        from luthier.train.strategies._members import adopt_contract, judged

        begun, job = job, job.but(open=job.fresh or job.open, replay=(), warm=True)
        base = job.open(job.seed)
        self._refuse(job, base)
        shape = self._shape(base)
        old = _columns.earlier_columns(begun, shape)
        job = _checked(job, base, old)
        tasks, new = self._tasks(job, old)
        job.progress.say(f"  columns in order: {', '.join(new)}")
        chain = _columns.learn_columns(fit, job.but(past=None), tasks, new, shape, old)
        adopt_contract(job, chain.jobs[-1].folder)
        router, report = None, None
        if self.router != "none":
            router, report = _columns.fit_router(chain, job, tasks, old, kind=self.router, quantile=self.abstain)
        outputs = [*base.labels, *(label for label in (old.labels if old else ()) if label not in base.labels)]
        artifacts = self._record(chain, job, tasks, router, outputs)
        model = _columns.whole(chain, outputs, router)
        final = judged(replace(chain.fitted[-1], model=model, memory=None), job.but(pool=None))
        if report is not None:
            artifacts["router.json"] = report
            if report["n"]:
                job.progress.say(f"  the router sends {report['accuracy']:.1%} of {report['n']:,} validation rows to "
                                 f"their column, and calls {report['abstained']:.1%} out of scope")
        return replace(final, artifacts={**final.artifacts, **artifacts},
                       scratch=(*final.scratch, *(kept.file_of(one) for one in chain.jobs)),
                       summary={**final.summary, **self._summary(chain, artifacts)})

    def _refuse(self, job: Job, base: LabelModel) -> None:
        task, spec = base.task, job.spec
        if task.type not in ("classify", "image") or task.multi_label:
            what = "rows with several labels" if task.multi_label else f"the task '{task.type}'"
            raise SpecError(f"train.strategy: progressive is for classes, one a row (classify, image), not for {what}")
        useless = ["train.replay"] * bool(spec.replays) + ["train.keep"] * (spec.keep is not None) + \
            [f"train.regularizers: {one.kind}" for one in spec.regularizers if one.needs_past]
        if useless:
            raise SpecError(f"{useless[0]} protects what is learned, and the columns of train.strategy: progressive "
                            "cannot forget; remove it")

    def _shape(self, base: LabelModel) -> Shape:
        from luthier.adapt.backbones.text import TextBackbone
        from luthier.adapt.lora import LoRA
        from luthier.train.strategies._columns import Shape

        text = isinstance(base.module.backbone, TextBackbone)
        adapter = self.size == "adapter" or (self.size == "auto" and text)
        if adapter and not text:
            raise SpecError(f"train.strategy.size: adapter is for transformers text models, and {base.name} is none; "
                            "take size: full")
        given = base.method if isinstance(base.method, LoRA) else None
        if given is not None and not adapter:
            raise SpecError("train.strategy.size: full trains a whole network for each task, and adapt.method is lora; "
                            "set adapt.method: {kind: full}")
        return Shape(given or LoRA() if adapter else None, self.reads, self.router != "none", self.earlier)

    def _tasks(self, job: Job, old: LabelModel | None) -> tuple[Tasks, list[str]]:
        """The division of the rows, tasks in the order of their columns; and the names of those that are new."""
        from luthier.train.strategies._tasks import Tasks, divide_by_group, divide_by_label, given_order

        if self.task:
            seen = {label for example in job.train for label in example.labels or ()}
            tasks = Tasks((self.task,), {self.task: tuple(label for label in job.open(job.seed).labels
                                                          if label in seen)})
        else:
            tasks = divide_by_label(job, self.labels) if self.labels else divide_by_group(job, self.by)
        if isinstance(self.order, tuple):
            tasks = tasks.ordered(given_order(tasks, self.order))
        known: Any = () if old is None else old.module.names  # type: ignore[union-attr]
        new = [name for name in tasks.names if name not in known]
        if not new:
            raise DataError(f"train.strategy: every task of the data has a column already ({', '.join(tasks.names)}), "
                            "and columns never change; name new rows as a task of their own")
        if len(new) < len(tasks.names):
            job.progress.say(f"  {len(tasks.names) - len(new)} tasks have a column already, which stays as it is")
        return tasks.ordered([*(name for name in known if name in tasks.names), *new]), new

    def _record(self, chain: Chain, job: Job, tasks: Tasks, router: Any, outputs: list[str]) -> dict[str, Any]:
        """`stages.safetensors`, and the contents of the JSON files beside it, as strategy `sequence` writes them."""
        import torch

        from luthier.train import streams
        from luthier.train.labelled.matrix import told
        from luthier.train.run import spread
        from luthier.train.strategies._columns import stage_answers
        from luthier.train.strategies.sequence import STAGES, _right

        asked = {"validation": spread(list(job.validation), self.record), "test": spread(list(job.test), self.record)}
        answers = {}
        for name, rows in asked.items():
            answers[name], answers[f"{name}_named"] = stage_answers(chain, job, tasks, router, rows, outputs)
        streams.write_tensors(job.folder / STAGES, {name: torch.from_numpy(values)
                                                    for name, values in answers.items()}, {})
        facts = {"order": "given" if isinstance(self.order, tuple) else self.order, "heads": "columns", "why": {}}
        found: dict[str, Any] = {"stages.json": {
            **facts, "tasks": [*tasks.names], "labels": {name: [*tasks.labels[name]] for name in tasks.names},
            "outputs": outputs, "by": tasks.by, "has_start": False,
            "ids": {name: [example.id for example in examples] for name, examples in asked.items()}}}
        if asked["validation"]:
            targets, owner = _right(asked["validation"], outputs, tasks)
            found["matrix.json"] = {**facts, "rows": "validation", **told(
                answers["validation"], targets, owner, names=tasks.names, labels=tasks.labels, outputs=outputs,
                has_start=False, named=answers["validation_named"])}
        return found

    def _summary(self, chain: Chain, artifacts: dict[str, Any]) -> dict[str, Any]:
        stages = [{"task": name, "train_rows": len(one.train), "steps": fitted.summary["steps"],
                   "train_cpu_s": fitted.summary.get("train_cpu_s")}
                  for name, one, fitted in zip(chain.names, chain.jobs, chain.fitted)]
        found: dict[str, Any] = {"columns": [*chain.network.names], "stages": stages,
                                 "size": "adapter" if chain.network.shared else "full"}
        if "matrix.json" in artifacts:
            rows = {mode: [value for value in values[-1] if value is not None]
                    for mode, values in artifacts["matrix.json"]["matrix"].items()}
            found["average_accuracy"] = {mode: round(sum(row) / len(row), 6) for mode, row in rows.items() if row}
        if "router.json" in artifacts:
            found["router"] = {name: artifacts["router.json"][name] for name in ("accuracy", "abstained", "n")}
        return {"progressive": found, "train_examples": sum(row["train_rows"] for row in stages),
                "steps": sum(row["steps"] for row in stages)}


def _checked(job: Job, base: LabelModel, old: LabelModel | None) -> Job:
    """Points 7 and 8 of the contract, once for all rows; the stages need not look again."""
    from luthier.train.contract import Contract
    from luthier.train.labelled import checks

    job.folder.mkdir(parents=True, exist_ok=True)
    contract = Contract(job.folder)
    held = [*job.validation, *job.test]
    if job.look_for_leaks:
        contract.add(checks.check_row_leak(job.train, held, root=job.root))
    contract.add(checks.check_class_labels(base, job.train, held, learned=old.labels if old else ()))
    contract.enforce()
    return job.but(look_for_leaks=False)
