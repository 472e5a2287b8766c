"""Small data and models shared by the training tests."""

from __future__ import annotations

from pathlib import Path

from luthier.adapt.base import Adapt, adapt, open_model
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.testing import tiny_chat_model
from luthier.types import Example, Message, Origin, write_jsonl

WORDS = ["oak", "elm", "ash", "yew", "fir", "box", "bay", "fig", "plum", "pear"]


def chat(number: int, *, split: str = "train", document: str = "", answer: str = "", **changes) -> Example:
    return Example(**{
        "id": f"e{number}", "input": (Message(role="user", content=f"What grows at {number}?"),),
        "target": answer or f"A {WORDS[number % 10]} and {number % 7} {WORDS[number * 7 % 10]}s.", "split": split,
        "origin": Origin(maker="human", step="test", documents=(document or f"d{number}",)), **changes})


def examples(train: int = 20, validation: int = 4, test: int = 2) -> list[Example]:
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    return [chat(number, split=split) for number, split in enumerate(splits)]


def data_artifact(store: Store, rows: list[Example], name: str = "data", **summary) -> Artifact:
    def make(folder: Path):
        write_jsonl(folder / "examples.jsonl", rows)
        return {"disjoint": "document", **summary}

    return store.build("prepare", version=1, spec={"name": name}, inputs={}, make=make)


def adapted(tmp: Path, store: Store, *, dtype: str = "float32", method=None, task: Task | None = None,
            **model) -> Artifact:
    folder = tmp / ("model-" + "-".join(f"{key}{value}" for key, value in sorted(model.items())))
    if not folder.exists():
        tiny_chat_model(folder, **model)
    return adapt(task or Task(), Adapt(model=str(folder), dtype=dtype, **({"method": method} if method else {})),
                 store=store)


def opened(tmp: Path, **options):
    store = Store(tmp / "store")
    return open_model(adapted(tmp, store, **options))
