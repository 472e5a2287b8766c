"""Laws of distillation from the earlier model, and that less is forgotten with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from continual_kit import NEW, OLD, Sequence2, accuracy, frozen
from fit_kit import Bench, example, rows, same, weights
from torch.distributions import Bernoulli, kl_divergence
from torch.nn import functional as F

from luthier.adapt import predict
from luthier.adapt.grow import grown
from luthier.errors import ModelError, SpecError
from luthier.task import Task
from luthier.testing import check_spec
from luthier.train.base import Train
from luthier.train.labelled.fit import _Fit, fit_once
from luthier.train.mixes.mixup import Mixup
from luthier.train.past import Past
from luthier.train.plans.head import HeadOnly
from luthier.train.regularizers import REGULARIZERS, Setting
from luthier.train.regularizers._answers import divergence
from luthier.train.regularizers.lwf import LearningWithoutForgetting as Lwf

NAN = float("nan")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Sequence2:
    return Sequence2(tmp_path_factory.mktemp("lwf"))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def test_the_spec_keeps_the_laws() -> None:
    check_spec(REGULARIZERS, Lwf(strength=2.0, temperature=4.0))


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_student_that_equals_its_teacher_pays_nothing(multi_label: bool) -> None:
    logits = drawn(5, 4).requires_grad_()
    found = Lwf().told(logits, logits.detach().clone(), torch.ones(5), multi_label=multi_label)
    found.backward()
    assert float(found.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-6
    apart = Lwf().told(logits, drawn(5, 4, seed=1), torch.ones(5), multi_label=multi_label)
    assert float(apart.detach()) > 0.1


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_it_is_torchs_batch_mean_times_t_squared(temperature: float) -> None:
    """The formula of Hinton et al. as it is written with torch: kl_div(log_softmax(student / T), softmax(teacher / T),
    reduction='batchmean') · T²."""
    student, teacher = drawn(6, 5), drawn(6, 5, seed=1)
    known = F.kl_div((student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1),
                     reduction="batchmean") * temperature**2
    found = Lwf(strength=3.0, temperature=temperature).told(student, teacher, torch.ones(6)) / 6
    assert float(found) == pytest.approx(3.0 * float(known), rel=1e-5)


def test_the_gradient_keeps_its_size_when_the_temperature_changes() -> None:
    """d/dz = T (softmax(z/T) - softmax(v/T)), which for large T is (z - v) / classes for centred logits (Hinton et al.
    2015, equation 4): without T² it would shrink to nothing."""
    teacher = drawn(3, 4, seed=1)
    teacher = teacher - teacher.mean(-1, keepdim=True)

    def gradient(temperature: float) -> torch.Tensor:
        student = (lambda z: z - z.mean(-1, keepdim=True))(drawn(3, 4)).requires_grad_()
        Lwf(temperature=temperature).told(student, teacher, torch.ones(3)).backward()
        assert student.grad is not None
        exact = temperature * ((student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)).detach()
        torch.testing.assert_close(student.grad, exact, rtol=1e-4, atol=1e-5)
        return student.grad

    student = drawn(3, 4) - drawn(3, 4).mean(-1, keepdim=True)
    # large beside the logits, which are around 2
    torch.testing.assert_close(gradient(20.0), (student - teacher) / 4, rtol=0.3, atol=0.05)
    assert 0.3 < float(gradient(20.0).norm() / gradient(2.0).norm()) < 3


def test_only_the_old_classes_take_part() -> None:
    """The value is that of the old columns alone, and the others get a gradient of exactly zero."""
    student, teacher = drawn(4, 5).requires_grad_(), drawn(4, 5, seed=1)
    teacher[:, [1, 4]] = NAN
    found = Lwf().told(student, teacher, torch.ones(4))
    found.backward()
    assert student.grad is not None and not student.grad[:, [1, 4]].any() and student.grad[:, [0, 2, 3]].any()
    alone = Lwf().told(student.detach()[:, [0, 2, 3]], teacher[:, [0, 2, 3]], torch.ones(4))
    assert float(found.detach()) == pytest.approx(float(alone), rel=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_rows_without_a_teacher_add_nothing_and_weights_count(multi_label: bool) -> None:
    student, teacher = drawn(4, 3).requires_grad_(), drawn(4, 3, seed=1)
    teacher[1] = NAN
    found = divergence(student, teacher, torch.tensor([1.0, 5.0, 0.0, 2.0]), temperature=2.0, multi_label=multi_label)
    found.backward()
    assert student.grad is not None and student.grad.isfinite().all()
    assert not student.grad[[1, 2]].any() and student.grad[[0, 3]].any()
    each = [divergence(student.detach()[[at]], teacher[[at]], torch.ones(1), temperature=2.0, multi_label=multi_label)
            for at in (0, 3)]
    assert float(found.detach()) == pytest.approx(float(each[0] + 2 * each[1]), rel=1e-5)
    nobody = divergence(student, torch.full((4, 3), NAN), torch.ones(4), temperature=2.0, multi_label=multi_label)
    nobody.backward()
    assert float(nobody.detach()) == 0 and student.grad.isfinite().all()


def test_several_labels_are_independent_bernoullis() -> None:
    student, teacher = drawn(3, 4), drawn(3, 4, seed=1)
    teacher[:, 2] = NAN
    known = kl_divergence(Bernoulli(logits=teacher[:, [0, 1, 3]] / 2), Bernoulli(logits=student[:, [0, 1, 3]] / 2))
    found = Lwf(temperature=2.0).told(student, teacher, torch.ones(3), multi_label=True)
    assert float(found) == pytest.approx(4 * float(known.mean(-1).sum()), rel=1e-4)


def test_separate_heads_are_softmaxes_of_their_own() -> None:
    """Shifting all logits of one head, which changes no answer within it, changes nothing; and the value is the sum
    over the heads, the classes outside of all being one more."""
    student, teacher = drawn(4, 7), drawn(4, 7, seed=1)
    parts = [torch.tensor([0, 3]), torch.tensor([1, 2])]
    found = Lwf().told(student, teacher, torch.ones(4), parts=parts)
    moved = teacher.clone()
    moved[:, parts[0]] += 50
    torch.testing.assert_close(Lwf().told(student, moved, torch.ones(4), parts=parts), found, rtol=1e-4, atol=1e-5)
    each = [Lwf().told(student[:, places], teacher[:, places], torch.ones(4))
            for places in (*parts, torch.tensor([4, 5, 6]))]
    assert float(found) == pytest.approx(float(sum(each)), rel=1e-5)


def taught(two: Sequence2, examples: Any, *, opened: Any = None, model: Any = None) -> dict[str, np.ndarray]:
    model = model or two.opened(0)
    past = two.past if opened is None else two.past.but(open=opened)
    return dict(Lwf().teach(Setting(model=model, rows=(), examples=examples, past=past)))


def test_answers_go_by_id_and_label_name_and_not_by_order(two: Sequence2) -> None:
    first = taught(two, two.new)
    again = taught(two, two.new[::-1])
    assert first.keys() == {e.id for e in two.new}
    for id, values in first.items():
        np.testing.assert_allclose(values, again[id], rtol=0, atol=1e-5)
    other = ("cat", "bee", "dog", "ant")
    turned = taught(two, two.new, model=grown(frozen(two.before.model), other))
    said = predict.logits(two.before.model, two.before.model.rows(two.new, targets=False))
    for row, values in zip(two.new, said):
        np.testing.assert_allclose(first[row.id], [*values, NAN, NAN], atol=1e-5)
        np.testing.assert_allclose(turned[row.id], [NAN, values[1], NAN, values[0]], atol=1e-5)


def test_every_pass_carries_each_rows_own_answer(two: Sequence2) -> None:
    """Through shuffling and batching, in a real fit: told logits match those that the teacher gives to that text."""
    fit = _Fit(two.job("passes", regularizers=(Lwf(),)))
    fit.read()
    fit.check_data()
    fit.prepare()
    own = taught(two, two.new)
    seen = set()
    for update in fit.order().epoch(3):
        chosen = [fit.rows[at] for at in update]
        for batch in fit.learner.feed.passes(chosen, step=1):
            for values in batch.told["lwf"].numpy():
                ids = [row.id for row in chosen if np.allclose(own[row.id][:2], values[:2], atol=1e-6)]
                assert ids and np.isnan(values[2:]).all()
                seen |= {*ids}
        for row in chosen:
            np.testing.assert_array_equal(row.told["lwf"], own[row.id])
    assert len(seen) == len(two.new)


def test_the_teacher_answers_in_evaluation_mode(tmp_path: Path) -> None:
    """A teacher with dropout 0.5 that was left in training mode answers twice alike, as it predicts."""
    bench = Bench(tmp_path, dropout=0.5)
    data = rows(12)

    def opened() -> Any:
        model = bench.open(0)
        model.module.train()
        return model

    setting = Setting(model=bench.open(1), rows=(), examples=data, past=Past(open=opened))
    first, second = Lwf().teach(setting), Lwf().teach(setting)
    known = predict.logits(bench.open(0), bench.open(0).rows(data))
    for row, values in zip(data, known):
        np.testing.assert_array_equal(first[row.id], second[row.id])
        np.testing.assert_allclose(first[row.id], values, atol=1e-6)


def test_the_teacher_reads_texts_where_only_the_head_learns(two: Sequence2) -> None:
    """The rows are finished features then, of the model that learns."""
    job = two.job("head", plan=HeadOnly(), regularizers=(Lwf(),))
    fit = _Fit(job)
    fit.read()
    fit.check_data()
    fit.prepare()
    own = taught(two, two.new)
    assert fit.rows[0].data.dtype == np.float32
    for row in fit.rows:
        np.testing.assert_allclose(row.told["lwf"], own[row.id], atol=1e-6)


def test_strength_zero_is_absence(two: Sequence2) -> None:
    short = {"max_steps": 4}
    plain, zero, some = (weights(fit_once(two.job(f"zero-{at}", regularizers=chosen, **short)))
                         for at, chosen in enumerate(((), (Lwf(strength=0.0),), (Lwf(strength=1.0),))))
    assert same(plain, zero) and not same(plain, some)


def test_less_is_forgotten(two: Sequence2) -> None:
    """Effect: right answers to old texts, after the new classes were learned as well without any old row."""
    naive, kept = (fit_once(two.job(name, regularizers=chosen, epochs=18)).model
                   for name, chosen in (("naive", ()), ("lwf", (Lwf(strength=1.0),))))
    figures = {name: (accuracy(model, two.old_held), accuracy(model, two.old_held, OLD),
                      accuracy(model, two.new_held)) for name, model in (("naive", naive), ("lwf", kept))}
    assert accuracy(two.before.model, two.old_held, OLD) > 0.9
    assert figures["naive"][0] < 0.1, figures
    assert figures["lwf"][0] > figures["naive"][0] + 0.2, figures
    assert figures["lwf"][1] >= figures["naive"][1] + 0.1, figures
    assert figures["lwf"][2] > 0.8, figures


def test_what_the_teacher_contributes_is_logged_apart(two: Sequence2) -> None:
    job = two.job("logged", regularizers=(Lwf(strength=3.0),), max_steps=6)
    fit_once(job)
    steps = [json.loads(line) for line in (job.folder / "steps.jsonl").read_text().splitlines()]
    told = [step["taught"] for step in steps]
    assert all(0 < value < step["loss"] for value, step in zip(told, steps))
    assert told[0] < 0.5 * max(told), "at first only the head's dropout parts the model from its teacher"


def test_what_cannot_be_taught_is_refused(two: Sequence2) -> None:
    for task in (Task(type="tag"), Task(type="embed")):
        with pytest.raises(SpecError, match="'lwf' teaches answers about classes"):
            Train(regularizers=(Lwf(),)).refuse_misfits(task)
    with pytest.raises(SpecError, match=r"remove train\.mix"):
        Train(regularizers=(Lwf(),), mix=Mixup()).refuse_misfits(Task(type="image"))
    with pytest.raises(SpecError, match="names 'lwf' twice"):
        Train(regularizers=(Lwf(), Lwf(strength=2.0))).refuse_misfits(Task(type="classify"))
    with pytest.raises(ModelError, match=r"knows none of the labels cat, dog; it knows ant, bee"):
        taught(two, two.new, model=grown(frozen(two.before.model), NEW))
    several = two.before.model.but(task=Task(type="classify", multi_label=True))
    with pytest.raises(ModelError, match="with several labels a row"):
        taught(two, [example(1, "ant", "aa")], opened=lambda: several)
