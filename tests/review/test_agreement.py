"""Agreement of two people: Cohen's kappa; conflicts are what people answer differently."""

import random

import pytest

from luthier.queues import Decided, ReviewItem
from luthier.review.agreement import agreements, cohen_kappa, conflicts


def test_kappa_is_cohens():
    """Two worked examples (raw agreement .70 and .60); scikit-learn 1.7's cohen_kappa_score gives the same."""
    examples = (({"yy": 20, "yn": 5, "ny": 10, "nn": 15}, 0.4), ({"yy": 45, "yn": 15, "ny": 25, "nn": 15}, 0.1304))
    for counts, kappa in examples:
        pairs = [tuple(pair) for pair, count in counts.items() for _ in range(count)]
        found, (low, high) = cohen_kappa([one for one, _ in pairs], [two for _, two in pairs])
        assert found == pytest.approx(kappa, abs=1e-4) and low < kappa < high


def test_where_both_always_say_the_same_there_is_no_kappa():
    assert cohen_kappa(["a", "a"], ["a", "a"]) == (None, None)


def test_the_interval_covers_the_true_kappa():
    """Two people who each answer rightly with probability .9 on balanced yes-no questions: kappa is .64."""
    chance = random.Random(0)
    hits = 0
    for _ in range(200):
        truth = [chance.random() < 0.5 for _ in range(200)]
        one, two = ([str(t if chance.random() < 0.9 else not t) for t in truth] for _ in range(2))
        _, (low, high) = cohen_kappa(one, two)
        hits += low <= 0.64 <= high
    assert hits / 200 > 0.9


def test_the_same_answer_is_agreement_however_it_was_given():
    items = {id: ReviewItem(queue="labels", id=id, text="t", proposal=["a", "b"]) for id in "xyz"}
    said = [Decided(id="x", verdict="accept", by="ann"), Decided(id="x", verdict="edit", value=["b", "a"], by="bob"),
            Decided(id="y", verdict="edit", value=["a"], by="ann"), Decided(id="y", verdict="reject", by="bob"),
            Decided(id="z", verdict="reject", by="ann"), Decided(id="z", verdict="edit", value=["a"], by="ann")]
    [found] = agreements("labels", said, items)
    assert (found.n, found.same) == (2, 1) and list(conflicts(said, items)) == ["y"]
    assert conflicts([*said, Decided(id="y", verdict="accept", by="cy", settles=True)], items) == {}
