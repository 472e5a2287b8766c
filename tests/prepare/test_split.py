"""Law: a unit's split depends on its own name, shares are met, and no unit lies on two sides."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.prepare.split import SplitBy, passage_units, unit_interval
from luthier.types import Passage, digest

NAMES = st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=40)


def passage(path, at, text=None, heading=(), spans=None):
    text = text or f"Passage {path} {at} speaks of matter {digest(path, str(at))} and {digest(str(at), path)} only."
    return Passage(id=digest(path, str(at)), document=digest(path), path=path, title="", heading=heading,
                   text=text, spans=spans or (at, at + 1))


def folder(documents, each=4):
    return [passage(f"{name}.md", at) for name in range(documents) for at in range(each)]


@settings(max_examples=60, deadline=None)
@given(NAMES, st.integers(0, 5), st.sampled_from([(0.1, 0.15), (0.0, 0.3), (0.3, 0.3), (0.05, 0.05)]))
def test_every_split_with_a_share_gets_a_unit_from_three_units_on(names, seed, shares):
    spec = SplitBy(validation=shares[0], test=shares[1])
    counts = Counter(spec.shares(names, seed=seed).values())
    assert sum(counts.values()) == len(names)
    if len(names) >= 3:
        assert counts["train"] and counts["test"]
        assert bool(counts["validation"]) == bool(shares[0])


def test_shares_are_met():
    counts = Counter(SplitBy(validation=0.1, test=0.2).shares([f"d{n}" for n in range(4000)], seed=0).values())
    assert counts["test"] / 4000 == pytest.approx(0.2, abs=0.02)
    assert counts["validation"] / 4000 == pytest.approx(0.1, abs=0.015)


@given(st.text(max_size=20), st.integers(0, 9))
def test_places_are_in_the_unit_interval_and_depend_on_the_seed(name, seed):
    assert 0 <= unit_interval(name, seed) < 1
    assert unit_interval(name, seed) == unit_interval(name, seed) != unit_interval(name, seed + 1)


def test_a_split_survives_other_documents_and_its_own_edits():
    spec = SplitBy(by="document")
    before = spec.assign(folder(60), seed=0)
    changed = [p for p in folder(90) if p.path != "7.md"]
    changed[0] = Passage(**{**changed[0].__dict__, "text": "Rewritten from scratch.", "document": "new-id"})
    after = spec.assign(changed, seed=0)
    common = set(before.of_passage) & set(after.of_passage)
    assert len(common) > 200
    assert all(before.of_passage[id] == after.of_passage[id] for id in common)


@pytest.mark.parametrize("by", ["document", "passage"])
def test_units_are_disjoint(by):
    passages = folder(30)
    splits = SplitBy(by=by).assign(passages, seed=1)
    sides = {}
    for p in passages:
        unit = p.path if by == "document" else p.id
        sides.setdefault(unit, set()).add(splits.of_passage[p.id])
    assert all(len(side) == 1 for side in sides.values())
    assert set().union(*sides.values()) == {"train", "validation", "test"}
    if by == "document":
        assert splits(passages[0].document) == splits(passages[0].id)
    else:
        assert len({splits(p.id) for p in passages[:40]}) > 1
        with pytest.raises(KeyError, match="by passage"):
            splits(passages[0].document)


def test_auto_takes_documents_from_twenty_on():
    assert SplitBy().assign(folder(20), seed=0).by == "document"
    assert SplitBy().assign(folder(19), seed=0).by == "passage"


def test_by_passage_what_belongs_together_stays_together():
    copy = "The pump must be serviced every six months by a trained person who signs the service book afterwards, " \
           "and the signed book is shown to the safety officer at the end of each quarter without being asked for."
    overlapping = [passage("o.md", at, spans=(at, at + 2)) for at in range(4)]
    section = [passage("s.md", at, heading=("Long section",)) for at in range(10)]
    near = [passage("n.md", 0, copy), passage("m.md", 0, copy.replace("signs", "stamps"))]
    bare = [passage("b.md", at) for at in range(6)]
    units = passage_units([*overlapping, *section, *near, *bare])
    assert len({units[p.id] for p in overlapping}) == 1
    runs = [units[p.id] for p in section]
    assert runs[0] == runs[3] != runs[4] == runs[7] != runs[8]
    assert units[near[0].id] == units[near[1].id]
    assert len({units[p.id] for p in bare}) == 6


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match="nothing to train on"):
        SplitBy(validation=0.5, test=0.5)
