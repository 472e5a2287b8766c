"""Search over settings: Bayesian (TPE, GP) against random and grid, with equal budgets.

    python benchmarks/label_tune.py [--trials 16] [--seeds 3]

Each trial trains a head with a hidden layer on frozen features of cuad_clauses (1,000 train rows, the first 228
validation rows decide by log loss); five settings are searched. The best point of each search is scored once on the
test rows. A grid of 16 points over five settings can vary four of them, with two values each.
"""

from __future__ import annotations

import argparse
import shutil
from typing import Any

import common
import label_common as lab

from luthier.adapt.head import Head
from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train
from luthier.train.labelled.base import Job
from luthier.train.labelled.fit import fit_once
from luthier.tune.base import Tune
from luthier.tune.seams import best_of
from luthier.tune.search import search
from luthier.tune.space import build

SPACE: dict[str, Any] = {"learning_rate": {"log": [1e-4, 1e-1]}, "dropout": {"range": [0.0, 0.6]},
                         "weight_decay": {"log": [1e-4, 1.0]}, "smoothing": {"range": [0.0, 0.3]},
                         "epochs": {"int": [2, 12]}}
GRID: dict[str, Any] = {name: {**SPACE[name], "points": 2}
                        for name in ("learning_rate", "dropout", "weight_decay", "smoothing")}
GRID_EPOCHS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    told = parser.parse_args()
    folder = lab.scratch("tune")
    store, task = Store(folder / "store"), Task(type="classify", metric="log_loss")
    data = lab.tables(store, task, [{"kind": "rows", "path": "cuad_clauses/train.jsonl"},
                                    {"kind": "rows", "path": "cuad_clauses/test.jsonl", "split": "test"}])
    labels, examples, right = lab.splits(data)
    examples["train"] = examples["train"][:1000]
    made = 0

    def fit(point: dict[str, Any], where: str) -> Any:
        from luthier.adapt.labelled import open_label_model

        base = lab.base(store, task, head=Head(hidden=64, dropout=float(point["dropout"])))
        spec = Train(plan={"kind": "head"}, epochs=int(point.get("epochs", GRID_EPOCHS)), patience=0,
                     learning_rate=float(point["learning_rate"]), weight_decay=float(point["weight_decay"]),
                     loss={"kind": "cross_entropy", "smoothing": float(point["smoothing"])}, verify_resume=False)
        at = folder / "fit" / where
        shutil.rmtree(at, ignore_errors=True)
        return fit_once(Job(open=lambda seed: open_label_model(base, labels, seed=seed), train=examples["train"],
                            validation=examples["validation"], spec=spec, folder=at, cache=store.cache("features"),
                            root=common.HERE, progress=lab.QUIET, look_for_leaks=False))

    def objective(attempt: Any) -> float:
        nonlocal made
        made += 1
        found = fit(dict(attempt.point), "trial")
        assert found.loss is not None
        return float(found.loss)

    results: dict[str, list[dict[str, Any]]] = {}
    cpu = common.cpu_seconds()
    for seed in range(told.seeds):
        for searcher in ("grid", "random", "tpe", "gp"):
            space = GRID if searcher == "grid" else SPACE
            spec = Tune(space=space, searcher=searcher, trials=told.trials, seed=seed)
            study = folder / f"{searcher}-{seed}-{told.trials}"
            shutil.rmtree(study, ignore_errors=True)
            study.mkdir(parents=True)
            trials = search(objective, build(spec.space, parse=lambda overrides: None), spec, folder=study)
            best = best_of(trials, "lower")
            assert best is not None and best.value is not None
            so_far, lowest = [], float("inf")
            for trial in trials:
                lowest = min(lowest, float("inf") if trial.value is None else trial.value)
                so_far.append(lowest)
            model = fit(dict(best.point), "best").model
            rows = model.rows(examples["test"])
            logits = lab.predict.logits(model, rows)
            results.setdefault(searcher, []).append({
                "seed": seed, "best_validation_log_loss": best.value, "point": dict(best.point), "so_far": so_far,
                "test_accuracy": float((logits.argmax(1) == right["test"]).mean()), "trials": len(trials)})
            print(f"seed {seed}  {searcher:6} validation log loss {best.value:.4f}, test accuracy "
                  f"{results[searcher][-1]['test_accuracy']:.4f}", flush=True)
        path = common.save("label_tune", {
            "data": "cuad_clauses, 1,000 train rows, frozen features, head with a hidden layer", "trials": told.trials,
            "validation_log_loss": {name: lab.over_seeds([one["best_validation_log_loss"] for one in found])
                                    for name, found in results.items()},
            "test_accuracy": {name: lab.over_seeds([one["test_accuracy"] for one in found])
                              for name, found in results.items()},
            "tpe_beats_random": [a["best_validation_log_loss"] < b["best_validation_log_loss"]
                                 for a, b in zip(results["tpe"], results["random"])],
            "runs": results, "trained": made, "cpu_s": round(common.cpu_seconds() - cpu, 1),
            "machine": common.machine()})
    print(f"saved {path}")


if __name__ == "__main__":
    main()
