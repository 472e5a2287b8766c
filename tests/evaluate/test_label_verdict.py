"""Simple systems win ties; the tuned model must be certainly better, by enough, and on enough rows."""

from __future__ import annotations

from luthier.evaluate.compare import Measured
from luthier.evaluate.labels.verdict import LADDER, ORDER, pairs
from luthier.evaluate.verdict import Evidence, Verdict, decide


def verdict(values: dict[str, float], *, half: float = 0.004, n: int = 3000, worthwhile: float = 0.005) -> Verdict:
    """Differences have the given half width."""
    gaps = {(a, b): Measured(values[a] - values[b], values[a] - values[b] - half, values[a] - values[b] + half, n)
            for a, b in pairs([*values])}
    return decide(Evidence(label="accuracy", better="higher", num_questions=n, min_questions=20,
                           values={k: Measured(v, v - 0.01, v + 0.01, n) for k, v in values.items()},
                           differences=gaps, worthwhile=worthwhile, ladder=LADDER))


def test_a_clear_gain_releases_the_tuned_model() -> None:
    found = verdict({"majority": 0.02, "tfidf": 0.912, "features": 0.918, "tuned": 0.94})
    assert found.choice == "tuned" and found.conclusive
    assert "beats frozen features + logistic regression, the best of the simpler systems" in found.sentence


def test_as_good_as_tfidf_means_do_not_tune() -> None:
    found = verdict({"majority": 0.02, "tfidf": 0.93, "features": 0.928, "tuned": 0.93})
    assert found.choice == "tfidf" and found.conclusive
    assert found.sentence.startswith("Do not tune: TF-IDF + logistic regression does as well on accuracy")


def test_a_worse_tuned_model_is_told_so() -> None:
    found = verdict({"majority": 0.5, "tfidf": 0.7, "features": 0.9, "tuned": 0.8})
    assert found.choice == "features"
    assert "frozen features + logistic regression is better on accuracy" in found.sentence


def test_a_sure_but_tiny_gain_is_not_worth_having() -> None:
    found = verdict({"majority": 0.02, "features": 0.930, "tuned": 0.9325}, half=0.001)
    assert found.choice == "features" and "gains less than is worth having" in found.sentence


def test_a_small_test_cannot_tell() -> None:
    found = verdict({"majority": 0.5, "features": 0.9, "tuned": 0.95}, n=12)
    assert not found.conclusive and "12 rows" in found.sentence
    open_ = verdict({"majority": 0.02, "tfidf": 0.91, "tuned": 0.915}, half=0.02)
    assert open_.choice == "tfidf" and not open_.conclusive and open_.needed_questions
    assert "too small to tell whether the tuned model is better" in open_.sentence


def test_without_a_run_the_best_simple_system_is_used() -> None:
    found = verdict({"majority": 0.02, "tfidf": 0.91, "features": 0.93})
    assert found.choice == "features" and "nothing was tuned" in found.sentence


def test_tags_and_search_have_their_own_simple_systems() -> None:
    assert verdict({"lookup": 0.5, "tuned": 0.8}).choice == "tuned"
    assert verdict({"bm25": 0.7, "base": 0.7, "tuned": 0.7}).choice == "bm25"
    assert {"majority", "lookup", "bm25", "tfidf", "zero_shot", "base", "features", "tuned"} <= set(ORDER)
