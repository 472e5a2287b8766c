"""Terms that a document defines are asked for; sentences that define nothing are left alone."""

from __future__ import annotations

import pytest

from luthier.prepare.makers.definition import Definition
from luthier.task import Task


def qa(examples):
    return {example.question: example.target for example in examples}


@pytest.mark.parametrize(("text", "question"), [
    ("A service credit is an amount that is taken off the next invoice.", "What is a service credit?"),
    ("Service credits are the amounts that are taken off the next invoice.", "What are service credits?"),
    ("The service desk is the single point of contact for all requests.", "What is the service desk?"),
    ("Downtime means the minutes in which the platform answers no request.", "What is downtime?"),
    ("A change freeze refers to the weeks in which nothing may be deployed.", "What is a change freeze?"),
    ("Photosynthesis is the process by which plants make sugar.", "What is photosynthesis?"),
])
def test_defining_sentences(context, run, doc, text, question):
    examples, _ = run(
        Definition(), context(doc("# Handbook", f"{text} See downtime, service credits and photosynthesis."))
    )
    assert question in qa(examples) and qa(examples)[question].startswith(text)
    assert examples[0].origin.maker == "document" and examples[0].origin.evidence == text


@pytest.mark.parametrize(
    "text",
    [
        "The deadline is the 15th of each month.",
        "It is a good idea to save often.",
        "This is the list of all offices.",
        "There is a canteen on the second floor of building four.",
        "The goal is a faster reply to every customer.",
        "Level 2 is the team lead, who is called in after ten days.",
        "The result is a file that can be printed.",
        "Amber means charging, green means full and red means a fault.",
        "Employees are the most important part of the company.",
        "Radiation therapy Radiation therapy is a treatment that uses rays.",
        "Our office is a house from the last century.",
    ],
)
def test_sentences_that_define_nothing(context, run, doc, text):
    examples, _ = run(Definition(), context(doc("# Handbook", text)))
    assert not examples


def test_a_second_sentence_about_the_term_comes_along(context, run, doc):
    text = "A kanban is a card that asks for new parts. It travels with the empty box. Boxes are blue."
    examples, _ = run(Definition(), context(doc("# Handbook", text)))
    assert qa(examples) == {
        "What is a kanban?": "A kanban is a card that asks for new parts. It travels with the empty box."
    }


def test_glossaries_in_lists_paragraphs_and_tables(context, run, doc):
    examples, _ = run(
        Definition(),
        context(
            doc(
                "# Handbook",
                "## Glossary",
                "- **Takt**: the time in which one piece leaves the line\n- Buffer – stock between two machines",
                "Setup: the minutes between two kinds of product.",
                "## Abbreviations",
                "| Abbreviation | Meaning |\n|---|---|\n| OEE | Overall equipment effectiveness of a line |",
                "## Contact",
                "Reception: call extension 100 in the morning.",
            )
        ),
    )
    found = {question.split('"')[1]: answer for question, answer in qa(examples).items()}
    assert found == {
        "Takt": "Takt: the time in which one piece leaves the line.",
        "Buffer": "Buffer: stock between two machines.",
        "Setup": "Setup: the minutes between two kinds of product.",
        "OEE": "OEE: Overall equipment effectiveness of a line.",
    }


def test_abbreviations_must_be_spelled_by_their_words(context, run, doc):
    text = ("Each Service Level Agreement (SLA) names a Mean Time to Repair (MTTR). The office (HQ) and our partner "
            "(ACME) sign it.")
    page = doc("# Handbook", text)
    examples, _ = run(Definition(), context(page))
    assert {e.target for e in examples} == {
        "SLA stands for Service Level Agreement.",
        "MTTR stands for Mean Time to Repair.",
    }
    assert all(e.origin.maker == "rule" and e.origin.evidence in text for e in examples)
    assert not run(Definition(abbreviations=False), context(page))[0]


def test_too_little_is_dropped_with_its_reason(context, run, doc):
    examples, dropped = run(Definition(min_words=6), context(doc("# H", "## Glossary", "- Takt: a beat")))
    assert not examples and [d.reason for d in dropped] == ["too-little"]


def test_german_definitions(context, run, doc):
    examples, _ = run(Definition(), context(doc(
        "# Handbuch", "Eine Störung ist eine Abweichung, die einen Dienst unterbricht. Die Frist ist der 15. Mai."),
        task=Task(language="de")))
    assert qa(examples) == {"Was ist eine Störung?": "Eine Störung ist eine Abweichung, die einen Dienst unterbricht."}
