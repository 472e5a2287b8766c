"""Laws of the Pareto front: which points are dominated, and where the knee of a known curve lies."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.blend.front import Point, dominated, knee
from luthier.blend.page import render
from luthier.blend.table import text_of

GRID = [at / 20 for at in range(21)]


def test_a_point_is_dominated_when_another_is_as_good_on_both_axes_and_better_on_one():
    points = [Point(0, 0.0, 1.0), Point(0.3, 0.5, 0.9), Point(0.5, 0.5, 0.8), Point(0.7, 0.4, 0.9), Point(1, 1.0, 0.0)]
    assert dominated(points) == [False, False, True, True, False]
    assert dominated([Point(0, 1.0, 1.0), Point(1, 1.0, 1.0)]) == [False, False]  # equal points do not beat each other
    assert dominated([Point(0, 0.2, None), Point(1, 0.4, None)]) == [True, False]


def test_the_knee_of_a_quarter_circle_lies_at_45_degrees():
    """x² + y² = 1 is farthest from x + y = 1 where x = y, at a distance of 1 - 1/√2."""
    points = [Point(share, math.sin(share * math.pi / 2), math.cos(share * math.pi / 2)) for share in GRID]
    found = knee(points)
    assert found.share == 0.5
    assert found.distances[10] == pytest.approx(1 - 1 / math.sqrt(2)) and found.distances[0] == pytest.approx(0)


@given(st.floats(0.1, 100), st.floats(-50, 50), st.floats(0.1, 100), st.floats(-50, 50))
def test_the_knee_does_not_depend_on_the_units_of_the_axes(a, b, c, d):
    points = [Point(share, math.sin(share * math.pi / 2), math.cos(share * math.pi / 2)) for share in GRID]
    other = [Point(point.share, a * point.new + b, c * (point.old or 0) + d) for point in points]
    assert knee(other).share == 0.5


def test_without_a_trade_the_most_new_skill_decides():
    assert knee([Point(0, 0.2, 0.9), Point(0.5, 0.7, 0.95), Point(1, 0.6, 0.9)]).share == 0.5  # nothing old was lost
    assert knee([Point(0, 0.5, 0.9), Point(0.5, 0.4, 0.8), Point(1, 0.4, 0.7)]).share == 0  # nothing new was gained
    assert knee([Point(0, 0.1, None), Point(0.5, 0.4, None), Point(1, 0.3, None)]).share == 0.5
    assert "nothing old" in knee([Point(0, 0.1, None), Point(1, 0.3, None)]).sentence


def test_a_front_that_sags_below_the_chord_proposes_the_trained_model():
    points = [Point(share, share**2, (1 - share) ** 2) for share in GRID]
    found = knee(points)
    assert found.share == 1 and "no blend beats" in found.sentence


def test_a_dominated_point_is_never_proposed():
    """A point beyond the trained one on the new axis may beat it on both; the one that is beaten is no knee."""
    points = [Point(0, 0.0, 1.0), Point(0.5, 1.2, 0.8), Point(0.6, 1.1, 0.7), Point(1, 1.0, 0.0)]
    assert knee(points).share == 0.5 and dominated(points) == [False, False, True, True]


def test_table_and_page_mark_the_proposal_and_what_is_dominated():
    points = [{"share": 0.0, "new": 0.2, "old": 0.9, "dominated": False, "distance": 0.0},
              {"share": 0.5, "new": 0.6, "old": 0.85, "dominated": False, "distance": 0.4},
              {"share": 0.75, "new": 0.55, "old": 0.7, "dominated": True, "distance": 0.1},
              {"share": 1.0, "new": 0.7, "old": 0.3, "dominated": False, "distance": 0.0}]
    axis = {"metric": "accuracy", "better": "higher", "n": 200, "where": "<rows>"}
    table = {"points": points, "new": axis, "old": axis, "knee": 0.5, "why": "it keeps 80 %", "members": []}
    lines = text_of(table).splitlines()
    assert [line.split()[0] for line in lines if "←" in line] == ["0.50"]
    assert [line.split()[0] for line in lines if "dominated" in line] == ["0.75"]
    page = render(table)
    assert page.count("<circle") == 4 and page.count('class="knee"') == 1 and page.count('class="worse"') == 1
    assert "&lt;rows&gt;" in page and "<rows>" not in page and "http" not in page.replace("http-equiv", "")
