"""Progressive networks (Rusu et al. 2016): what a column computes, what may train, what never changes, what is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from luthier.adapt.backbones.base import Row
from luthier.adapt.base import Adapt, adapt
from luthier.adapt.columns import FLAT, ProgressiveNetwork
from luthier.adapt.grow import grown
from luthier.adapt.grow_columns import as_column, finished, with_column
from luthier.adapt.head import Head
from luthier.adapt.labelled import load_label_model, open_label_model, save_label_model
from luthier.adapt.lateral import Lateral
from luthier.adapt.lora import LoRA
from luthier.adapt.network import LabelModel
from luthier.adapt.predict import features, logits, probabilities
from luthier.adapt.router import Router, centroids_of, limit_of
from luthier.errors import ModelError
from luthier.store import Store
from luthier.task import Task
from luthier.testing import tiny_encoder

TASKS = {"letters": ("a", "b"), "digits": ("1", "2", "3"), "signs": ("!", "?")}
EVERY = tuple(label for labels in TASKS.values() for label in labels)


class Shop:
    """Opens fresh base models: a tiny BERT or a small network on pixels."""

    def __init__(self, folder: Any, kind: str, *, dropout: float = 0.1, method: Any = None):
        self.kind, self.folder = kind, folder
        task = Task(type="image" if kind == "full" else "classify")
        if kind == "adapter":
            tiny_encoder(folder / "model", dropout=dropout)
        spec = Adapt(model="mlp:12x10" if kind == "full" else "./model", head=Head(dropout=dropout),
                     image_size=16 if kind == "full" else None, **({"method": method} if method else {}))
        self.adapted = adapt(task, spec, store=Store(folder / "store"), root=folder)

    def fresh(self, seed: int = 0) -> LabelModel:
        return open_label_model(self.adapted, EVERY, seed=seed)

    def column(self, old: LabelModel | None, name: str, *, reads: int = 8, seed: int = 0) -> LabelModel:
        return with_column(old, self.fresh(seed), name, TASKS[name], reads=reads, seed=seed,
                           adapter=LoRA(rank=4) if self.kind == "adapter" else None)

    def rows(self, num: int = 6, seed: int = 0) -> list[Row]:
        rng = np.random.default_rng(seed)
        if self.kind == "full":
            return [Row(f"r{at}", rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), 1) for at in range(num)]
        sizes = rng.integers(4, 12, num)
        return [Row(f"r{at}", (1, *map(int, rng.integers(5, 200, size)), 2), int(size) + 2)
                for at, size in enumerate(sizes)]


@pytest.fixture(params=["full", "adapter"])
def shop(request, tmp_path):
    return Shop(tmp_path, request.param)


def shaken(model: LabelModel, seed: int) -> LabelModel:
    """As training would leave it: everything that may train has moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def grow_all(shop: Shop, *, reads: int = 8) -> tuple[LabelModel, dict[str, torch.Tensor]]:
    """Three columns, and what each answered when it was finished."""
    old, said = None, {}
    for at, name in enumerate(TASKS):
        old = shaken(shop.column(old, name, reads=reads, seed=at), at)
        said[name] = torch.from_numpy(logits(old, shop.rows()))
    assert old is not None
    return old, said


def network_of(model: LabelModel) -> ProgressiveNetwork:
    assert isinstance(model.module, ProgressiveNetwork)
    return model.module


def alone(model: LabelModel, name: str) -> LabelModel:
    """One column's own answers."""
    network = network_of(model)
    return model.but(module=network.view(network.names.index(name)), labels=TASKS[name])


def test_what_older_columns_answer_never_changes_by_a_bit_not_even_when_saved_and_loaded(shop, tmp_path):
    model, said = grow_all(shop)
    whole = finished(model, EVERY, None)
    save_label_model(whole, tmp_path / "saved")
    again = load_label_model(tmp_path / "saved")
    for name, wanted in said.items():
        assert torch.equal(torch.from_numpy(logits(alone(whole, name), shop.rows())), wanted), name
        assert torch.equal(torch.from_numpy(logits(alone(again, name), shop.rows())), wanted), name
    np.testing.assert_array_equal(logits(again, shop.rows()), logits(whole, shop.rows()))
    assert again.parts == whole.parts == TASKS and again.labels == EVERY


def test_only_the_new_columns_parameters_may_train_and_every_one_of_them_gets_a_gradient(shop):
    old = shaken(shop.column(None, "letters"), 1)
    new = shop.column(old, "digits", seed=1)
    before = {name: value.clone() for name, value in new.module.state_dict().items()}
    optimizer = torch.optim.SGD([value for value in new.module.parameters() if value.requires_grad], lr=0.1)
    new.module.train()
    for _ in range(2):  # an adapter's first factor moves once its second one is no longer zero
        optimizer.zero_grad()
        inputs = new.processor.batch(shop.rows())
        torch.nn.functional.cross_entropy(new.module(inputs), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
        optimizer.step()
    learned = {name for name, value in new.module.named_parameters() if value.requires_grad}
    still = [name for name in learned if not new.module.get_parameter(name).grad.abs().sum() > 0]
    assert not still
    moved = {name for name, value in new.module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved <= learned and any(".reads." in name for name in moved)
    theirs = "columns.1." if shop.kind == "full" else (".down.1.", ".up.1.", "columns.1.")
    assert all(any(part in name for part in ([theirs] if isinstance(theirs, str) else theirs)) for name in learned)


def test_groups_hold_what_trains_exactly_once_and_name_real_parameters(shop):
    model = shop.column(shop.column(None, "letters"), "digits")
    names = [name for held in model.groups.values() for name in held]
    training = {name for name, value in model.module.named_parameters() if value.requires_grad}
    assert len(names) == len(set(names)) and training <= set(names) <= set(dict(model.module.named_parameters()))
    assert [*model.groups][-1] == "head" and any("reads.head" in name for name in model.groups["head"])
    if shop.kind == "full":
        assert any("reads.layer_1" in name for name in model.groups["layer.001"])


def test_a_column_computes_the_papers_equation(tmp_path):
    """h_i = relu(W_i h_{i-1} + b_i + Σ U relu(V [α h_{i-1} of the older columns])), in float64."""
    shop = Shop(tmp_path, "full")
    model, _ = grow_all(shop)
    network = network_of(model)
    state = {name: value.double() for name, value in network.state_dict().items()}
    value = model.processor.batch(shop.rows())["pixels"].flatten(1).double()
    said: list[list[torch.Tensor]] = []
    for at in range(3):
        layers, below = [], value
        for layer in range(2):
            own = below @ state[f"columns.{at}.backbone.layers.{layer}.weight"].T \
                + state[f"columns.{at}.backbone.layers.{layer}.bias"]
            if at and layer:
                own = own + _read(state, at, f"layer_{layer}", [older[layer - 1] for older in said])
            below = own.relu()
            layers.append(below)
        said.append(layers)
    wanted = said[2][-1] @ state["columns.2.head.1.weight"].T + state["columns.2.head.1.bias"] \
        + _read(state, 2, "head", [older[-1] for older in said[:2]])
    np.testing.assert_allclose(logits(alone(model, "signs"), shop.rows()), wanted.numpy(), atol=1e-4)


def _read(state: dict[str, torch.Tensor], at: int, where: str, layers: list[torch.Tensor]) -> torch.Tensor:
    scales = state[f"columns.{at}.reads.{where}.scales"]
    scaled = torch.cat([scale * layer for scale, layer in zip(scales, layers)], -1)
    return (scaled @ state[f"columns.{at}.reads.{where}.down.weight"].T).relu() \
        @ state[f"columns.{at}.reads.{where}.up.weight"].T


def test_an_adapter_column_computes_what_merged_weights_compute(tmp_path):
    """W + alpha / rank · B A in every adapted layer of a plain BERT gives the same features."""
    shop = Shop(tmp_path, "adapter")
    model = shaken(shop.column(None, "letters"), 3)
    plain = shop.fresh()
    state = model.module.state_dict()
    with torch.no_grad():
        for name, layer in plain.module.backbone.named_modules():
            if f"base.{name}.down.0.weight" in state:
                layer.weight += 32 / 4 * state[f"base.{name}.up.0.weight"] @ state[f"base.{name}.down.0.weight"]
    np.testing.assert_allclose(features(model, shop.rows()), features(plain, shop.rows()), atol=1e-4)


def test_fresh_peft_adapters_are_taken_out_and_the_base_stays_the_base(tmp_path):
    shop = Shop(tmp_path, "adapter", method=LoRA(rank=2))
    model = finished(shaken(shop.column(None, "letters"), 0), TASKS["letters"], None)
    bare = Shop(tmp_path / "bare", "adapter").fresh()
    np.testing.assert_array_equal(features(model, shop.rows()), features(bare, shop.rows()))
    assert not any("lora" in name for name, _ in model.module.named_parameters())


def test_dropout_of_a_column_that_trains_does_not_touch_what_it_reads(tmp_path):
    shop = Shop(tmp_path, "adapter", dropout=0.4)
    model = shop.column(shaken(shop.column(None, "letters"), 0), "digits")
    inputs = model.processor.batch(shop.rows())
    width = model.module.backbone.width
    model.module.eval()
    quiet = model.module.features(inputs)
    model.module.train()
    noisy = model.module.features(inputs)
    assert torch.equal(noisy[:, :width], quiet[:, :width]) and not torch.equal(noisy[:, width:], quiet[:, width:])


def test_without_reads_a_column_stands_alone_and_runs_alone(shop):
    model, _ = grow_all(shop, reads=0)
    assert not any(".reads." in name for name, _ in model.module.named_parameters())
    assert features(model, shop.rows()).shape[1] == model.module.backbone.width


def test_a_model_trained_before_becomes_the_first_column_and_answers_as_it_did(shop):
    before = shop.fresh(4).but(labels=EVERY)
    said = logits(before, shop.rows())
    first = as_column(before, "before", shared=shop.kind == "adapter")
    both = with_column(first, shop.fresh(1), "more", ("x", "y"), reads=4, seed=0,
                       adapter=LoRA(rank=4) if shop.kind == "adapter" else None)
    network = network_of(shaken(both, 0))
    np.testing.assert_array_equal(logits(both.but(module=network.view(0), labels=EVERY), shop.rows()), said)
    with pytest.raises(ModelError, match="size"):
        as_column(both, "again", shared=shop.kind != "adapter")
    with pytest.raises(ModelError, match="progressive"):
        grown(finished(both, (*EVERY, "x", "y"), None), EVERY)


def test_full_columns_of_another_shape_are_refused(tmp_path):
    shop = Shop(tmp_path, "full")
    other = adapt(Task(type="image"), Adapt(model="mlp:6x6"), store=Store(tmp_path / "store"), root=tmp_path)
    with pytest.raises(ModelError, match="another shape"):
        with_column(shop.column(None, "letters"), open_label_model(other, EVERY), "digits", TASKS["digits"], reads=0,
                    adapter=None, seed=0)


def routed(model: LabelModel, owners: np.ndarray, rows: list[Row], *, error: float = 0.1, limit: float = -1.0
           ) -> LabelModel:
    """The finished model with a router that sends these rows to these columns."""
    network = network_of(model)
    network.active = None
    values = features(model, rows)
    router = Router.of([centroids_of(values[owners == at], [str(n) for n in range(int((owners == at).sum()))])
                        for at in range(3)], [limit] * 3, error)
    return finished(model, EVERY, router)


def test_without_a_task_each_row_is_answered_by_its_column_and_the_rest_is_the_routers_error(shop):
    model, said = grow_all(shop)
    rows, owners = shop.rows(), np.array([0, 1, 2, 0, 1, 2])
    chances = probabilities(logits(routed(model, owners, rows), rows))
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-6)
    for at, owner in enumerate(owners):
        name = [*TASKS][owner]
        mine = np.isin(EVERY, TASKS[name])
        own = probabilities(said[name][at : at + 1].numpy())[0]
        np.testing.assert_allclose(chances[at, mine], 0.9 * own, atol=1e-5)
        np.testing.assert_allclose(chances[at, ~mine], 0.1 / (~mine).sum(), atol=1e-5)


def test_a_row_out_of_scope_is_answered_evenly_in_the_same_order(shop):
    model, _ = grow_all(shop)
    rows, owners = shop.rows(), np.array([0, 1, 2, 0, 1, 2])
    inside = logits(routed(model, owners, rows), rows)
    outside = logits(routed(model, owners, rows, limit=1.5), rows)
    np.testing.assert_allclose(outside, FLAT * inside, atol=1e-6)
    assert probabilities(outside).max() < 1.02 / len(EVERY)


def test_without_a_router_the_answer_is_the_mean_of_the_columns_probabilities(shop):
    model, said = grow_all(shop)
    wanted = np.concatenate([probabilities(said[name].numpy()) / 3 for name in TASKS], axis=1)
    found = probabilities(logits(finished(model, EVERY, None), shop.rows()))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_rows_whose_task_is_named_are_answered_by_its_column_alone(shop):
    model, said = grow_all(shop)
    whole = finished(model, EVERY, None)
    rows = [row.but(part=name) for row, name in zip(shop.rows(), [*TASKS, *TASKS])]
    found = logits(whole, rows)
    for at, row in enumerate(rows):
        mine = np.isin(EVERY, TASKS[row.part])
        np.testing.assert_allclose(found[at, mine], said[row.part][at].numpy(), rtol=1e-4, atol=1e-4)
        assert probabilities(found[at])[~mine].max() == 0
    with pytest.raises(ModelError, match="no task 'music'"):
        logits(whole, [rows[0].but(part="music")])


def test_columns_may_share_labels(shop):
    first = shaken(shop.column(None, "letters"), 0)
    both = shaken(with_column(first, shop.fresh(1), "again", ("b", "a"), reads=0, seed=1,
                              adapter=LoRA(rank=4) if shop.kind == "adapter" else None), 1)
    whole = finished(both, ("a", "b"), None)
    one, two = (probabilities(logits(both.but(module=network_of(both).view(at)), shop.rows())) for at in (0, 1))
    np.testing.assert_allclose(probabilities(logits(whole, shop.rows())), (one + two[:, ::-1]) / 2, atol=1e-5)


def test_a_lateral_begins_small_and_reads_every_older_column():
    torch.manual_seed(0)
    read = Lateral([5, 7], 3, 4)
    layers = [torch.rand(2, 5, requires_grad=True), torch.rand(2, 7, requires_grad=True)]
    read(layers).square().sum().backward()
    assert all(layer.grad.abs().sum() > 0 for layer in layers) and (read.scales.grad != 0).all()
    with torch.no_grad():
        assert float(read(layers).abs().max()) < 0.2 and float(read.scales.min()) > 0


def test_centroids_are_mean_directions_and_the_limit_leaves_the_share_of_rows_below():
    values = np.array([[2.0, 0], [4.0, 0], [0, 1], [1, 1], [-3.0, 0]])
    found = centroids_of(values, ["x", "x", "y", "y", "z"])
    middle = np.array([0, 1]) + np.array([1, 1]) / np.sqrt(2)
    np.testing.assert_allclose(found, [[1, 0], middle / np.linalg.norm(middle), [-1, 0]], atol=1e-6)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 8)) + 1
    centroid = centroids_of(rows, ["all"] * 400)
    limit = limit_of(centroid, rows, 0.05)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert abs(float((unit @ centroid[0] < limit).mean()) - 0.05) < 0.01
    assert limit_of(centroid, rows, 0.0) == -1.0


def test_the_router_of_parts_is_the_router():
    router = Router.of([np.eye(3, dtype=np.float32)[:1], np.eye(3, dtype=np.float32)[1:]], [0.2, -0.1], 0.25)
    again = Router.of(*router.parts(), error=float(router.error))
    assert all(torch.equal(a, b) for a, b in zip(router.state_dict().values(), again.state_dict().values()))
    column, inside = router(torch.tensor([[3.0, 0, 1], [0, -1.0, -1], [0, 0, 2.0]]))
    assert column.tolist() == [0, 0, 1] and inside.tolist() == [True, False, True]
