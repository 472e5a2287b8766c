"""The frozen test set: which examples are asked, and what can be said about them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.errors import DataError
from luthier.evaluate.compare import Units, units
from luthier.evaluate.text import words
from luthier.index.rag import bare_question
from luthier.task import Task
from luthier.types import Example, Message, Passage, digest


@dataclass(frozen=True)
class TestSet:
    """What is asked."""

    __test__ = False  # pytest would take the name for a test class

    examples: tuple[Example, ...]
    sources: dict[str, tuple[Passage, ...]]
    """Passages that a question was made from, by example id; absent where none is known."""
    units: Units
    facts: dict[str, Any]
    """The report's `test`."""


def test_set(examples: Sequence[Example], passages: Sequence[Passage], task: Task, *, max_questions: int,
             seed: int) -> TestSet:
    """Choose the test questions and describe them.

    Left out and counted: questions that already carry passages in their prompt (retrieval is a system of its own
    here), replayed general instructions, raw text in an assistant's test set and conversations in a completion's.
    """
    whole = [example for example in examples if example.split == "test"]
    kept, excluded = [], Counter()
    for example in whole:
        why = _misfit(example, task)
        if why:
            excluded[why] += 1
        else:
            kept.append(example)
    if not kept:
        told = ", ".join(f"{count} {why}" for why, count in excluded.items())
        raise DataError("the data has no test question" + (f" (left out: {told})" if told else "")
                        + "; raise prepare.split.test or add documents or pairs")
    chosen = sorted(kept, key=lambda example: digest(str(seed), example.id))[:max_questions]
    places = {example.id: place for place, example in enumerate(kept)}
    chosen.sort(key=lambda example: places[example.id])
    sources = _sources(chosen, passages)
    resampled = units(chosen)
    facts = {
        "num_questions": len(chosen), "num_available": len(kept),
        "num_unanswerable": sum("unanswerable" in example.tags for example in chosen),
        "num_documents": len({document for example in chosen for document in example.origin.documents}),
        "num_passages": len({passage for example in chosen for passage in example.origin.passages}),
        "disjoint": disjoint(chosen, [example for example in examples if example.split == "train"]),
        "hash": frozen_hash(chosen), "unit": resampled.name, "num_units": len(set(resampled.ids)),
        "excluded": dict(excluded), "makers": dict(Counter(example.origin.maker for example in chosen)),
    }
    return TestSet(tuple(chosen), sources, resampled, facts)


test_set.__test__ = False  # type: ignore[attr-defined]


def _misfit(example: Example, task: Task) -> str:
    if "replay" in example.tags:
        return "replayed"
    if (task.type == "completion") != isinstance(example.input, str):
        return "conversation" if task.type == "completion" else "text"
    if task.type == "assistant" and example.target is None:
        return "without an answer"
    if "grounded" in example.tags or bare_question(example.question) != example.question:
        return "grounded"
    return ""


def _sources(examples: Sequence[Example], passages: Sequence[Passage]) -> dict[str, tuple[Passage, ...]]:
    by_id = {passage.id: passage for passage in passages}
    by_document: dict[str, list[Passage]] = {}
    for passage in passages:
        by_document.setdefault(passage.document, []).append(passage)
    found = {}
    for example in examples:
        own = [by_id[id] for id in example.origin.passages if id in by_id]
        if not own and not example.origin.passages:
            own = [passage for id in example.origin.documents for passage in by_document.get(id, ())]
        if own:
            found[example.id] = tuple(own)
    return found


def disjoint(test: Sequence[Example], train: Sequence[Example]) -> str:
    """The strictest level at which test and training share nothing: `document`, `passage`, `question`, or `none`.

    A question that stands in no document (the user's own pair, say) has nothing but its wording to share: it must not
    be asked in training. With such questions alone, `question` is the strictest level there is.
    """
    def question(example: Example) -> list[str]:
        return [" ".join(words(example.question))]

    def shared(of: Any) -> bool | None:
        placed = [example for example in test if of(example)]
        if not placed or overlap([example for example in test if not of(example)], question):
            return None
        return overlap(placed, of)

    def overlap(some: Sequence[Example], of: Any) -> bool:
        theirs = {one for example in train for one in of(example)}
        return any(one in theirs for example in some for one in of(example))

    if shared(lambda example: example.origin.documents) is False:
        return "document"
    if shared(lambda example: example.origin.passages) is False:
        return "passage"
    return "none" if overlap(test, question) else "question"


def frozen_hash(examples: Sequence[Example]) -> str:
    """sha256 over the questions and answers asked, in order: equal hashes mean the same test."""
    total = hashlib.sha256()
    for example in examples:
        text = example.input if isinstance(example.input, str) else "\x1e".join(
            f"{message.role}\x1f{message.content}" for message in example.input)
        total.update(f"{text}\x1d{example.target}\x1c".encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def closed_prompt(example: Example, system: str | None) -> tuple[Message, ...]:
    """The conversation as it is, led by the task's system message where it brings none."""
    assert not isinstance(example.input, str)
    lead = (Message(role="system", content=system),) if system and example.input[0].role != "system" else ()
    return (*lead, *example.input)


def with_prompt(example: Example, prompt: tuple[Message, ...]) -> Example:
    """The same reference answer behind another prompt."""
    return replace(example, input=prompt)
