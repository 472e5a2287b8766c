"""Questions and answers that stand in documents are found in each of their forms, whole and word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.prepare.makers.faq import Faq

MEDQUAD = Path(__file__).parents[3].parent / "shared" / "data" / "medquad" / "raw_xml"


def qa(examples):
    return {example.question: example.target for example in examples}


def test_a_heading_that_asks_is_answered_by_its_section(context, run, doc):
    examples, _ = run(
        Faq(),
        context(
            doc(
                "# FAQ",
                "## How do I reset my password?",
                "Open the portal and choose Forgot password.",
                "- The link lives one hour.",
                "## Opening hours",
                "We are open from 9 to 5.",
            )
        ),
    )
    assert qa(examples) == {
        "How do I reset my password?": "Open the portal and choose Forgot password.\n\n- The link lives one hour."}
    origin = examples[0].origin
    assert origin.maker == "document" and origin.where == "handbook.md, line 3"
    assert (
        origin.evidence
        and origin.evidence in "Open the portal and choose Forgot password.\n\n- The link lives one hour."
    )


@pytest.mark.parametrize(
    ("asked", "told"), [("Q:", "A:"), ("Question 4:", "Answer 4:"), ("Frage:", "Antwort:"), ("**Q:**", "**A:**")]
)
def test_marked_pairs_in_paragraphs(context, run, doc, asked, told):
    examples, _ = run(Faq(), context(doc(
        "# Help", f"{asked} May guests park in the yard?", f"{told} Yes, guests may park in the yard until six.",
        f"{asked} Where are the bicycle stands?", f"{told} The bicycle stands are behind the canteen.")))
    assert qa(examples) == {"May guests park in the yard?": "Yes, guests may park in the yard until six.",
                            "Where are the bicycle stands?": "The bicycle stands are behind the canteen."}


def test_marked_pairs_inside_one_paragraph(context, run, doc):
    examples, _ = run(
        Faq(),
        context(
            doc(
                "# Help",
                "Q: May guests park in the yard?\nA: Yes, until six.\nQ: Is the canteen open on Fridays?\nA: "
                "Only until two.",
            )
        ),
    )
    assert qa(examples) == {
        "May guests park in the yard?": "Yes, until six.",
        "Is the canteen open on Fridays?": "Only until two.",
    }


def test_bold_questions_take_only_their_own_paragraph(context, run, doc):
    examples, _ = run(Faq(), context(doc(
        "# Visits", "**Do visitors need a badge?**", "Visitors need a badge from the reception desk.",
        "The building was opened in 1987.")))
    assert qa(examples) == {"Do visitors need a badge?": "Visitors need a badge from the reception desk."}


def test_tables_with_question_and_answer_columns(context, run, doc):
    examples, _ = run(
        Faq(),
        context(
            doc(
                "# Help",
                "| No | Question | Answer |\n|---|---|---|\n| 1 | Who repairs the printers? | The help desk "
                "repairs printers. |\n"
                "| 2 | Who orders toner? | |",
            )
        ),
    )
    assert qa(examples) == {"Who repairs the printers?": "The help desk repairs printers."}


def test_a_question_without_an_answer_is_dropped_with_its_reason(context, run, doc):
    examples, dropped = run(
        Faq(), context(doc("# FAQ", "## Is there a gym?", "## Is there a pool?", "There is a pool on floor 2."))
    )
    assert [e.question for e in examples] == ["Is there a pool?"]
    assert [(d.reason, "Is there a gym?" in d.item) for d in dropped] == [("no-answer", True)]


def test_a_question_that_needs_its_page_is_given_its_heading(context, run, doc):
    examples, _ = run(Faq(), context(doc(
        "# Help", "## Refunds", "### How long does it take?", "A refund takes seven working days.",
        "### If I pay a refund fee by card, is it returned?", "Card fees are returned in full.")))
    assert [e.question for e in examples] == [
        "Refunds: How long does it take?",
        "If I pay a refund fee by card, is it returned?",
    ]


def test_an_answer_ends_at_a_sentence_never_inside_a_word(context, run, doc):
    sentences = [f"Step {n} of the procedure concerns valve number {n} and its seal." for n in range(30)]
    examples, _ = run(Faq(max_answer=300), context(doc("# F", "## How is the plant shut down?", " ".join(sentences))))
    assert len(examples[0].target) <= 300 and examples[0].target.endswith("its seal.")
    assert examples[0].target == " ".join(sentences[:len(examples[0].target.split(". "))])


def test_one_question_with_two_answers_is_ambiguous(context, run, doc):
    examples, dropped = run(
        Faq(),
        context(
            doc(
                "# FAQ",
                "## Who signs invoices?",
                "The head of finance signs invoices.",
                "## Who signs invoices?",
                "The director signs them.",
            )
        ),
    )
    assert len(examples) == 1 and [d.reason for d in dropped] == ["ambiguous"]


def test_text_that_was_removed_as_a_duplicate_makes_no_example(context, run, doc):
    page = doc("# FAQ", "## Who signs invoices?", "The head of finance signs invoices.")
    found = context(page)
    examples, dropped = run(Faq(), type(found)(**{**found.__dict__, "passages": []}))
    assert not examples and [d.reason for d in dropped] == ["passage-removed"]


def test_a_mails_questions_carry_its_subject(context, run, doc):
    mail = doc(
        "Dear customers,",
        "## Who is affected?",
        "Owners of the heater H2 are affected.",
        title="Recall of heater H2",
        path="recall.eml",
        reader="eml",
    )
    examples, _ = run(Faq(), context(mail))
    assert [e.question for e in examples] == ["Recall of heater H2: Who is affected?"]


@pytest.mark.skipif(not MEDQUAD.is_dir(), reason="shared/data/medquad is not on this machine")
def test_every_pair_of_a_medquad_page_is_found(context, run):
    from xml.etree import ElementTree

    from luthier.ingest.base import Source
    from luthier.ingest.xml import XmlReader

    file = MEDQUAD / "0000013_2_1.xml"
    raw = file.read_bytes()
    page = next(iter(XmlReader().read(Source(path=file, name=file.name, sha256="0" * 64, head=raw[:16384]))))
    examples, dropped = run(Faq(max_answer=4000), context(page))
    wanted = {
        q.text.replace("What is (are)", "What is").replace(" ?", "?") for q in ElementTree.parse(file).iter("Question")
    }
    assert {e.question.replace("??", "?") for e in examples} | {d.item for d in dropped} >= wanted and len(
        examples
    ) >= len(wanted) - 1
