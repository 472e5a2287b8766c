"""Speed on one CPU core against the Hugging Face Trainer's defaults: banking77, starter:encoder.

    python benchmarks/label_speed.py [--rounds 3] [--updates 24] [--whole]

Full fine-tuning: both sides train the same network shape on rows drawn from the same 8,964, float32, at 32 rows an
update, one configuration per process, in alternation; examples per CPU second, warm-up left out. Head only, end to end
(`--whole`): our head-only training from rows to test accuracy, against one epoch of the Trainer with its defaults,
whose accuracy and CPU seconds are measured too. One epoch is the least it could need, so the ratio is a lower bound.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

import common

RATE = 5e-5  # the Trainer's default


def rows(limit: int | None = None):
    import label_common as lab

    from luthier.store import Store
    from luthier.task import Task

    store, task = Store(lab.scratch("speed")), Task(type="classify")
    data = lab.tables(store, task, [{"kind": "rows", "path": "banking77/train.csv"},
                                    {"kind": "rows", "path": "banking77/test.csv", "split": "test"}])
    return store, data, lab.base(store, task), lab.splits(data)


def luthier(updates: int) -> dict:
    """Examples per CPU second of our loop, features and contract left out."""
    import label_common as lab

    from luthier.train.base import Train
    from luthier.train.seams import Pruned

    store, data, model, _ = rows()
    seen: list = []

    def watch(done) -> None:
        seen.append(done)
        if len(seen) == updates:
            raise Pruned

    spec = Train(epochs=1, batch_size=32, learning_rate=RATE, schedule="linear", warmup_share=0.0, precision="float32",
                 validate_every=10_000, verify_resume=False, seed=time.time_ns() % 10_000)
    with contextlib.suppress(Pruned):
        lab.train(model, data, spec, store=store, root=common.data_folder(), progress=lab.QUIET, watch=watch)
    warm = seen[len(seen) // 4:]
    return {"examples_per_cpu_s": sum(d.examples for d in warm) / sum(d.cpu_s for d in warm), "loss": warm[-1].loss,
            "updates": len(warm)}


def trainer(updates: int, whole: bool = False) -> dict:
    """The Trainer with its defaults (batch 8 of them replaced by 32, for equal updates), dynamic padding."""
    import numpy as np
    import torch
    import transformers
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    from luthier.models.sources import resolve

    transformers.utils.logging.set_verbosity_error()
    _, _, _, (labels, examples, right) = rows()
    folder = resolve("starter:encoder", purpose="encoder").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels), dtype=torch.float32)

    def encode(split):
        ids = tokenizer([e.input for e in examples[split]], truncation=True)
        return Dataset.from_dict({"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"],
                                  "labels": right[split].tolist()})

    class Clock(transformers.TrainerCallback):
        times: list = []

        def on_step_end(self, args, state, control, **kwargs):
            self.times.append(common.cpu_seconds())

    out = "/tmp/luthier-hf-speed"
    options = {"num_train_epochs": 1} if whole else {"max_steps": updates, "per_device_train_batch_size": 32}
    arguments = TrainingArguments(output_dir=out, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
                                  logging_strategy="no", **options)
    cpu = common.cpu_seconds()
    train = encode("train")
    one = Trainer(model=model, args=arguments, train_dataset=train, processing_class=tokenizer, callbacks=[Clock()])
    one.train()
    used = common.cpu_seconds() - cpu
    size = arguments.per_device_train_batch_size
    kept = Clock.times[len(Clock.times) // 4:]
    found = {"examples_per_cpu_s": size * (len(kept) - 1) / (kept[-1] - kept[0]), "cpu_s": used,
             "updates": len(Clock.times)}
    if whole:
        model.eval()
        logits = one.predict(encode("test")).predictions
        found |= {"accuracy": float((np.argmax(logits, -1) == right["test"]).mean()), "n": len(right["test"])}
    return found


def head() -> dict:
    """Head-only, end to end, in a fresh store: features, contract, logistic regression, training, test."""
    import shutil

    import label_common as lab

    from luthier.store import Store
    from luthier.task import Task
    from luthier.train.base import Train
    from luthier.train.plans.head import HeadOnly

    _, data, _, _ = rows()
    folder = lab.scratch("speed-head")
    shutil.rmtree(folder)
    store = Store(lab.scratch("speed-head"))
    model = lab.base(store, Task(type="classify"))
    return lab.bare(lab.fitted(store, model, data, Train(plan=HeadOnly(), epochs=3)))


def child(side: str, updates: int) -> dict:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, __file__, "--side", side, "--updates", str(updates)], env=environment,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def project_head() -> None:
    """Our head-only training end to end, against what the Trainer's default three epochs cost at its measured rate."""
    path = common.HERE / "results" / "label_speed.json"
    result = json.loads(path.read_text("utf-8"))
    mine = child("head", 0)
    rates = [pair["trainer"]["examples_per_cpu_s"] for pair in result["full"]["rounds"]]
    rate = sum(rates) / len(rates)
    train = len(rows()[3][1]["train"])
    cost = 3 * train / rate
    result["head_only"] = {"luthier": mine, "train_rows": train, "trainer_examples_per_cpu_s": rate,
                           "trainer_three_epochs_cpu_s": round(cost, 1), "projected": True,
                           "ratio": cost / mine["cpu_s"]}
    print(f"head only: {mine['accuracy']:.4f} in {mine['cpu_s']:.0f} CPU s; the Trainer's three epochs at "
          f"{rate:.1f} examples per CPU s: {cost:.0f} CPU s: {cost / mine['cpu_s']:.1f} x")
    print(f"saved {common.save('label_speed', result)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=24)
    parser.add_argument("--whole", action="store_true", help="also the head-only comparison, end to end")
    parser.add_argument("--head", action="store_true", help="only our side of the head-only comparison; the Trainer's "
                        "is its measured rate (the saved rounds) times its default of three epochs")
    parser.add_argument("--side", choices=["luthier", "trainer", "whole", "head"])
    told = parser.parse_args()
    if told.side:
        found = {"luthier": lambda: luthier(told.updates), "trainer": lambda: trainer(told.updates),
                 "whole": lambda: trainer(0, whole=True), "head": head}[told.side]()
        print(json.dumps(found))
        return
    if told.head:
        project_head()
        return
    rounds = []
    for number in range(told.rounds):
        pair = {side: child(side, told.updates) for side in ("trainer", "luthier")}
        pair["ratio"] = pair["luthier"]["examples_per_cpu_s"] / pair["trainer"]["examples_per_cpu_s"]
        rounds.append(pair)
        print(f"round {number}: Trainer {pair['trainer']['examples_per_cpu_s']:.1f}, Luthier "
              f"{pair['luthier']['examples_per_cpu_s']:.1f} examples per CPU s: {pair['ratio']:.2f} x", flush=True)
    result = {"full": {"ratio": common.spread([pair["ratio"] for pair in rounds]), "rounds": rounds},
              "machine": common.machine()}
    if told.whole:
        mine, theirs = child("head", 0), child("whole", 0)
        result["head_only"] = {"luthier": mine, "trainer_one_epoch": theirs,
                               "ratio_at_least": theirs["cpu_s"] / mine["cpu_s"]}
        print(f"head only: {mine['accuracy']:.4f} in {mine['cpu_s']:.0f} CPU s; Trainer, one epoch: "
              f"{theirs['accuracy']:.4f} in {theirs['cpu_s']:.0f} CPU s: {theirs['cpu_s'] / mine['cpu_s']:.1f} x")
    print(f"saved {common.save('label_speed', result)}")


if __name__ == "__main__":
    main()
