"""Laws of losses over some of the classes (`Job.parts`): a softmax over these columns, and nothing else is touched."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fit_kit import Bench, rows
from torch import nn
from torch.nn import functional as F

from luthier.adapt.backbones.base import Row
from luthier.train.labelled.base import Job
from luthier.train.labelled.feed import LabelFeed
from luthier.train.labelled.fit import _Fit, fit_once
from luthier.train.labelled.objective import columns_of, objective_of
from luthier.train.labelled.score import restricted, validate
from luthier.train.labelled.warm import logistic_regression, warm_head
from luthier.train.losses.cross_entropy import CrossEntropy
from luthier.train.losses.focal import Focal

NAMES = ("ant", "bee", "cat", "dog", "elk")
PARTS = {"one": ("dog", "ant"), "two": ("elk", "bee", "cat")}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("parts"), labels=NAMES, dropout=0.0)


class Fixed(nn.Module):
    """Logits that are parameters: their gradient is the loss's own."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, inputs: Any) -> torch.Tensor:
        return self.logits


def job(bench: Bench, **spec: Any) -> Job:
    data = rows(20, labels=NAMES)
    part_of = {row.id: name for row in data for name, labels in PARTS.items() if row.labels[0] in labels}  # type: ignore[index]
    return bench.job("job", data, (), **spec).but(parts=PARTS, part_of=part_of)


def loss_of(bench: Bench, targets: list[int], names: list[str], **spec: Any
            ) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Value and gradient of the summed loss of rows with random logits, and these logits."""
    model = bench.open(0)
    logits = torch.randn(len(targets), 5, generator=torch.Generator().manual_seed(0))
    module = Fixed(logits.clone())
    like: Any = SimpleNamespace(module=module, task=model.task, labels=model.labels)
    found = [Row(str(at), (1,), 1, target=target, weight=1.0 + at, part=name)
             for at, (target, name) in enumerate(zip(targets, names))]
    batch = LabelFeed(model.processor, model.task, 5, 4096)._batch(found)
    value = objective_of(like, job(bench, **spec), found)(batch, 1.0)
    value.backward()
    assert module.logits.grad is not None
    return float(value.detach()), module.logits.grad, logits


def test_places_are_ascending_and_of_known_labels_alone(bench: Bench) -> None:
    assert columns_of(bench.open(0), ("dog", "ant", "unknown")).tolist() == [0, 3]


def test_it_is_a_softmax_over_the_rows_own_classes(bench: Bench) -> None:
    """torch's cross-entropy on these columns alone; a row without a part has all classes; other columns get a gradient
    of exactly zero."""
    targets, names = [3, 0, 2, 4, 1], ["one", "one", "two", "two", ""]
    value, gradient, logits = loss_of(bench, targets, names)
    columns = {"one": [0, 3], "two": [1, 2, 4], "": [0, 1, 2, 3, 4]}
    known = sum((1.0 + at) * F.cross_entropy(logits[at, columns[name]][None],
                                             torch.tensor([columns[name].index(target)]))
                for at, (target, name) in enumerate(zip(targets, names)))
    assert value == pytest.approx(float(known), rel=1e-6)
    for at, name in enumerate(names):
        outside = [place for place in range(5) if place not in columns[name]]
        assert not gradient[at, outside].any() and gradient[at, columns[name]].all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", [CrossEntropy(smoothing=0.2), Focal(gamma=2.0),
                                  CrossEntropy(class_weights="balanced")])
def test_every_loss_is_the_one_of_a_model_with_these_classes_only(bench: Bench, loss: Any) -> None:
    """A part's classes are counted, weighted and smoothed among themselves."""
    targets = [3, 0, 3, 3]
    value, gradient, logits = loss_of(bench, targets, ["one"] * 4, loss=loss)
    bound = loss.bind(np.array([1, 3]), multi_label=False)
    alone = bound(logits[:, [0, 3]], torch.tensor([1, 0, 1, 1]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert value == pytest.approx(float(alone), rel=1e-6)
    assert not gradient[:, [1, 2, 4]].any()


def test_outputs_outside_the_part_do_not_move_in_a_fit(bench: Bench) -> None:
    """Law through the whole loop, weight decay included: rows of one part leave the others' outputs bit-identical."""
    data = rows(16, labels=("ant", "dog"))
    one = bench.job("still", data, (), epochs=2, verify_resume=False, weight_decay=0.1).but(
        parts=PARTS, part_of={row.id: "one" for row in data}, warm=False, check_labels=False)
    before = {name: value.clone() for name, value in bench.open(0).module.head[-1].named_parameters()}
    after = dict(fit_once(one).model.module.head[-1].named_parameters())
    for name, value in before.items():
        assert torch.equal(after[name][[1, 2, 4]], value[[1, 2, 4]]), name
        assert not torch.equal(after[name][[0, 3]], value[[0, 3]]), name


def test_validation_scores_among_the_rows_own_classes(bench: Bench) -> None:
    model, data = bench.open(0), rows(10, labels=("ant", "dog"))
    found = [row.but(part="one") for row in model.rows(data)]
    value, loss, logits = validate(model, data, found, parts=PARTS)
    assert logits is not None and np.isneginf(logits[:, [1, 2, 4]]).all() and np.isfinite(logits[:, [0, 3]]).all()
    two = logits[:, [0, 3]]
    right = np.array([0 if row.labels == ("ant",) else 1 for row in data])
    assert value == pytest.approx(float(np.mean(two.argmax(-1) == right)))
    assert loss == pytest.approx(float(F.cross_entropy(torch.from_numpy(two), torch.from_numpy(right))), rel=1e-5)
    plain = [row.but(part="") for row in found]
    assert np.isfinite(restricted(model, plain, np.zeros((10, 5), dtype=np.float32), PARTS)).all()


def test_the_warm_head_of_a_part_is_its_own_regression_and_leaves_the_others(bench: Bench) -> None:
    model, rng = bench.open(0), np.random.default_rng(0)
    features = rng.normal(size=(30, 32)).astype(np.float32)
    targets = rng.choice([0, 3], size=30)
    found = [Row(str(at), features[at], 1, target=int(target), part="one") for at, target in enumerate(targets)]
    last = model.module.head[-1]
    before = {name: value.detach().clone() for name, value in last.named_parameters()}
    places = {name: columns_of(model, labels) for name, labels in PARTS.items()}
    warm_head(model, features, found, features[:0], [], parts=places)
    for name, value in last.named_parameters():
        assert torch.equal(value[[1, 2, 4]], before[name][[1, 2, 4]]), name
    weight, bias = logistic_regression(features, (targets == 3).astype(int), np.ones(30), num_outputs=2,
                                       multi_label=False)
    np.testing.assert_allclose(last.weight[[0, 3]].detach(), weight, rtol=1e-5)
    np.testing.assert_allclose(last.bias[[0, 3]].detach(), bias, rtol=1e-5)


def test_rows_carry_their_part_into_every_pass(bench: Bench) -> None:
    fit = _Fit(job(bench, verify_resume=False))
    fit.read()
    fit.check_data()
    fit.prepare()
    for update in fit.order().epoch(0):
        for batch in fit.learner.feed.passes([fit.rows[at] for at in update], step=1):
            own = ["one" if NAMES[int(target)] in PARTS["one"] else "two" for target in batch.targets]
            assert [*batch.parts] == own
