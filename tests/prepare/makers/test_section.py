"""A heading becomes a question that can be understood alone; its answer is the section's own text, whole sentences."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from luthier.prepare.makers.section import SectionQuestions

TEXT = "Every employee may work from home on two days a week. The days are agreed with the team and kept in a calendar."


def one(run, context, *pieces, **changes):
    spec = SectionQuestions(**changes)
    examples, dropped = run(spec, context)
    return examples, dropped


def ask(context, run, doc, heading, text=TEXT, **kwargs):
    examples, _ = run(SectionQuestions(), context(doc("# Staff Handbook", "Preface.", f"## {heading}", text, **kwargs)))
    assert len(examples) == 1, heading
    return examples[0]


@pytest.mark.parametrize(("heading", "question"), [
    ("How to request a laptop", "How do I request a laptop?"),
    ("Resetting your password", "How do I reset my password?"),
    ("Install the client", "How do I install the client?"),
    ("Setting up a new phone", None), ("Logging in", None), ("Working hours", None), ("Report structure", None),
])
def test_only_how_to_headings_ask_how(context, run, doc, heading, question):
    found = ask(context, run, doc, heading).question
    if question is None:
        assert not found.startswith("How do I work") and not found.startswith("How do I report")
    else:
        assert found == question


@pytest.mark.parametrize(
    "heading", ["Working from home", "3.2 Working from home", "§ 4 Working from home", "IV. Working from home:"]
)
def test_other_headings_name_document_and_heading(context, run, doc, heading):
    found = ask(context, run, doc, heading)
    assert "the Staff Handbook" in found.question and "working from home" in found.question
    assert found.question.endswith("?") and found.target == TEXT and found.origin.evidence == TEXT


def test_names_keep_their_capitals_and_other_words_lose_them(context, run, doc):
    text = "The parking permit is issued by Anna in the Leipzig office. Ask there for the IT form before you drive."
    assert "parking permits in Leipzig" in ask(context, run, doc, "Parking permits in Leipzig", text).question
    assert "IT form" in ask(context, run, doc, "IT form", text).question
    assert "parking permits" in ask(context, run, doc, "PARKING PERMITS", text).question


def test_lists_are_asked_for_in_the_plural(context, run, doc):
    items = "- A copy of the contract with both signatures\n- A passport photo that is not older than a year"
    found = ask(context, run, doc, "Required documents", items)
    assert (
        found.question == "What are the required documents, according to the Staff Handbook?" and found.target == items
    )


def test_repeated_headings_name_the_heading_above(context, run, doc):
    examples, _ = run(SectionQuestions(), context(doc(
        "# Staff Handbook", "## Parental leave", "### Eligibility", TEXT, "## Study leave", "### Eligibility",
        TEXT.replace("home", "the library"))))
    assert len({e.question for e in examples}) == 2
    assert any('under "Parental leave"' in e.question for e in examples)
    assert any('under "Study leave"' in e.question for e in examples)


def test_the_documents_own_section_says_what_it_is_about(context, run, doc):
    examples, _ = run(SectionQuestions(), context(doc("# Staff Handbook", TEXT, "## Leave", TEXT + " It ends in May.")))
    assert examples[0].question == "What is the Staff Handbook about?" and examples[0].target == TEXT


def test_a_first_section_is_not_taken_for_the_documents_title(context, run, doc):
    page = doc("# Tone", TEXT, "# Goodwill", TEXT + " It is not cash.", "# Reviews", TEXT + " We answer.", title="Tone",
               path="policies/goodwill-and-complaints.txt")
    examples, _ = run(SectionQuestions(), context(page))
    assert all("Goodwill and complaints" in e.question for e in examples) and len(examples) == 3


def test_long_sections_end_at_a_sentence_and_much_too_long_ones_are_dropped(context, run, doc):
    sentences = [
        f"Paragraph {n} of the rules is about room {n}, e.g. its keys and its 2.5 m high shelves." for n in range(14)
    ]
    page = doc("# Staff Handbook", "## Rooms", " ".join(sentences))
    examples, _ = run(SectionQuestions(max_answer=600), context(page))
    assert len(examples[0].target) <= 600 and examples[0].target.endswith("high shelves.")
    examples, dropped = run(SectionQuestions(max_answer=300), context(page))
    assert not examples and [d.reason for d in dropped if "Rooms" in d.item] == ["answer-too-long"]


@pytest.mark.parametrize(
    ("heading", "text", "reason"),
    [
        ("Table of contents", TEXT, "boilerplate-heading"),
        ("References", TEXT, "boilerplate-heading"),
        ("Glossary of terms", TEXT, "made-by-definition"),
        ("Keys", "See below.", "answer-too-short"),
        ("Rates", "| A | B |\n|---|---|\n| 1 | 2 |", "no-text"),
        ("Limits", "The limits of all rooms are these:", "answer-incomplete"),
    ],
)
def test_what_is_not_asked_for_is_dropped_with_its_reason(context, run, doc, heading, text, reason):
    examples, dropped = run(SectionQuestions(), context(doc("# Staff Handbook", f"## {heading}", text)))
    assert not examples and reason in [d.reason for d in dropped if heading in d.item]


def test_an_announcement_of_a_table_is_not_part_of_the_answer(context, run, doc):
    found = ask(context, run, doc, "Rooms", TEXT)
    examples, _ = run(SectionQuestions(), context(doc(
        "# Staff Handbook", "## Rooms", TEXT, "The sizes are:", "| Room | Size |\n|---|---|\n| 1 | 20 |\n| 2 | 30 |")))
    assert [e.target for e in examples] == [found.target]


def test_question_headings_are_left_to_faq(context, run, doc):
    assert run(SectionQuestions(), context(doc("# Staff Handbook", "## Where do I park?", TEXT)))[0] == []


def test_limits_must_make_sense():
    with pytest.raises(ValidationError, match="must be below max_answer"):
        SectionQuestions(min_answer=900)
