"""Law: reciprocal rank fusion is the sum of 1 / (k + rank) over the rankings that hold an item."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.index.fuse import fuse

RANKINGS = st.lists(st.lists(st.integers(0, 12), unique=True, max_size=10), max_size=4)


def test_by_hand():
    found = dict(fuse([[7, 3, 5], [5, 7]], constant=60))
    assert found == pytest.approx({7: 1 / 61 + 1 / 62, 5: 1 / 63 + 1 / 61, 3: 1 / 62})
    assert [item for item, _ in fuse([[7, 3, 5], [5, 7]])] == [7, 5, 3]


@given(RANKINGS, st.integers(0, 100))
def test_formula_in_exact_arithmetic(rankings, constant):
    exact = {}
    for ranking in rankings:
        for item in ranking:
            exact[item] = exact.get(item, 0) + Fraction(1, constant + ranking.index(item) + 1)
    found = fuse(rankings, constant=constant)
    assert {item: pytest.approx(float(score)) for item, score in exact.items()} == dict(found)
    assert all(a[1] >= b[1] for a, b in pairwise(found))


@given(st.lists(st.integers(), unique=True, max_size=20))
def test_one_ranking_keeps_its_order(ranking):
    assert [item for item, _ in fuse([ranking])] == ranking


def test_the_first_ranking_breaks_ties():
    assert [item for item, _ in fuse([[2, 1], [1, 2]])] == [2, 1]
    assert [item for item, _ in fuse([[1, 2], [2, 1]])] == [1, 2]
    assert [item for item, _ in fuse([[9], [3]])] == [9, 3]
