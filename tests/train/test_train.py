"""Law: training learns, keeps the best, resumes bit for bit, and fails in one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_kit import WORDS, adapted, chat, data_artifact, examples

from luthier.adapt.base import Adapt, adapt, open_base, open_model
from luthier.adapt.export import export_merged
from luthier.adapt.full import Full
from luthier.adapt.lora import LoRA
from luthier.errors import DataError, ModelError
from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train, open_tuned, train
from luthier.train.batches import collate
from luthier.train.objectives import Plain
from luthier.train.render import render


def weights(run):
    return load_file(next((run.path / "best").glob("*.safetensors")))


def learned(tuned, rows) -> int:
    """How many rows the model answers word for word, stop token included."""
    right = 0
    for row in rows:
        found = render(tuned.tokenizer, row, stop_id=tuned.stop_ids[0])
        start = found.loss.index(True)
        written = tuned.module.generate(input_ids=torch.tensor([found.ids[:start]]), max_new_tokens=20, do_sample=False,
                                        pad_token_id=0, eos_token_id=tuned.stop_ids[0])[0, start:]
        right += written.tolist() == list(found.ids[start:])
    return right


@pytest.mark.slow
def test_a_tiny_model_memorises_twenty_answers_and_lora_replaces_them(tmp_path):
    """Full tuning of random weights learns 20 answers; LoRA on the exported result learns 20 other answers."""
    store = Store(tmp_path / "store")
    first = [chat(n, answer=f"{WORDS[n % 10]}{WORDS[n * 7 % 10]}") for n in range(20)]
    second = [chat(n, answer=f"{WORDS[n * 3 % 10]} {WORDS[n // 10]}") for n in range(20)]
    full = adapted(tmp_path, store, method=Full(), hidden=128)
    run = train(full, data_artifact(store, first, "first"),
                Train(epochs=45, learning_rate=3e-3, warmup_share=0.1), store=store)
    assert learned(open_tuned(run, full), first) >= 19
    export_merged(run, full, tmp_path / "learned")
    lora = adapt(Task(), Adapt(model=str(tmp_path / "learned"), method=LoRA(rank=16), dtype="float32"), store=store)
    run = train(lora, data_artifact(store, second, "second"), Train(epochs=45, learning_rate=8e-3), store=store)
    assert learned(open_base(lora), first) >= 19  # the base is untouched
    assert learned(open_tuned(run, lora), second) >= 19


def test_the_same_call_is_a_cache_hit_and_the_same_seed_gives_the_same_weights(tmp_path):
    runs = []
    for name in ("a", "b"):
        store = Store(tmp_path / name)
        model = adapted(tmp_path, store, method=LoRA(dropout=0.1))
        data = data_artifact(store, examples())
        runs.append(train(model, data, Train(max_steps=4, seed=3), store=store))
        assert not train(model, data, Train(max_steps=4, seed=3), store=store).fresh
    assert runs[0].id == runs[1].id
    one, two = weights(runs[0]), weights(runs[1])
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_validation_chooses_the_best_weights_and_stops_early(tmp_path):
    store = Store(tmp_path / "store")
    rows = examples(16, 6)
    model = adapted(tmp_path, store, method=LoRA(rank=32))
    spec = Train(epochs=60, learning_rate=2e-2, validate_every=2, patience=2, schedule="constant")
    run = train(model, data_artifact(store, rows), spec, store=store)
    steps = [json.loads(line) for line in (run.path / "steps.jsonl").read_text().splitlines()]
    measured = {step["step"]: step["validation"] for step in steps if step["validation"] is not None}
    best = min(measured, key=measured.get)
    assert run.summary["best_step"] == best and run.summary["stopped_early"] and len(measured) >= 3
    tuned = open_tuned(run, model)
    total = count = 0.0
    for row in rows[16:22]:  # the kept weights give the loss that was recorded, by the model's own logits
        found = render(tuned.tokenizer, row, stop_id=tuned.stop_ids[0])
        total += float(Plain(tuned.module)(collate([found], "none"), 1.0).detach())
        count += found.num_supervised
    assert total / count == pytest.approx(run.summary["validation_best"], rel=1e-4)


def test_training_that_never_helps_keeps_the_base_and_says_so(tmp_path):
    store = Store(tmp_path / "store")
    model = adapted(tmp_path, store, method=Full())
    run = train(model, data_artifact(store, examples()),
                Train(max_steps=3, learning_rate=1.0, validate_every=1, warmup_share=0.0), store=store)
    assert run.summary["best_step"] == 0 and "untrained" in run.summary["note"]
    kept, base = open_tuned(run, model).module.state_dict(), open_base(model).module.state_dict()
    assert all(torch.equal(kept[name], base[name]) for name in base)


def test_a_loss_that_is_no_number_stops_in_one_sentence(tmp_path):
    store = Store(tmp_path / "store")
    with pytest.raises(ModelError, match=r"diverged at update \d+.*learning rate"):
        train(adapted(tmp_path, store, method=Full()), data_artifact(store, examples()),
              Train(learning_rate=1e30, clip_norm=0.0, warmup_share=0.0, verify_resume=False), store=store)


def test_no_train_examples_is_a_data_error(tmp_path):
    store = Store(tmp_path / "store")
    with pytest.raises(DataError, match="no train examples"):
        train(adapted(tmp_path, store), data_artifact(store, [chat(1, split="test")]), Train(), store=store)


def test_tensorboard_events_hold_the_losses(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store = Store(tmp_path / "store")
    run = train(adapted(tmp_path, store), data_artifact(store, examples()), Train(max_steps=4), store=store)
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    steps = [json.loads(line) for line in (run.path / "steps.jsonl").read_text().splitlines()]
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx([s["loss"] for s in steps])
    assert events.Scalars("validation/loss")


def test_layouts_and_passes_train_to_the_same_loss(tmp_path):
    store = Store(tmp_path / "store")
    losses = {}
    for packing, tokens in (("packed", 4096), ("packed", 128), ("none", 4096)):
        run = train(adapted(tmp_path, store), data_artifact(store, examples()),
                    Train(max_steps=6, packing=packing, pass_tokens=tokens), store=store)
        losses[packing, tokens] = run.summary["validation_best"]
    assert max(losses.values()) - min(losses.values()) < 1e-4, losses


def test_recomputed_layers_give_the_same_weights(tmp_path):
    store = Store(tmp_path / "store")
    found = [weights(train(adapted(tmp_path, store), data_artifact(store, examples()),
                           Train(max_steps=3, recompute=recompute), store=store)) for recompute in (False, True)]
    for key in found[0]:
        torch.testing.assert_close(found[0][key], found[1][key], rtol=1e-3, atol=1e-4)


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from train_kit import adapted, data_artifact, examples
from luthier.adapt.lora import LoRA
from luthier.store import Store
from luthier.train import streams
from luthier.train.base import Train, train
tmp, dtype, slow = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
store = Store(tmp / "store")
right = streams.counted
def slowly(steps, memory):
    for done in right(steps, memory):
        print("step", done.step, flush=True)
        time.sleep(slow)
        yield done
streams.counted = slowly
run = train(adapted(tmp, store, method=LoRA(dropout=0.1), dtype=dtype), data_artifact(store, examples(24, 4)),
            Train(epochs=4, validate_every=5, checkpoint_every_s=0.001), store=store)
print(run.path)
"""


def start(tmp: Path, dtype: str, slow: float) -> subprocess.Popen:
    script = tmp / "run.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    return subprocess.Popen([sys.executable, str(script), str(tmp), dtype, str(slow)], stdout=subprocess.PIPE,
                            text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def read_until(process: subprocess.Popen, line: str) -> None:
    assert process.stdout is not None
    for found in process.stdout:
        if found.startswith(line):
            return
    raise AssertionError(f"the run ended before {line!r}")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, dtype):
    (tmp_path / "straight").mkdir()
    (tmp_path / "broken").mkdir()
    straight = start(tmp_path / "straight", dtype, 0)
    broken = start(tmp_path / "broken", dtype, 0.2)
    read_until(broken, "step 5")  # inside the second epoch of three updates each
    broken.send_signal(signal.SIGKILL)
    broken.wait()
    asked = start(tmp_path / "broken", dtype, 0.2)
    read_until(asked, "step 8")
    asked.send_signal(signal.SIGTERM)  # saves after the update at hand
    assert asked.wait(60) == 128 + signal.SIGTERM
    resumed = start(tmp_path / "broken", dtype, 0)
    paths = [Path(process.communicate(timeout=120)[0].splitlines()[-1]) for process in (straight, resumed)]
    one, two = (load_file(path / "best" / "adapter_model.safetensors") for path in paths)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    logs = [[json.loads(line) for line in (path / "steps.jsonl").read_text().splitlines()] for path in paths]
    for a, b in zip(*logs, strict=True):
        assert (a["step"], a["loss"], a["validation"]) == (b["step"], b["loss"], b["validation"])
    summaries = [json.loads((path / "DONE").read_text()) for path in paths]
    assert summaries[0]["tokens"] == summaries[1]["tokens"]
    assert "continuing" not in summaries[0] and not list(paths[1].glob("checkpoint*"))


def test_a_run_of_another_model_is_refused(tmp_path):
    store = Store(tmp_path / "store")
    run = train(adapted(tmp_path, store), data_artifact(store, examples()), Train(max_steps=1), store=store)
    with pytest.raises(ModelError, match="was trained from"):
        open_tuned(run, adapted(tmp_path, store, seed=5))


def test_the_untrained_adapter_answers_as_the_base(tmp_path):
    store = Store(tmp_path / "store")
    artifact = adapted(tmp_path, store)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(open_model(artifact).module(ids).logits, open_base(artifact).module(ids).logits)
