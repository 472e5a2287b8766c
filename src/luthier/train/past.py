"""What a model carries on from its training: rows, a teacher's logits, importances. Read by the next training.

On disk it is the folder `memory/` of a train artifact: `memory.json` (labels, and what was kept), `rows.jsonl` (the
store of past examples), `logits.safetensors` (what the finished model answers to them) and one `<kind>.safetensors`
for each regularizer that remembers something.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.adapt.base import read_facts
from luthier.errors import ModelError
from luthier.store import Artifact
from luthier.types import Example, decode_example, read_jsonl, write_jsonl

if TYPE_CHECKING:
    import numpy as np
    import torch

FOLDER = "memory"
FACTS, ROWS, LOGITS = "memory.json", "rows.jsonl", "logits.safetensors"


@dataclass(frozen=True, kw_only=True)
class Past:
    """What the model that training begins from has learned, and what was kept of it."""

    open: Callable[[], Any]
    """That model as it was, for teaching: a fresh LabelModel (labelled tasks) or Model, in evaluation mode."""
    labels: tuple[str, ...] = ()
    """Its outputs, in their order (labelled tasks)."""
    rows: Sequence[Example] = ()
    """The store of past examples."""
    logits: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What it answered to them when it was finished: example id → float32 [len(labels)] (labelled tasks)."""
    kept: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    """What regularizers remembered, by their kind."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else memory.json says."""

    def store_seed(self, otherwise: int) -> int:
        """The seed that the store of rows was begun with; `otherwise` where none was."""
        return int(self.facts.get("store_seed", otherwise))

    def but(self, **changes: Any) -> Past:
        return replace(self, **changes)


_DECIDES = {"fingerprint": "another base model", "method": "another adapt.method", "template": "another chat template",
            "stop_ids": "other stop tokens"}
_DECIDES_LABELLED = {"fingerprint": "another base model", "head": "another adapt.head",
                     "image_size": "another adapt.image_size"}
"""The method may change there: a saved labelled model holds plain weights, and a fresh adapter goes beside them."""


def check_start(start: Artifact, model: Artifact) -> None:
    """ModelError where the run `start` was tuned in a way that a training of `model` cannot go on with."""
    named = str(start.inputs.get("model"))
    if named == f"{model.stage}/{model.id}":
        return
    file = start.path.parents[1] / named / "adapt.json"
    try:
        before, now = json.loads(file.read_text("utf-8")), read_facts(model)
    except (OSError, ValueError):
        raise ModelError(f"run {start.id} was trained from {named}, which is not there any more; train from the base "
                         "model") from None
    for name, what in (_DECIDES_LABELLED if "head" in now else _DECIDES).items():
        if before.get(name) != now.get(name):
            raise ModelError(f"run {start.id} was trained with {what} ({before.get(name)!r:.80}, now "
                             f"{now.get(name)!r:.80}), so training cannot go on from it; set it as it was, or train "
                             "from the base model")


def save_past(folder: Path, *, labels: Sequence[str] = (), rows: Sequence[Example] = (),
              logits: Mapping[str, np.ndarray] | None = None,
              kept: Mapping[str, Mapping[str, torch.Tensor]] | None = None, facts: Mapping[str, Any] | None = None
              ) -> None:
    """Write `folder` (a run's `memory/`)."""
    import torch
    from safetensors.torch import save_file

    from luthier.store import tell_disk_trouble, write_json

    folder.mkdir(parents=True, exist_ok=True)
    kept = {kind: tensors for kind, tensors in (kept or {}).items() if tensors}
    with tell_disk_trouble(folder):
        write_jsonl(folder / ROWS, rows)
        if logits:
            save_file({id: torch.from_numpy(values).float().contiguous() for id, values in logits.items()},
                      folder / LOGITS)
        for kind, tensors in kept.items():
            save_file({name: value.detach().float().cpu().contiguous() for name, value in tensors.items()},
                      folder / f"{kind}.safetensors")
        write_json(folder / FACTS, {**(facts or {}), "labels": list(labels), "rows": len(rows), "kept": sorted(kept)})


def load_past(folder: Path, opened: Callable[[], Any]) -> Past:
    """What `save_past` wrote; an empty past where a model was trained without keeping anything."""
    from safetensors.numpy import load_file as load_arrays
    from safetensors.torch import load_file

    if not (folder / FACTS).is_file():
        return Past(open=opened)
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        rows = [decode_example(row) for row in read_jsonl(folder / ROWS)]
        logits = load_arrays(folder / LOGITS) if (folder / LOGITS).is_file() else {}
        kept = {kind: load_file(folder / f"{kind}.safetensors") for kind in facts["kept"]}
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"what the earlier model kept in {folder} cannot be read ({error}); delete that run and train "
                         "it again") from None
    facts = {name: value for name, value in facts.items() if name not in ("rows", "kept")}
    return Past(open=opened, labels=tuple(facts.pop("labels")), rows=rows, logits=logits, kept=kept, facts=facts)
