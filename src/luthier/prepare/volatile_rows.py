"""Test questions about volatile documents: what the search index must answer, and nothing that is trained."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from luthier.index.rag import bare_question
from luthier.prepare import volatility
from luthier.prepare.admit import Admission, cap
from luthier.prepare.injection import defused
from luthier.prepare.leak import find_leaks, trained_texts
from luthier.prepare.split import Splits
from luthier.shelf import Again, Memory, Sink, view
from luthier.types import Document, Dropped, Example, Passage

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext, Prepare

MAY_BE_ANSWERED = 0.5
"""Share of a question's content words in a volatile passage from which on a refusal may be the wrong answer to it."""


def with_volatile(examples: Sequence[Example], volatile: Sequence[Passage], documents: Sequence[Document],
                  spec: Prepare, context: MakeContext, splits: Splits, dropped: Sink[Dropped],
                  notes: Mapping[str, dict[str, Any]], memory: Memory) -> Sequence[Example]:
    """The examples with test questions about the volatile passages; train and validation rows stay as they are.

    Makers that work per document ask about them; those that read the whole corpus do not see them. A question that a
    stable one repeats, or that repeats a trained text, goes; so does a test refusal that a volatile passage answers.
    """
    kept = view(examples, (at for at, example in enumerate(examples)
                           if not _answered(example, volatile, context.task.language, dropped)))
    made = [replace(example, split="test", tags=(*example.tags, volatility.TAG))
            for example in _made(volatile, documents, spec, replace(context, split_of=splits), dropped, notes)]
    admission = Admission(dropped, memory)
    admission.add(chain(kept, made), yielding=lambda example: volatility.TAG in example.tags)
    known = {example.id for example in kept}
    fresh = [example for example in admission.examples if example.id not in known]
    fresh = cap(fresh, spec.max_examples_per_document, spec.seed, dropped)
    found = memory.examples()
    found.extend(kept)
    found.extend(_unlearned(fresh, kept, dropped, memory))
    return found


def _made(volatile: Sequence[Passage], documents: Sequence[Document], spec: Prepare, context: MakeContext,
          dropped: Sink[Dropped], notes: Mapping[str, dict[str, Any]]) -> Iterator[Example]:
    from luthier.prepare.build import example_id, run_maker

    chosen = volatility.asked(volatile, spec.split, spec.seed)
    paths = {passage.path for passage in chosen}
    alone = replace(context, passages=chosen, documents=[document for document in documents if document.path in paths])
    for maker in spec.makers:
        if not maker.per_document or not chosen:
            continue
        for found in run_maker(maker, alone, (), None, notes.get(maker.kind, {})):
            if isinstance(found, Dropped):
                dropped.append(found)
            elif found.origin.passages:
                found = defused(found)
                yield replace(found, id=example_id(found))


def _answered(example: Example, volatile: Sequence[Passage], language: str, dropped: Sink[Dropped]) -> bool:
    """Whether a plain test refusal is wrong, because a volatile passage may answer it."""
    from luthier.prepare.makers._text import numbers, support

    if example.split != "test" or "unanswerable" not in example.tags or "grounded" in example.tags:
        return False
    question = bare_question(example.question)
    for passage in volatile:
        if support(question, passage.headed, language) > MAY_BE_ANSWERED and \
                numbers(question) <= numbers(passage.headed):
            dropped.append(Dropped(item=example.id, step=example.origin.step, reason="may-be-answered",
                                   detail=f"by the volatile {passage.citation}", text=question[:300]))
            return True
    return False


def _unlearned(fresh: Sequence[Example], kept: Sequence[Example], dropped: Sink[Dropped], memory: Memory
               ) -> Iterator[Example]:
    """Test questions that repeat no trained or validation text."""
    held_of = array("q")

    def held() -> Iterator[str]:
        del held_of[:]
        for at, example in enumerate(kept):
            if example.split != "test":
                for text in trained_texts(example):
                    held_of.append(at)
                    yield text

    texts = [next(iter(trained_texts(example)), "") for example in fresh]
    gone = {leak.item: leak for leak in find_leaks(texts, Again(held), memory)}
    for at, example in enumerate(fresh):
        if at in gone:
            dropped.append(Dropped(item=example.id, step=example.origin.step, reason=gone[at].reason,
                                   detail=f"{example.origin.where}: {gone[at].share:.0%} of it is trained with "
                                          f"{kept[held_of[gone[at].held]].id}", text=example.question[:300]))
        else:
            yield example
