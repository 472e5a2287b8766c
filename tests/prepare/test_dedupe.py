"""Law: planted copies are found, different texts are never merged, and which copy stays does not depend on chance."""

import random
import time

import pytest

from luthier.prepare.dedupe import Dedupe, near_between, near_pairs
from luthier.prepare.steps import Kept, StepContext
from luthier.prepare.text import jaccard, shingles, words
from luthier.task import Task
from luthier.types import Dropped, Passage, digest

CTX = StepContext(task=Task())


def passage(text, path="a.md", at=0):
    return Passage(id=digest(path, text, str(at)), document=path, path=path, title="", heading=(), text=text,
                   spans=(at, at + 1))


def run(items, **fields):
    found = list(Dedupe(**fields).apply(items, CTX))
    return [f.item for f in found if isinstance(f, Kept)], [f for f in found if isinstance(f, Dropped)]


def corpus(rng, count, vocabulary, length=90):
    return [" ".join(rng.choices(vocabulary, k=length)) for _ in range(count)]


def edited(rng, text, vocabulary, edits):
    tokens = text.split()
    for at in rng.sample(range(len(tokens)), edits):
        tokens[at] = rng.choice(vocabulary)
    return " ".join(tokens)


def test_planted_copies_recall_and_precision():
    rng = random.Random(0)
    vocabulary = [f"w{n}x" for n in range(3000)]
    base = corpus(rng, 1500, vocabulary)
    copies = [(at, edited(rng, base[at], vocabulary, rng.randint(0, 3))) for at in rng.sample(range(1500), 300)]
    began = time.process_time()
    found = set(near_pairs([*base, *(text for _, text in copies)], 0.8))
    rate = 1800 / (time.process_time() - began)
    want = {(at, 1500 + number) for number, (at, text) in enumerate(copies)
            if jaccard(shingles(words(base[at]), 3), shingles(words(text), 3)) >= 0.8}
    assert len(want) > 250
    assert len(want & found) >= 0.99 * len(want)  # recall
    assert found <= want | {(a, b) for a, b in found if a >= 1500}  # no false pair with the base
    assert rate > 500, f"{rate:.0f} texts a CPU second"


def test_equals_comparing_every_pair():
    rng = random.Random(1)
    vocabulary = [f"v{n}" for n in range(300)]
    texts = corpus(rng, 60, vocabulary, 40)
    texts += [edited(rng, text, vocabulary, n % 8) for n, text in enumerate(texts)]
    for threshold in (0.6, 0.8, 1.0):
        sets = [shingles(words(text), 3) for text in texts]
        exact = [(a, b) for a in range(len(texts)) for b in range(a + 1, len(texts))
                 if jaccard(sets[a], sets[b]) >= threshold]
        assert near_pairs(texts, threshold) == exact
    nearest = {a: (b, share) for a, b, share in near_between(texts[60:], texts[:60], 0.6)}
    for a in range(60):
        shares = [jaccard(shingles(words(texts[60 + a]), 3), s) for s in sets[:60]]
        assert (a in nearest) == (max(shares) >= 0.6)
        assert a not in nearest or nearest[a][1] == max(shares)


def test_the_first_by_path_and_position_stays_whatever_the_order():
    text = "Every employee has twenty days of paid vacation in each calendar year of full employment."
    items = [passage(text.upper(), "b.md"), passage(text, "a.md", 3), passage(text + " ", "a.md", 1)]
    for order in (items, items[::-1]):
        kept, dropped = run(order)
        assert [(p.path, p.spans[0]) for p in kept] == [("a.md", 1)]
        assert {d.reason for d in dropped} == {"exact-duplicate"} and all(kept[0].id in d.detail for d in dropped)


LONG = ("The pump model A-100 runs at 30 bar and must be serviced every six months by a trained person who signs the "
        "service book afterwards and hangs a green tag on the main valve of the pump so that everybody can see it.")


def test_near_duplicates_with_other_figures_stay_unless_asked():
    other = LONG.replace("A-100", "A-200")
    assert jaccard(shingles(words(LONG), 3), shingles(words(other), 3)) >= 0.8
    same_figures = LONG.replace("green", "red")
    assert len(run([passage(LONG), passage(other, "b.md")])[0]) == 2
    assert len(run([passage(LONG), passage(other, "b.md")], keep_other_figures=False)[0]) == 1
    kept, dropped = run([passage(LONG), passage(same_figures, "b.md")])
    assert len(kept) == 1 and dropped[0].reason == "near-duplicate" and kept[0].id in dropped[0].detail


def test_switches():
    items = [passage(LONG), passage(LONG, "b.md"), passage(LONG.replace("green", "red"), "c.md")]
    assert len(run(items, exact=False, near=None)[0]) == 3
    assert len(run(items, near=None)[0]) == 2
    assert len(run(items, exact=False)[0]) == 1


def test_texts_without_words_equal_nothing():
    assert near_pairs(["", "...", "a b c d", ""], 0.8) == []


def test_a_threshold_that_would_miss_pairs_is_refused():
    with pytest.raises(ValueError, match=r"0\.5"):
        near_pairs(["a"], 0.3)
    with pytest.raises(ValueError):
        Dedupe(near=0.2)
