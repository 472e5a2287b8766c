"""An example, passage or drop as one row of a table: what is learned first, then its lineage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from luthier.prepare.base import TOGETHER
from luthier.prepare.formats.base import OUTSIDE, Content
from luthier.prepare.labels import OUT_OF_SCOPE
from luthier.types import Dropped, Example, Passage

LINEAGE = ("id", "split", "step", "made_by", "origin", "documents", "page", "passages", "evidence", "tags")
_ROLES = {"classify": ("text", "label"), "tag": ("text", "spans"), "embed": ("query", "positive", "negatives"),
          "image": ("image", "label")}
LISTS = ("documents", "passages", "tags", "negatives", "heading")
"""Columns that hold a list of texts."""


@dataclass(frozen=True)
class Layout:
    """The columns of a table of examples, found by one look at all of them."""

    columns: tuple[str, ...]
    groups: dict[str, str]
    """Attribute of the examples → column."""
    weighted: bool = False
    together: bool = False
    several: bool = False
    """Labels are lists."""
    outside: str = ""
    """Label that stands for none of the classes; empty where no row needs it."""


def layout(content: Content, *, turns: bool) -> Layout:
    """The columns that these examples need. `turns`: conversations as lists of turns, also where one would do."""
    groups: dict[str, None] = {}
    weighted = together = outside = texts = pairs = system = False
    several = turns
    for example in content.examples():
        groups.update((name, None) for name in example.groups if name != TOGETHER)
        weighted |= example.weight != 1
        together |= bool(group_of(example))
        outside |= OUT_OF_SCOPE in example.tags
        texts |= example.target is None
        pairs |= example.target is not None
        if not isinstance(example.input, str):
            several |= sum(turn.role != "system" for turn in example.input) > 1
            system |= example.input[0].role == "system"
    learned: tuple[str, ...]
    if content.task.labelled:
        learned = _ROLES[content.task.type]
    else:
        asked = ("messages",) if several else (*(("system",) if system else ()), "question", "answer")
        learned = (*(asked if pairs else ()), *(("text",) if texts else ()))
    taken = {*learned, *LINEAGE, "group", "weight"}
    names = {name: name if name not in taken else f"group_{name}" for name in groups}
    columns = (*learned, *(("weight",) if weighted else ()), *(("group",) if together else ()), *names.values(),
               *LINEAGE)
    none = OUTSIDE if OUTSIDE not in content.labels else f"{OUTSIDE} (none of the classes)"
    return Layout(columns, names, weighted, together, content.task.multi_label,
                  none if outside and not content.task.multi_label else "")


def group_of(example: Example) -> str:
    """What must stay in one split with others, as labelled data knows it; empty for other examples."""
    if example.labels is None and example.spans is None and not isinstance(example.input, str):
        return example.groups.get(TOGETHER, "")
    from luthier.prepare.label_split import group_of

    return group_of(example) if example.origin.maker == "human" else ""


def rows(content: Content, found: Layout) -> Iterator[tuple[Example, dict[str, Any]]]:
    """Every example with its row; an image's own cell is left to the format."""
    for example in content.examples():
        row: dict[str, Any] = {**_learned(example, content, found)}
        if found.weighted:
            row["weight"] = example.weight
        if found.together:
            row["group"] = group_of(example) or f"row={example.id}"  # a row by itself
        row.update({column: example.groups.get(name, "") for name, column in found.groups.items()})
        row.update(lineage(example, content))
        yield example, {column: row.get(column) for column in found.columns}


def _learned(example: Example, content: Content, found: Layout) -> dict[str, Any]:
    kind = content.task.type
    if kind in ("classify", "image"):
        several = found.several
        label: Any = None if example.labels is None else list(example.labels) if several else next(
            iter(example.labels), found.outside)
        return {"label": label, **({"text": example.input} if kind == "classify" else {})}
    if kind == "tag":
        spans = None if example.spans is None else [vars(tag) for tag in example.spans]
        return {"text": example.input, "spans": spans}
    if kind == "embed":
        return {"query": example.input, "positive": example.target, "negatives": list(example.negatives)}
    if example.target is None:
        return {"text": example.input if isinstance(example.input, str) else example.question}
    if "messages" in found.columns:
        return {"messages": messages(example)}
    system = next((turn.content for turn in example.input if not isinstance(turn, str) and turn.role == "system"), "")
    return {"system": system, "question": example.question, "answer": example.target}


def messages(example: Example) -> list[dict[str, str]]:
    """The whole conversation, the answer last, as `{role, content}`."""
    before = [{"role": "user", "content": example.input}] if isinstance(example.input, str) else [
        {"role": turn.role, "content": turn.content} for turn in example.input]
    return [*before, {"role": "assistant", "content": example.target or ""}]


def lineage(example: Example, content: Content) -> dict[str, Any]:
    """Where an example comes from; documents by their path, or by their id where no passage of them is left."""
    origin = example.origin
    places = [content.places[id] for id in origin.passages if id in content.places]
    documents = list(dict.fromkeys(path for path, _ in places)) or list(origin.documents)
    return {"id": example.id, "split": example.split, "step": origin.step, "made_by": origin.maker,
            "origin": origin.where, "documents": documents, "page": places[0][1] if places else None,
            "passages": list(origin.passages), "evidence": origin.evidence, "tags": list(example.tags)}


PASSAGE = ("id", "document", "path", "title", "heading", "page", "line", "text")
DROPPED = ("item", "step", "reason", "detail", "text")


def other_rows(content: Content) -> Iterator[dict[str, Any]]:
    """Passages or drops as rows."""
    names = other_columns(content)
    for record in content.others():
        assert isinstance(record, Passage | Dropped)
        row = {name: getattr(record, name) for name in names}
        yield {name: list(value) if isinstance(value, tuple) else value for name, value in row.items()}


def other_columns(content: Content) -> tuple[str, ...]:
    return PASSAGE if content.what == "passages" else DROPPED


def read_back(content: Content, found: Layout) -> dict[str, Any]:
    """The maker that reads such a table, without its path."""
    if content.what != "examples":
        return {}
    if not content.task.labelled:
        return {"kind": "pairs"} if "answer" in found.columns or "messages" in found.columns else {}
    return {"kind": "rows", **({"weight": "weight"} if found.weighted else {}),
            **({"group_by": "group"} if found.together else {}),
            **({"groups": list(found.groups.values())} if found.groups else {}),
            **({"out_of_scope": [found.outside]} if found.outside else {})}
