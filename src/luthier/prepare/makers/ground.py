"""The same questions with passages in the prompt, as the server asks them, so that "tuned + retrieval" is trained too.

After RAFT (Zhang et al. 2024, arXiv 2403.10131): the own passage among distractors, and sometimes only distractors.
We differ: distractors are what the project's own search finds instead of random passages, the prompt is
`Rag.messages` word for word, an answer is not a chain of thought but the example's own with the number of its passage,
and without the own passage the answer is the refusal, because the server promises answers from the documents. The
test set is left alone: `evaluate` adds retrieval itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.plugins import register
from luthier.prepare.base import MAKERS, OWN_SPLIT
from luthier.prepare.makers._examples import drop
from luthier.prepare.makers._text import numbers, support
from luthier.spec import Spec
from luthier.types import Dropped, Example, Message, Origin, Passage, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext


@register(MAKERS, "ground")
class Ground(Spec):
    """Add copies of earlier examples whose prompt holds retrieved passages."""

    share: float = Field(default=0.5, ge=0, le=1)
    """Share of the train and validation examples that get a copy with passages; the plain example stays as well."""
    without: float = Field(default=0.1, ge=0, le=1)
    """Share of these copies whose own passage is left out, so that the right answer is the refusal."""
    cite: bool = True
    """End the answer with the number of its passage, like [1], as the prompt asks for."""
    max_support: float = Field(default=0.6, ge=0, le=1)
    """Where the own passage is left out, passages that hold more than this share of the answer's content words and all
    of its numbers are left out too, for they may answer the question."""

    per_document: ClassVar[bool] = False
    uses_retriever: ClassVar[bool] = True
    VERSION: ClassVar[int] = 1

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """Examples tagged `grounded` (and `unanswerable` where the answer is the refusal), of the origin's maker.

        Passages come from the example's own split only. `origin.passages` holds the source first, then the others.
        """
        counts = {"with_passage": 0, "without_passage": 0, "unanswerable": 0}
        for split in ("train", "validation"):
            chosen = [e for e in context.examples if e.split == split and _single(e) and "grounded" not in e.tags
                      and _place(context.seed, "ground", e) < self.share]
            if not chosen:
                continue
            inside = [p for p in context.passages if context.split_of(p.id) == split]
            if not inside:
                continue
            by_id = {passage.id: passage for passage in inside}
            hits = context.retriever(split).search([e.question for e in chosen], context.rag.top_k + 4)
            for example, found in zip(chosen, hits):
                ranked = [by_id[hit.passage.id] for hit in found if hit.passage.id in by_id]
                if not ranked:
                    yield drop(
                        example.id,
                        self.kind,
                        "nothing-found",
                        f"{example.origin.where}: search finds no passage of {split}",
                        example.question,
                    )
                    continue
                if "unanswerable" in example.tags:
                    counts["unanswerable"] += 1
                    yield self._copy(example, ranked[:context.rag.top_k], [], context)
                    continue
                own = self._own(example, ranked, by_id, context)
                if not own:
                    yield drop(
                        example.id,
                        self.kind,
                        "no-passage",
                        f"{example.origin.where}: no passage of {split} holds its answer",
                        example.question,
                    )
                    continue
                if _place(context.seed, "without", example) < self.without:
                    others = self._others(example, ranked, own, context)
                    if others:
                        counts["without_passage"] += 1
                        yield self._copy(example, others[:context.rag.top_k], [], context)
                        continue
                counts["with_passage"] += 1
                yield self._copy(example, _arranged(ranked, own, context, example), own, context)
        context.notes.update(counts)

    def _own(self, example: Example, ranked: Sequence[Passage], by_id: Mapping[str, Passage], context: MakeContext
             ) -> list[Passage]:
        """The passages that the example was made from; of the user's own pairs, the best hit that holds the answer."""
        if example.origin.passages:
            own = [by_id[id] for id in example.origin.passages if id in by_id]
            return own if len(own) == len(example.origin.passages) else []
        language = context.task.language
        return [p for p in ranked[:context.rag.top_k] if support(example.target or "", p.headed, language) >= 0.75][:1]

    def _others(self, example: Example, ranked: Sequence[Passage], own: Sequence[Passage], context: MakeContext
                ) -> list[Passage]:
        language, taken = context.task.language, {passage.id for passage in own}
        answer = example.target or ""
        figures = numbers(answer)
        return [p for p in ranked if p.id not in taken and (
            support(answer, p.headed, language) <= self.max_support or not figures <= numbers(p.headed))]

    def _copy(
        self, example: Example, passages: Sequence[Passage], own: Sequence[Passage], context: MakeContext
    ) -> Example:
        """The example with these passages in its prompt; without own ones among them the answer is the refusal."""
        fitting = context.rag.fit(passages)
        system = next((m.content for m in example.input if isinstance(m, Message) and m.role == "system"), None)
        prompt = context.rag.messages(example.question, passages, system, refusal=context.task.refusal)
        answer, tags = example.target or "", ("grounded",)
        if own:
            numbers = [number for number, passage in enumerate(fitting, 1) if passage.id in {p.id for p in own}]
            answer += " " + "".join(f"[{number}]" for number in numbers) if self.cite else ""
        else:
            answer, tags = context.task.refusal, ("grounded", "unanswerable")
        source = [*own, *(p for p in fitting if p.id not in {o.id for o in own})]
        return Example(
            id=digest("example", self.kind, example.id, *(p.id for p in fitting)), input=prompt, target=answer,
            split=example.split, weight=example.weight, groups=example.groups,
            tags=(*tags, OWN_SPLIT) if OWN_SPLIT in example.tags else tags,
            origin=Origin(maker=example.origin.maker, step=self.kind, documents=tuple(dict.fromkeys(
                (*example.origin.documents, *(p.document for p in source)))), passages=tuple(p.id for p in source),
                where=example.origin.where, evidence=example.origin.evidence if own else ""),
        )

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {}


def _single(example: Example) -> bool:
    """One question, no earlier turns: the server puts passages before the last question only."""
    return (not isinstance(example.input, str) and bool(example.target)
            and [m.role for m in example.input if m.role != "system"] == ["user"])


def _arranged(
    ranked: Sequence[Passage], own: Sequence[Passage], context: MakeContext, example: Example
) -> list[Passage]:
    """The hits in their order; own passages that the search missed, or that would not fit, are moved in."""
    most = context.rag.top_k
    order = list(ranked[:most])
    kept = {p.id for p in context.rag.fit(order)}
    missed = [p for p in own[:most] if p.id not in kept]
    if missed:
        order = [p for p in order if p.id not in {m.id for m in missed}]
        order = order[:max(0, most - len(missed))]
        while True:
            at = int(_place(context.seed, "position", example) * (len(order) + 1))
            mixed = [*order[:at], *missed, *order[at:]]
            if all(m.id in {p.id for p in context.rag.fit(mixed)} for m in own[:most]) or not order:
                return mixed
            order.pop()
    return order


def _place(seed: int, purpose: str, example: Example) -> float:
    """A number in [0, 1) that depends on the example alone."""
    return int(digest(str(seed), purpose, example.id), 16) / 16**16
