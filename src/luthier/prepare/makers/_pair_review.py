"""Pairs that a person should look at, and what people decided about them (queue `pairs`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from luthier.errors import DataError
from luthier.prepare.makers._judge import Judged, pair_id
from luthier.prepare.makers._text import evidence
from luthier.queues import Decided, ReviewItem, latest, read_decided
from luthier.types import Passage

if TYPE_CHECKING:
    from pathlib import Path

REVIEWED = "reviewed"
"""Tag of a pair that a person accepted or edited."""


def item(one: Judged, reason: str) -> ReviewItem:
    """What is shown to a person; accepting it keeps the pair as it stands."""
    source = one.passages[0]
    return ReviewItem(
        queue="pairs", id=one.id, text=one.text, proposal=one.text, confidence=one.confidence, reason=reason,
        where=" and ".join(passage.citation for passage in one.passages), path=source.path, page=source.page,
        context="\n\n".join(passage.headed for passage in one.passages),
        notes={"kind": one.candidate.kind, "difficulty": one.difficulty, "evidence": one.evidence,
               "passages": [passage.id for passage in one.passages]})


@dataclass(frozen=True)
class Restored:
    """A pair that a person let stand, whether or not the teacher writes it again."""

    question: str
    answer: str
    passages: tuple[Passage, ...]
    evidence: str
    edited: bool
    source: str


@dataclass
class Decisions:
    """The decisions of `labels/pairs.jsonl`, by the id of the pair."""

    by_id: dict[str, Decided]
    met: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, root: Path) -> Decisions:
        return cls(latest(read_decided(root, "pairs")))

    def about(self, id: str) -> Decided | None:
        found = self.by_id.get(id)
        if found is not None:
            self.met.add(id)
        return found

    def rest(self, passages: Sequence[Passage], language: str) -> Iterator[tuple[Decided, Restored | None]]:
        """Accepted and edited pairs that were not met: their passage is found by the id; None where it is gone."""
        for id, one in self.by_id.items():
            if id in self.met or one.verdict == "reject":
                continue
            question, answer = split_text(one.text, one.source)
            homes = [(passage,) for passage in passages]
            if " and " in one.where:
                homes += [(a, b) for a in passages if one.where.startswith(a.citation)
                          for b in passages if one.where.endswith(b.citation)]
            home = next((home for home in homes if pair_id(home, question, answer) == id), None)
            yield one, restored(one, question, answer, home, language) if home is not None else None


def restored(one: Decided, question: str, answer: str, passages: tuple[Passage, ...], language: str) -> Restored:
    """The pair as a person left it, with the span of the passage that supports the answer best."""
    if one.verdict == "edit":
        question, answer = edited(one)
    found = " […] ".join(evidence(answer, passage.text, language=language)[0] for passage in passages) if answer else ""
    return Restored(question, answer, passages, found, one.verdict == "edit", one.source)


def edited(one: Decided) -> tuple[str, str]:
    """Question and answer of an edit: an object with both, or text in the form that was shown."""
    value = one.value
    if isinstance(value, dict) and all(isinstance(value.get(name), str) and value[name].strip()
                                       for name in ("question", "answer")):
        return value["question"].strip(), value["answer"].strip()
    if isinstance(value, str):
        return split_text(value, one.source)
    raise DataError(f"{one.source}: the value of an edited pair is {{\"question\": \"…\", \"answer\": \"…\"}}; found "
                    f"{str(value)[:80]!r}")


def split_text(text: str, source: str) -> tuple[str, str]:
    """"Q: …" and "A: …" of the text that was judged."""
    found = re.fullmatch(r"\s*Q:\s*(.+?)\s*\nA:[ \t]*(.*?)\s*", text, re.DOTALL)
    if not found:
        raise DataError(f"{source}: a pair is written as \"Q: …\\nA: …\"; found {text[:80]!r}")
    return found[1], found[2]
