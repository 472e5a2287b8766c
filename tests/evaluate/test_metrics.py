"""Metrics agree with the references of their field and follow the no-answer rule."""

from __future__ import annotations

import random
import re
import string
from collections import Counter

import numpy as np
import pytest

from luthier.evaluate.metrics import METRICS, Context, Prediction
from luthier.evaluate.metrics.groundedness import grounded_share
from luthier.evaluate.metrics.rouge_l import longest_common_subsequence, rouge_l
from luthier.evaluate.metrics.token_f1 import token_f1
from luthier.evaluate.text import content_words, is_refusal, normalise
from luthier.task import Task
from luthier.testing import check_spec
from luthier.types import Example, Message, Origin, Passage

TASK = Task()


def example(target: str | None, *tags: str, question: str = "When?", id: str = "e") -> Example:
    return Example(id=id, input=(Message(role="user", content=question),), target=target, tags=tags,
                   origin=Origin(maker="human", step="test"), split="test")


def said(text: str | None, **more) -> Prediction:
    return Prediction(example="e", system="base", text=text, **more)


def score(kind: str, target: str | None, answer: str | None, *tags: str, **context) -> float | None:
    return METRICS.get(kind)().score([example(target, *tags)], [said(answer)], Context(TASK, **context))[0]


def random_text(rng: random.Random) -> str:
    vocabulary = ["the", "a", "An", "notice", "period", "is", "three", "months,", "3.5", "don't", "re-entry", "OK!",
                  "(see", "§4)", "É", "x_y", "...", "A.B.C."]
    vocabulary = [word for word in vocabulary if word.isascii()]
    return " ".join(rng.choice(vocabulary) for _ in range(rng.randint(0, 30)))


def squad_f1(reference: str, answer: str) -> float:
    """The lines of SQuAD's evaluate-v2.0.py, for comparison."""
    def tokens(text: str) -> list[str]:
        text = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split()).split()

    gold, pred = tokens(reference), tokens(answer)
    same = sum((Counter(gold) & Counter(pred)).values())
    if not gold or not pred:
        return float(gold == pred)
    if same == 0:
        return 0.0
    precision, recall = same / len(pred), same / len(gold)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("kind", sorted(METRICS.kinds()))
def test_every_metric_passes_the_conformance_kit(kind: str) -> None:
    check_spec(METRICS, METRICS.get(kind)())
    assert METRICS.get(kind).label and METRICS.get(kind).explanation


def test_token_f1_equals_squads_script_on_random_ascii_text() -> None:
    rng = random.Random(0)
    pairs = [(random_text(rng), random_text(rng)) for _ in range(500)]
    assert max(abs(token_f1(a, b) - squad_f1(a, b)) for a, b in pairs) < 1e-12


def test_rouge_l_equals_googles_package_on_random_text() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    rng = random.Random(1)
    pairs = [(random_text(rng), random_text(rng)) for _ in range(500)]
    worst = max(abs(rouge_l(a, b) - scorer.score(a, b)["rougeL"].fmeasure) for a, b in pairs)
    assert worst < 1e-9


def test_bit_parallel_subsequence_equals_the_table() -> None:
    rng = random.Random(2)
    for _ in range(200):
        a, b = ([rng.choice("abc") for _ in range(rng.randint(0, 90))] for _ in range(2))
        table = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
        assert longest_common_subsequence(a, b) == table[-1, -1]


def test_normalisation_follows_the_language() -> None:
    assert normalise("The Fee, the FEE!", "en") == "fee fee"
    assert normalise("Die Gebühr und der Preis.", "de") == "gebühr und preis"
    assert normalise("Die fee", "en") == "die fee"  # an article of another language is a word
    assert normalise("L’heure d'été", "fr") == normalise("l'heure d’été", "fr") == "heure d été"
    assert normalise("营业时间", "zh").split() == ["营", "业", "时", "间"]
    assert token_f1("营业时间", "营业日", "zh") == pytest.approx(2 * 2 / 7)


def test_no_answer_rule_of_squad_2() -> None:
    for kind in ("token_f1", "exact_match", "rouge_l"):
        assert score(kind, TASK.refusal, "I don't know.", "unanswerable") == 1.0
        assert score(kind, TASK.refusal, "It costs 5 euros.", "unanswerable") == 0.0
        assert score(kind, TASK.refusal, "", "unanswerable") == 0.0, "no answer is not a refusal"
        assert score(kind, "It could be in the documents.", TASK.refusal) == 0.0, "shared words do not pay"
        assert score(kind, "At nine.", "at nine") == 1.0
        assert score(kind, "At nine.", "") == 0.0
        assert score(kind, None, None) is None


@pytest.mark.parametrize("text", [
    "I could not find this in the documents.", "I couldn't find this in the documents provided.",
    "I'm sorry, but I cannot answer that.", "Sorry. I do not know.", "The passages do not mention the price.",
    "This is not stated in the documents.", "There is no information about this.", "The context does not say.",
    "I don't have enough information to answer.", "Unfortunately, I can't find that.",
])
def test_refusals_are_recognised(text: str) -> None:
    assert is_refusal(text, TASK.refusal)


@pytest.mark.parametrize("text", [
    "", "It opens at nine. I could not find the price.", "You cannot return opened items.",
    "No, only on Sundays.", "The documents must be signed by hand.", "Not before nine o'clock.",
    "The contract does not end automatically.", "I find the answer is nine.",
    "If you cannot find your key, call Mr Hill.", "There is no fee.",
])
def test_answers_are_not_taken_for_refusals(text: str) -> None:
    assert not is_refusal(text, TASK.refusal)


def test_refusals_in_the_tasks_own_words_and_language() -> None:
    own = "Dazu steht nichts in den Unterlagen."
    assert is_refusal("Dazu steht leider nichts in den Unterlagen.", own, "de")
    assert is_refusal("Ich konnte dazu leider nichts finden.", own, "de")
    assert not is_refusal("Die Frist beträgt drei Monate.", own, "de")


def test_refusal_metrics_split_right_from_wrong() -> None:
    assert score("refused_rightly", TASK.refusal, "I don't know.", "unanswerable") == 1.0
    assert score("refused_rightly", TASK.refusal, "Nine.", "unanswerable") == 0.0
    assert score("refused_rightly", "Nine.", "I don't know.") is None
    assert score("refused_wrongly", "Nine.", "I don't know.") == 1.0
    assert score("refused_wrongly", "Nine.", "Nine.") == 0.0
    assert score("refused_wrongly", TASK.refusal, "I don't know.", "unanswerable") is None


def test_groundedness_is_the_share_of_added_content_found_in_the_source() -> None:
    source = "The library opens at 9:30 and closes on Sundays."
    assert grounded_share("It opens at 9:30.", source, "When does the library open?") == 1.0
    assert grounded_share("At 10:30.", source, "When does the library open?") == 0.0
    # "library" stands in the question and earns nothing; of close, Sunday, Monday two are found
    assert grounded_share("The library closes Sundays and Mondays.", source, "Is the library open?") == 2 / 3
    assert grounded_share("The library.", source, "Is the library open?") is None


def test_content_words_keep_numbers_whole_and_drop_function_words() -> None:
    assert content_words("The fees were 1,200.50 euros at 24/7") == ["fee", "1,200.50", "euro", "24/7"]
    assert content_words("die Gebühren", "de") == content_words("Gebühr", "de")


def test_groundedness_reads_sources_and_retrieved_passages() -> None:
    def passage(text: str) -> Passage:
        return Passage(id=text, document="d", path="a.md", title="", heading=(), text=text, spans=(0, 1))

    right, wrong = passage("Mr Hill keeps the harbour."), passage("Bread is baked at dawn.")
    context = Context(TASK, {"e": (right,)})
    answer = said("Mr Hill", passages=(wrong,))
    asked = [example("Hill", question="Who?")]
    assert METRICS.get("groundedness")().score(asked, [answer], context) == [1.0]
    assert METRICS.get("retrieved_groundedness")().score(asked, [answer], context) == [0.0]
    assert METRICS.get("retrieved_groundedness")().score(asked, [said("Mr Hill")], context) == [None]
    assert METRICS.get("groundedness")().score(asked, [said("I don't know.")], context) == [None]


def test_similarity_is_the_cosine_of_the_given_encoder() -> None:
    def embed(texts):
        table = {"nine": [1.0, 0.0], "at nine": [0.6, 0.8], "ten": [0.0, 1.0]}
        return np.array([table[text] for text in texts])

    assert score("similarity", "nine", "at nine", embed=embed) == pytest.approx(0.6)
    assert score("similarity", "nine", "ten", embed=embed) == pytest.approx(0.0)


def test_loss_is_weighted_by_tokens_and_perplexity_is_its_exponential() -> None:
    from luthier.evaluate.compare import Bootstrap, Column

    rows = [said("", loss_sum=30.0, loss_tokens=10), said("", loss_sum=2.0, loss_tokens=2), said("")]
    asked = [example("x")] * 3
    loss, perplexity = METRICS.get("answer_loss")(), METRICS.get("perplexity")()
    values = loss.score(asked, rows, Context(TASK))
    assert values == [3.0, 1.0, None]
    draws = Bootstrap(["a", "b", "c"], samples=200)
    measured = draws.measure(Column(values, loss.weights(rows), loss.finish))
    assert measured is not None and measured.value == pytest.approx(32 / 12) and measured.n == 2
    other = draws.measure(Column(values, perplexity.weights(rows), perplexity.finish))
    assert other is not None and other.value == pytest.approx(np.exp(32 / 12))


@pytest.mark.parametrize("kind", ["token_f1", "exact_match", "rouge_l", "groundedness", "retrieved_groundedness"])
def test_citations_that_the_prompt_asks_for_cost_nothing(kind: str) -> None:
    passage = Passage(id="p", document="d", path="a.md", title="", heading=(), text="It opens at nine.", spans=(0, 1))
    context = Context(TASK, {"e": (passage,)})
    asked = [example("At nine.")]
    plain = METRICS.get(kind)().score(asked, [said("At nine.", passages=(passage,))], context)
    cited = METRICS.get(kind)().score(asked, [said("At nine. [1] [2, 3]", passages=(passage,))], context)
    assert plain == cited
    bare = METRICS.get("token_f1")().score(asked, [said("At nine. [1]")], context)  # no passages: an invented mark
    assert bare != METRICS.get("token_f1")().score(asked, [said("At nine.")], context)
