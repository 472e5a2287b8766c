"""Laws of dark experience replay, and that it and plain replay forget less than nothing at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from continual_kit import OLD, Sequence2, accuracy
from fit_kit import same, weights
from torch.nn import functional as F

from luthier.adapt import predict
from luthier.errors import SpecError
from luthier.testing import check_spec
from luthier.train.keeps.balanced import Balanced
from luthier.train.labelled.fit import _Fit, fit_once
from luthier.train.regularizers import REGULARIZERS, Setting
from luthier.train.regularizers.dark import DarkReplay
from luthier.train.replay import Replay

REPLAY = Replay(source="past", share=0.25)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Sequence2:
    return Sequence2(tmp_path_factory.mktemp("dark"), keep=Balanced(size=12))


def test_the_spec_keeps_the_laws() -> None:
    check_spec(REGULARIZERS, DarkReplay(strength=0.3))


def test_it_is_the_papers_loss() -> None:
    """alpha · mse_loss(outputs, stored logits), as in mammoth's der.py, over the classes that were known then; the
    others get no gradient, and rows without stored logits add 0."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, generator=rng).requires_grad_()
    stored = torch.randn(5, 4, generator=rng)
    stored[:, 3] = float("nan")
    stored[4] = float("nan")
    found = DarkReplay(strength=0.5).told(logits, stored, torch.ones(5))
    found.backward()
    known = 0.5 * F.mse_loss(logits.detach()[:4, :3], stored[:4, :3]) * 4
    assert float(found.detach()) == pytest.approx(float(known), rel=1e-6)
    assert logits.grad is not None and not logits.grad[:, 3].any() and not logits.grad[4].any()
    same_ = DarkReplay().told(stored[:4, :3], stored[:4, :3], torch.ones(4))
    assert float(same_) == 0


def test_half_of_every_update_replayed_gives_the_papers_alpha() -> None:
    """With as many replayed as new rows, strength · mse / all rows stands to the new rows' mean loss as alpha · mse
    does in the paper, whose two means are over as many rows each: both are halved."""
    rng = torch.Generator().manual_seed(1)
    outputs, targets = torch.randn(8, 3, generator=rng), torch.tensor([0, 1, 2, 0])
    stored = torch.full((8, 3), float("nan"))
    stored[4:] = torch.randn(4, 3, generator=rng)
    ours_new = F.cross_entropy(outputs[:4], targets, reduction="sum") / 8
    ours_dark = DarkReplay(strength=0.7).told(outputs, stored, torch.ones(8)) / 8
    ratio = 0.7 * F.mse_loss(outputs[4:], stored[4:]) / F.cross_entropy(outputs[:4], targets)
    assert float(ours_dark / ours_new) == pytest.approx(float(ratio), rel=1e-5)


def test_the_stored_logits_are_what_the_finished_model_answered(two: Sequence2) -> None:
    model, past = two.before.model, two.past
    assert len(past.rows) == 12 and past.logits.keys() == {row.id for row in past.rows}
    known = predict.logits(model, model.rows(past.rows))
    for row, values in zip(past.rows, known):
        np.testing.assert_allclose(past.logits[row.id], values, atol=1e-5)


def test_replayed_rows_alone_are_taught_by_id_and_label_name(two: Sequence2) -> None:
    fit = _Fit(two.job("rows", replay=REPLAY, regularizers=(DarkReplay(),)))
    fit.read()
    fit.check_data()
    fit.prepare()
    taught = {row.id: row.told["dark"] for row in fit.rows if row.told}
    assert taught.keys() == {row.id for row in two.past.rows}
    for id, values in taught.items():
        np.testing.assert_array_equal(values[:2], two.past.logits[id])
        assert np.isnan(values[2:]).all()


def test_strength_zero_is_absence(two: Sequence2) -> None:
    found = [weights(fit_once(two.job(f"zero-{at}", replay=REPLAY, regularizers=chosen, max_steps=4)))
             for at, chosen in enumerate(((), (DarkReplay(strength=0.0),), (DarkReplay(),)))]
    assert same(found[0], found[1]) and not same(found[0], found[2])


def test_without_rows_or_logits_it_is_refused(two: Sequence2) -> None:
    def teach(past: object, replayed: object) -> None:
        DarkReplay().teach(Setting(model=two.opened(0), rows=(), replayed=replayed, past=past))  # type: ignore[arg-type]

    with pytest.raises(SpecError, match=r"kept no rows; train it with train\.keep"):
        teach(two.past.but(rows=()), ())
    with pytest.raises(SpecError, match=r"set train\.replay to \{source: past"):
        teach(two.past, ())
    with pytest.raises(SpecError, match=r"train\.keep\.logits: true"):
        teach(two.past.but(logits={}), two.opened(0).rows(two.past.rows))
    with pytest.raises(SpecError, match=r"set train\.replay"):
        fit_once(two.job("nothing", regularizers=(DarkReplay(),)))


def test_less_is_forgotten(two: Sequence2) -> None:
    """Effect: right answers to old texts that are not in the store, after the new classes were learned."""
    runs = {"naive": {}, "replay": {"replay": REPLAY},
            "dark": {"replay": REPLAY, "regularizers": (DarkReplay(strength=0.5),)}}
    models = {name: fit_once(two.job(name, epochs=14, **spec)).model for name, spec in runs.items()}
    old = {name: accuracy(model, two.old_held) for name, model in models.items()}
    new = {name: accuracy(model, two.new_held) for name, model in models.items()}
    assert accuracy(two.before.model, two.old_held, OLD) > 0.9
    assert old["naive"] < 0.3, old
    assert min(old["replay"], old["dark"]) > old["naive"] + 0.4, old
    assert min(new.values()) > 0.75, new


def test_the_store_goes_on_with_the_next_model(two: Sequence2) -> None:
    """After the second training it holds as many rows of all four classes, with the new model's answers."""
    found = fit_once(two.job("again", replay=REPLAY, keep=Balanced(size=12), max_steps=4))
    memory = found.memory or {}
    assert sorted(row.labels[0] for row in memory["rows"]) == sorted([*OLD, "cat", "dog"] * 3)
    assert {row.id for row in memory["rows"] if row.labels[0] in OLD} < {row.id for row in two.past.rows}
    known = predict.logits(found.model, found.model.rows(memory["rows"]))
    for row, values in zip(memory["rows"], known):
        np.testing.assert_allclose(memory["logits"][row.id], values, atol=1e-5)
