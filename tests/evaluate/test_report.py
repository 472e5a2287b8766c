"""Plots put marks where the numbers are; figures read as people write them; the page bears missing parts."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from luthier.evaluate.plots import Mark, forest, ticks_for
from luthier.evaluate.report import figure


@pytest.mark.parametrize(("low", "high"), [(0.03, 0.27), (-0.2, 0.7), (1234.0, 5678.0), (0.5, 0.5), (-3e-4, 2e-4)])
def test_ticks_are_few_round_and_cover_the_range(low: float, high: float) -> None:
    ticks = ticks_for(low, high)
    assert 3 <= len(ticks) <= 7 and ticks[0] <= low and ticks[-1] >= high
    steps = {round(b - a, 9) for a, b in pairwise(ticks)}
    assert len(steps) == 1
    assert f"{steps.pop():.0e}"[0] in "125"


def test_ticks_respect_what_a_figure_cannot_exceed() -> None:
    ticks = ticks_for(0.02, 1.0, floor=0, ceiling=1)
    assert min(ticks) >= 0 and max(ticks) <= 1


def test_marks_stand_in_the_order_of_their_values_inside_the_plot() -> None:
    marks = [Mark(label=str(value), tone="base", value=value, low=value - 0.1, high=value + 0.1)
             for value in (-0.3, 0.0, 0.4)]
    plot = forest(marks, zero=0.0, limit=0.9)
    centres = [float(re.search(r'cx="([\d.]+)%"', row.svg)[1]) for row in plot.rows]  # type: ignore[index]
    assert centres == sorted(centres) and centres[0] >= 2 and centres[-1] <= 98
    zero = float(re.search(r'class="zero" x1="([\d.]+)%"', plot.rows[0].svg)[1])  # type: ignore[index]
    assert zero == pytest.approx(centres[1])
    every = [float(x) for x in re.findall(r'(?:x1|x2|cx)="(-?[\d.]+)%"', "".join(row.svg for row in plot.rows))]
    assert min(every) >= 0 and max(every) <= 100


def test_figures_read_as_people_write_them() -> None:
    assert figure("token_f1", "share", 0.4149) == "0.41"
    assert figure("token_f1", "share", -0.2, sign=True) == "−0.20"
    assert figure("token_f1", "share", -0.001, sign=True) == "0.00"
    assert figure("refused_wrongly", "share", 0.125, sign=True) == "+12 %"
    assert figure("answer_loss", "nats", 2.0) == "2.000" and figure("x", "share", None) == "–"
