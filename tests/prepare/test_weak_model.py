"""Laws of the label model: planted accuracies are found, the truth is found better than by counting, and simple cases
equal their closed forms."""

import numpy as np
import pytest

from luthier.prepare.weak.label_model import Votes, fit, majority, posterior, soften, temperature


def planted(accuracy, coverage, *, rows=2000, classes=4, seed=0, prior=None):
    random = np.random.default_rng(seed)
    truth = random.choice(classes, rows, p=prior)
    sources = []
    for number, (right, often) in enumerate(zip(accuracy, coverage)):
        wrong = (truth + random.integers(1, classes, rows)) % classes
        vote = np.where(random.random(rows) < right, truth, wrong)
        sources.append(Votes.single(f"s{number}", np.where(random.random(rows) < often, vote, -1)))
    return truth, sources


def test_planted_accuracies_are_recovered_and_the_truth_is_found_better_than_by_majority():
    accuracy = [0.92, 0.8, 0.55, 0.45, 0.4]
    truth, sources = planted(accuracy, [0.7, 0.9, 0.8, 0.9, 0.9])
    found = fit(sources, len(truth), 4)
    assert np.abs(found.accuracy - accuracy).max() < 0.04
    ours = (found.chances.argmax(1) == truth).mean()
    counted = (majority(sources, len(truth), 4).argmax(1) == truth).mean()
    assert ours > counted + 0.03
    assert abs(found.chances.max(1).mean() - ours) < 0.03  # independent sources: it knows how sure it may be


def test_a_class_that_a_source_always_gets_wrong_is_learned_class_by_class():
    """A source that takes class 0 for class 1 is worth its votes elsewhere, and its mistake even speaks for class 0."""
    truth, sources = planted([0.8, 0.75, 0.7], [1, 1, 1], rows=6000, classes=3, seed=1)
    biased = Votes.single("biased", np.where(truth == 0, 1, truth))
    found = fit([*sources, biased], len(truth), 3, strength=1)
    assert found.tables[3, 0, 1] > 0.8 and found.tables[3, 2, 2] > 0.8
    assert (found.chances.argmax(1) == truth).mean() > 0.9


def test_human_rows_hold_the_accuracies_where_the_sources_agree_in_error():
    """Two sources that copy each other's mistakes outvote a good one, unless people say who is right."""
    truth, (good,) = planted([0.9], [1.0], rows=3000, classes=3)
    _, (bad,) = planted([0.5], [1.0], rows=3000, classes=3)  # same truth (same seed), its own mistakes
    copy = Votes.single("copy", bad.classes)
    human = np.where(np.arange(3000) < 200, truth, -1)
    rest = human < 0
    alone = fit([good, bad, copy], 3000, 3)
    held = fit([good, bad, copy], 3000, 3, human=human, human_weight=30)
    right = [(one.chances.argmax(1) == truth)[rest].mean() for one in (alone, held)]
    assert right[1] > right[0] + 0.2 and right[1] > 0.8
    assert (held.chances[~rest].argmax(1) == truth[~rest]).all()


def test_with_every_row_labelled_it_is_naive_bayes_with_smoothed_counts():
    truth, sources = planted([0.8, 0.6], [0.7, 0.9], rows=500, classes=3)
    found = fit(sources, 500, 3, human=truth, human_weight=1, strength=0, silence=True)
    counts = np.bincount(truth, minlength=3)
    prior = (counts + 1) / (500 + 3)
    log = np.tile(np.log(prior), (500, 1))
    for source, table in zip(sources, found.tables):
        voted = np.full(500, 3)
        voted[source.rows] = source.classes
        expected = np.array([[((truth == k) & (voted == v)).sum() / counts[k] for v in range(4)] for k in range(3)])
        np.testing.assert_allclose(table, expected, atol=1e-12)
        log += np.log(expected[:, voted].T)
    chances = np.exp(log) / np.exp(log).sum(1, keepdims=True)
    np.testing.assert_allclose(posterior(found, sources), chances, atol=1e-9)


def test_three_binary_sources_agree_with_the_closed_form_of_their_agreements():
    """Balanced classes: E[ab] = (2p_a - 1)(2p_b - 1), so three agreements give the accuracies (Ratner et al. 2019)."""
    truth, sources = planted([0.9, 0.75, 0.65], [1, 1, 1], rows=6000, classes=2, seed=3)
    signs = [2.0 * source.classes - 1 for source in sources]
    ab, ac, bc = (float((signs[i] * signs[j]).mean()) for i, j in ((0, 1), (0, 2), (1, 2)))
    closed = [(1 + np.sqrt(ab * ac / bc)) / 2, (1 + np.sqrt(ab * bc / ac)) / 2, (1 + np.sqrt(ac * bc / ab)) / 2]
    found = fit(sources, len(truth), 2, rounds=120, tolerance=1e-9)
    np.testing.assert_allclose(found.accuracy, closed, atol=0.015)


def test_em_never_lowers_the_likelihood_of_the_plain_model():
    truth, sources = planted([0.8, 0.7, 0.6], [0.8, 0.8, 0.8], rows=800, classes=3)
    values = [fit(sources, len(truth), 3, strength=0, rounds=n, tolerance=0).log_likelihood for n in range(1, 12)]
    assert min(np.diff(values)) >= -1.0  # the prior is smoothed by one row


def test_many_one_class_rules_do_not_collapse_into_one_class():
    random = np.random.default_rng(0)
    truth = random.integers(0, 20, 2000)
    rules = []
    for label in range(20):
        fires = ((truth == label) & (random.random(2000) < 0.4)) | (random.random(2000) < 0.003)
        rules.append(Votes.single(f"r{label}", np.where(fires, label, -1)))
    noisy = np.where(random.random(2000) < 0.6, truth, random.integers(0, 20, 2000))
    sources = [*rules, Votes.single("noisy", noisy)]
    found = fit(sources, 2000, 20)
    spoke = np.isin(np.arange(2000), np.concatenate([one.rows for one in sources]))
    assert (found.chances.argmax(1) == truth)[spoke].mean() >= (
        majority(sources, 2000, 20).argmax(1) == truth)[spoke].mean()
    assert np.bincount(found.chances.argmax(1), minlength=20).min() > 40


def test_a_vote_for_several_classes_says_one_of_these():
    truth, (sharp,) = planted([0.9], [0.8], rows=600, classes=3)
    pairs = [[label, (label + 1) % 3] if label < 2 else [] for label in truth]
    either = Votes.several("either", pairs)
    found = fit([either, sharp], 600, 3)
    silent = np.setdiff1d(np.arange(600), sharp.rows)
    alone = [at for at in silent if pairs[at]]
    inside = np.array([found.chances[at, pairs[at]].sum() for at in alone])
    assert inside.min() > 0.6
    np.testing.assert_allclose(either.dense(600, 3)[either.rows[0]].max(), 0.5)


@pytest.mark.parametrize("heat", [0.7, 3.0])
def test_temperature_is_found_again(heat):
    random = np.random.default_rng(0)
    chances = random.dirichlet(np.ones(4), 5000)
    truth = np.array([random.choice(4, p=row) for row in chances])
    assert abs(np.log(temperature(soften(chances, 1 / heat), truth) / heat)) < 0.15


def test_nothing_voted_is_the_prior_and_no_error():
    found = fit([Votes.single("quiet", [-1, -1])], 2, 3)
    np.testing.assert_allclose(found.chances, 1 / 3)
