"""Going on from an earlier run of an assistant or completion model: its weights, the model as it was, the rows that it
kept, and what is kept of this run for the next one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from luthier.adapt.base import Model, open_base, open_model, trainable
from luthier.errors import ModelError
from luthier.progress import Progress, Silent
from luthier.store import Artifact
from luthier.train.keeps import Candidates
from luthier.train.leak import near_copies
from luthier.train.optim import MasterAdamW
from luthier.train.past import FOLDER, Past, load_past
from luthier.train.regularizers import Setting
from luthier.train.replay import PAST, Replay
from luthier.types import Example

if TYPE_CHECKING:
    from luthier.train.base import Train

BEST = "best"


@dataclass(frozen=True, kw_only=True)
class Begun:
    """Where a training begins."""

    model: Model
    """With the weights that it begins from, as numbers of the precision that computes."""
    folder: Path | None = None
    """The earlier run's folder; None where training begins from a base model."""
    past: Past | None = None


def begin(artifact: Artifact, folder: Path | None, *, seed: int, dtype: str, device: Any) -> Begun:
    """Open a base model with a fresh adapter (`seed` draws it), or the model of an earlier run's `folder`: that run's
    adapter goes on, the only one there is, or all its weights do."""
    if folder is None:
        model = open_model(artifact, seed=seed, dtype=dtype)
        model.module.to(device)
        return Begun(model=model)
    best = folder / BEST
    if not best.is_dir():
        raise ModelError(f"{folder} holds no {BEST}/ folder, so training cannot begin from it; train it again")
    whole = (best / "config.json").is_file()
    base = open_base(artifact, dtype=dtype, weights=best if whole else None)
    method = base.method
    module = method.attach(base.module, seed=seed) if whole else method.restore(base.module, best)
    model = trainable(base, module)
    model.module.to(device)
    return Begun(model=model, folder=folder, past=load_past(folder / FOLDER, _as_it_was(artifact, model, best, whole,
                                                                                        dtype=dtype, device=device)))


def _as_it_was(artifact: Artifact, model: Model, best: Path, whole: bool, *, dtype: str, device: Any
               ) -> Callable[[], Model]:
    """Opens the model that training begins from, for teaching. Beside adapters the base's weights are shared with the
    model that trains, not copied: its user must not change them."""
    if whole:
        def read() -> Model:
            found = open_base(artifact, dtype=dtype, weights=best)
            found.module.to(device)
            return found

        return read
    kept = sharing(model.module)

    def share() -> Model:
        return Model(**{**model.__dict__, "module": sharing(kept), "groups": {}})

    return share


def sharing(module: nn.Module) -> nn.Module:
    """A frozen copy in evaluation mode that holds the same frozen weights and buffers, and copies of what trains."""
    same = [*(value for value in module.parameters() if not value.requires_grad), *module.buffers()]
    return copy.deepcopy(module, {id(value): value for value in same}).requires_grad_(False).eval()


def restore_weights(optimizer: MasterAdamW, folder: Path) -> None:
    """Give the optimizer the float32 weights that an earlier run saved: the module holds them rounded."""
    best = folder / BEST
    names = {_saved_name(name): name for name in optimizer.masters}
    missing = set(names)
    for file in sorted(best.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as opened, torch.no_grad():  # type: ignore[no-untyped-call]
            for key in missing & {*opened.keys()}:
                optimizer.masters[names[key]].copy_(opened.get_tensor(key))
                missing.discard(key)
    if missing:
        raise ModelError(f"{best} holds no weights named {', '.join(sorted(missing)[:3])}, which train now; keep "
                         "adapt.method as it was in that run, or train from the base model")
    optimizer.publish()


def _saved_name(name: str) -> str:
    """A parameter's name in the files: PEFT leaves the adapter's own name out."""
    return name.replace(".default.", ".")


def pools(replays: Sequence[Replay], past: Past | None, own: Sequence[Example], held: Sequence[Example], *, root: Path,
          progress: Progress) -> list[tuple[Replay, list[Example]]]:
    """What is replayed, with its rows; a source without rows is left out, and that is said.

    Of the rows that the earlier model kept, those are left out that are learned now anyway (`own`), and those that
    would show what is held out now (`held`): a document may have come to the test set since.
    """
    found = []
    for one in replays:
        rows = one.read(root) if one.source != PAST else _apart(past.rows if past is not None else (), own, held,
                                                                 progress)
        if rows:
            found.append((one, rows))
        else:
            progress.say("  nothing to replay: the model that training begins from kept no rows (train.keep)")
    return found


def _apart(rows: Sequence[Example], own: Sequence[Example], held: Sequence[Example], progress: Progress
           ) -> list[Example]:
    learned = {example.id for example in own}
    documents = {document for example in held for document in example.origin.documents}
    passages = {passage for example in held for passage in example.origin.passages}
    old = [example for example in rows if example.id not in learned]
    left = [example for example in old if not documents & {*example.origin.documents}
            and not passages & {*example.origin.passages}]
    while copies := {train for _, train in near_copies(left, held)}:
        left = [example for example in left if example.id not in copies]
    if len(left) < len(old):
        progress.say(f"  {len(old) - len(left)} of {len(old)} kept rows are held out now, so they are not replayed")
    return left


def remember(setting: Setting, spec: Train, *, examples: Sequence[Example],
             loss: Callable[[Example], float]) -> dict[str, Any]:
    """The arguments of `luthier.train.past.save_past`, or nothing where the spec keeps nothing. `examples` were learned
    now; rows that came out of the store compete with them for their places again. `loss` is the finished model's mean
    token loss on a row, in nats."""
    kept = {one.kind: one.remember(setting) for one in spec.regularizers}
    if spec.keep is None and not any(kept.values()):
        return {}
    past, own = setting.past, {example.id for example in examples}
    seen = (past.facts.get("seen", 0) if past is not None else 0) + len(examples)
    seed = setting.seed if past is None else past.store_seed(setting.seed)
    found: dict[str, Any] = {"kept": kept, "facts": {"seen": seen, "store_seed": seed}}
    if spec.keep is not None:
        old = [example for example in past.rows if example.id not in own] if past is not None else []
        rows = [*old, *examples]
        each = np.zeros(len(rows), dtype=np.float32)
        if spec.keep.reads_losses:
            with (setting.progress or Silent()).track("rows to keep", len(rows), unit="rows") as bar:
                for at, row in enumerate(rows):
                    each[at] = loss(row)
                    bar.advance(1)
        chosen = spec.keep.choose(Candidates(
            ids=[example.id for example in rows], num_old=len(old), num_seen=seen, classes=sources(rows), losses=each,
            margins=-each, seed=seed))
        found["rows"] = [rows[int(at)] for at in chosen]
    return found


def sources(rows: Sequence[Example]) -> np.ndarray:
    """What balances a store of rows without classes: the first document of each, or the step that made it. int64
    [rows]"""
    names = [example.origin.documents[0] if example.origin.documents else f"step {example.origin.step}"
             for example in rows]
    places = {name: at for at, name in enumerate(dict.fromkeys(names))}
    return np.array([places[name] for name in names], dtype=np.int64)
