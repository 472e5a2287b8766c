"""Models of labelled tasks: opened with a fresh head, saved into one self-contained folder, and loaded from it."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from luthier.adapt import columns, ensemble
from luthier.adapt.backbones.base import Backbone, read_config
from luthier.adapt.backbones.static import FAMILY as STATIC
from luthier.adapt.backbones.static import open_static, restore_static
from luthier.adapt.backbones.text import FAMILY as TEXT
from luthier.adapt.backbones.text import TextBackbone, open_text_backbone, restore_text_backbone
from luthier.adapt.backbones.tfidf import FAMILY as TFIDF
from luthier.adapt.backbones.tfidf import restore_tfidf
from luthier.adapt.base import METHODS, Adapt, Method, read_facts
from luthier.adapt.head import Head
from luthier.adapt.network import LabelModel, Network, tag_labels
from luthier.adapt.vocabulary import Vocabulary, extend
from luthier.errors import ModelError
from luthier.models.sources import VECTORS, SourceFiles, resolve
from luthier.store import Artifact, canonical, tell_disk_trouble, write_json
from luthier.task import Task
from luthier.types import digest

NETWORK = "network.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Opening:
    """The facts in adapt.json that a labelled model is opened from."""

    source: str
    root: Path
    fingerprint: str
    name: str
    head: Head
    method: Method
    pretrained: bool
    image_size: int | None
    dtype: str
    task: Task
    vocabulary: Vocabulary | None = None

    @classmethod
    def read(cls, artifact: Artifact) -> Opening:
        facts = read_facts(artifact)
        root = Path(facts["root"])
        return cls(source=facts["source"], root=root, fingerprint=facts["fingerprint"], name=facts["name"],
                   head=Head(**facts["head"]), method=METHODS.parse(facts["method"], local=root),  # type: ignore[arg-type]
                   pretrained=facts["pretrained"], image_size=facts["image_size"], dtype=facts["dtype"],
                   task=Task(**facts["task"]),
                   vocabulary=Vocabulary(**facts["vocabulary"]) if facts.get("vocabulary") else None)

    def files(self) -> SourceFiles:
        """ModelError when the model's files changed since `adapt` looked at them."""
        found = resolve(self.source, purpose=purpose_of(self.task), root=self.root)
        if found.fingerprint != self.fingerprint:
            raise ModelError(f"model '{self.source}' at {found.folder} changed since it was adapted; "
                             "run `luthier adapt` again")
        return found


def purpose_of(task: Task) -> Any:
    """What `resolve` looks for."""
    return "image" if task.type == "image" else "encoder"


def inspect_labelled(source: SourceFiles, spec: Adapt, task: Task) -> dict[str, Any]:
    """What adapt.json says of a labelled task's model; ModelError for a model that does not fit the task."""
    from luthier.adapt.full import Full

    method = spec.method if "method" in spec.model_fields_set else Full()
    backbone = open_backbone(source, task, dtype="float32", pretrained=True, image_size=spec.image_size)
    wanted = "image" if task.type == "image" else "text"
    if backbone.reads != wanted:
        raise ModelError(f"model '{source.source}' reads {backbone.reads}s, and the task '{task.type}' needs a model "
                         f"that reads {wanted}s")
    if spec.vocabulary is not None and not isinstance(backbone, TextBackbone):
        raise ModelError("adapt.vocabulary joins pieces of a tokenizer to words, and "
                         f"'{source.source}' has whole words already; remove it")
    if spec.head.pooling != "auto" and wanted == "image":
        raise ModelError("adapt.head.pooling is for texts; an image network pools by itself")
    return {
        "source": source.source, "folder": str(source.folder), "fingerprint": source.fingerprint, "name": source.name,
        "architecture": type(getattr(backbone, "model", backbone)).__name__, "family": backbone.family,
        "method": method.dump(), "dtype": spec.dtype, "task": task.dump(), "head": spec.head.dump(),
        "pretrained": spec.pretrained, "image_size": spec.image_size, "width": backbone.width,
        "vocabulary": None if spec.vocabulary is None else spec.vocabulary.dump(),
        "parameters": sum(p.numel() for p in backbone.parameters()), "groups": len(backbone.groups()) + 1,
    }


def open_backbone(source: SourceFiles, task: Task, *, dtype: str, pretrained: bool, image_size: int | None = None,
                  max_length: int | None = None, seed: int = 0, texts: Sequence[str] = ()) -> Backbone:
    """The backbone for a model source; text models for text tasks, image models for `image`. Word vectors take from
    the train texts which words to keep."""
    if task.type == "image":
        from luthier.adapt.backbones.image import open_image_backbone

        return open_image_backbone(source, image_size=image_size, dtype=dtype, pretrained=pretrained, seed=seed)
    if source.source.startswith(VECTORS):
        return open_static(source, pretrained=pretrained, dtype=dtype, max_length=max_length, seed=seed, texts=texts)
    return open_text_backbone(source.folder, source=source.source, dtype=dtype, pretrained=pretrained,
                              max_length=max_length, seed=seed)


def restore_backbone(folder: Path, *, dtype: str = "float32") -> Backbone:
    """The architecture that a backbone's `save` described; its weights are still to be filled in."""
    facts = read_config(folder)
    if facts["family"] == STATIC:
        return restore_static(folder, facts, dtype=dtype)
    if facts["family"] == TEXT:
        return restore_text_backbone(folder, facts, dtype=dtype)
    if facts["family"] == TFIDF:
        return restore_tfidf(folder, facts, dtype=dtype)
    from luthier.adapt.backbones.image import restore_image_backbone
    from luthier.adapt.backbones.pixels import FAMILY as PIXELS
    from luthier.adapt.backbones.pixels import restore_pixels

    if facts["family"] == PIXELS:
        return restore_pixels(folder)

    return restore_image_backbone(folder, dtype=dtype)


def outputs_of(task: Task, labels: Sequence[str]) -> tuple[str, ...]:
    """Names of the network's outputs for the data's labels."""
    return tag_labels(labels) if task.type == "tag" else () if task.type == "embed" else tuple(labels)


def open_label_model(artifact: Artifact, labels: Sequence[str], *, seed: int = 0, dtype: str = "float32",
                     max_length: int | None = None, texts: Sequence[str] = ()) -> LabelModel:
    """The base model with a fresh head for `labels`, in evaluation mode, every parameter requiring gradients (LoRA: the
    adapters and the head). `seed` draws the head, and the backbone where it is not pretrained. `texts` are the train
    texts, from which `adapt.vocabulary.auto` and word vectors choose their words."""
    opening = Opening.read(artifact)
    source = opening.files()
    backbone = open_backbone(source, opening.task, dtype=dtype, pretrained=opening.pretrained,
                             image_size=opening.image_size, max_length=max_length, seed=seed, texts=texts)
    if opening.vocabulary is not None and isinstance(backbone, TextBackbone):
        extend(backbone, opening.vocabulary.words(backbone.processor.tokenizer, texts))
    return _assemble(backbone, opening, labels, source=source, seed=seed)


def _assemble(backbone: Backbone, opening: Opening, labels: Sequence[str], *, source: SourceFiles, seed: int
              ) -> LabelModel:
    task, outputs = opening.task, outputs_of(opening.task, labels)
    if task.type != "embed" and not outputs:
        raise ModelError("the data has no labels, so there is nothing to learn; check the label column")
    pooling = pooling_of(opening.head, backbone, source.folder)
    network = Network(backbone, task, outputs=len(outputs), head=opening.head, pooling=pooling, seed=seed)
    network.requires_grad_(True)
    if opening.method.kind == "lora":
        opening.method.attach(network, seed=seed)
    print_of = digest(canonical([source.fingerprint, pooling, opening.image_size, opening.pretrained or seed,
                                 {k: v for k, v in backbone.describe().items() if k != "config"}]))
    return LabelModel(module=network.eval(), task=task, labels=outputs, name=opening.name, method=opening.method,
                      fingerprint=print_of)


def pooling_of(head: Head, backbone: Backbone, folder: Path) -> str:
    """The pooling that `auto` means for a backbone."""
    if head.pooling != "auto" or backbone.reads != "text":
        return head.pooling
    file = folder / "1_Pooling" / "config.json"
    if file.is_file():
        told = json.loads(file.read_text("utf-8"))
        return "cls" if told.get("pooling_mode_cls_token") or told.get("pooling_mode") == "cls" else "mean"
    return "last" if isinstance(backbone, TextBackbone) and backbone.causal else "mean"


def save_label_model(model: LabelModel, folder: Path) -> None:
    """Write a folder that `load_label_model` opens anywhere: network.json, backbone.json, processor, float32 weights
    (adapters merged into the weights they stand beside)."""
    folder.mkdir(parents=True, exist_ok=True)
    network = model.module
    with tell_disk_trouble(folder):
        progressive = network if isinstance(network, columns.ProgressiveNetwork) else None
        merges = model.method.kind == "lora" and progressive is None  # adapters of columns stay beside the base
        state = model.method.merged_state(network) if merges else network.state_dict()
        tensors: dict[str, torch.Tensor] = {}
        seen: dict[int, str] = {}
        several = network if isinstance(network, ensemble.EnsembleNetwork) else None
        for name, value in state.items():
            if value.data_ptr() and seen.setdefault(value.data_ptr(), name) != name:
                continue  # tied weights are stored once, and tied again by the architecture
            if several is not None and (twin := _twin(name)) in tensors and torch.equal(tensors[twin], value):
                continue  # layers that stood still are equal in all members
            tensors[name] = (value.float() if value.is_floating_point() else value).contiguous().cpu().clone()
        save_file(tensors, folder / WEIGHTS)
        network.backbone.save(folder)
        write_json(folder / NETWORK, {
            "format": 1, "task": model.task.dump(), "labels": list(model.labels), "name": model.name,
            "head": network.spec.dump(), "pooling": network.pooling, "temperature": model.temperature,
            **({"parts": {name: list(names) for name, names in model.parts.items()}} if model.parts else {}),
            **({} if progressive is None else {"columns": columns.describe(progressive)}),
            **({} if several is None else {"ensemble": ensemble.describe(several)})})


def label_names(folder: Path) -> tuple[str, ...]:
    """The outputs of the model that `save_label_model` wrote, without opening it. ModelError where there is none."""
    try:
        return tuple(json.loads((folder / NETWORK).read_text("utf-8"))["labels"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} holds no model of a labelled task: {error}") from None


def load_label_model(folder: Path, *, dtype: str = "float32") -> LabelModel:
    """The model in a folder that `save_label_model` wrote, in evaluation mode. ModelError for anything else."""
    from luthier.adapt.full import Full

    try:
        facts = json.loads((folder / NETWORK).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no model of a labelled task: {error}") from None
    task = Task(**facts["task"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        told, progressive = facts.get("ensemble"), facts.get("columns")
        count = len(told["members"]) if told and not told["shared"] else \
            columns.num_backbones(progressive) if progressive else 1
        backbones = [restore_backbone(folder, dtype=dtype) for _ in range(count)]
    if progressive:
        network = columns.restore(progressive, backbones, task)
    elif told:
        network = ensemble.restore(told, backbones, task, len(facts["labels"]))
    else:
        network = Network(backbones[0], task, outputs=len(facts["labels"]), head=Head(**facts["head"]),
                          pooling=facts["pooling"], seed=0)
    network.to(getattr(torch, dtype))
    tensors = load_file(folder / WEIGHTS)
    if told:
        tensors |= {name: tensors[twin] for name in network.state_dict()
                    if name not in tensors and (twin := _twin(name)) in tensors}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    tied = _tied(network)
    missing = [name for name in missing if name not in tied]
    if missing or unexpected:
        raise ModelError(f"{folder / WEIGHTS} does not fit its network: {len(missing)} tensors are missing, "
                         f"{len(unexpected)} unknown ({', '.join([*missing, *unexpected][:3])})")
    return LabelModel(module=network.eval(), task=task, labels=tuple(facts["labels"]), name=facts["name"],
                      method=Full(), temperature=float(facts["temperature"]),
                      parts={name: tuple(names) for name, names in facts.get("parts", {}).items()})


def _twin(name: str) -> str:
    """The same tensor of an ensemble's first member."""
    return re.sub(r"^members\.\d+\.", "members.0.", name)


def _tied(network: Network) -> set[str]:
    """Names in the state dict that share another name's memory."""
    seen: set[int] = set()
    tied = set()
    for name, value in network.state_dict().items():
        if value.data_ptr() and value.data_ptr() in seen:
            tied.add(name)
        seen.add(value.data_ptr())
    return tied
