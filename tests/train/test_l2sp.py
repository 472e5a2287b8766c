"""Law: the penalty is the squared distance of the effective weights, and it holds them back by its strength."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from train_kit import adapted, data_artifact, examples, opened

from luthier.adapt.base import open_base
from luthier.adapt.full import Full
from luthier.adapt.lora import LoRA
from luthier.store import Store
from luthier.testing import check_spec
from luthier.train.base import Train, open_tuned, train
from luthier.train.regularizers import REGULARIZERS, Setting
from luthier.train.regularizers.l2sp import L2SP


def test_spec_conforms():
    check_spec(REGULARIZERS, L2SP(strength=0.5))


def test_lora_penalty_is_the_distance_of_the_merged_weights(tmp_path):
    model = opened(tmp_path, method=LoRA(rank=3, alpha=7))
    penalty = L2SP(strength=2.0).bind(Setting(model=model, rows=()))
    assert float(penalty().detach()) == 0.0
    before = {n: p.clone() for n, p in open_base(model.artifact).module.named_parameters()}
    for parameter in model.module.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    found = float(penalty().detach())
    merged = dict(model.method.merge(model.module).named_parameters())
    distance = sum(float((merged[name].detach() - old).square().sum()) for name, old in before.items())
    assert found == pytest.approx(2.0 / 2 * distance, rel=1e-4)


@pytest.mark.parametrize("method", [LoRA(), Full()])
def test_strength_holds_the_weights_back_and_zero_is_absence(tmp_path, method):
    store = Store(tmp_path / "store")
    model = adapted(tmp_path, store, method=method)
    data = data_artifact(store, examples())
    base = dict(open_base(model).module.named_parameters())

    def distance(regularizers):
        run = train(model, data, Train(max_steps=8, learning_rate=5e-3, regularizers=regularizers, verify_resume=False,
                                       validate_every=8), store=store)
        tuned = open_tuned(run, model)
        merged = dict(tuned.method.merge(tuned.module).named_parameters())
        moved = sum(float((merged[n].detach() - p).square().sum()) for n, p in base.items())
        return moved, load_file(next((run.path / "best").glob("*.safetensors")))

    free, weak, strong = distance(()), distance((L2SP(strength=0.0),)), distance((L2SP(strength=300.0),))
    assert all(torch.equal(free[1][key], weak[1][key]) for key in free[1])
    assert strong[0] < 0.5 * free[0]
