"""`train`: tune a model on prepared examples, under a contract that is checked before the first update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from luthier.adapt.base import Model, open_base, trainable
from luthier.errors import ModelError
from luthier.progress import Progress, Silent
from luthier.spec import Spec
from luthier.store import Artifact, Store
from luthier.train.replay import Replay
from luthier.train.seams import REGULARIZERS, Regularizer

VERSION = 1

__all__ = ["REGULARIZERS", "Regularizer", "Replay", "Train", "open_tuned", "train"]


class Train(Spec):
    """How the model is trained."""

    epochs: int = Field(default=3, ge=1)
    """Passes over the train examples; early stopping may end before."""
    max_steps: int = Field(default=0, ge=0)
    """Ends training after this many updates; 0: the epochs decide."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per update."""
    pass_tokens: int = Field(default=4096, ge=16)
    """Most tokens in one forward and backward pass; an update with more is split into several passes (gradient
    accumulation), which gives the same update in less memory."""
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """Peak learning rate; `auto` is 8e-4 for lora and 2e-5 for full."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls after the warm-up: not at all, or to zero along a line or a cosine."""
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
    max_validation_examples: int = Field(default=200, ge=1)
    """At most this many validation examples are measured each time, evenly chosen."""
    patience: int = Field(default=3, ge=0)
    """Validations without a new best after which training stops; 0 never stops early."""
    checkpoint_every_s: float = Field(default=300.0, gt=0)
    """Seconds between checkpoints, from which a killed run resumes."""
    verify_resume: bool = True
    """Before training, prove on one small update that a saved and reloaded run continues bit for bit."""
    deterministic: bool = True
    """Use only algorithms that give the same bits every time (free on the CPU, slower on a GPU)."""
    threads: int = Field(default=0, ge=0)
    """Processor threads; 0 is OMP_NUM_THREADS where it is set, otherwise one on two cores (two threads were 8 times
    slower when anything else ran) and one a core on larger machines."""
    seed: int = 0
    """Draws the adapter's first weights, the order of the examples, and dropout."""
    regularizers: tuple[Annotated[Regularizer, REGULARIZERS], ...] = ()
    """Penalties added to the loss, such as l2sp."""
    replay: Replay | None = None
    """General instructions mixed in against forgetting; none by default."""

    def peak_rate(self, method: Any) -> float:
        """The learning rate that `auto` means for a method."""
        if self.learning_rate != "auto":
            return self.learning_rate
        return 2e-5 if method.kind == "full" else 8e-4  # FACTS, section 8: the rate bought more than any kernel


def train(model: Artifact, data: Artifact, spec: Train, *, store: Store, root: Path | None = None,
          progress: Progress = Silent()) -> Artifact:
    """Train and keep the best weights.

    The artifact holds `best/` (PEFT adapter, or the whole model after full tuning), `contract.json`, `contract.txt`,
    `preview.html`, `steps.jsonl` and `tensorboard/`. The summary says steps, best step, validation loss before and
    after (nats per supervised token), tokens, seconds and memory. Raises ContractError when a point of the contract
    is violated (nothing was trained then) and ModelError when the loss stops being a number. A killed run continues
    inside the epoch at the next call.
    """
    base = Path.cwd() if root is None else root
    inputs: dict[str, Any] = {"model": model, "data": data}
    if spec.replay is not None:
        inputs["replay"] = spec.replay.identity(base)

    def make(folder: Path) -> dict[str, Any]:
        from luthier.train.run import run  # torch and transformers: only where something is trained

        return run(folder, model, data, spec, root=base, progress=progress)

    return store.build("train", version=VERSION, spec=spec, inputs=inputs, make=make)


def open_tuned(run: Artifact, model: Artifact, *, dtype: str = "") -> Model:
    """The best weights of a run on their base, in evaluation mode; `dtype` overrides the spec's."""
    folder = run.path / "best"
    if run.inputs.get("model") != f"{model.stage}/{model.id}":
        raise ModelError(f"run {run.id} was trained from {run.inputs.get('model')}, not from {model.stage}/{model.id}")
    if not folder.is_dir():
        raise ModelError(f"{run.path} holds no best/ folder; delete that run and train again")
    base = open_base(model, dtype=dtype)
    return trainable(base, base.method.restore(base.module, folder))
