"""Grounded copies are, word for word, what the server asks; without the own passage the answer is the refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.index.rag import Rag
from luthier.prepare.base import OWN_SPLIT
from luthier.prepare.makers._text import numbers, support
from luthier.prepare.makers.faq import Faq
from luthier.prepare.makers.ground import Ground
from luthier.task import Task
from luthier.types import Example, Message, Origin

TOPICS = [
    "lift",
    "printer",
    "canteen",
    "garage",
    "library",
    "garden",
    "archive",
    "laundry",
    "studio",
    "kiosk",
    "sauna",
    "chapel",
]


@pytest.fixture
def asked(context, run, doc):
    """A context with one FAQ example a topic, all of one split or by a given rule."""
    def go(split="train", **changes):
        pieces = [
            piece
            for n, topic in enumerate(TOPICS)
            for piece in (
                f"## Who repairs the {topic}?",
                f"The {topic} is repaired by team number {n + 20} within {n + 3} days of the report.",
            )
        ]
        found = context(doc("# House rules", *pieces, title="House rules"), split=split, **changes)
        examples, _ = run(Faq(), found)
        assert len(examples) == len(TOPICS)
        return replace(found, examples=tuple(replace(e, split=found.split_of(e.origin.passages[0])) for e in examples))

    return go


def passages_in(context, example):
    """The passages of the prompt, in its order."""
    text = example.question
    return sorted((p for p in context.passages if f'"""\n{p.text}\n"""' in text), key=lambda p: text.index(p.text))


def test_the_prompt_is_what_rag_messages_writes(asked, run):
    task = Task(system="You serve Acme.", refusal="Not in our papers.")
    found = asked(task=task, rag=Rag(top_k=3))
    examples, dropped = run(Ground(share=1.0, without=0.5), found)
    assert len(examples) == len(TOPICS) and not dropped
    by_question = {e.question: e for e in found.examples}
    for example in examples:
        shown = passages_in(found, example)
        assert len(shown) == 3
        question = next(q for q in by_question if example.question.endswith(q))
        assert example.input == found.rag.messages(question, shown, task.system, refusal=task.refusal)
        assert set(example.origin.passages) == {p.id for p in shown}


def test_with_the_own_passage_the_answer_stays_and_cites_it_by_its_number(asked, run):
    found = asked()
    examples, _ = run(Ground(share=1.0, without=0.0), found)
    by_question = {e.question: e for e in found.examples}
    for example in examples:
        before = next(e for q, e in by_question.items() if example.question.endswith(q))
        own = before.origin.passages[0]
        number = [p.id for p in passages_in(found, example)].index(own) + 1
        assert example.target == f"{before.target} [{number}]" and example.tags == ("grounded",)
        assert example.origin.passages[0] == own and example.origin.evidence == before.origin.evidence
        assert example.origin.maker == before.origin.maker and example.origin.where == before.origin.where
    plain, _ = run(Ground(share=1.0, without=0.0, cite=False), found)
    assert {e.target for e in plain} == {e.target for e in found.examples}


def test_without_the_own_passage_the_answer_is_the_refusal_and_no_passage_holds_it(asked, run):
    found = asked()
    examples, _ = run(Ground(share=1.0, without=1.0), found)
    assert len(examples) == len(TOPICS)
    by_question = {e.question: e for e in found.examples}
    for example in examples:
        before = next(e for q, e in by_question.items() if example.question.endswith(q))
        shown = passages_in(found, example)
        assert example.target == found.task.refusal and set(example.tags) == {"grounded", "unanswerable"}
        assert shown and before.origin.passages[0] not in {p.id for p in shown}
        assert not any(
            support(before.target, p.headed) > 0.6 and numbers(before.target) <= numbers(p.headed) for p in shown
        )


def test_an_own_passage_that_search_misses_is_put_in_and_fits_the_budget(asked, run):
    found = asked(rag=Rag(top_k=4, max_context_tokens=120))
    wrong = replace(found, build_retriever=lambda split: Backwards(found))
    examples, _ = run(Ground(share=1.0, without=0.0), wrong)
    for example in examples:
        assert example.origin.passages[0] in {p.id for p in passages_in(found, example)}
        assert example.target.endswith("]")


class Backwards:
    """A search that finds everything but the right passage first."""

    def __init__(self, context):
        self.context = context

    def search(self, queries, k):
        from luthier.index.base import Hit

        return [[Hit(passage=p, score=1.0, rank=rank) for rank, p in enumerate(
            sorted(self.context.passages, key=lambda p: support(query, p.headed)), 1)][:k] for query in queries]


def test_the_test_split_and_its_passages_stay_out(asked, run):
    def rule(id):
        return ("train", "validation", "test")[int(id, 16) % 3]

    found = asked(split=rule)
    assert {e.split for e in found.examples} == {"train", "validation", "test"}
    examples, _ = run(Ground(share=1.0), found)
    assert {e.split for e in examples} == {"train", "validation"}
    for example in examples:
        assert {found.split_of(p) for p in example.origin.passages} == {example.split}
        assert {found.split_of(p.id) for p in passages_in(found, example)} == {example.split}


def test_unanswerable_questions_stay_unanswerable(asked, run):
    found = asked()
    lost = [replace(e, target=found.task.refusal, tags=("unanswerable",)) for e in found.examples]
    examples, _ = run(Ground(share=1.0, without=0.0), replace(found, examples=tuple(lost)))
    assert len(examples) == len(TOPICS)
    assert all(e.target == found.task.refusal and set(e.tags) == {"grounded", "unanswerable"} for e in examples)


def human(question, answer, *turns, tags=()):
    return Example(id=question, input=(*turns, Message(role="user", content=question)), target=answer, tags=tags,
                   origin=Origin(maker="human", step="pairs", where="pairs.csv:2"))


def test_the_users_own_pairs_are_grounded_where_a_passage_holds_their_answer(asked, run):
    found = asked()
    good = human("Who mends the sauna?", "The sauna is repaired by team number 30.", tags=(OWN_SPLIT,))
    bad = human("Who repairs the roof?", "Nobody from here: an outside roofer called Meyer mends roofs.")
    long = human("And the lift?", "The lift is repaired by team number 20.", Message(role="user", content="Hi?"),
                 Message(role="assistant", content="Hello."))
    text = Example(id="t", input="Some domain text.", target=None, origin=Origin(maker="document", step="text"))
    examples, dropped = run(Ground(share=1.0, without=0.0), replace(found, examples=(good, bad, long, text)))
    assert [e.target.rsplit(" ", 1)[0] for e in examples] == [good.target]
    assert OWN_SPLIT in examples[0].tags and examples[0].origin.maker == "human"
    assert [(d.reason, d.text) for d in dropped] == [("no-passage", bad.question)]


def test_the_share_is_about_right_and_the_choice_stable(asked, run):
    found = asked()
    many = [replace(e, id=f"{e.id}{n}") for e in found.examples for n in range(20)]
    examples, _ = run(Ground(share=0.4, without=0.0), replace(found, examples=tuple(many)))
    assert 0.3 < len(examples) / len(many) < 0.5
    fewer, _ = run(Ground(share=0.4, without=0.0), replace(found, examples=tuple(many[:120])))
    assert [e.id for e in fewer] == [e.id for e in examples[:len(fewer)]]
    assert run(Ground(share=0.0), found) == ([], [])
