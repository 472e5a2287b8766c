"""Laws that hold for every maker."""

from __future__ import annotations

import pytest

from luthier.prepare.base import MAKERS, default_makers
from luthier.testing import check_spec

KINDS = ("definition", "faq", "ground", "pairs", "section", "synthesize", "table", "text", "unanswerable")


def spec(kind: str):
    return MAKERS.get(kind)(path="pairs.jsonl") if kind == "pairs" else MAKERS.get(kind)()


def test_the_kinds_are_these():
    assert set(KINDS) <= set(MAKERS.kinds())


@pytest.mark.parametrize("kind", KINDS)
def test_every_maker_is_a_documented_frozen_spec(kind):
    check_spec(MAKERS, spec(kind))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("pairs", "synthesize", "ground", "unanswerable")]
)
def test_same_input_same_examples_and_no_maker_assigns_a_split(kind, context, run, doc):
    page = doc(
        "# Staff Handbook",
        "## Annual leave",
        "Every employee has 28 days of annual leave. Leave is booked in the portal.",
        "## What is the notice period?",
        "The notice period is four weeks to the end of a month.",
        "## Grades",
        "| Grade | Notice period |\n|---|---|\n| 1 | 4 weeks |\n| 2 | 8 weeks |",
        "## Terms",
        "A shift is a block of working time that one team covers.",
    )
    first, _ = run(spec(kind), context(page))
    again, _ = run(spec(kind), context(page))
    assert first and first == again
    assert all(example.split == "train" and not example.tags for example in first)


def test_the_default_makers_exist_and_later_ones_build_on_earlier_ones():
    kinds = [maker.kind for maker in default_makers()]
    assert kinds[-1] == "ground" and set(kinds) <= set(MAKERS.kinds())
