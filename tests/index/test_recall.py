"""Law: recall@k and MRR follow their definitions; intervals follow Wilson's formula; hybrid holds on real text."""

import json
from pathlib import Path

import numpy as np
import pytest

from luthier.index.base import Hit, Index, build_retriever
from luthier.index.recall import bootstrap_mean, recall, wilson
from luthier.types import Passage

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "medquad"


class Fixed:
    """Answers every query with the passages named in it."""

    def search(self, queries, k, *, mode=None):
        def passage(id):
            return Passage(id=id, document="d", path="p", title="t", heading=(), text=id, spans=(0, 1))

        return [[Hit(passage=passage(id), score=1 / at, rank=at) for at, id in enumerate(query.split()[:k], start=1)]
                for query in queries]


def test_by_hand():
    found = recall(Fixed(), ["a b c", "b a c", "c b x", "z"], [["a"], ["a"], ["a"], []], at=(1, 2, 3))
    assert found["recall@1"]["value"] == pytest.approx(1 / 3) and found["recall@1"]["n"] == 3
    assert found["recall@2"]["value"] == pytest.approx(2 / 3)
    assert found["mrr@3"]["value"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    for measured in found.values():
        assert 0 <= measured["low"] <= measured["value"] <= measured["high"] <= 1


def test_nothing_to_measure_is_none_not_zero():
    assert recall(Fixed(), ["a"], [[]], at=(1,))["recall@1"] == {"value": None, "low": None, "high": None, "n": 0}


def test_wilson_solves_its_equation():
    """The ends p of Wilson's interval satisfy (share - p)² = z² p (1 - p) / n."""
    for hits, n in ((0, 7), (3, 10), (10, 10), (45, 300)):
        for p in wilson(hits, n):
            assert (hits / n - p) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / n, abs=1e-9)


def test_the_bootstrap_covers_the_normal_interval_of_a_large_sample():
    values = np.random.default_rng(3).random(400)
    low, high = bootstrap_mean(values, seed=0)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.006)
    assert high == pytest.approx(values.mean() + half, abs=0.006)
    assert (low, high) == bootstrap_mean(values, seed=0)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data/medquad is not here")
def test_hybrid_is_about_as_good_as_the_better_ranking_on_real_questions(tmp_path):
    rows = [json.loads(line) for line in (DATA / "test.jsonl").read_text("utf-8").splitlines()][:250]
    passages = [Passage(id=str(at), document=row["doc"], path=row["doc"], title=row["focus"], heading=(),
                        text=" ".join(row["answer"].split()[:80]), spans=(0, 1)) for at, row in enumerate(rows)]
    found = build_retriever(passages, Index(), language="en", cache=None, root=tmp_path)
    queries, relevant = [row["question"] for row in rows], [[str(at)] for at in range(len(rows))]
    scores = {mode: recall(found, queries, relevant, mode=mode) for mode in ("hybrid", "dense", "keywords")}
    print({mode: {name: round(row["value"], 3) for name, row in found.items()} for mode, found in scores.items()})
    for name in ("recall@5", "mrr@10"):
        best = max(scores["dense"][name]["value"], scores["keywords"][name]["value"])
        assert scores["hybrid"][name]["value"] >= best - 0.02
    assert scores["hybrid"]["recall@5"]["value"] > 0.7
