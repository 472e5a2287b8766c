"""`train`: tune a model on prepared examples, under a contract that is checked before the first update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field

from luthier.adapt.base import Model, open_base, read_facts, trainable
from luthier.errors import ModelError, SpecError
from luthier.prepare.base import learned
from luthier.progress import Progress, Silent
from luthier.spec import Spec
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.train.augments import AUGMENTS, Augment, Unbound, inputs_of
from luthier.train.average import Average
from luthier.train.keeps import KEEPS, Keep
from luthier.train.losses import LOSSES, Loss
from luthier.train.losses.cross_entropy import CrossEntropy
from luthier.train.mixes import MIXES, Mix
from luthier.train.plans import PLANS, Plan
from luthier.train.plans.all import All
from luthier.train.regularizers import REGULARIZERS, Regularizer
from luthier.train.replay import PAST, OneOrMore, Replay
from luthier.train.seams import STRATEGIES, Strategy, Watch
from luthier.train.stages import Stage

if TYPE_CHECKING:
    from luthier.adapt.network import LabelModel

VERSION = 3
Found = TypeVar("Found")

__all__ = ["AUGMENTS", "KEEPS", "LOSSES", "MIXES", "PLANS", "REGULARIZERS", "STRATEGIES", "Regularizer", "Replay",
           "Train", "open_tuned", "open_tuned_labels", "train"]


class Train(Spec):
    """How the model is trained."""

    epochs: int = Field(default=3, ge=1)
    """Passes over the train examples; early stopping may end before."""
    max_steps: int = Field(default=0, ge=0)
    """Ends training after this many updates; 0: the epochs decide."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Examples per update; `auto` is 8, and 32 for the tasks classify, tag, embed and image."""
    pass_tokens: int = Field(default=4096, ge=16)
    """Most tokens in one forward and backward pass; an update with more is split into several passes (gradient
    accumulation), which gives the same update in less memory."""
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """Peak learning rate; `auto` is 8e-4 for lora and 2e-5 for full; for the tasks classify, tag, embed and image it is
    1e-4 where the base model trains, 1e-3 with lora, and 1e-2 where only the head does."""
    schedule: Literal["constant", "linear", "cosine", "one_cycle", "plateau"] = "cosine"
    """How the learning rate falls after the warm-up: not at all, or to zero along a line or a cosine; `one_cycle`
    climbs over the first 30 % and falls along a cosine (Smith 2018), and has no other warm-up; `plateau` halves it
    after each `plateau_patience` validations without a new best."""
    plateau_patience: int = Field(default=2, ge=1)
    """Validations without a new best after which the schedule `plateau` halves the learning rate."""
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of all updates in which the learning rate climbs to its peak."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled decay of matrices (AdamW) per unit of learning rate; norms and biases are spared."""
    clip_norm: float = Field(default=1.0, ge=0)
    """Largest norm of an update's gradient; 0 never clips."""
    max_length: int = Field(default=2048, ge=8)
    """Most tokens of an example; longer ones lose their end."""
    max_truncated_share: float = Field(default=0.05, ge=0, le=1)
    """Share of supervised tokens that may be lost to `max_length` before training refuses to start."""
    packing: Literal["auto", "packed", "buckets", "none"] = "auto"
    """How examples share a pass: `packed` in one row without seeing each other or pads (fastest), `buckets` of similar
    length, `none` one by one; `auto` packs where the model can, which the contract checks."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format that computes; `auto` follows adapt.dtype. Trained weights are kept in float32 either way."""
    recompute: bool = False
    """Recompute layers on the way back instead of keeping them: less memory, about 0.74 x the speed."""
    validate_every: int = Field(default=0, ge=0)
    """Updates between validations; 0: twice per epoch."""
    max_validation_examples: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """At most this many validation examples are measured each time, evenly chosen; `auto` is 200, and 2000 for the
    tasks classify, tag, embed and image."""
    best_by: Literal["auto", "loss", "metric"] = "auto"
    """What the best weights and early stopping go by: the validation loss, or the task's metric; `auto` is the loss,
    and the metric (the loss where equal) for the tasks classify, tag, embed and image."""
    patience: int = Field(default=3, ge=0)
    """Validations in a row without improvement while training, after which it stops; 0 never stops early. A lower loss
    is an improvement too, where the metric stands still. Weights that training began with are kept where nothing beats
    them, but do not count here."""
    checkpoint_every_s: float = Field(default=300.0, gt=0)
    """Seconds between checkpoints, from which a killed run resumes."""
    verify_resume: bool = True
    """Before training, prove on one small update that a saved and reloaded run continues bit for bit."""
    deterministic: bool = True
    """Use only algorithms that give the same bits every time, and float32 with all of its bits, not TF32 (free on the
    CPU, slower on a GPU)."""
    threads: int = Field(default=0, ge=0)
    """Processor threads; 0 is OMP_NUM_THREADS where it is set, otherwise one on two cores (two threads were 8 times
    slower when anything else ran) and one a core on larger machines."""
    seed: int = 0
    """Draws the adapter's first weights, the order of the examples, and dropout."""
    plan: Annotated[Plan, PLANS] = All()
    """Which layer groups learn, how fast and from when on: `all`, `head`, `discriminative`, `gradual`, `two_phase`."""
    average: Average | None = None
    """Stochastic weight averaging: the mean of the weights along the last part of the run."""
    loss: Annotated[Loss, LOSSES] = CrossEntropy()
    """What is minimised, for the tasks classify and image: `cross_entropy` or `focal`, with smoothing and class
    weights."""
    sampling: Literal["natural", "balanced"] = "natural"
    """Which rows an epoch sees (classify, image): each once, or as many drawn so that every class comes alike."""
    augments: tuple[Annotated[Augment | Unbound, AUGMENTS], ...] = ()
    """Random changes to every row each time it is seen, in this order (labelled tasks)."""
    mix: Annotated[Mix, MIXES] | None = None
    """Mixing of two rows and their labels: `mixup` or `cutmix` (image)."""
    strategy: Annotated[Strategy, STRATEGIES] | None = None
    """A way to train more than once for one model (labelled tasks), such as `crossval` or `selftrain`; null trains
    once."""
    keep: Annotated[Keep, KEEPS] | None = None
    """Which rows are stored with the model for later trainings that begin from it: `balanced`, `boundary`, `hardest` or
    `reservoir`; null stores none."""
    regularizers: tuple[Annotated[Regularizer, REGULARIZERS], ...] = ()
    """What is added to the loss against forgetting, such as l2sp or ewc."""
    replay: Annotated[Replay | tuple[Replay, ...] | None, OneOrMore] = None
    """General instructions, or rows kept by the model that training begins from, mixed in against forgetting; a list of
    such mappings replays several sources, each at its share; none by default."""
    stages: tuple[Stage, ...] = ()
    """Several trainings in a row (assistant, completion), each on some of the rows and from the weights of the one
    before, such as texts, then instructions; max_steps counts for each. Empty trains once on all rows."""

    @property
    def replays(self) -> tuple[Replay, ...]:
        """Everything that is replayed."""
        given = self.replay
        return () if given is None else (given,) if isinstance(given, Replay) else tuple(given)

    def peak_rate(self, method: Any, task: Task | None = None, *, head_only: bool = False) -> float:
        """The learning rate that `auto` means for a method and a task."""
        if self.learning_rate != "auto":
            return self.learning_rate
        if task is not None and task.labelled:
            return 1e-2 if head_only else 1e-3 if method.kind == "lora" else 1e-4
        return 2e-5 if method.kind == "full" else 8e-4  # FACTS, section 8: the rate bought more than any kernel

    def update_size(self, task: Task) -> int:
        """Examples per update."""
        return self.batch_size if self.batch_size != "auto" else 32 if task.labelled else 8

    def validation_size(self, task: Task) -> int:
        """Most validation examples that are measured each time."""
        if self.max_validation_examples != "auto":
            return self.max_validation_examples
        return 2000 if task.labelled else 200

    def inputs(self, root: Path) -> Mapping[str, str]:
        """Hashes of the files that the augmentations, the strategy and the regularizers read: part of what a run
        depends on."""
        strategy = [self.strategy] if self.strategy is not None else []
        return inputs_of([*self.augments, *strategy, *self._all_regularizers()], root)

    def _all_regularizers(self) -> list[Regularizer]:
        return [*self.regularizers, *(one for stage in self.stages for one in stage.regularizers or ())]

    def refuse_misfits(self, task: Task) -> None:
        """SpecError for a setting that the task cannot honour."""
        classes = task.type in ("classify", "image")
        wrong = {
            "loss": self.loss != CrossEntropy() and not classes,
            "sampling": self.sampling != "natural" and not classes,
            "augments": bool(self.augments) and not task.labelled,
            "mix": self.mix is not None and task.type != "image",
            "strategy": self.strategy is not None and not task.labelled,
            "best_by": self.best_by == "metric" and not task.labelled,
            "stages": bool(self.stages) and task.labelled,
            "replay": task.labelled and [one.source for one in self.replays] not in ([], [PAST]),
            "recompute": self.recompute and task.labelled,
            "packing": self.packing not in ("auto", "buckets") and task.labelled,
        }
        kinds = [one.kind for one in self.regularizers]
        if len({*kinds}) < len(kinds):
            raise SpecError(f"train.regularizers names '{max(kinds, key=kinds.count)}' twice; give each kind once, "
                            "with the strength that it shall have")
        names = [stage.name for stage in self.stages]
        if len({*names}) < len(names):
            raise SpecError(f"train.stages: two stages are named '{max(names, key=names.count)}'")
        if self.keep is not None:
            self.keep.refuse_misfits(task)
        for one in self._all_regularizers():
            one.refuse_misfits(task)
            if one.teaches() and not classes and (one.kind != "lwf" or task.labelled):  # lwf also teaches tokens
                raise SpecError(f"train.regularizers: '{one.kind}' teaches answers about classes, and the task "
                                f"'{task.type}' has none of a whole row; remove it")
            if one.teaches() and self.mix is not None:
                raise SpecError(f"train.regularizers: '{one.kind}' cannot tell what its teacher says of two mixed "
                                "images; remove train.mix")
        for field, bad in wrong.items():
            if bad:
                raise SpecError(f"train.{field} = {getattr(self, field)!r} does not apply to the task '{task.type}'; "
                                "remove it")
        reads = "image" if task.type == "image" else "text"
        for augment in self.augments:
            if augment.reads != reads:
                raise SpecError(f"train.augments: '{augment.kind}' changes {augment.reads}s, and the task "
                                f"'{task.type}' has {reads}s")
            if task.type == "tag":
                raise SpecError(f"train.augments: '{augment.kind}' would part the words from their tags; remove it")


def train(model: Artifact, data: Artifact, spec: Train, *, store: Store, root: Path | None = None,
          progress: Progress = Silent(), watch: Watch | None = None, start: Artifact | None = None) -> Artifact:
    """Train and keep the best weights, beginning from the base model, or from the model of an earlier run (`start`).

    The artifact holds `best/` (PEFT adapter, or the whole model after full tuning), `contract.json`, `contract.txt`,
    `preview.html`, `steps.jsonl` and `tensorboard/`, and `memory/` where something is kept for a later
    training (`luthier.train.past`). The summary says steps, best step, validation loss before and
    after (nats per supervised token), tokens, seconds and memory. Raises ContractError when a point of the contract
    is violated (nothing was trained then) and ModelError when the loss stops being a number. A killed run continues
    inside the epoch at the next call. `watch` sees every update and may raise `Pruned` to give the run up.
    """
    base = Path.cwd() if root is None else root
    inputs: dict[str, Any] = {"model": model, "data": learned(data)}
    if start is not None:
        inputs["start"] = start
    if spec.replays:
        hashes = [one.identity(base) for one in spec.replays]
        inputs["replay"] = hashes[0] if len(hashes) == 1 else hashes
    if files := spec.inputs(base):
        inputs["files"] = files

    def make(folder: Path) -> dict[str, Any]:
        task = Task(**read_facts(model)["task"])
        spec.refuse_misfits(task)
        if task.labelled:
            from luthier.train.labelled.run import run_labelled

            return run_labelled(folder, model, data, spec, cache=store.cache("features"), root=base,
                                progress=progress, watch=watch, start=start)
        from luthier.train.run import run  # torch and transformers: only where something is trained

        return run(folder, model, data, spec, root=base, progress=progress, watch=watch, start=start)

    return store.build("train", version=VERSION, spec=spec, inputs=inputs, make=make)


def probe_rates(model: Artifact, data: Artifact, spec: Train, run: Callable[[Callable[[float], float]], Found], *,
                store: Store, root: Path | None = None, progress: Progress = Silent()) -> Found:
    """Open the training and call `run(update)`, where `update(rate)` makes the next update with that learning rate and
    returns the loss before it. Nothing is kept. For a learning-rate range test (`luthier.tune.range_test`)."""
    import tempfile

    base = Path.cwd() if root is None else root
    task = Task(**read_facts(model)["task"])
    spec.refuse_misfits(task)
    if spec.strategy is not None or spec.stages:
        raise SpecError("a learning-rate range test is for one training; remove train."
                        f"{'stages' if spec.stages else 'strategy'} for it")
    with tempfile.TemporaryDirectory(prefix="luthier-rates-") as folder:
        if task.labelled:
            from luthier.train.labelled.run import probe_labelled

            return probe_labelled(Path(folder), model, data, spec, run, cache=store.cache("features"), root=base,
                                  progress=progress)
        from luthier.train.run import probe

        return probe(Path(folder), model, data, spec, run, root=base, progress=progress)


def open_tuned(run: Artifact, model: Artifact, *, dtype: str = "") -> Model:
    """The best weights of a run on their base, in evaluation mode; `dtype` overrides the spec's."""
    folder = run.path / "best"
    if run.inputs.get("model") != f"{model.stage}/{model.id}":
        raise ModelError(f"run {run.id} was trained from {run.inputs.get('model')}, not from {model.stage}/{model.id}")
    if not folder.is_dir():
        raise ModelError(f"{run.path} holds no best/ folder; delete that run and train again")
    base = open_base(model, dtype=dtype)
    return trainable(base, base.method.restore(base.module, folder))


def open_tuned_labels(run: Artifact, *, dtype: str = "float32", root: Path | None = None) -> LabelModel:
    """The best weights of a labelled task's run, in evaluation mode. `root` is the folder that the paths of images
    start from (the project's)."""
    from luthier.adapt.labelled import load_label_model

    model = load_label_model(run.path / "best", dtype=dtype)
    if model.task.type == "image":
        model.processor.root = root  # type: ignore[attr-defined]
    return model
