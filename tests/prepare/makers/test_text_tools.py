"""The tools below the makers: plain text, sentences, trimming, support, evidence, standing alone."""

from __future__ import annotations

import random

import pytest

from luthier.prepare.makers._text import (
    ends_well,
    evidence,
    numbers,
    overlap,
    plain,
    refers_to_page,
    sentences,
    stands_alone,
    support,
    trim,
)

PROSE = ("Dr. Falk measured 2.5 kg, i.e. more than before. She asked why. Was it the seal? The Acme Inc. office "
         "in the U.S. agreed at 5 p.m. on Friday. Use approx. three drops.")


def test_markdown_marks_go_and_lists_stay():
    marked = ("# Title\n\n* **bold** and `code`\n* [link](http://x.y/z \"t\") ![pic](a.png)\n\n"
              "> said\\_so snake_case 2*3*4")
    assert plain(marked) == "Title\n\n- bold and code\n- link pic\n\nsaid_so snake_case 2*3*4"


def test_sentences_know_abbreviations_initials_and_decimals():
    assert sentences(PROSE) == [
        "Dr. Falk measured 2.5 kg, i.e. more than before.", "She asked why.", "Was it the seal?",
        "The Acme Inc. office in the U.S. agreed at 5 p.m. on Friday.", "Use approx. three drops."]


@pytest.mark.parametrize("limit", range(0, len(PROSE) + 20, 7))
def test_trimming_keeps_a_beginning_that_ends_with_a_sentence(limit):
    cut = trim(PROSE, limit)
    assert PROSE.startswith(cut) and len(cut) <= limit
    assert cut == "" or (ends_well(cut) and cut.split()[-1] in PROSE.split())


def test_trimming_at_random_never_cuts_a_word_or_an_item():
    rng = random.Random(0)
    words = ["valve", "seal", "3.5", "e.g.", "pump,", "(old)", "oil"]
    for _ in range(200):
        lines = [" ".join(rng.choices(words, k=rng.randint(2, 9))) + rng.choice([".", "?", ""]) for _ in range(6)]
        text = "\n".join(("- " if rng.random() < 0.5 else "") + line for line in lines)
        cut = trim(text, rng.randint(5, len(text)))
        assert text.startswith(cut) and (cut == text.strip() or text[len(cut):][:1].isspace() or not cut)


def test_an_announcement_of_what_is_cut_away_goes_too():
    text = "Bring a bag. You also need the following:\n- a passport photo\n- a signed contract of two pages"
    assert trim(text, 45) == "Bring a bag."
    assert trim(text, 64) == "Bring a bag. You also need the following:\n- a passport photo"


def test_support_is_the_share_of_content_words_found():
    assert support("The pumps were cleaned in Leipzig", "In Leipzig we clean each pump twice") == 1.0
    assert support("The pumps were cleaned in Leipzig", "In Paris we clean each pump") == pytest.approx(2 / 3)
    assert support("It is and was", "anything") == 0.0 and support("", "x") == 0.0


def test_numbers_compare_by_value_not_by_spelling():
    assert numbers("1,000 km on 07 May, 2.5 h") == numbers("1000 km, 7, 2.5")
    assert numbers("1. Open it.\n2. Close 3 doors.") == {"3"}


def test_evidence_is_a_verbatim_run_of_sentences():
    source = "Cars are blue. A car may be driven 300 km a day.  Damage is told to the fleet desk. Keys hang here."
    assert evidence("A car is driven 300 km a day", source) == ("A car may be driven 300 km a day.", 1.0)
    quote, share = evidence("Damage to a car driven 300 km goes to the fleet desk", source)
    assert quote in source and quote.startswith("A car may") and quote.endswith("fleet desk.") and share > 0.8
    assert evidence("", source) == ("", 0.0)


@pytest.mark.parametrize(("question", "alone"), [
    ("How long does it take?", False), ("How long does it take to charge the battery?", True),
    ("What does this mean?", False),
    ("Can I test a bike before I buy it?", True), ("How do I cancel it?", False),
    ("Is it possible to pay by card?", True),
    ("Is there a bike that goes faster?", True), ("Why is that?", False), ("What are their limits?", False),
    ("What does the text above say?", False), ("Which tyre fits the Cargo 7?", True), ("What?", False),
])
def test_questions_that_need_their_page(question, alone):
    assert stands_alone(question) is alone


def test_pointers_to_the_page_are_seen_in_both_languages():
    assert refers_to_page("According to the passage, who pays?") and refers_to_page("Was sagt der Text dazu?", "de")
    assert not refers_to_page("What does the Travel Policy say about hotels?")


def test_overlap_is_one_for_equal_and_zero_for_other_word_pairs():
    assert overlap("Who pays the hotel?", "who pays the HOTEL") == 1 and overlap("Who pays?", "Where is Leipzig?") == 0
