"""Domain text for continued pre-training: the passages of a document joined to pieces, every token learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from luthier.plugins import register
from luthier.prepare.base import MAKERS
from luthier.prepare.makers._examples import drop
from luthier.spec import Spec
from luthier.types import Dropped, Example, Origin, Passage, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext


@register(MAKERS, "text")
class Text(Spec):
    """Learn the documents' own text: `input` is a piece of a document, `target` is None."""

    max_chars: int = Field(default=3000, ge=200)
    """Neighbouring passages of one document and one split are joined up to this many characters; a single passage is
    never cut (the training's truncation report tells when one is too long for the model)."""
    min_chars: int = Field(default=80, ge=1)
    """A shorter piece (a lone heading, a page number) is dropped."""

    per_document: ClassVar[bool] = True
    uses_retriever: ClassVar[bool] = False
    VERSION: ClassVar[int] = 1

    @model_validator(mode="after")
    def _ordered(self) -> Text:
        if self.min_chars >= self.max_chars:
            raise ValueError(f"min_chars ({self.min_chars}) must be below max_chars ({self.max_chars})")
        return self

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """Pieces in reading order, each with the passages it holds; headings stand where they change."""
        for document in context.documents:
            group: list[Passage] = []
            own = [passage for passage in context.passages if passage.document == document.id]
            for passage in own:
                if group and (context.split_of(group[0].id) != context.split_of(passage.id)
                              or len(render([*group, passage])) > self.max_chars):
                    yield self._piece(group)
                    group = []
                group.append(passage)
            if group:
                yield self._piece(group)

    def _piece(self, group: list[Passage]) -> Example | Dropped:
        text, first = render(group), group[0]
        if len(text) < self.min_chars:
            return drop(first.id, self.kind, "too-short", first.citation, text)
        return Example(id=digest("example", self.kind, first.document, text), input=text, target=None,
                       origin=Origin(maker="document", step=self.kind, documents=(first.document,),
                                     passages=tuple(p.id for p in group), where=first.citation))

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {}


def render(passages: list[Passage]) -> str:
    """Title, then each new heading once, then the text, as a reader of the document sees it.

    Overlap between neighbouring passages (the end of one repeated at the start of the next) stands once.
    """
    parts: list[str] = [passages[0].title] if passages[0].title else []
    above: tuple[str, ...] = ()
    last = ""
    for passage in passages:
        common = 0
        while common < min(len(above), len(passage.heading)) and above[common] == passage.heading[common]:
            common += 1
        parts += [heading for heading in passage.heading[common:] if heading not in parts[:1]]
        above = passage.heading
        text = passage.text.strip()
        for size in range(min(len(last), len(text), 600), 19, -1):
            if last.endswith(text[:size]):
                text = text[size:].lstrip()
                break
        last = passage.text.strip()
        if text:
            parts.append(text)
    return "\n\n".join(parts)
