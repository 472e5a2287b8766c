"""Unanswerable questions: the right share in every split, and truly without an answer in the documents."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from luthier.prepare.makers._text import content
from luthier.prepare.makers.table import TableQuestions
from luthier.prepare.makers.unanswerable import Unanswerable
from luthier.task import Task

PARTS = "| Part | Price |\n|---|---|\n" + "\n".join(f"| SP-{1000 + 10 * n} | {n + 5} EUR |" for n in range(30))


def shop(doc):
    return doc(
        "# Parts List", "Sold in the workshop.", "## Current prices", PARTS, title="Parts List", path="parts.md"
    )


def handbook(doc):
    text = "Guests sign the visitor book at reception and wear a badge. They are met by their host in the lobby."
    return doc(
        "# Staff Handbook",
        "## Visitor badges",
        text,
        "## Fire drills",
        text.replace("Guests", "Wardens") + " Twice a year.",
        path="staff.md",
    )


@pytest.fixture
def prepared(context, run, doc):
    """A context whose earlier maker made table questions, in three splits by passage."""
    def go(**changes):
        found = context(shop(doc), handbook(doc), max_tokens=80, **changes)
        examples, _ = run(TableQuestions(max_per_table=60), found)
        split = [replace(e, split=found.split_of(e.origin.passages[0])) for e in examples]
        return replace(found, examples=tuple(split))

    return go


def test_the_share_holds_in_every_split_where_there_are_questions(prepared, run):
    found = prepared(split=lambda id: ("train", "validation", "test")[int(id, 16) % 3])
    examples, _ = run(Unanswerable(share=0.3, sources=("no_such",)), found)
    for split in ("train", "validation", "test"):
        base = sum(e.split == split for e in found.examples)
        made = sum(found.split_of(e.origin.passages[0]) == split for e in examples)
        assert base and abs(made - 0.3 * base) <= 1


def test_every_answer_is_the_tasks_refusal_and_tagged(prepared, run):
    task = Task(refusal="That is not in our documents.", system="You serve Acme.")
    examples, _ = run(Unanswerable(share=0.5), prepared(task=task))
    assert len(examples) > 5
    for example in examples:
        assert example.target == task.refusal and example.tags == ("unanswerable",)
        assert [m.role for m in example.input] == ["system", "user"] and example.question.endswith("?")


def test_invented_codes_stand_nowhere_in_the_corpus(prepared, run):
    found = prepared()
    corpus = " ".join(p.headed for p in found.passages)
    examples, _ = run(Unanswerable(share=0.5, sources=("no_such",)), found)
    asked = {e.question for e in found.examples}
    for example in examples:
        code = re.search(r"SP-\d{4}", example.question)[0]
        assert code not in corpus and any(re.sub(r"SP-\d{4}", code, other) == example.question for other in asked)


def test_a_document_is_asked_only_for_what_it_does_not_hold(prepared, run):
    found = prepared(split="train")
    examples, _ = run(Unanswerable(share=1.0, sources=("elsewhere",)), found)
    assert examples
    for example in examples:
        asked = next(d for d in found.documents if d.id == example.origin.documents[0])
        topic = (
            "prices"
            if asked.path == "staff.md"
            else "visitor badges"
            if "isitor" in example.question
            else "fire drills"
        )
        assert topic in example.question.lower()
        assert not set(content(topic)) & set(content(asked.text))
        passage = next(p for p in found.passages if p.id == example.origin.passages[0])
        assert passage.document == asked.id


def test_a_foreign_question_that_the_documents_answer_is_dropped(context, run, doc, prepared):
    found = context(
        doc("# Physics", "Gold has its melting point at 1064 degrees. The melting point of gold is high."),
        handbook(doc),
    )
    found = replace(found, examples=prepared().examples)
    examples, dropped = run(Unanswerable(share=1.0, sources=("foreign",)), found)
    assert "What is the melting point of gold?" not in {e.question for e in examples}
    assert [d.reason for d in dropped if "melting point" in d.text] == ["may-be-answered"]
    assert examples and all(not e.origin.passages for e in examples)


def test_no_questions_before_no_refusals_after(context, run, doc):
    assert run(Unanswerable(), context(handbook(doc))) == ([], [])
    assert run(Unanswerable(share=0.0), context(handbook(doc))) == ([], [])


def test_the_same_seed_gives_the_same_questions(prepared, run):
    found = prepared()
    assert run(Unanswerable(share=0.4), found)[0] == run(Unanswerable(share=0.4), found)[0]
    other = run(Unanswerable(share=0.4), replace(found, seed=1))[0]
    assert {e.question for e in other} != {e.question for e in run(Unanswerable(share=0.4), found)[0]}
