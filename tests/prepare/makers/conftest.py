"""Small real documents, chunked by the real chunker, and a context to run a maker in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luthier.index.base import Index, build_retriever
from luthier.index.rag import Rag
from luthier.prepare.base import MakeContext, Maker
from luthier.prepare.chunk import Chunk
from luthier.prepare.makers.synthesize import Synthesize
from luthier.prepare.split import SplitBy
from luthier.prepare.steps import StepContext
from luthier.progress import Silent
from luthier.store import Store
from luthier.task import Task
from luthier.types import Document, Dropped, Example, Passage, Span, Split, digest

Piece = str | tuple[str, str] | Span


def document(
    *pieces: Piece, path: str = "handbook.md", title: str = "Staff Handbook", reader: str = "markdown"
) -> Document:
    """A document: "# x" headings, "- x" or "1. x" lists, "| x |" tables, ```code, other text as paragraphs."""
    spans = []
    for line, piece in enumerate(pieces, 1):
        if isinstance(piece, Span):
            spans.append(piece)
            continue
        text = piece if isinstance(piece, str) else piece[1]
        if text.startswith("#"):
            marks, _, heading = text.partition(" ")
            spans.append(Span(text=heading, kind="heading", level=len(marks), line=line))
        else:
            kind = "table" if text.startswith("|") else "list" if text[:2] in ("- ", "1.") else "paragraph"
            spans.append(Span(text=text, kind=kind, line=line))
    body = "\n".join(span.text for span in spans)
    return Document(
        id=digest(path, body),
        path=path,
        sha256=digest(body, length=64),
        media="text/markdown",
        reader=reader,
        title=title,
        spans=tuple(spans),
    )


def passages_of(documents: Sequence[Document], *, max_tokens: int = 220) -> list[Passage]:
    found = Chunk(max_tokens=max_tokens).apply(documents, StepContext(task=Task()))
    return [kept.item for kept in found if not isinstance(kept, Dropped)]


class Says(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str, **fields: Any) -> None:
        self.lines.append(message)


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., MakeContext]:
    """A function that gives a context over documents; searches by keywords, so no encoder is loaded."""

    def give(*documents: Document, task: Task | None = None, examples: Sequence[Example] = (), max_tokens: int = 220,
             split: Split | Callable[[str], Split] | None = None, **changes: Any) -> MakeContext:
        task = task or Task()
        passages = passages_of(documents, max_tokens=max_tokens)
        splits = SplitBy().assign(passages, seed=0)
        split_of = splits if split is None else split if callable(split) else lambda _: split

        def search(wanted: Split | None) -> Any:
            inside = [p for p in passages if wanted is None or split_of(p.id) == wanted]
            return build_retriever(inside, Index(mode="keywords"), language=task.language, cache=None, root=tmp_path)

        made = MakeContext(
            documents=documents,
            passages=passages,
            task=task,
            split_of=split_of,
            seed=0,
            root=tmp_path,
            cache=Store(tmp_path / "store").cache("prepare"),
            progress=Says(),
            rag=Rag(),
            examples=tuple(examples),
            build_retriever=search,
        )
        return replace(made, **changes)

    return give


@pytest.fixture
def run() -> Callable[[Maker, MakeContext], tuple[list[Example], list[Dropped]]]:
    """Examples and drops of a maker; checks on the way what every maker promises."""

    def go(maker: Maker, context: MakeContext) -> tuple[list[Example], list[Dropped]]:
        before = (tuple(context.documents), tuple(context.passages), tuple(context.examples))
        found = list(maker.make(context))
        assert (tuple(context.documents), tuple(context.passages), tuple(context.examples)) == before
        examples = [item for item in found if isinstance(item, Example)]
        known = {passage.id: passage for passage in context.passages}
        for example in examples:
            assert example.origin.step == maker.kind
            assert example.origin.where, "an example must say where it comes from"
            if example.origin.maker != "human":
                assert all(id in known for id in example.origin.passages)
        for item in found:
            if isinstance(item, Dropped):
                assert item.step == maker.kind and item.reason and item.item
        return examples, [item for item in found if isinstance(item, Dropped)]

    return go


@pytest.fixture
def doc() -> Callable[..., Document]:
    return document


@pytest.fixture
def teach(monkeypatch, run):
    def go(teacher: Any, over: Any, **spec: Any) -> Any:
        monkeypatch.setattr(Synthesize, "_open", lambda self, root: teacher)
        monkeypatch.setattr(Synthesize, "_identity", lambda self, root: "scripted 1")
        over = replace(over, notes={}, review=[])
        settings = {"style": "pairs", "kinds": ("fact",), "questions": 1, "reader": "off", "min_chars": 20,
                    "semantic": None, **spec}
        return (*run(Synthesize(**settings), over), over)

    return go
