"""Laws of blends: the ends are the models themselves bit for bit, the way between is a straight line in the weights (of
the products, with LoRA), and a soup never scores below its best member."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from fit_kit import LABELS, rows
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from train_kit import adapted, data_artifact, examples

from luthier.adapt.base import Adapt, adapt, open_base
from luthier.adapt.full import Full
from luthier.adapt.labelled import load_label_model
from luthier.adapt.lora import LoRA
from luthier.errors import ModelError
from luthier.store import Store, write_json
from luthier.task import Task
from luthier.testing import tiny_encoder
from luthier.train.base import Train, open_tuned, train
from luthier.train.blends import BARE, BLENDS, RUN, START, Kitchen
from luthier.train.blends._adapters import AdapterSpace
from luthier.train.blends._space import FullSpace, LabelSpace, mixed
from luthier.train.blends.lora_scale import LoraScale
from luthier.train.blends.soup import Soup, greedy
from luthier.train.blends.wise import Wise
from luthier.types import write_jsonl


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.module(input_ids=torch.arange(40, 60)[None]).logits


def products(folder, scale: float = 2.0) -> dict[str, torch.Tensor]:
    """Layer -> s · B A, computed from the files."""
    found = load_file(folder / "adapter_model.safetensors")
    return {name.removesuffix(".lora_A.weight"): scale * found[name.replace("lora_A", "lora_B")] @ value
            for name, value in found.items() if "lora_A" in name}


def test_every_kind_round_trips():
    from luthier.testing import check_spec

    for kind in BLENDS.kinds().values():
        check_spec(BLENDS, kind())


def test_the_line_is_straight_between_its_ends():
    assert Wise().mix(0.0, {RUN: 1.0}) == {START: 1.0} and Wise().mix(1.0, {RUN: 1.0}) == {RUN: 1.0}
    assert Wise().mix(0.25, {RUN: 1.0}) == {START: 0.75, RUN: 0.25}
    assert LoraScale().mix(0.25, {RUN: 1.0}) == {BARE: 0.75, RUN: 0.25}
    assert Soup().mix(0.5, {RUN: 0.5, "b": 0.5}) == {START: 0.5, RUN: 0.25, "b": 0.25}


def test_tensors_that_are_equal_come_out_bit_for_bit_and_whole_numbers_from_the_last():
    torch.manual_seed(0)
    a, b = torch.randn(50), torch.randn(50)
    for share in (0.1, 0.3, 1 / 3):
        assert torch.equal(mixed([(1 - share, a), (share, a.clone())]), a)
        np.testing.assert_allclose(mixed([(1 - share, a), (share, b)]), (1 - share) * a + share * b, atol=1e-6)
    third = torch.randn(50)
    np.testing.assert_allclose(mixed([(0.2, a), (0.3, b), (0.5, third)]), 0.2 * a + 0.3 * b + 0.5 * third, atol=1e-6)
    assert int(mixed([(0.5, torch.tensor(3)), (0.5, torch.tensor(7))])) == 7


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.integers(0, 2**31))
def test_a_greedy_soup_never_scores_below_its_best_member(alone, seed):
    """Whatever mixes score: a member joins only where the score does not fall."""
    names = [f"m{at}" for at in range(len(alone))]
    rng = np.random.default_rng(seed)
    scores = {frozenset(chosen): float(rng.random()) for size in range(2, len(names) + 1)
              for chosen in itertools.combinations(names, size)}
    scores |= {frozenset([name]): value for name, value in zip(names, alone)}
    soup = greedy(names, lambda mix: scores[frozenset(mix)])
    assert scores[frozenset(soup)] >= max(alone) and sum(soup.values()) == pytest.approx(1)


def test_a_soup_takes_members_that_help_and_leaves_out_those_that_hurt():
    """Members are points, the score is how near their mean is to 0: that of 1 and -1.1 is, and 9 spoils it."""
    places = {RUN: 1.0, "left": -1.1, "far": 9.0}
    found = Soup().end(Kitchen(others=("far", "left"), score=lambda mix: -abs(sum(
        share * places[name] for name, share in mix.items()))))
    assert found == {RUN: 0.5, "left": 0.5}


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """Two LoRA runs with different seeds on one tiny chat model."""
    tmp = tmp_path_factory.mktemp("lora")
    store = Store(tmp / "store")
    model = adapted(tmp, store, method=LoRA(rank=4, alpha=8))
    data = data_artifact(store, examples())
    runs = [train(model, data, Train(max_steps=4, learning_rate=2e-2, seed=seed, verify_resume=False), store=store)
            for seed in (0, 1)]
    return model, runs


def test_the_ends_of_an_adapter_are_the_base_and_the_run_bit_for_bit(lora, tmp_path):
    model, (run, _) = lora
    space = AdapterSpace(run, model, None, {})
    base, tuned = logits(open_base(model, dtype="float32")), logits(open_tuned(run, model, dtype="float32"))
    assert not torch.equal(base, tuned)
    for kind in (Wise(), LoraScale()):
        assert torch.equal(logits(space.open(kind.mix(0.0, {RUN: 1.0}))), base)
        assert torch.equal(logits(space.open(kind.mix(1.0, {RUN: 1.0}))), tuned)
        space.save(kind.mix(1.0, {RUN: 1.0}), tmp_path / kind.kind)
        assert {file.name: file.read_bytes() for file in (run.path / "best").iterdir()} == {
            file.name: file.read_bytes() for file in (tmp_path / kind.kind).iterdir()}


def test_a_scaled_adapter_is_the_interpolated_product_from_the_base(lora, tmp_path):
    model, (run, _) = lora
    space = AdapterSpace(run, model, None, {})
    whole = products(run.path / "best")
    for kind in (Wise(), LoraScale()):
        space.save(kind.mix(0.3, {RUN: 1.0}), tmp_path / kind.kind)
        for layer, product in products(tmp_path / kind.kind).items():
            torch.testing.assert_close(product, 0.3 * whole[layer], rtol=1e-5, atol=1e-7)


def test_adapters_mix_as_products_not_as_factors(lora, tmp_path):
    """Two runs, and an earlier run as the start: the sum of products, whose rank is the sum of ranks."""
    model, (first, second) = lora
    mix = {RUN: 0.4, "other": 0.6}
    AdapterSpace(first, model, None, {"other": second}).save(mix, tmp_path / "soup")
    one, two = products(first.path / "best"), products(second.path / "best")
    for layer, product in products(tmp_path / "soup", scale=1.0).items():
        torch.testing.assert_close(product, 0.4 * one[layer] + 0.6 * two[layer], rtol=1e-5, atol=1e-7)
    factors = (load_file(run.path / "best" / "adapter_model.safetensors") for run in (first, second))
    (name, a1), a2 = next(iter(next(factors).items())), next(factors)
    assert not torch.allclose(a1, a2[name])  # so that the mean of factors would have been another model
    wise = AdapterSpace(second, model, first, {})
    assert torch.equal(logits(wise.open(Wise().mix(0.0, {RUN: 1.0}))), logits(open_tuned(first, model)))
    wise.save(Wise().mix(0.25, {RUN: 1.0}), tmp_path / "wise")
    for layer, product in products(tmp_path / "wise", scale=1.0).items():
        torch.testing.assert_close(product, 0.75 * one[layer] + 0.25 * two[layer], rtol=1e-5, atol=1e-7)
    bare = wise.open(LoraScale().mix(0.0, {RUN: 1.0}))  # here the two kinds part: 0 is the base, not the earlier run
    assert torch.equal(logits(bare), logits(open_base(model)))


def test_a_rank_that_would_grow_is_cut_to_the_nearest_product():
    """Against the truncated SVD of the whole product (Eckart & Young); a rank within the limit is left as it is."""
    from luthier.train.blends._adapters import A, Adapter, B, reduced

    torch.manual_seed(0)
    config = {"r": 12, "lora_alpha": 24}
    adapter = Adapter(config, {"x" + A: torch.randn(12, 30), "x" + B: torch.randn(20, 12),
                               "y" + A: torch.randn(12, 8), "y" + B: torch.randn(5, 12)})  # y: smaller than the rank
    assert reduced(adapter, 12) is adapter
    found = reduced(adapter, 7)
    assert found.config["r"] == found.config["lora_alpha"] == 7
    for layer in "xy":
        whole = 2 * adapter.tensors[layer + B] @ adapter.tensors[layer + A]
        u, values, v = torch.linalg.svd(whole, full_matrices=False)
        wanted = (u[:, :7] * values[:7]) @ v[:7]
        assert found.tensors[layer + A].shape[0] == found.tensors[layer + B].shape[1] == 7
        torch.testing.assert_close(found.tensors[layer + B] @ found.tensors[layer + A], wanted, rtol=1e-4, atol=1e-4)


def test_full_tuning_interpolates_every_weight_and_ends_are_exact(tmp_path):
    store = Store(tmp_path / "store")
    model = adapted(tmp_path, store, method=Full())
    run = train(model, data_artifact(store, examples()), Train(max_steps=3, learning_rate=1e-2, verify_resume=False),
                store=store)
    space = FullSpace(run, model, None, {})
    base, tuned = open_base(model, dtype="float32"), open_tuned(run, model, dtype="float32")
    assert torch.equal(logits(space.open({START: 1.0})), logits(base))
    assert torch.equal(logits(space.open({RUN: 1.0})), logits(tuned))
    half = dict(space.open(Wise().mix(0.5, {RUN: 1.0})).module.named_parameters())
    theirs = dict(tuned.module.named_parameters())
    for name, value in base.module.named_parameters():
        torch.testing.assert_close(half[name].detach(), (value + theirs[name]) / 2, rtol=1e-5, atol=1e-7)
    with pytest.raises(ModelError, match="without one; take wise"):
        space.open(LoraScale().mix(0.5, {RUN: 1.0}))
    space.save({START: 1.0}, tmp_path / "start")
    again = base.method.restore(open_base(model).module, tmp_path / "start")
    assert all(torch.equal(value, dict(base.module.named_parameters())[name])
               for name, value in again.named_parameters())


def labelled(store: Store, names=LABELS, **split):
    found = [row for split_name, count in split.items()
             for row in rows(count, first=1000 * len(split_name), split=split_name, labels=names)]

    def make(folder):
        write_jsonl(folder / "examples.jsonl", found)
        write_json(folder / "labels.json", {"labels": list(names), "multi_label": False})
        return {"disjoint": "question"}

    return store.build("prepare", version=1, spec={}, inputs={"labels": list(names)}, make=make)


def test_a_labelled_model_interpolates_from_the_model_that_training_began_from(tmp_path):
    """LoRA in the backbone, a head that trains: `wise` moves both, `lora_scale` the backbone alone."""
    from luthier.progress import Silent
    from luthier.train.labelled.run import job_of

    store = Store(tmp_path / "store")
    tiny_encoder(tmp_path / "model")
    model = adapt(Task(type="classify"), Adapt(model="./model", method=LoRA(rank=4)), store=store, root=tmp_path)
    data = labelled(store, train=24, validation=9)
    spec = Train(epochs=2, batch_size=8, learning_rate=5e-3)
    run = train(model, data, spec, store=store, root=tmp_path)
    job = job_of(tmp_path / "job", model, data, spec, cache=store.cache("features"), root=tmp_path, progress=Silent(),
                 watch=None)
    space = LabelSpace(run, lambda: load_label_model(run.path / "best"), lambda: job.open(0), {}, lora=True)
    begin, tuned = space.state(START), dict(load_label_model(run.path / "best").module.state_dict())
    fresh = job.open(0)
    assert all(torch.equal(value, begin[name]) for name, value in fresh.method.merged_state(fresh.module).items())
    for share in (0.0, 0.5, 1.0):
        wise = {n: v.clone() for n, v in space.open(Wise().mix(share, {RUN: 1.0})).module.state_dict().items()}
        bare = {n: v.clone() for n, v in space.open(LoraScale().mix(share, {RUN: 1.0})).module.state_dict().items()}
        for name, value in tuned.items():
            if not value.is_floating_point():
                continue
            wanted = begin[name] + share * (value - begin[name])
            torch.testing.assert_close(wise[name], wanted, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(bare[name], wanted if name.startswith("backbone.") else value,
                                       rtol=1e-5, atol=1e-7)
            if share in (0.0, 1.0):
                assert torch.equal(wise[name], begin[name] if share == 0 else value)
    frozen = [name for name, value in tuned.items() if torch.equal(value, begin[name])]
    assert frozen  # LoRA leaves layer norms and embeddings alone
    half = space.open(Wise().mix(0.3, {RUN: 1.0})).module.state_dict()
    assert all(torch.equal(half[name], tuned[name]) for name in frozen)


def test_batch_norms_running_figures_are_interpolated_and_counts_are_the_end_points():
    from torch import nn

    from luthier.train.blends._space import mix_states

    begin, end = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    end(torch.randn(8, 3) * 3 + 5)
    states = {START: begin.state_dict(), RUN: end.state_dict()}
    half = mix_states({START: 0.5, RUN: 0.5}, states.__getitem__)
    torch.testing.assert_close(half["running_mean"], end.running_mean / 2)
    torch.testing.assert_close(half["running_var"], (begin.running_var + end.running_var) / 2)
    assert int(half["num_batches_tracked"]) == 1


def test_networks_of_other_shapes_are_refused_in_one_sentence():
    from luthier.train.blends._space import mix_states

    states = {START: {"a": torch.zeros(2)}, RUN: {"a": torch.zeros(3)}}
    with pytest.raises(ModelError, match=r"different weights \(a\)"):
        mix_states({START: 0.5, RUN: 0.5}, states.__getitem__)
