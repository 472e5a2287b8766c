"""The benchmark scripts' helpers: labels, the fp32 judge, intervals, ratios, pages from records."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in ("common", "train_speed", "assistant_documents", "assistant_medquad"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from luthier.testing import tiny_chat_model

    return tiny_chat_model(tmp_path_factory.mktemp("models") / "tiny")


def script(name: str):
    return importlib.import_module(name)


def test_labels_cover_the_answer_and_its_stop_token(tiny):
    from transformers import AutoTokenizer

    common = script("common")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    row = common.tokenise(tokenizer, "What is it?", " An answer. ", stop="<|im_end|>", limit=512)
    learned = [token for token, label in zip(row["ids"], row["labels"], strict=True) if label != common.IGNORED]
    assert learned == [label for label in row["labels"] if label != common.IGNORED]
    assert tokenizer.decode(learned) == "An answer.<|im_end|>"
    assert tokenizer.decode(row["ids"]).endswith("<|im_start|>assistant\nAn answer.<|im_end|>")
    assert common.tokenise(tokenizer, "What is it?", "An answer.", stop="<|im_end|>", limit=20) is None


def test_the_judge_agrees_with_transformers_own_loss(tiny):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    common = script("common")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    rows = [common.tokenise(tokenizer, q, a, stop="<|im_end|>", limit=512)
            for q, a in (("One?", "Yes."), ("Two or three?", "Neither of them, but four."))]
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    expected = [model(input_ids=torch.tensor([r["ids"]]), labels=torch.tensor([r["labels"]])).loss.item() for r in rows]
    found = common.losses(tiny, None, rows)
    assert [loss.total / loss.count for loss in found] == pytest.approx(expected, rel=1e-5)
    counts = [sum(label != common.IGNORED for label in row["labels"]) for row in rows]
    assert common.mean_loss(found) == pytest.approx(
        sum(e * c for e, c in zip(expected, counts, strict=True)) / sum(counts), rel=1e-5)


def test_relative_change_is_paired():
    common = script("common")
    before = [common.Loss(total=float(i), count=1) for i in range(1, 60)]  # very unequal examples
    after = [common.Loss(total=0.8 * loss.total, count=1) for loss in before]
    found = common.relative_change(before, after)
    assert found["change"] == pytest.approx(-0.2)
    assert found["low"] == pytest.approx(-0.2) and found["high"] == pytest.approx(-0.2)  # each fell by the same share
    mixed = [common.Loss(total=loss.total * (0.7 if i % 2 else 1.1), count=1) for i, loss in enumerate(before)]
    wide = common.relative_change(before, mixed)
    assert wide["low"] < wide["change"] < wide["high"]


def test_mean_difference_is_paired():
    common = script("common")
    found = common.mean_difference([0.1, 0.9, 0.4, 0.2], [0.2, 1.0, 0.5, 0.3])  # every one rises by 0.1
    assert found["change"] == pytest.approx(0.1) and found["low"] == pytest.approx(0.1) == found["high"]
    assert found["before"] == pytest.approx(0.4) and found["n"] == 4


def test_speed_ratios_are_taken_within_a_round():
    speed = script("train_speed")

    def run(rate, loss):
        return {"tokens_per_cpu_s": rate, "peak_gib": 1.0, "held_out_loss": loss}

    found = speed.summarise({"luthier": [run(200, 2.0), run(100, 2.0)], "trl-defaults": [run(50, 2.01), run(20, 2.0)]})
    assert found["luthier_over"]["trl-defaults"] == {"min": 4.0, "median": 4.5, "max": 5.0}
    assert math.isclose(found["held_out_loss_disagreement"], 0.005)


def test_cutting_answers_helps_a_rambling_base(tiny):
    medquad = script("assistant_medquad")
    reference = "gout is a form of arthritis"
    rows = [{"system": system, "example": "e1", "reference": reference, "answer": answer}
            for system, answer in (("tuned", reference), ("base", reference + " and so on" * 20))]
    found = medquad.by_limit(tiny, rows, 256)  # the tiny tokenizer has one token a letter
    assert found["32"]["before"] > 0.9  # cut soon after the right words
    assert found["256"]["before"] < 0.3 and found["256"]["after"] == pytest.approx(1.0)
    assert list(found) == ["32", "64", "96", "128", "192", "256"]


def test_goals_are_judged_from_the_figures():
    medquad = script("assistant_medquad")
    result = {
        "differences": [{"system": "tuned", "against": "base", "metric": "token_f1", "low": 0.01, "value": 0.03}],
        "judged": {"test": {"change": -0.2, "low": -0.21, "high": -0.19, "before": 2.5, "after": 2.0, "n": 9},
                   "general": {"change": 0.02, "low": 0.0, "high": 0.04, "before": 2.5, "after": 2.55, "n": 9}},
        "retention": {"token_loss": {"relative_rise": 0.06}}, "minutes": 50.0}
    reached = [goal["reached"] for goal in medquad.goals(result).values()]
    assert reached == [True, True, False, True]  # the own probe rose by 6 %


def test_a_record_becomes_a_page_with_headings_paragraphs_and_lists():
    page = script("assistant_documents").page(
        "<Document><Focus>Gout &amp; joints</Focus><QAPairs><QAPair><Question>What is gout ?</Question>"
        "<Answer>Key Points\n      - It hurts.    - It swells.\n\n   Gout is &lt;painful&gt;.</Answer></QAPair>"
        "<QAPair><Question>Empty ?</Question><Answer></Answer></QAPair></QAPairs></Document>")
    assert "<title>Gout &amp; joints</title>" in page and "<h2>What is gout ?</h2>" in page
    assert "<p>Key Points</p>\n<ul><li>It hurts.</li><li>It swells.</li></ul>\n<p>Gout is &lt;painful&gt;.</p>" in page
    assert "Empty" not in page  # a question without an answer is no section


def test_answers_that_were_trained_on_are_left_out():
    documents = script("assistant_documents")
    examples = [{"split": "train", "target": "NMRI is imaging."}, {"split": "test", "target": "New."}]
    predictions = [{"system": system, "example": name, "reference": reference, "scores": {"token_f1": score}}
                   for system, name, reference, score in (
                       ("base", "a", "NMRI is imaging.", 0.1), ("tuned", "a", "NMRI is imaging.", 1.0),
                       ("base", "b", "New.", 0.2), ("tuned", "b", "New.", 0.3))]
    found = documents.unseen(examples, predictions)
    assert (found["left_out"], found["kept"]) == (1, 1)
    assert found["tuned"]["after"] == pytest.approx(0.3) and found["tuned"]["change"] == pytest.approx(0.1)
