"""Baselines reach what they are known for, never read the test labels, and are computed once."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from luthier.evaluate.labels import baselines
from luthier.evaluate.labels.base import ZeroShot
from luthier.evaluate.labels.baselines import Fit, Split
from luthier.evaluate.labels.zero_shot import prompt, written
from luthier.store import Store
from luthier.types import Example, Origin, Tag

pytest.importorskip("sklearn")
BANKING = Path(__file__).resolve().parents[2] / "../shared/data/banking77"


def rows(texts: list[str], targets: np.ndarray, split: str) -> Split:
    return Split([Example(id=f"{split}{i}", input=text, target=None, origin=Origin(maker="human", step="t"))
                  for i, text in enumerate(texts)], targets)


def toy(n: int = 60, seed: int = 0) -> tuple[Split, Split, Split]:
    rng = np.random.default_rng(seed)
    words = [["refund", "money"], ["parcel", "courier"], ["password", "login"]]
    found = []
    for split, count in (("train", n), ("validation", 20), ("test", 30)):
        targets = rng.integers(0, 3, count)
        texts = [f"my {rng.choice(words[t])} is {rng.choice(['late', 'lost', 'wrong'])}" for t in targets]
        found.append(rows(texts, targets, split))
    return found[0], found[1], found[2]


def accuracy(fit: Fit, test: Split) -> float:
    return float((fit.test.argmax(1) == test.targets).mean())


def test_simple_methods_learn_a_simple_task_and_give_probabilities() -> None:
    train, validation, test = toy()
    for fit in (baselines.tfidf(train, validation, test, 4, (1.0, 10.0)),):
        assert accuracy(fit, test) == 1 and fit.test.shape == (30, 4) and fit.validation.shape == (20, 4)
        assert np.allclose(fit.test.sum(1), 1) and (fit.test[:, 3] == 0).all()  # a class without train rows
    common = baselines.majority(train, validation, test, 3)
    assert len(set(common.test.argmax(1))) == 1 and np.allclose(common.test.sum(1), 1)


def test_test_labels_are_never_read() -> None:
    train, validation, test = toy()
    blind = Split(test.examples, np.zeros_like(test.targets))
    one, other = (baselines.tfidf(train, validation, some, 3, (10.0,)) for some in (test, blind))
    assert (one.test == other.test).all()


def test_a_row_that_counts_more_moves_the_prior() -> None:
    train, validation, test = toy()
    heavy = Split([Example(**{**example.__dict__, "weight": 9.0}) if target == 2 else example
                   for example, target in zip(train.examples, train.targets, strict=True)], train.targets)
    assert baselines.majority(heavy, validation, test, 3).test[0].argmax() == 2


def test_several_labels_a_row() -> None:
    train, validation, test = toy()

    def sets(split: Split) -> Split:
        hot = np.eye(4, dtype=bool)[split.targets]
        hot[:, 1] |= np.array(["late" in text for text in split.texts])
        return Split(split.examples, hot)

    fit = baselines.tfidf(sets(train), sets(validation), sets(test), 4, (10.0, 100.0))
    assert ((fit.test >= 0.5) == sets(test).targets).mean() > 0.97
    assert (fit.test[:, 3] == 0).all()


def test_vectors_are_scaled_as_the_train_rows() -> None:
    train, validation, test = toy()
    rng = np.random.default_rng(0)
    middle = rng.normal(size=(3, 8)) * 1000
    values = [middle[split.targets] + rng.normal(size=(len(split.examples), 8)) * 100 + 5e4
              for split in (train, validation, test)]
    fit = baselines.on_features(values, train, validation, test, 3, (0.1, 1.0))
    assert accuracy(fit, test) == 1 and fit.facts["C"] in (0.1, 1.0)


def test_a_baseline_is_computed_once(tmp_path: Path) -> None:
    train, validation, test = toy()
    cache = Store(tmp_path).cache("label-baselines")
    calls = []

    def make() -> Fit:
        calls.append(1)
        return baselines.tfidf(train, validation, test, 3, (10.0,))

    parts = [baselines.content(train, validation, test)]
    one, two = (baselines.kept(cache, "tfidf", parts, make) for _ in range(2))
    assert len(calls) == 1 and (one.test == two.test).all() and one.facts == two.facts
    assert baselines.content(train, validation) != baselines.content(validation, train)


def test_lookup_gives_each_word_its_commonest_tag() -> None:
    def tagged(text: str, *tags: Tag) -> Example:
        return Example(id=text, input=text, target=None, spans=tags, origin=Origin(maker="human", step="t"))

    train = [tagged("Ann Lee met Bob", Tag(start=0, end=7, label="P"), Tag(start=12, end=15, label="P")),
             tagged("Ann is here", Tag(start=0, end=3, label="P")), tagged("Bob the builder")]
    assert baselines.lookup(train, [tagged("Here Ann Lee met someone")]) == [[(5, 12, "P")]]


def test_a_written_class_is_understood() -> None:
    labels = ["card_arrival", "card_not_working", "refund"]
    assert written("Card not working.", labels).argmax() == 1
    assert written('The class is "refund"', labels).argmax() == 2
    assert np.allclose(written("I cannot say", labels), 1 / 3)
    assert "card not working" in prompt(ZeroShot(), labels, "hello")[0].content


@pytest.mark.slow
def test_banking_is_as_good_as_it_is_known_to_be() -> None:
    """shared/FACTS.md: TF-IDF + logistic regression reaches about .91 on banking77."""
    if not BANKING.is_dir():
        pytest.skip("shared/data/banking77 is not beside this checkout")
    parts = {}
    names: dict[str, int] = {}
    for split in ("train", "test"):
        with (BANKING / f"{split}.csv").open(encoding="utf-8") as file:
            read = [*csv.DictReader(file)]
        targets = np.array([names.setdefault(row["category"], len(names)) for row in read])
        parts[split] = rows([row["text"] for row in read], targets, split)
    fit = baselines.tfidf(parts["train"], rows([], np.zeros(0, dtype=int), "v"), parts["test"], 77, (10.0,))
    assert accuracy(fit, parts["test"]) > 0.905
