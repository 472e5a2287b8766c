"""Law: what no reader could use is dropped with its reason; real text, lists, tables and code are left alone."""

import json
import random
from pathlib import Path

import pytest

from luthier.prepare.quality import Quality, judge
from luthier.types import Passage

DATA = Path(__file__).parents[3] / "shared" / "data"
GOOD = {
    "prose": "The valve must be closed before the pump is opened. Wait two minutes until the pressure has gone, then "
             "loosen the four screws of the cover.",
    "german": "Die Donaudampfschifffahrtsgesellschaft verlangt Fahrgastbeförderungsbedingungen für Gruppen "
              "und Sondergenehmigungen bei Überlandfahrten.",
    "list": "- Switch the printer off.\n- Open the cover.\n- Take the cartridge out.\n- Put the new in.\n- Close"
            " the cover.",
    "table": "| part | price | stock |\n|---|---|---|\n| A-100 | 12.50 | 3 |\n| A-200 | 14.90 | 12 |\n| A-300 | 9 |",
    "code": "```\nfor (i = 0; i < 10; i++) { x[i] = y[i] ^ z[i]; }\n```",
    "upper case": "DO NOT OPEN THE COVER WHILE THE ENGINE IS RUNNING. RISK OF ELECTRIC SHOCK AND OF BURNS.",
    "address": "Acme Ltd, 12 Station Road, Leeds LS1 4DY, United Kingdom. Phone +44 113 496 0000, info@acme.example.",
}
BAD = {
    "placeholder": "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor ut labore.",
    "ocr-junk": "Tbe qnlck hrwn fx jmps vr th lzy dg bcs nbdy stpd t frm dng s nd thn wnt hm t slp wll.",
    "repeated-words": "click here now " * 20,
}


@pytest.mark.parametrize("name", GOOD)
def test_good_text_has_no_finding_that_drops_it(name):
    assert judge(GOOD[name]).score >= 0.6, judge(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_bad_text_is_dropped_by_default_and_says_why(name):
    found = judge(BAD[name])
    assert found.score < Quality().min_score and found.reasons[0] == name


def test_findings_that_do_not_drop_alone():
    assert "menu" in judge("Home\nProducts\nPrices\nAbout us\nContact\nJobs\nImprint\nPrivacy\nLogin").reasons
    assert "numbers" in judge("12 44 918 2 81 7 55 19 2 44 81 923 a b").reasons
    assert "truncated" in judge("The pump is opened by turning the upper of the two").reasons
    assert "script-notice" in judge("Please enable JavaScript to view the page and all that it shows you.").reasons


def test_the_card_has_the_distribution_and_the_worst(tmp_path):
    texts = [*GOOD.values(), *BAD.values(), "too short"]
    rows = [Passage(id=str(n), document="d", path="a.md", title="", heading=(), text=text, spans=(n, n + 1))
            for n, text in enumerate(texts)]
    dropped = []
    kept, card = Quality().keep(rows, dropped)
    assert len(kept) == len(rows) - 3 and {one.reason for one in dropped} == {"quality"}
    assert sum(card["bins"]) == card["n"] == len(rows) and card["dropped"] == 3
    assert [row["score"] for row in card["worst"]] == sorted(row["score"] for row in card["worst"])
    assert "lorem ipsum" not in dropped[0].detail and "placeholder" in dropped[0].detail
    json.dumps(card)
    none = []
    assert len(Quality(min_score=0).keep(rows, none)[0]) == len(rows) and not none


@pytest.mark.skipif(not (DATA / "medquad" / "train.jsonl").is_file(), reason="no shared/data/medquad")
def test_real_text_is_hardly_ever_dropped_and_the_same_text_garbled_is():
    lines = (DATA / "medquad" / "train.jsonl").read_text("utf-8").splitlines()[:800]
    texts = [" ".join(json.loads(line)["answer"].split()[:120]) for line in lines]
    assert sum(judge(text).score < 0.3 for text in texts) <= 2
    rng = random.Random(0)
    junk = ["".join(sign for sign in text if sign not in "aeiouAEIOU" or rng.random() < 0.1) for text in texts[:200]]
    assert sum(judge(text).score < 0.3 for text in junk if len(text.split()) >= 20) > 150
