"""Laws of the Fisher: per example, of the model's own labels, equal to closed forms and to plain gradients."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_kit import Bench, example, rows
from torch.nn import functional as F
from train_kit import examples as chats
from train_kit import opened

from luthier.adapt.backbones.base import Row
from luthier.adapt.full import Full
from luthier.adapt.lora import LoRA
from luthier.progress import Silent
from luthier.task import Task
from luthier.train import fast
from luthier.train.batches import collate
from luthier.train.objectives import Plain
from luthier.train.regularizers import _fisher
from luthier.train.regularizers._fisher import Way, draw, estimate
from luthier.train.regularizers._weights import all_weights
from luthier.train.render import render
from luthier.types import Tag


def feature_rows(num: int, *, seed: int = 0, width: int = 32, repeat: int = 1) -> list[Row]:
    rng = np.random.default_rng(seed)
    found = [Row(f"r{at}", rng.normal(size=width).astype(np.float32), 1, target=int(rng.integers(3)),
                 weight=float(rng.uniform(0.1, 9))) for at in range(num)]
    return [row for row in found for _ in range(repeat)]


def regression(folder: Path, **options: Any) -> Any:
    """A softmax regression: the head of a model that is given finished features."""
    model = Bench(folder, **options).open(0)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in model.module.head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def closed_form(model: Any, some: list[Row]) -> dict[str, torch.Tensor]:
    """The exact Fisher of a softmax regression: E[p_k (1 - p_k) x_d²], and without x for the bias."""
    last = model.module.head[-1]
    x = torch.from_numpy(np.stack([row.data for row in some])).double()
    p = (x @ last.weight.detach().double().t() + last.bias.detach().double()).softmax(-1)
    spread = p * (1 - p)
    return {"head.1.weight": spread.t() @ x.square() / len(x), "head.1.bias": spread.mean(0)}


def distance(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Largest difference relative to the largest value."""
    assert found.keys() == wanted.keys()
    return max(float((found[n].double() - wanted[n]).abs().max() / wanted[n].abs().max()) for n in wanted)


def test_exact_fisher_of_a_softmax_regression_is_the_closed_form(tmp_path: Path) -> None:
    model, some = regression(tmp_path), feature_rows(40)
    found = estimate(model, some, all_weights(model.module), Way(labels="exact"))
    assert distance(found, closed_form(model, some)) < 1e-6  # rows' weights are ignored


def test_the_square_of_a_batchs_mean_gradient_is_not_the_fisher(tmp_path: Path) -> None:
    model, some = regression(tmp_path), feature_rows(64)
    found = estimate(model, some, all_weights(model.module), Way(labels="empirical"))
    x = torch.from_numpy(np.stack([row.data for row in some]))
    loss = F.cross_entropy(model.module.eval()({"features": x}), torch.tensor([row.target for row in some]))
    batched = torch.autograd.grad(loss, model.module.head[-1].weight)[0].square()
    assert distance(found, {n: v.double() for n, v in by_hand(model, some).items()}) < 1e-5
    assert float(batched.sum()) < 0.1 * float(found["head.1.weight"].sum())


def test_the_exact_fisher_of_many_classes_tells_what_it_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    progress = Silent()
    monkeypatch.setattr(progress, "say", lambda line, **fields: said.append(line))
    model = regression(tmp_path)
    estimate(model, feature_rows(4), all_weights(model.module), Way(labels="exact"), progress=progress)
    assert not said
    monkeypatch.setattr(_fisher, "MANY_CLASSES", 2)
    estimate(model, feature_rows(4), all_weights(model.module), Way(labels="exact"), progress=progress)
    assert "12 gradients; fisher: sampled needs 4" in said[0]


def by_hand(model: Any, some: list[Row]) -> dict[str, torch.Tensor]:
    """Mean squared gradient of each row's own label."""
    last = model.module.eval().head[-1]
    totals = [torch.zeros_like(p) for p in (last.weight, last.bias)]
    for row in some:
        logits = model.module({"features": torch.from_numpy(row.data)[None]})
        found = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([row.target])), [last.weight, last.bias])
        totals = [total + g.square() for total, g in zip(totals, found)]
    return {"head.1.weight": totals[0] / len(some), "head.1.bias": totals[1] / len(some)}


def test_sampled_labels_come_to_the_exact_fisher(tmp_path: Path) -> None:
    model, some = regression(tmp_path), feature_rows(3, repeat=500)
    found = estimate(model, some, all_weights(model.module), Way(samples=1500))
    assert distance(found, closed_form(model, some)) < 0.1
    again = estimate(model, some, all_weights(model.module), Way(samples=1500, seed=1))
    assert not torch.equal(found["head.1.bias"], again["head.1.bias"])


def test_draws_follow_the_probabilities_and_never_take_an_impossible_class() -> None:
    chances = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    said = draw(chances.expand(20_000, -1), np.random.default_rng(0))
    counts = torch.bincount(said, minlength=6) / 20_000
    assert torch.allclose(counts, chances, atol=0.015) and not counts[chances == 0].any()


def test_only_the_classes_of_a_row_take_part(tmp_path: Path) -> None:
    model, some = regression(tmp_path), [row.but(target=2) for row in feature_rows(20)]
    places = np.array([0, 2])
    for labels in ("sampled", "exact", "empirical"):
        found = estimate(model, some, all_weights(model.module), Way(labels=labels, columns=lambda row: places))
        assert not found["head.1.weight"][1].any() and found["head.1.weight"][2].any()
    with torch.no_grad():  # with two classes the exact Fisher of the difference is that of a logistic regression
        x = torch.from_numpy(np.stack([row.data for row in some]))
        p = model.module({"features": x})[:, places].softmax(-1)[:, 0]
    exact = estimate(model, some, all_weights(model.module), Way(labels="exact", columns=lambda row: places))
    assert torch.allclose(exact["head.1.bias"][0], (p * (1 - p)).mean(), rtol=1e-5)


def test_exact_fisher_of_several_labels_is_the_sum_over_all_sets_of_labels(tmp_path: Path) -> None:
    model = regression(tmp_path, task=Task(type="classify", multi_label=True))
    some = [row.but(target=np.float32([0, 1, 0])) for row in feature_rows(5)]
    weight = model.module.head[-1].weight
    wanted = torch.zeros_like(weight)
    for row in some:
        logits = model.module({"features": torch.from_numpy(row.data)[None]})[0]
        for said in itertools.product([0.0, 1.0], repeat=3):
            score = -F.binary_cross_entropy_with_logits(logits, torch.tensor(said), reduction="sum")
            gradient = torch.autograd.grad(score, weight, retain_graph=True)[0]
            wanted += float(score.detach().exp()) * gradient.square() / 5
    found = estimate(model, some, all_weights(model.module), Way(labels="exact"))
    assert torch.allclose(found["head.1.weight"], wanted, rtol=1e-4)
    many = [row for row in some for _ in range(300)]
    sampled = estimate(model, many, all_weights(model.module), Way(samples=1500))
    assert float((sampled["head.1.weight"] - wanted).abs().max() / wanted.max()) < 0.15


def test_rows_are_drawn_from_the_seed_and_the_model_stays_as_it_was(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    model = bench.open(0)
    model.module.requires_grad_(False).train()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    some = model.rows(rows(12))
    first, again, other = (estimate(model, some, all_weights(model.module), Way(samples=4, seed=seed))
                           for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.1.weight"], other["head.1.weight"])
    assert first.keys() == dict(model.module.named_parameters()).keys() - {
        name for name, _ in model.module.named_parameters() if "pooler" in name}
    assert model.module.training and not any(p.requires_grad or p.grad is not None for p in model.module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_dropout_is_off_and_texts_of_other_lengths_do_not_matter(tmp_path: Path) -> None:
    model = Bench(tmp_path, dropout=0.5).open(0)
    some = model.rows(rows(6))
    found = estimate(model, some, all_weights(model.module), Way(labels="empirical"))
    total = {name: torch.zeros_like(p) for name, p in model.module.named_parameters()}
    for row in some:
        logits = model.module.eval()(model.processor.batch([row]))
        model.module.zero_grad()
        F.cross_entropy(logits, torch.tensor([row.target])).backward()
        for name, p in model.module.named_parameters():
            total[name] += 0 if p.grad is None else p.grad.square() / len(some)
    assert all(torch.allclose(found[name], total[name], rtol=1e-4, atol=1e-9) for name in found)


def test_adapters_give_the_fisher_of_the_weight_they_are_merged_into(tmp_path: Path) -> None:
    model = Bench(tmp_path).open(0)
    LoRA(rank=2, dropout=0.3).attach(model.module, seed=0)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    some = model.rows(rows(5))
    adapted = [weight for weight in all_weights(model.module) if weight.pairs]
    found = estimate(model, some, adapted, Way(labels="exact"))
    merged = Bench(tmp_path).open(0)
    merged.module.load_state_dict(LoRA().merged_state(model.module))
    plain = estimate(merged, some, all_weights(merged.module), Way(labels="exact"))
    assert len(found) == 12 and all(torch.allclose(found[n], plain[n], rtol=1e-3, atol=1e-8) for n in found)
    values = dict(merged.module.named_parameters())
    assert all(torch.allclose(weight.value(), values[weight.name], atol=1e-6) for weight in adapted)


def test_a_tagged_text_is_one_example_of_independent_tokens(tmp_path: Path) -> None:
    bench = Bench(tmp_path, task=Task(type="tag"), labels=("ant", "bee"))
    model = bench.open(0)
    text = example(0, None, "an ant met a bee", spans=(Tag(start=3, end=6, label="ant"),))
    some = model.rows([text])
    logits = model.module.eval()(model.processor.batch(some))[0]
    carried = torch.from_numpy(some[0].target) >= 0
    p = logits[carried].softmax(-1)
    sampled = estimate(model, some * 700, [w for w in all_weights(model.module) if w.name == "head.1.bias"],
                       Way(samples=700))
    wanted = (p * (1 - p)).sum(0).detach()  # the scores of tokens are independent, so their variances add up
    assert torch.allclose(sampled["head.1.bias"], wanted, rtol=0.2)
    loss = F.cross_entropy(logits[carried], torch.from_numpy(some[0].target)[carried], reduction="sum")
    own = torch.autograd.grad(loss, model.module.head[-1].weight)[0].square()
    found = estimate(model, [some[0].but(weight=0.0)], all_weights(model.module), Way(labels="empirical"))
    assert torch.allclose(found["head.1.weight"], own, rtol=1e-4, atol=1e-8)


def test_a_query_chooses_among_the_texts_of_its_group(tmp_path: Path) -> None:
    bench = Bench(tmp_path, task=Task(type="embed"), labels=())
    model = bench.open(0)
    some = model.rows([example(at, None, f"{letter * 9}", ).__class__(**{
        **vars_of(example(at, None, letter * 9)), "target": letter * 4}) for at, letter in enumerate("abc")])
    name, parameter = next((n, p) for n, p in model.module.named_parameters() if n.endswith("value.weight"))
    network = model.module.eval()
    scores = 20 * network(model.processor.batch(some)) @ network(
        model.processor.batch([row.target[0] for row in some])).T
    wanted = torch.zeros_like(parameter)
    for at in range(3):
        for log in scores[at].log_softmax(-1):
            wanted += float(log.detach().exp()) * torch.autograd.grad(log, parameter, retain_graph=True)[0].square() / 3
    found = estimate(model, some, all_weights(network), Way(labels="exact"))
    assert torch.allclose(found[name], wanted, rtol=1e-3, atol=float(wanted.max()) * 1e-4)


def vars_of(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def rendered(model: Any, num: int = 3) -> list[Any]:
    return [render(model.tokenizer, row, stop_id=model.stop_ids[0]) for row in chats(num, 0, 0)]


def answers_by_hand(model: Any, some: list[Any], module: Any = None) -> dict[str, torch.Tensor]:
    """Mean squared gradient of each answer's summed log-likelihood, through transformers' own output."""
    module = module or model.module
    total: dict[str, torch.Tensor] = {}
    for row in some:
        ids = torch.tensor([row.ids])
        log = module(input_ids=ids).logits[0, :-1].log_softmax(-1)
        carried = torch.tensor(row.loss[1:])
        module.zero_grad()
        log[carried].gather(1, ids[0, 1:][carried][:, None]).sum().backward()
        for name, p in module.named_parameters():
            total[name] = total.get(name, 0) + p.grad.square() / len(some)  # type: ignore[operator]
    return total


@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_is_one_example(tmp_path: Path, chunked: bool) -> None:
    model = opened(tmp_path, method=Full())
    some = rendered(model)
    found = estimate(model, some, all_weights(model.module), Way(labels="empirical", chunked=chunked))
    wanted = answers_by_hand(model, some)
    assert found.keys() == wanted.keys()  # the tied embedding once, with the gradients of both its uses
    assert all(torch.allclose(found[n], wanted[n], rtol=1e-3, atol=float(wanted[n].max()) * 1e-4) for n in wanted)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_language_models_adapters_give_the_fisher_of_the_product(tmp_path: Path, family: str) -> None:
    model = opened(tmp_path, method=LoRA(rank=2), family=family)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    some = rendered(model)
    undo = fast.swap_lora(model.module)  # trains faster, and knows no gradient of the frozen weight
    assert (undo is not None) == (family == "llama")
    weights = [weight for weight in all_weights(model.module) if weight.trains]
    found = estimate(model, some, weights, Way(labels="empirical"))
    swapped = [inner for inner in model.module.modules() if hasattr(inner, "lora_A") and "forward" in vars(inner)]
    assert bool(swapped) == (family == "llama")
    assert not any(weight.base.requires_grad for weight in weights)
    if undo:
        undo()
    values = {weight.name: weight.value() for weight in weights}
    merged = model.method.merge(model.module).requires_grad_(True)
    wanted = answers_by_hand(model, some, merged)
    assert len(found) == len(weights) > 6
    assert all(torch.allclose(found[n], wanted[n], rtol=1e-3, atol=float(wanted[n].max()) * 1e-3) for n in found)
    parameters = dict(merged.named_parameters())
    assert all(torch.allclose(values[n], parameters[n], atol=1e-6) for n in found)


def test_tokens_are_drawn_from_the_model_at_every_supervised_place(tmp_path: Path) -> None:
    model = opened(tmp_path, method=Full())
    row = rendered(model, 1)[0].cut(200)
    batch = collate([row], "none")
    logits = Plain(model.module)
    with torch.no_grad():
        states = logits.module(input_ids=batch.input_ids, position_ids=batch.position_ids).logits[0][batch.positions]
    norm = [w for w in all_weights(model.module) if w.name == "model.norm.weight"]
    both = [estimate(model, [row] * 60, norm, Way(chunked=chunked))["model.norm.weight"] for chunked in (True, False)]
    assert torch.allclose(both[0], both[1], rtol=1e-3)  # the same draws either way
    inner = model.module.model(input_ids=batch.input_ids, position_ids=batch.position_ids)[0][0][batch.positions]
    normed = (inner / model.module.model.norm.weight).detach()
    p = states.softmax(-1)
    weight = model.module.get_output_embeddings().weight.detach()
    mean = p @ weight  # the score of one token at norm weight d is normed_d (weight[y, d] - mean_d)
    wanted = (normed.square() * (p @ weight.square() - mean.square())).sum(0)
    assert float(both[0].sum() / wanted.sum()) == pytest.approx(1, abs=0.1)
