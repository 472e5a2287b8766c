"""Labelled rows, a tiny text encoder, and trainings on them in seconds (data strategies)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from luthier.adapt.base import Adapt, adapt
from luthier.progress import Silent
from luthier.store import Artifact, Store, write_json
from luthier.task import Task
from luthier.train.base import Train, train
from luthier.train.plans.head import HeadOnly
from luthier.types import Example, Origin, write_jsonl

DATA = Path(__file__).resolve().parents[2] / "../shared/data"

TOPICS = {
    "card": ["card", "visa", "plastic", "chip", "pin", "atm", "swipe", "wallet"],
    "loan": ["loan", "mortgage", "interest", "lend", "borrow", "debt", "instalment", "credit"],
    "fraud": ["fraud", "stolen", "scam", "police", "hacked", "phishing", "thief", "alarm"],
}
FILLER = ["please", "today", "my", "the", "i", "want", "about", "help", "with", "now", "again", "question"]


def example(number: int, text: str, label: str | None, split: str = "train", **changes: Any) -> Example:
    return Example(**{
        "id": f"r{number}", "input": text, "target": None, "split": split,
        "labels": None if label is None else (label,), "tags": () if label else ("unlabelled",),
        "origin": Origin(maker="human", step="rows", where=f"data.csv:{number + 2}"), **changes})


def topic_text(rng: np.random.Generator, label: str) -> str:
    """Two words of a topic among words that say nothing."""
    words = [*rng.choice(TOPICS[label], 2, replace=False), *rng.choice(FILLER, 3, replace=False)]
    return " ".join(str(word) for word in rng.permutation(words))


def topics(*, labelled: int, unlabelled: int = 0, validation: int = 30, test: int = 0, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    names = [*TOPICS]
    parts = [("train", True)] * labelled + [("train", False)] * unlabelled + [("validation", True)] * validation + \
        [("test", True)] * test
    rows, seen = [], set()
    for number, (split, known) in enumerate(parts):
        label = names[number % len(names)]
        text = topic_text(rng, label)
        while text in seen:
            text = topic_text(rng, label)
        seen.add(text)
        rows.append(example(number, text, label if known else None, split))
    return rows


def data_of(store: Store, rows: Sequence[Example], labels: Sequence[str] = tuple(sorted(TOPICS))) -> Artifact:
    def make(folder: Path) -> dict[str, Any]:
        write_jsonl(folder / "examples.jsonl", rows)
        write_json(folder / "labels.json", {"labels": list(labels), "multi_label": False})
        return {"disjoint": "question"}

    content = [[row.id, row.input, row.labels, row.split] for row in rows]
    return store.build("prepare", version=1, spec={"rows": content}, inputs={}, make=make)


def encoder(folder: Path, *, hidden: int = 32) -> Path:
    """A random BERT of one layer whose words are the toy's own: its features are nearly bags of words."""
    from transformers import BertConfig, BertModel
    from transformers.models.bert import BertTokenizerFast  # type: ignore[attr-defined]

    if (folder / "config.json").exists():
        return folder
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = {*FILLER, *(word for topic in TOPICS.values() for word in topic)}
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(known), *letters, *(f"##{sign}" for sign in letters)]
    words = [*dict.fromkeys(words)]
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=len(words), hidden_size=hidden, num_hidden_layers=1, num_attention_heads=2,
                             intermediate_size=hidden, max_position_embeddings=64, initializer_range=0.5)
                  ).save_pretrained(folder)
    return folder


def trained(tmp: Path, rows: Sequence[Example], *, model: str = "", labels: Sequence[str] = tuple(sorted(TOPICS)),
            plan: Any = None, **settings: Any) -> Artifact:
    store = Store(tmp / "store")
    task = Task(type="classify", metric="accuracy")
    base = adapt(task, Adapt(model=model or str(encoder(tmp / "encoder"))), store=store, root=tmp)
    spec = Train(**{"plan": plan or HeadOnly(), "epochs": 2, "verify_resume": False, **settings})
    return train(base, data_of(store, rows, labels), spec, store=store, root=tmp, progress=Silent())
