"""Law: one update is the gradient of the mean over its supervised tokens, however it is cut into passes or ranks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_kit import chat, opened

from luthier.errors import ModelError
from luthier.testing import tiny_chat_model
from luthier.train import attention, runtime
from luthier.train.batches import Order, TextFeed
from luthier.train.fit import Learner, fit
from luthier.train.objectives import Chunked, bare
from luthier.train.optim import MasterAdamW
from luthier.train.render import render


def learner(model, **options):
    attention.register()
    bare(model.module).set_attn_implementation(attention.NAME)
    parameters = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    return Learner(model.module, Chunked(model.module), MasterAdamW(parameters, weight_decay=0.0),
                   options.pop("where", runtime.start()),
                   feed=TextFeed(options.pop("layout", "packed"), options.pop("pass_tokens", 4096)),
                   **{"clip_norm": 0.0, **options})


def rendered(model, weight=1.0):
    return [render(model.tokenizer, chat(n, answer="word " * (1 + 6 * n), weight=weight if n == 2 else 1.0),
                   stop_id=model.stop_ids[0]) for n in range(4)]


def gradient(found, items):
    loss, _, passes = found.gradients(items)
    flat = torch.cat([g.flatten() for g in found.optimizer.gradients()])
    found.optimizer.adam.zero_grad(set_to_none=True)
    return loss, flat, len(passes)


def test_passes_of_any_size_give_the_gradient_of_the_token_mean(tmp_path):
    model = opened(tmp_path)
    items = rendered(model)
    parameters = [p for p in model.module.parameters() if p.requires_grad]
    sums, count = 0.0, 0
    for item in items:  # transformers' own loss, by hand
        ids = torch.tensor([item.ids])
        labels = torch.where(torch.tensor([item.loss]), ids, -100)
        sums = sums + model.module(input_ids=ids, labels=labels).loss * item.num_supervised
        count += item.num_supervised
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(sums / count, parameters)])
    for layout, tokens in (("packed", 4096), ("packed", 150), ("buckets", 400), ("none", 1)):
        loss, flat, number = gradient(learner(model, layout=layout, pass_tokens=tokens), items)
        assert loss == pytest.approx(float(sums.detach()) / count, rel=1e-5), layout
        torch.testing.assert_close(flat, wanted, rtol=1e-3, atol=1e-6)
        assert number == (1 if tokens == 4096 else number) and (number > 1 or tokens == 4096)


def test_a_weight_counts_like_copies(tmp_path):
    model = opened(tmp_path)
    heavy, plain = rendered(model, weight=2.0), rendered(model)
    found = learner(model)
    loss, flat, _ = gradient(found, heavy)
    copied, wanted, _ = gradient(found, [*plain, plain[2]])
    assert loss == pytest.approx(copied, rel=1e-5)
    torch.testing.assert_close(flat, wanted, rtol=1e-3, atol=1e-6)


def test_stopping_to_iterate_stops_training(tmp_path):
    model = opened(tmp_path)
    items = rendered(model)
    plan = Order(tuple(len(i.ids) for i in items), (), (), 2, 0, "packed")
    steps = fit(learner(model), items, plan, total=10, rate=lambda step: 1e-3)
    assert [next(steps).step, next(steps).epoch, next(steps).epoch] == [1, 0, 1]
    before = {n: p.clone() for n, p in model.module.named_parameters()}
    steps.close()
    assert all(torch.equal(before[n], p) for n, p in model.module.named_parameters())


def test_a_loss_that_is_no_number_changes_no_weight(tmp_path):
    model = opened(tmp_path)
    found = learner(model)
    before = found.optimizer.weights()
    right = found.objective
    found.objective = lambda batch, total: right(batch, total) * float("nan")
    with pytest.raises(ModelError, match="diverged at update 7"):
        found.update(rendered(model), learning_rate=1e-3, step=7, epoch=0)
    assert all(torch.equal(before[n], w) for n, w in found.optimizer.weights().items())


RANK = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
from train_kit import opened
from test_learner import learner, rendered
from luthier.train import runtime
where = runtime.start()
model = opened(Path(sys.argv[1]) / str(where.rank))
found = learner(model, where=where, pass_tokens=150, clip_norm=1.0)
done = [found.update(rendered(model), learning_rate=1e-2, step=step, epoch=0) for step in range(3)]
torch.save((where.ranks, [d.loss for d in done], found.optimizer.weights(), found.evaluate(rendered(model))),
           Path(sys.argv[1]) / f"rank{{where.rank}}.pt")
"""


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    for rank in ("0", "1"):  # transformers saves on the first rank only, so the models are made here
        tiny_chat_model(tmp_path / rank / "model-")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(tests=str(Path(__file__).parent)))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
           "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    ranks = [subprocess.Popen([sys.executable, str(script), str(tmp_path)],
                              env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    alone = opened(tmp_path / "alone")
    single = learner(alone, pass_tokens=150, clip_norm=1.0)
    losses = [single.update(rendered(alone), learning_rate=1e-2, step=step, epoch=0).loss for step in range(3)]
    for rank in range(2):
        ranks_seen, found, weights, validation = torch.load(tmp_path / f"rank{rank}.pt")
        assert ranks_seen == 2 and found == pytest.approx(losses, rel=1e-4)
        assert validation == pytest.approx(single.evaluate(rendered(alone)), rel=1e-3)
        for name, weight in single.optimizer.weights().items():
            torch.testing.assert_close(weights[name], weight, rtol=1e-2, atol=1e-4)
