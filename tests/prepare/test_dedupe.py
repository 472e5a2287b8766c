"""Law: planted copies are found, different texts are never merged, and which copy stays does not depend on chance."""

import random
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from luthier.prepare.dedupe import Dedupe, near_between, near_pairs
from luthier.prepare.minhash import Sketches
from luthier.prepare.shingle import runs_of
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


def test_short_passages_with_a_tenth_of_their_words_changed_are_found_and_templates_are_not():
    rng = random.Random(3)
    vocabulary = [f"word{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}" for n in range(4000)]
    base = corpus(rng, 1500, vocabulary, 50)
    copies = [edited(rng, text, vocabulary, rng.randint(2, 5)) for text in base[:700]]  # 3 to 10 % of 50 words
    found = near_pairs([*base, *copies], 0.5)
    hit = sum(other == one + 1500 for one, other in found)
    assert hit >= 0.99 * len(copies) and hit == len(found)
    _, dropped = run([*(passage(text, "a.md", at) for at, text in enumerate(base)),
                         *(passage(text, "b.md", at) for at, text in enumerate(copies))])
    assert {d.reason for d in dropped} == {"near-duplicate"} and len(dropped) >= 0.99 * len(copies)


CARE = ("People who have {0} should see a doctor once a year, and more often when the pain grows, since early "
        "treatment of {0} in a hospital makes it likely that the patient walks again without any help after six weeks.")


@pytest.mark.parametrize("other", [
    CARE.format("sciatica"),  # another subject, named twice
    CARE.format("gout").replace("should see", "should not see"),
    CARE.format("gout").replace("a hospital", "Graz"),
])
def test_another_subject_or_a_negation_is_no_repeat_unless_asked(other):
    first = CARE.format("gout").replace("a hospital", "Linz") if "Graz" in other else CARE.format("gout")
    pair = [passage(first), passage(other, "b.md")]
    assert len(run(pair)[0]) == 2
    assert len(run(pair, keep_other_names=False, changed=0.2)[0]) == 1
    edit = first.replace("more often", "sooner")
    assert len(run([passage(first), passage(edit, "b.md")])[0]) == 1


LEASE = ("During the term of this agreement {0} shall pay to {1} a fee of a tenth of all net sales within thirty days "
         "after the end of each quarter, and {1} shall keep true books, which {0} may have audited at its own expense.")


@pytest.mark.parametrize(("one", "other"), [
    (LEASE.format("Valeant", "Dova"), LEASE.format("Dova", "Valeant")),  # the same words: another one pays
    (CARE.format("hepatitis* B"), CARE.format("hepatitis* A")),  # after the mark of a footnote
    (CARE.format("gout [3] Sarcoma"), CARE.format("gout [3] Tannhauser")),
    (LEASE.format("Valeant", "Dova"), LEASE.format("Valeant", "Dova").replace("net sales", "net sales of Zetaline")),
])
def test_swapped_marked_and_added_names_are_no_repeat(one, other):
    assert len(run([passage(one), passage(other, "b.md")])[0]) == 2


@pytest.mark.parametrize("before", ["It hurts. ", "- ", "* ", "(A) ", "Note: "])
def test_a_capital_that_begins_a_sentence_or_an_item_is_no_name(before):
    one = "{0}{1} pain in the knee grows at night and goes by day when the patient walks for half an hour or more."
    texts = [passage(one.format(before, "Any")), passage(one.format(before, "Some"), "b.md")]
    assert len(run(texts)[0]) == (2 if before == "(A) " else 1)  # inside a sentence for all that is known


def test_a_word_of_the_heading_is_a_name():
    one, other = CARE.format("gout").replace("doctor", "nurse"), CARE.format("gout")
    pair = [passage(one), passage(other, "b.md")]
    assert len(run(pair)[0]) == 1
    headed = [replace(pair[0], heading=("What a nurse does",)), replace(pair[1], heading=("What a doctor does",))]
    assert len(run(headed)[0]) == 2


def test_far_more_than_the_memory_gives_the_same_pairs():
    rng = random.Random(5)
    vocabulary = [f"w{n}x" for n in range(3000)]
    texts = corpus(rng, 3000, vocabulary, 30)
    texts += [edited(rng, text, vocabulary, 1) for text in texts[:500]]

    def peak(bound):
        with Sketches(memory_mb=bound) as sketches:
            tracemalloc.start()
            sketches.add(iter(texts))
            pairs = sketches.pairs(0.5)
            used = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            return pairs, used, sketches.spilled

    roomy, _, on_disk = peak(512)
    assert not on_disk and len(roomy) >= 500
    peak(0.125)  # tables that are made once
    tight, used, on_disk = peak(0.125)  # the sketches take 0.9 MiB, seven times as much
    assert on_disk and tight == roomy
    assert used < 4.5, f"{used:.1f} MiB"  # the working space of one batch; it does not grow with the texts


def test_hashed_runs_are_those_of_the_words():
    texts = ["", "One", "one TWO", "Über die Straße, 3²!", "a b c d a b c d", "x_1 y-2 … z", "\x00 nul\x00 a b c",
             "٣ four ٥", "naïve café 12", "a b c d a b c d e"]
    found = runs_of(texts)
    assert np.diff(found.offsets).tolist() == [len(shingles(words(text), 3)) for text in texts]
    sets = [set(found.flat[a:b].tolist()) for a, b in zip(found.offsets, found.offsets[1:])]
    for a, one in enumerate(texts):
        for b, other in enumerate(texts):
            assert len(sets[a] & sets[b]) == len(shingles(words(one), 3) & shingles(words(other), 3))
    figures = runs_of(["a 12 b 7", "7 then 12 and 12", "12", "none"]).figures
    assert figures[0] == figures[1] != figures[2] and figures[3] == 0


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
