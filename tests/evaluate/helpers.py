"""Small real artifacts for the tests of evaluate: passages, questions, a tiny chat model, and an index by keywords."""

from __future__ import annotations

from pathlib import Path

from luthier.adapt.base import Adapt, adapt
from luthier.index.base import Index, index
from luthier.models.sources import resolve
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.testing import tiny_chat_model
from luthier.types import Example, Message, Origin, Passage, digest, write_jsonl

PLACES = ["harbour", "library", "museum", "station", "market", "theatre", "bakery", "garage", "airport", "hospital",
          "castle", "school"]


def passages(count: int = 12) -> list[Passage]:
    found = []
    for place, name in enumerate(PLACES[:count]):
        document = digest(f"document {place // 2}")
        text = (f"The {name} opens at {place + 6} o'clock and is closed on Sundays. "
                f"Its keeper is called Mr {name[:3]}er.")
        found.append(Passage(id=digest(name), document=document, path=f"town{place // 2}.md", title="Town",
                             heading=(name.title(),), text=text, spans=(place, place + 1), line=place + 1))
    return found


def question(text: str, answer: str, source: Passage | None, *, split: str = "test", tags: tuple[str, ...] = (),
             maker: str = "rule") -> Example:
    origin = Origin(maker=maker, step="test", documents=(source.document,) if source else (),
                    passages=(source.id,) if source else (), where=source.citation if source else "pairs.jsonl:1")
    return Example(id=digest(text, answer), input=(Message(role="user", content=text),), target=answer, split=split,
                   origin=origin, tags=tags)


def town(task: Task, count: int = 12) -> tuple[list[Passage], list[Example]]:
    held = passages(count)
    examples = []
    for place, (passage, name) in enumerate(zip(held, PLACES)):
        examples.append(question(f"When does the {name} open?", f"It opens at {place + 6} o'clock.", passage))
        examples.append(question(f"Who is the keeper of the {name}?", f"Mr {name[:3]}er.", passage, maker="document"))
        if place % 3 == 0:
            examples.append(question(f"What does a ticket for the {name} cost?", task.refusal, passage,
                                     tags=("unanswerable",)))
        examples.append(question(f"Is the {name} closed on Mondays?", "No, only on Sundays.", passage, split="train"))
    return held, examples


def data_artifact(store: Store, held: list[Passage], examples: list[Example], name: str = "town") -> Artifact:
    def make(folder: Path) -> dict:
        write_jsonl(folder / "passages.jsonl", held)
        write_jsonl(folder / "examples.jsonl", examples)
        return {"language": "en"}

    return store.build("prepare", version=1, spec={}, inputs={"name": name}, make=make)


def tiny_project(folder: Path, task: Task) -> tuple[Store, Artifact, Artifact, Artifact]:
    """Store, data, keyword index and the adapted tiny model (random weights)."""
    store = Store(folder / "store")
    data = data_artifact(store, *town(task))
    found = index(data, Index(mode="keywords"), store=store, root=folder)
    tiny_chat_model(folder / "model")
    model = adapt(task, Adapt(model="model", dtype="float32"), store=store, root=folder)
    return store, data, found, model


def has_starters() -> bool:
    from luthier.errors import LuthierError

    try:
        resolve("starter:chat")
        resolve("starter:encoder", purpose="encoder")
    except LuthierError:
        return False
    return True
