"""What two data strategies bring on banking77 with frozen features, three seeds.

- `clean`: 2,000 train rows of which 20 % carry another label, drawn at random: trained as they are, after the suspects
  were left out, and (as the best that cleaning could do) without the wrong rows. 3,080 test rows.
- `consistency`: 20 intents, 5 labelled and 40 unlabelled rows each, against the labelled rows alone and self-training.

    python benchmarks/label_strategies.py
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import label_common
import label_jobs
import numpy as np
from common import cpu_seconds, machine, save

from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train
from luthier.train.labelled.fit import fit_once
from luthier.train.labelled.pool import pooled
from luthier.train.plans.head import HeadOnly
from luthier.train.strategies.clean import Clean
from luthier.train.strategies.consistency import Consistency
from luthier.train.strategies.selftrain import SelfTrain

SEEDS, WRONG = 3, 0.2
SPEC = Train(plan=HeadOnly(), epochs=10, verify_resume=False)


def wronged(rows: list[Any], labels: list[str], seed: int) -> tuple[list[Any], set[str]]:
    """The rows with `WRONG` of their labels replaced by another one, and the ids of those."""
    rng = np.random.default_rng([seed, 5])
    bad = {rows[at].id for at in rng.permutation(len(rows))[: int(WRONG * len(rows))]}
    found = []
    for row in rows:
        others = [label for label in labels if label != row.labels[0]]
        found.append(replace(row, labels=(others[int(rng.integers(len(others)))],)) if row.id in bad else row)
    return found, bad


def cleaning(store: Store, model: Any, folder: Any) -> dict[str, Any]:
    rows, held_out = label_jobs.banking(77)
    labels = sorted({row["label"] for row in rows})
    test = label_jobs.examples(held_out, "test")
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(SEEDS):
        drawn = label_jobs.draw(rows, (26,), seed)[0]
        train, bad = wronged(label_jobs.examples(drawn, "train"), labels, seed)
        job = pooled(label_jobs.job(folder / "clean", model, store, labels, train, (), SPEC, seed=seed),
                     [*train, *test])
        arms = {"as they are": (None, train), "clean": (Clean(), train),
                "without the wrong rows": (None, [row for row in train if row.id not in bad])}
        for name, (strategy, kept) in arms.items():
            at = label_jobs.job(folder / "clean", model, store, labels, kept, (), SPEC, seed=seed).but(pool=job.pool)
            fitted = fit_once(at) if strategy is None else strategy.run(fit_once, at)
            one = label_jobs.score(fitted.model, test, at)
            if strategy is not None:
                told = {row["id"] for row in fitted.artifacts["suspects.json"]["rows"]}
                one |= {"precision": len(told & bad) / max(len(told), 1), "recall": len(told & bad) / len(bad)}
            found.setdefault(name, []).append(one)
            print("clean", seed, name, one, flush=True)
    return {name: {**label_jobs.over_seeds(runs), "accuracy_of_each_seed": [one["accuracy"] for one in runs]}
            for name, runs in found.items()}


def consistent(store: Store, model: Any, folder: Any) -> dict[str, Any]:
    rows, held_out = label_jobs.banking(20)
    labels = sorted({row["label"] for row in rows})
    test = label_jobs.examples(held_out, "test")
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(SEEDS):
        few, rest = label_jobs.draw(rows, (5, 40), seed)
        train = label_jobs.examples(few, "train")
        bare = [replace(row, id=f"free-{row.id}", labels=None) for row in label_jobs.examples(rest, "train")]
        shared = pooled(label_jobs.job(folder / "some", model, store, labels, train, (), SPEC, seed=seed),
                        [*train, *bare, *test])
        arms = {"labelled rows alone": None, "consistency": Consistency(), "selftrain": SelfTrain()}
        for name, strategy in arms.items():
            at = label_jobs.job(folder / "some", model, store, labels, train, (), SPEC, seed=seed).but(
                pool=shared.pool, unlabelled=() if strategy is None else bare)
            fitted = fit_once(at) if strategy is None else strategy.run(fit_once, at)
            one: dict[str, Any] = label_jobs.score(fitted.model, test, at)
            found.setdefault(name, []).append(one)
            print("consistency", seed, name, one, fitted.summary.get("guard", {}).get("sentence", ""), flush=True)
    return {name: {**label_jobs.over_seeds(runs), "accuracy_of_each_seed": [one["accuracy"] for one in runs]}
            for name, runs in found.items()}


def main() -> None:
    began = cpu_seconds()
    folder = label_common.scratch("strategies")
    store = Store(folder / "store")
    model = label_common.base(store, Task(type="classify", metric="accuracy"))
    result = {"data": "banking77", "base": "starter:encoder, frozen", "seeds": SEEDS, "machine": machine(),
              "wrong_share": WRONG, "clean": cleaning(store, model, folder)}
    save("label_strategies", {**result, "cpu_s": round(cpu_seconds() - began, 1)})
    result["consistency"] = consistent(store, model, folder)
    save("label_strategies", {**result, "cpu_s": round(cpu_seconds() - began, 1)})


if __name__ == "__main__":
    main()
