"""Small prepared data, a tiny encoder and a run trained on it in a second, for evaluations of labelled tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from luthier.store import Artifact, Store, write_json
from luthier.task import Task
from luthier.types import Example, Origin, Split, Tag, write_jsonl

WORDS = {"refund": ["refund", "money", "bill"], "parcel": ["parcel", "courier", "box"], "login": ["password", "login",
                                                                                                     "account"]}
FILLER = ["my", "is", "late", "lost", "please", "help", "the", "where", "now", "today"]
FOREIGN = ["weather", "sunny", "rain"]


def example(id: str, text: str, split: Split, **more: Any) -> Example:
    return Example(id=id, input=text, target=more.pop("target", None), split=split, **more,
                   origin=Origin(maker="human", step="rows", where=f"data.csv:{id}"))


def texts(kind: str, *, train: int = 90, test: int = 40, seed: int = 0) -> list[Example]:
    """Rows of one task: `single`, `multi`, `tag` or `embed`; some labelled wrongly, so that nobody is perfect."""
    rng = np.random.default_rng(seed)
    names, found = [*WORDS], []
    counts: dict[Split, int] = {"train": train, "validation": 30, "test": test}
    for split, count in counts.items():
        for i in range(count):
            label = str(rng.choice(names))
            filler = [str(word) for word in rng.choice(FILLER, 3)]
            word = str(rng.choice(WORDS[label]))
            text = " ".join([filler[0], word, *filler[1:]])
            id, groups = f"{split}{i}", {"language": "en" if i % 3 else "de"}
            said = label if rng.random() > 0.1 else str(rng.choice(names))
            if kind == "multi":
                other = str(rng.choice(names))
                text += " " + str(rng.choice(WORDS[other]))
                found.append(example(id, text, split, labels=tuple(dict.fromkeys([said, other])), groups=groups))
            elif kind == "tag":
                start = len(filler[0]) + 1
                tags = (Tag(start=start, end=start + len(word), label=label),) if rng.random() > 0.1 else ()
                found.append(example(id, text, split, spans=tags, groups=groups))
            elif kind == "embed":
                found.append(example(id, text, split, target=f"{WORDS[label][0]} {id}", groups=groups))
            else:
                found.append(example(id, text, split, labels=(said,), groups=groups))
    return found


def encoder(folder: Path) -> Path:
    """A BERT of one layer that knows the words above."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLER, *FOREIGN, *(w for some in WORDS.values() for w in some)]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                                   sep_token="[SEP]", model_max_length=64)
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                 intermediate_size=64, max_position_embeddings=64), add_pooling_layer=False)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@dataclass
class Kit:
    """Artifacts of every stage before `evaluate`."""

    store: Store
    root: Path
    task: Task
    data: Artifact
    model: Artifact
    run: Artifact


def prepared(store: Store, task: Task, examples: Sequence[Example]) -> Artifact:
    labels = sorted({label for e in examples for label in (e.labels or ())}
                    | {tag.label for e in examples for tag in e.spans or ()})

    def make(folder: Path) -> dict[str, Any]:
        write_jsonl(folder / "examples.jsonl", examples)
        write_json(folder / "labels.json", {"labels": labels, "multi_label": task.multi_label})
        return {"disjoint": "question"}

    key = json.dumps([e.id + e.question + str(e.labels) for e in examples])
    return store.build("prepare", version=1, spec={}, inputs={"task": task.dump(), "rows": key}, make=make)


def kit(folder: Path, task: Task, examples: Sequence[Example], source: Path, *, steps: int = 60) -> Kit:
    """Prepare, adapt, and train plainly for a few steps."""
    import torch

    from luthier.adapt.base import Adapt, adapt
    from luthier.adapt.labelled import open_label_model, save_label_model
    from luthier.prepare.labels import read_labels

    store = Store(folder / "store")
    data = prepared(store, task, examples)
    model = adapt(task, Adapt(model=str(source)), store=store, root=folder)

    def make(at: Path) -> dict[str, Any]:
        opened = open_label_model(model, read_labels(data), seed=1)
        if task.type == "image":
            opened.processor.root = folder  # type: ignore[attr-defined]
        train = [e for e in examples if e.split == "train" and e.labelled]
        rows = opened.rows(train)
        step = torch.optim.AdamW(opened.module.parameters(), lr=5e-3)
        rng = np.random.default_rng(0)
        opened.module.train()
        for _ in range(steps):
            picked = [rows[i] for i in rng.choice(len(rows), min(16, len(rows)), replace=False)]
            logits = opened.module(opened.processor.batch(picked))
            if task.type == "embed":
                texts = opened.module(opened.processor.batch([row.target[0] for row in picked]))
                loss = torch.nn.functional.cross_entropy(logits @ texts.T * 10, torch.arange(len(picked)))
            elif task.type == "tag":
                width = max(row.size for row in picked)
                codes = np.stack([np.pad(row.target, (0, width - row.size), constant_values=-100) for row in picked])
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(codes).flatten())
            elif task.multi_label:
                loss = torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, torch.from_numpy(np.stack([row.target for row in picked])))
            else:
                loss = torch.nn.functional.cross_entropy(logits, torch.tensor([row.target for row in picked]))
            step.zero_grad()
            loss.backward()
            step.step()
        save_label_model(opened, at / "best")
        return {"gap": {"train": 0.97, "validation": 0.88, "memorises": False, "sentence": "All is well."}}

    inputs = {"model": model, "data": data, "steps": str(steps)}
    run = store.build("train", version=1, spec={}, inputs=inputs, make=make)
    return Kit(store, folder, task, data, model, run)
