"""Rows become natural questions with full answers, only where the table has the shape for it."""

from __future__ import annotations

import re

import pytest

from luthier.prepare.makers._tables import key_column, read_table, split_unit, with_unit
from luthier.prepare.makers.table import TableQuestions

GRADES = (
    "| Grade | Notice period | Laptop budget (EUR) |\n|---|---|---|\n| 1 | 4 weeks | 900 |\n| 2 | 8 weeks | 1,400 |"
)


def pairs(examples):
    return [(example.question, example.target) for example in examples]


def test_cells_are_asked_for_with_unit_and_row_noun_and_answered_in_a_sentence(context, run, doc):
    examples, dropped = run(TableQuestions(rows=False), context(doc("# Staff Handbook", "## Employment", GRADES)))
    assert not dropped and len(examples) == 4
    for example in examples:
        assert re.search(r"\bgrade [12]\b", example.question) and "the Staff Handbook" in example.question
    assert {example.target for example in examples} == {
        "The notice period for grade 1 is 4 weeks.", "The notice period for grade 2 is 8 weeks.",
        "The laptop budget for grade 1 is 900 EUR.", "The laptop budget for grade 2 is 1,400 EUR."}
    assert examples[0].origin.maker == "rule" and examples[0].origin.evidence == "1 4 weeks"


def test_rows_are_asked_for_as_a_whole(context, run, doc):
    examples, _ = run(TableQuestions(), context(doc("# Staff Handbook", "## Employment", GRADES)))
    assert "Grade 2 – notice period: 8 weeks; laptop budget: 1,400 EUR." in {e.target for e in examples}


def test_phrasings_vary_but_not_from_run_to_run(context, run, doc):
    page = doc("# Handbook", "## Rooms", "| Room | Seats | Phone |\n|---|---|---|\n" + "\n".join(
        f"| {100 + n} | {4 + n} | 77{n:02} |" for n in range(12)))
    examples, _ = run(TableQuestions(rows=False, max_per_table=100), context(page))
    starts = {example.question.split()[0] for example in examples}
    assert len(starts) >= 3
    assert pairs(examples) == pairs(run(TableQuestions(rows=False, max_per_table=100), context(page))[0])


@pytest.mark.parametrize(("table", "reason"), [
    ("| a | b |\n| c | d |", "no-header"),
    ("| Name | Score |\n|---|---|\n| Ann | 3 |\n| Ann | 4 |", "no-key-column"),
    ("| 3 | 4.5 |\n|---|---|\n| 1 | 2 |\n| 5 | 6 |", "odd-header"),
    ("| Name | |\n|---|---|\n| Ann | 3 |\n| Bob | 4 |", "odd-header"),
    ("| No | Notes |\n|---|---|\n| 1 | first we met |\n| 2 | then we left |", "no-key-column"),
    ("| Question | Answer |\n|---|---|\n| Who? | Ann. |", "made-by-faq"),
    ("| Term | Meaning |\n|---|---|\n| Shift | A block of time. |", "made-by-definition"),
])
def test_a_table_without_the_shape_is_dropped_with_its_reason(context, run, doc, table, reason):
    from luthier.types import Span

    examples, dropped = run(TableQuestions(), context(doc("# Handbook", "## Data", Span(text=table, kind="table"))))
    assert not examples and [drop.reason for drop in dropped] == [reason]


def test_remarks_and_yes_no_columns_are_not_asked_for(context, run, doc):
    examples, _ = run(
        TableQuestions(rows=False),
        context(
            doc(
                "# Price List",
                "## Plans",
                "| Plan | Price | Included | Notes |\n|---|---|---|---|\n| Basic | 5 EUR | yes | new |\n"
                "| Pro | 9 EUR | no | old |",
            )
        ),
    )
    assert {e.target for e in examples} == {"The price for Basic is 5 EUR.", "The price for Pro is 9 EUR."}


def test_a_column_that_is_no_attribute_is_quoted_instead_of_bent_into_bad_grammar(context, run, doc):
    examples, _ = run(
        TableQuestions(rows=False),
        context(
            doc(
                "# Delivery",
                "## Fees",
                "| Zone | Bike | Fits |\n|---|---|---|\n| 1 | 49 euros | all |\n| 2 | 69 euros | most |",
                title="Delivery Guide",
            )
        ),
    )
    assert all('under "bike"' in e.question or 'under "fits"' in e.question for e in examples) and len(examples) == 4
    assert "What is the bike" not in " ".join(e.question for e in examples)


def test_empty_cells_make_no_question(context, run, doc):
    examples, _ = run(TableQuestions(rows=False), context(doc(
        "# Handbook", "## Offices", "| Office | Phone |\n|---|---|\n| Berlin | – |\n| Paris | 4711 |")))
    assert [e.target for e in examples] == ["The phone for Paris is 4711."]


def test_the_cap_takes_rows_from_the_whole_table(context, run, doc):
    table = "| Part | Price |\n|---|---|\n" + "\n".join(f"| Bolt M{n} | {n} EUR |" for n in range(1, 41))
    examples, _ = run(TableQuestions(max_per_table=10, rows=False), context(doc("# Parts", "## Bolts", table)))
    numbers = [int(re.search(r"M(\d+)", e.question)[1]) for e in examples]
    assert len(numbers) == 10 and min(numbers) < 15 and max(numbers) > 25


def test_one_question_with_two_answers_inside_a_document_is_dropped(context, run, doc):
    table = "| Part | Price |\n|---|---|\n| Bolt | {} EUR |\n| Nut | 1 EUR |"
    examples, dropped = run(TableQuestions(rows=False), context(doc(
        "# Parts", "## Shop", table.format(2), "## Outlet", table.format(3), title="Parts List")))
    answers = [e.target for e in examples if "olt" in e.question]
    assert len(answers) == 1 and [d.reason for d in dropped if "olt" in d.item] == ["ambiguous"]


def test_german_tables_speak_german(context, run, doc):
    from luthier.task import Task

    examples, _ = run(TableQuestions(rows=False), context(doc(
        "# Handbuch", "## Fristen", "| Stufe | Kündigungsfrist |\n|---|---|\n| 1 | 4 Wochen |\n| 2 | 8 Wochen |",
        title="Handbuch"), task=Task(language="de")))
    assert {e.target for e in examples} == {
        "Für Stufe 1 gilt: Kündigungsfrist: 4 Wochen.",
        "Für Stufe 2 gilt: Kündigungsfrist: 8 Wochen.",
    }
    assert all("„Handbuch“" in e.question and "Kündigungsfrist" in e.question for e in examples)


def test_a_language_without_wording_is_said_so(context, run, doc):
    from luthier.task import Task

    examples, dropped = run(TableQuestions(), context(doc("# Handbook", GRADES), task=Task(language="fi")))
    assert not examples and [d.reason for d in dropped] == ["language"]


@pytest.mark.parametrize(("header", "name", "unit"), [
    ("Weight (kg)", "Weight", "kg"), ("Speed [km/h]", "Speed", "km/h"), ("Price in euros", "Price", "euros"),
    ("Share (%)", "Share", "%"), ("Rate (EUR per hour)", "Rate", "EUR per hour"), ("Name (short)", "Name (short)", ""),
    ("Born in", "Born in", ""), ("Held in Paris", "Held in Paris", ""),
])
def test_units_are_told_from_other_words_in_a_header(header, name, unit):
    assert split_unit(header) == (name, unit)


def test_a_unit_joins_figures_only():
    assert with_unit("12.5", "kg") == "12.5 kg" and with_unit("about twelve", "kg") == "about twelve"
    assert with_unit("12 €", "EUR") == "12 €"


def test_escaped_pipes_and_ragged_rows_are_read():
    table = read_table("| Key | Use |\n|:--|--:|\n| a\\|b | one\n| c | two | three |\n\ntext")
    assert table and table.rows == (("a|b", "one"), ("c", "two"))
    assert key_column(table) == 0
