"""Every measure of labelled tasks equals scikit-learn's (or seqeval's) to 1e-9, with absent classes and ties."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import pytest

from luthier.evaluate.labels import ranking, spans
from luthier.evaluate.labels.intervals import Replicates
from luthier.evaluate.labels.metrics import LABEL_METRICS, Classes, Ranks, Sets, fitting, score
from luthier.task import METRICS

sk = pytest.importorskip("sklearn.metrics")
CLOSE: Any = {"rel": 1e-9, "abs": 1e-9}


def draws(n: int, samples: int = 200) -> Replicates:
    return Replicates([str(i) for i in range(n)], samples=samples)


def classes(seed: int) -> Classes:
    """Random answers; some classes never right, some never said, some probabilities equal."""
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(8, 60)), int(rng.integers(2, 7))
    logits = rng.normal(size=(n, c)).round(1 if seed % 2 else 6)
    right = rng.integers(0, c if seed % 3 else max(c - 1, 2), n)
    logits[np.arange(n), right] += rng.uniform(0, 2)
    if seed % 5 == 0 and c > 2:
        logits[:, 0] = -50
    p = np.exp(logits)
    return Classes(right, p / p.sum(1, keepdims=True))


def values(answers: Any) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no division by zero, no mean of nothing
        found = score(answers, fitting(answers.shape), draws(len(answers.right)))
    return {name: one.value for name, one in found.estimates.items()}


@pytest.mark.parametrize("seed", range(30))
def test_single_label_measures_equal_scikit_learns(seed: int) -> None:
    answers = classes(seed)
    y, p, said, c = answers.right, answers.probabilities, answers.said, answers.probabilities.shape[1]
    mine = values(answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {
            "accuracy": sk.accuracy_score(y, said), "balanced_accuracy": sk.balanced_accuracy_score(y, said),
            "mcc": sk.matthews_corrcoef(y, said), "log_loss": sk.log_loss(y, p, labels=range(c)),
            "brier": sk.brier_score_loss(y, p if c > 2 else p[:, 1], labels=range(c)) if c > 2
            else sk.brier_score_loss(y, p[:, 1], pos_label=1),
            **{f"{average}_{name}": function(y, said, average=average, zero_division=0)
               for average in ("macro", "weighted") for name, function in
               (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score))
               if (average, name) != ("weighted", "recall")},
            "micro_f1": sk.f1_score(y, said, average="micro"),
        }
        if c == 2:
            if len(set(y)) == 2:
                theirs |= {"roc_auc": sk.roc_auc_score(y, p[:, 1]), "weighted_roc_auc": sk.roc_auc_score(y, p[:, 1])}
            theirs["pr_auc"] = sk.average_precision_score(y, p[:, 1])
        else:
            each = {k: sk.roc_auc_score(y == k, p[:, k]) for k in set(y)}
            support = [int((y == k).sum()) for k in each]
            theirs |= {"roc_auc": np.mean([*each.values()]),
                       "weighted_roc_auc": np.average([*each.values()], weights=support),
                       "pr_auc": np.mean([sk.average_precision_score(y == k, p[:, k]) for k in set(y)])}
            if len(set(y)) == c:
                assert theirs["roc_auc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), **CLOSE)
                assert theirs["weighted_roc_auc"] == pytest.approx(
                    sk.roc_auc_score(y, p, multi_class="ovr", average="weighted"), **CLOSE)
        if c > 3 and seed % 2 == 0:  # scikit-learn breaks ties by the highest class, we by the first
            theirs["top_k_accuracy"] = sk.top_k_accuracy_score(y, p, k=3, labels=range(c))
    for name, value in theirs.items():
        assert mine[name] == pytest.approx(value, **CLOSE), name


@pytest.mark.parametrize("seed", range(20))
def test_multi_label_measures_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(8, 50)), int(rng.integers(2, 6))
    right = rng.random((n, c)) < 0.3
    if seed % 4 == 0:
        right[:, 0] = False
    p = np.clip(right * 0.3 + rng.random((n, c)).round(2) * 0.7, 0.01, 0.99)
    mine, said = values(Sets(right, p)), p >= 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both = [k for k in range(c) if 0 < right[:, k].sum() < n]
        some = [k for k in range(c) if right[:, k].any()]
        seen = [k for k in range(c) if right[:, k].any() or said[:, k].any()]
        theirs = {
            "accuracy": sk.accuracy_score(right, said), "hamming_loss": sk.hamming_loss(right, said),
            "samples_f1": sk.f1_score(right, said, average="samples", zero_division=0),
            "macro_f1": sk.f1_score(right[:, seen], said[:, seen], average="macro", zero_division=0),
            "mcc": np.mean([sk.matthews_corrcoef(right[:, k], said[:, k]) for k in range(c)]),
            "balanced_accuracy": np.mean([sk.balanced_accuracy_score(right[:, k], said[:, k]) for k in both]),
            "log_loss": np.mean([sk.log_loss(right[:, k], p[:, k], labels=[False, True]) for k in range(c)]),
            "brier": np.mean([np.mean((p[:, k] - right[:, k]) ** 2) for k in range(c)]),
            "roc_auc": np.mean([sk.roc_auc_score(right[:, k], p[:, k]) for k in both]),
            "pr_auc": np.mean([sk.average_precision_score(right[:, k], p[:, k]) for k in some]),
            **{f"{average}_{name}": function(right, said, average=average, zero_division=0)
               for average in ("micro", "weighted") for name, function in
               (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score))},
        }
    for name, value in theirs.items():
        assert mine[name] == pytest.approx(value, **CLOSE), name


def test_intervals_of_counts_equal_scikit_learn_on_each_draw() -> None:
    answers = classes(4)
    replicates = draws(len(answers.right), 40)
    found = score(answers, fitting("single"), replicates).estimates
    for i, weights in enumerate(replicates.bootstrap.counts):
        rows = np.repeat(np.arange(len(answers.right)), weights.astype(int))
        y, said = answers.right[rows], answers.said[rows]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert found["macro_f1"].draws[i] == pytest.approx(sk.f1_score(y, said, average="macro"), abs=1e-6)
            assert found["mcc"].draws[i] == pytest.approx(sk.matthews_corrcoef(y, said), abs=1e-6)
            assert found["balanced_accuracy"].draws[i] == pytest.approx(sk.balanced_accuracy_score(y, said), abs=1e-6)
        assert found["log_loss"].draws[i] == pytest.approx(
            sk.log_loss(y, answers.probabilities[rows], labels=range(answers.probabilities.shape[1])), abs=1e-4)


@pytest.mark.parametrize("name", ["roc_auc", "weighted_roc_auc", "pr_auc"])
def test_effects_on_areas_are_their_derivatives(name: str) -> None:
    """A row that counts a little more moves scikit-learn's weighted figure as its effect says."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 40)
    p = rng.dirichlet(np.ones(3), 40).round(2)
    step = 1e-5

    def value(weights: np.ndarray) -> float:
        function = sk.average_precision_score if name == "pr_auc" else sk.roc_auc_score
        each = [function(y == k, p[:, k], sample_weight=weights) for k in range(3)]
        share = [weights[y == k].sum() for k in range(3)] if name == "weighted_roc_auc" else None
        return float(np.average(each, weights=share))

    from luthier.evaluate.labels import curves

    area = curves.average_precision if name == "pr_auc" else curves.roc_auc
    found = curves.over_classes(y[:, None] == np.arange(3), p, area, "weighted" if "weighted" in name else "macro")
    assert found is not None and abs(found.effects.sum()) < 1e-9
    for row in (0, 7, 21):
        more, less = np.ones(40), np.ones(40)
        more[row] += step
        less[row] -= step
        assert found.effects[row] == pytest.approx((value(more) - value(less)) / (2 * step), abs=1e-6)


def test_interval_of_an_auc_is_that_of_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 400)
    p = np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0, 1)
    replicates = draws(400, 2000)
    mine = replicates.measured(score(Classes(y, np.stack([1 - p, p], 1)), fitting("single"), replicates)
                               .estimates["roc_auc"])
    rows = rng.integers(0, 400, (2000, 400))
    low, high = np.quantile([sk.roc_auc_score(y[one], p[one]) for one in rows[:1000]], [0.025, 0.975])
    assert mine.low is not None and mine.high is not None
    assert mine.low == pytest.approx(low, abs=0.006) and mine.high == pytest.approx(high, abs=0.006)
    assert mine.high - mine.low == pytest.approx(high - low, rel=0.06)


def test_two_thousand_draws_of_banking_size_take_seconds() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 77, 3080)
    logits = rng.normal(size=(3080, 77))
    logits[np.arange(3080), y] += 4
    p = np.exp(logits)
    began = time.process_time()
    replicates = draws(3080, 2000)
    found = score(Classes(y, p / p.sum(1, keepdims=True)), fitting("single"), replicates)
    measured = {name: replicates.measured(one) for name, one in found.estimates.items()}
    assert time.process_time() - began < 10
    assert all(one.n == 3080 and one.low is not None and one.high is not None and one.low <= one.value <= one.high
               for one in measured.values()), measured


def test_a_perfect_small_test_is_not_certain() -> None:
    replicates = draws(10)
    found = score(Classes(np.arange(10) % 2, np.eye(2)[np.arange(10) % 2]), fitting("single"), replicates)
    one = replicates.measured(found.estimates["accuracy"])
    assert one.value == 1 and one.low is not None and one.low < 0.8


def test_documents_are_drawn_whole() -> None:
    right = np.repeat([0, 1] * 10, 6)
    wrong = np.repeat(np.arange(20) % 3 == 0, 6)
    answers = Classes(right, np.eye(2)[np.where(wrong, 1 - right, right)])
    whole = Replicates([str(i // 6) for i in range(120)], samples=2000)
    apart = draws(120, 2000)
    width = []
    for replicates in (apart, whole):
        one = replicates.measured(score(answers, fitting("single"), replicates).estimates["macro_f1"])
        assert one.low is not None and one.high is not None
        width.append(one.high - one.low)
    assert width[1] > 1.8 * width[0]


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_pieces_follow_seqeval(mode: Any) -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    from seqeval.scheme import IOB2

    rng = np.random.default_rng(3)
    names = ["O", "B-A", "I-A", "B-B", "I-B", "I-C"]
    for _ in range(60):
        true = [list(rng.choice(names, int(rng.integers(1, 12)))) for _ in range(int(rng.integers(1, 6)))]
        said = [[one if rng.random() < 0.7 else str(rng.choice(names)) for one in row] for row in true]
        options = {"mode": "strict", "scheme": IOB2} if mode == "strict" else {}
        mine = spans.tally([spans.pieces(row, mode) for row in true], [spans.pieces(row, mode) for row in said], "ABC")
        found = score(mine, tuple(m for m in fitting("tag") if m.kind != "token_accuracy"), draws(len(true))).estimates
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for kind, function, average in (
                ("span_f1", seqeval.f1_score, "micro"), ("macro_span_f1", seqeval.f1_score, "macro"),
                ("weighted_span_f1", seqeval.f1_score, "weighted"),
                ("span_precision", seqeval.precision_score, "micro"), ("span_recall", seqeval.recall_score, "micro"),
            ):
                if mine.right.sum() + mine.said.sum():
                    wanted = function(true, said, average=average, zero_division=0, **options)
                    assert found[kind].value == pytest.approx(wanted, **CLOSE), (kind, true, said)


def test_word_accuracy_counts_words_under_pieces() -> None:
    found = spans.compare(["Pay 30 EUR now!"], [[(4, 10, "SUM")]], [[(4, 6, "SUM"), (11, 14, "DATE")]], ["SUM", "DATE"])
    assert found.words[0] == 5 and found.words_right[0] == 3  # Pay, 30 and ! are right
    assert found.hit.sum() == 0 and found.right.sum() == 1 and found.said.sum() == 2


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ranking_measures_equal_references(k: int) -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(30, 25))
    relevant = [sorted(rng.choice(25, int(rng.integers(1, 6)), replace=False)) for _ in range(30)]
    places = ranking.places(scores, relevant)
    gains = np.zeros((30, 25))
    for row, wanted in enumerate(relevant):
        gains[row, wanted] = 1
    assert ranking.ndcg(places, k).mean() == pytest.approx(sk.ndcg_score(gains, scores, k=k), **CLOSE)
    for row, wanted in enumerate(relevant):
        order = [*np.argsort(-scores[row])]
        hits = [one in wanted for one in order]
        assert ranking.recall(places, k)[row] == pytest.approx(sum(hits[:k]) / len(wanted), **CLOSE)
        first = hits.index(True)
        assert ranking.mrr(places, k)[row] == pytest.approx(1 / (first + 1) if first < k else 0, **CLOSE)
        precise = [sum(hits[: i + 1]) / (i + 1) for i in range(k) if hits[i]]
        assert ranking.map(places, k)[row] == pytest.approx(sum(precise) / min(k, len(wanted)), **CLOSE)
    full = ranking.map(ranking.places(scores, relevant), 25)
    each = [sk.average_precision_score(gains[i], scores[i]) for i in range(30)]
    assert full.mean() == pytest.approx(np.mean(each), **CLOSE)


def test_equal_scores_keep_the_order_of_the_candidates() -> None:
    assert [*ranking.places(np.array([[0.5, 0.5, 0.1]]), [[1, 2]])[0]] == [1, 2]


def test_every_metric_that_may_decide_exists_and_tells_a_stranger_what_it_is() -> None:
    kinds = LABEL_METRICS.kinds()
    for task, names in METRICS.items():
        if task in ("classify", "image", "tag", "embed"):
            assert set(names) <= set(kinds)
    for cls in kinds.values():
        metric: Any = cls()
        assert metric.label and metric.explanation and metric.fits and metric.name == metric.kind
        assert metric.better == "higher" or "loss" in metric.kind or metric.kind in ("brier", "ece", "ece_equal_mass")


def test_measures_of_ranks_have_intervals() -> None:
    replicates = draws(30)
    found = score(Ranks(tuple(np.array([i % 4]) for i in range(30))), fitting("embed"), replicates).estimates
    one = replicates.measured(found["mrr"])
    assert one.low is not None and one.low < one.value < (one.high or 0) and one.n == 30


def test_the_interval_of_an_area_under_a_curve_stays_between_0_and_1() -> None:
    right = np.array([0] * 12 + [1] * 12)
    probs = np.stack([np.linspace(0.9, 0.1, 24), np.linspace(0.1, 0.9, 24)], 1)
    probs[3], probs[20] = (0.2, 0.8), (0.7, 0.3)
    draws = Replicates([str(at) for at in range(24)], samples=400)
    for name in ("roc_auc", "pr_auc"):
        found = score(Classes(right, probs), (LABEL_METRICS.parse(name),), draws).estimates[name]
        one = draws.measured(found)
        assert found.draws.max() > 1 and one.low is not None and one.high is not None
        assert 0 <= one.low <= one.value <= one.high <= 1
