"""100 labelled rows (20 intents of banking77, 5 each): plain fine-tuning for 30 epochs against stopping early, gradual
unfreezing, and the frozen base model under a logistic regression. Three draws of the rows; 400 test rows.

Stopping early needs validation rows (2 for each intent), which plain fine-tuning does not use; `--all-rows` also runs
it with these among its train rows.

    python benchmarks/label_small.py [--all-rows] [--seeds 3]
"""

from __future__ import annotations

import argparse

import label_common
import label_jobs
from common import cpu_seconds, machine, save

from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train
from luthier.train.labelled.fit import fit_once
from luthier.train.labelled.gap import measure_gap
from luthier.train.plans.gradual import Gradual
from luthier.train.plans.head import HeadOnly

EPOCHS, INTENTS = 30, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all-rows", action="store_true", help="plain fine-tuning on train and validation rows too")
    parser.add_argument("--seeds", type=int, default=3)
    told = parser.parse_args()
    began = cpu_seconds()
    folder = label_common.scratch("small")
    store = Store(folder / "store")
    model = label_common.base(store, Task(type="classify", metric="accuracy"))
    rows, held_out = label_jobs.banking(INTENTS)
    labels = sorted({row["label"] for row in rows})
    test = label_jobs.examples(held_out, "test")[:400]
    shared = {"epochs": EPOCHS, "batch_size": 20, "learning_rate": 1e-4, "verify_resume": False}
    plain = Train(**shared, patience=0)
    arms = {
        "plain 30 epochs": (plain, False, False, False),
        "plain 30 epochs, with the validation rows": (plain, False, False, True),
        "early stopping": (Train(**shared, patience=10), True, False, False),
        "gradual unfreezing, early stopping": (Train(**shared, patience=10, plan=Gradual(every=1)), True, False, False),
        "frozen, warm head": (Train(epochs=EPOCHS, plan=HeadOnly(), verify_resume=False), True, True, False),
    }
    if not told.all_rows:
        del arms["plain 30 epochs, with the validation rows"]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    memorises: dict[str, list[bool]] = {name: [] for name in arms}
    for seed in range(told.seeds):
        train_rows, validation_rows = label_jobs.draw(rows, (5, 2), seed)
        train, validation = label_jobs.examples(train_rows, "train"), label_jobs.examples(validation_rows, "validation")
        for name, (spec, stops, warm, all_rows) in arms.items():
            job = label_jobs.job(folder / "fit", model, store, labels, [*train, *validation] if all_rows else train,
                                 validation if stops else (), spec, seed=seed, warm=warm)
            cpu = cpu_seconds()
            fitted = fit_once(job)
            one = label_jobs.score(fitted.model, test)
            gap = measure_gap(fitted.model, train, fitted.model.rows(train), validation=one["accuracy"],
                              n_validation=len(test), seed=seed)
            assert gap is not None
            found[name].append({**one, "train_accuracy": gap["train"], "updates": fitted.summary["steps"],
                                "best_update": fitted.summary["best_step"], "cpu_s": cpu_seconds() - cpu})
            memorises[name].append(gap["memorises"])
            print(seed, name, found[name][-1], flush=True)
        save("label_small", {
            "data": f"banking77, {INTENTS} intents, 100 train rows, {2 * INTENTS} validation rows, {len(test)} test "
                    "rows", "seeds": seed + 1, "base": "starter:encoder", "machine": machine(),
            "cpu_s": round(cpu_seconds() - began, 1),
            "arms": {name: {**label_jobs.over_seeds(runs), "memorises": memorises[name],
                            "accuracy_of_each_seed": [one["accuracy"] for one in runs]}
                     for name, runs in found.items()}})


if __name__ == "__main__":
    main()
