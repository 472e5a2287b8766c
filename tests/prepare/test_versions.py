"""Law: of versions of one document the newest counts and the others are named; the parts of a series are none."""

import random

import pytest

from luthier.prepare.versions import Versions, read_name
from luthier.types import Document, Span

WORDS = [f"word{n}" for n in range(2000)]


def text(seed, length=300):
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def edited(base, count, seed=1):
    rng = random.Random(seed)
    tokens = base.split()
    for at in rng.sample(range(len(tokens)), count):
        tokens[at] = rng.choice(WORDS)
    return " ".join(tokens)


def document(path, content, **meta):
    return Document(id=path, path=path, sha256=path, media="text/plain", reader="text", title=path,
                    spans=(Span(text=content),), meta=meta)


@pytest.mark.parametrize(("older", "newer"), [
    ("handbook_v1.md", "handbook_v2.md"), ("handbook v2.9.md", "handbook v2.10.md"),
    ("handbook-draft.md", "handbook.md"),
    ("handbook.md", "handbook_final.md"), ("agb_entwurf.md", "agb_final.md"), ("terms 2024.md", "terms 2025.md"),
    ("terms.md", "terms (1).md"), ("policy_2024-03-15.md", "policy_2025-01-10.md"), ("a/rules_old.md", "a/rules.md"),
    ("policy_15.03.2024.md", "policy_10.01.2025.md"),
])
def test_the_newest_by_name_counts(older, newer):
    base = text(1)
    files = [document(older, base), document(newer, edited(base, 10))]
    for order in (files, files[::-1]):
        kept, superseded, dropped = Versions().choose(order)
        assert [one.path for one in kept] == [newer]
        assert [(one.path, one.newer) for one in superseded] == [(older, newer)]
        assert dropped[0].reason == "superseded" and newer in dropped[0].detail
    assert Versions(newest_only=False).choose(files) == (files, [], [])


def test_the_documents_own_date_comes_before_the_name_of_a_state():
    base = text(2)
    kept, _, _ = Versions().choose([document("plan_final.md", base, modified="2024-01-01"),
                                    document("plan_draft.md", edited(base, 9), modified="2025-06-30T08:00")])
    assert [one.path for one in kept] == ["plan_draft.md"]


@pytest.mark.parametrize("paths", [
    ("report_2024-05.md", "report_2024-06.md"),  # a series by its name
    ("figures_2024-05.md", "figures_2024-06.md", "figures_2024-07.md"),  # and by the number of months
    ("report_May.md", "report_June.md"), ("minutes 2024-03-01.md", "minutes 2024-03-08.md"),
    ("a/readme_v1.md", "b/readme_v2.md"), ("pump A-100.md", "pump A-200.md"),
])
def test_a_series_is_not_versions(paths):
    base = text(3)
    files = [document(path, edited(base, 6, seed)) for seed, path in enumerate(paths)]
    assert Versions().choose(files)[0] == files


def test_names_alone_prove_nothing():
    files = [document("notes_v1.md", text(4)), document("notes_v2.md", text(5))]
    assert Versions().choose(files)[0] == files


def test_three_versions_leave_one():
    base = text(6)
    files = [document(f"guide_v{n}.md", edited(base, 5 * n, n)) for n in (1, 2, 3)]
    kept, superseded, _ = Versions().choose(files)
    assert [one.path for one in kept] == ["guide_v3.md"] and {one.newer for one in superseded} == {"guide_v3.md"}


def test_what_a_name_says():
    assert read_name("Handbook v2.1").number == (2, 1) and read_name("Handbook v2.1").base == "handbook"
    assert read_name("HB-100 manual").base == "hb 100 manual" and not read_name("HB-100 manual").marked
