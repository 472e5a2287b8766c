"""Building examples with complete origins, and finding the passages that a piece of a document lies in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from luthier.prepare.makers._text import clip, content, key, support
from luthier.types import Document, Dropped, Example, Maker, Message, Origin, Passage, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext


def chat_input(question: str, system: str | None) -> tuple[Message, ...]:
    """The conversation up to the question: the task's system message, where it has one, then the user's turn."""
    head = (Message(role="system", content=system),) if system else ()
    return (*head, Message(role="user", content=question))


def chat_example(context: MakeContext, question: str, answer: str, *, step: str, maker: Maker,
                 passages: Sequence[Passage], evidence: str, tags: Sequence[str] = (),
                 groups: Mapping[str, str] | None = None) -> Example:
    """One question with its answer; `passages` are what it was made from, the source first."""
    source = passages[0]
    return Example(
        id=digest("example", step, source.document, question, answer),
        input=chat_input(question, context.task.system), target=answer, tags=tuple(tags), groups=dict(groups or {}),
        origin=Origin(maker=maker, step=step, documents=tuple(dict.fromkeys(p.document for p in passages)),
                      passages=tuple(p.id for p in passages), where=source.citation, evidence=evidence),
    )


def drop(item: str, step: str, reason: str, detail: str = "", text: str = "") -> Dropped:
    return Dropped(item=item, step=step, reason=reason, detail=detail, text=clip(text))


class Places:
    """Finds the passages that hold given spans of a document."""

    def __init__(self, context: MakeContext):
        self.language = context.task.language
        self._of: dict[str, list[Passage]] = {}
        for passage in context.passages:
            self._of.setdefault(passage.document, []).append(passage)

    def find(self, document: Document, start: int, end: int, text: str, *, at_least: float = 0.85) -> list[Passage]:
        """The fewest passages covering spans `start` to `end` that together hold `text`; the one with most of it first.

        Empty when the passages were removed (as duplicates, say) or hold less than `at_least` of the content words.
        """
        near = [p for p in self._of.get(document.id, ()) if p.spans[0] < end and p.spans[1] > start]
        shares = {p.id: support(text, p.headed, self.language) for p in near}
        left, chosen = set(content(text, self.language)), []
        wanted = len(left)
        for passage in sorted(near, key=lambda p: (-shares[p.id], p.spans)):
            held = left & set(content(passage.headed, self.language))
            if not held and chosen:
                continue
            chosen.append(passage)
            left -= held
            if not left:
                break
        found = [chosen[0], *sorted(chosen[1:], key=lambda p: p.spans)] if chosen else []
        return found if found and (wanted == 0 or 1 - len(left) / wanted >= at_least) else []


class Seen:
    """Remembers questions, so that one document does not ask the same twice."""

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}

    def clash(self, question: str, answer: str) -> str | None:
        """`duplicate` (same question and answer), `ambiguous` (same question, another answer), None when it is new."""
        asked, answered = key(question), key(answer)
        if asked not in self._answers:
            self._answers[asked] = answered
            return None
        return "duplicate" if self._answers[asked] == answered else "ambiguous"
