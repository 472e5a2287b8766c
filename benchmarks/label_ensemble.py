"""A five-fold ensemble against its members, other ways to combine, and one distilled model: accuracy, log loss and
calibration on test rows, three seeds. Frozen features on 420 contract sentences (14 clause types), and full fine-tuning
on 160 messages (20 intents of banking77).

    python benchmarks/label_ensemble.py
"""

from __future__ import annotations

import shutil
from typing import Any

import label_common
import label_jobs
import numpy as np
from common import cpu_seconds, machine, save

from luthier.adapt.ensemble import EnsembleNetwork
from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train
from luthier.train.labelled.fit import fit_once
from luthier.train.labelled.pool import pooled
from luthier.train.plans.head import HeadOnly
from luthier.train.strategies.distill import Distill
from luthier.train.strategies.ensemble import Ensemble

SEEDS = 3


def run(strategy: Any, job: Any, test: Any) -> tuple[dict[str, float], dict[str, float] | None]:
    """Test figures of what comes out, and the mean of its members' (None where it is one model)."""
    fitted = strategy.run(fit_once, job)
    whole = label_jobs.score(fitted.model, test, job)
    module = fitted.model.module
    if not isinstance(module, EnsembleNetwork):
        return whole, None
    members = [fitted.model.but(module=one) for one in module.members]
    return whole, label_jobs.mean_of([label_jobs.score(member, test, job) for member in members])


def study(name: str, strategies: dict[str, Any], spec: Train, rows: Any, held_out: Any, each: tuple[int, int], *,
          warm: bool) -> dict[str, Any]:
    folder = label_common.scratch("ensemble")
    store = Store(folder / "store")
    model = label_common.base(store, Task(type="classify", metric="accuracy"))
    labels = sorted({row["label"] for row in rows})
    test = label_jobs.examples(held_out, "test")[:500]
    found: dict[str, list[dict[str, float]]] = {}
    gains: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        shutil.rmtree(folder / "several", ignore_errors=True)
        parts = [label_jobs.examples(part, split) for part, split
                 in zip(label_jobs.draw(rows, each, seed), ("train", "validation"))]
        one = label_jobs.job(folder / "single", model, store, labels, *parts, spec, seed=seed, warm=warm)
        one = pooled(one, [*parts[0], *parts[1], *test])  # features of all rows, where the base model stays as it is
        found.setdefault("one model", []).append(label_jobs.score(fit_once(one).model, test, one))
        for told, strategy in strategies.items():
            cpu = cpu_seconds()
            place = folder / "several" / ("teacher" if told == "five folds" else "")  # where `distilled` looks for it
            job = label_jobs.job(place, model, store, labels, *parts, spec, seed=seed, warm=warm,
                                 fresh=told != "five folds, distilled").but(pool=one.pool)
            whole, members = run(strategy, job, test)
            found.setdefault(told, []).append({**whole, "cpu_s": cpu_seconds() - cpu})
            if members is not None:
                found.setdefault(f"{told}: its members on average", []).append(members)
                gains.setdefault(told, []).append(whole["accuracy"] - members["accuracy"])
            print(name, seed, told, whole, members, flush=True)
    return {"train": len(labels) * each[0], "validation": len(labels) * each[1], "test": len(test), "seeds": SEEDS,
            "figures": {told: label_jobs.over_seeds(runs) for told, runs in found.items()},
            "gain_over_members": {told: {"each_seed": gain, "mean": float(np.mean(gain))}
                                  for told, gain in gains.items()}}


def main() -> None:
    began = cpu_seconds()
    frozen = {"five folds": Ensemble(), "five folds, weighted": Ensemble(combine="weighted"),
              "five folds, soup": Ensemble(combine="soup"), "five snapshots": Ensemble(members="snapshots"),
              "five seeds": Ensemble(members="seeds"), "five folds, distilled": Distill()}
    full = {"five folds": Ensemble(), "five folds, distilled": Distill()}
    quick = {"verify_resume": False}
    result: dict[str, Any] = {"base": "starter:encoder", "machine": machine()}
    result["cuad_clauses, frozen"] = study("cuad", frozen, Train(plan=HeadOnly(), epochs=10, **quick),
                                           *label_jobs.cuad(), (30, 10), warm=True)
    save("label_ensemble", {**result, "cpu_s": round(cpu_seconds() - began, 1)})
    spec = Train(epochs=6, learning_rate=2e-4, batch_size=16, **quick)
    result["banking77, full fine-tuning"] = study("banking", full, spec, *label_jobs.banking(20), (8, 3), warm=False)
    save("label_ensemble", {**result, "cpu_s": round(cpu_seconds() - began, 1)})


if __name__ == "__main__":
    main()
