"""Self-training on banking77 with 3 and 5 labels per class: test accuracy with and without the rows that have no label,
and whether the guard notices rows that are of another kind (snips).

    python benchmarks/label_selftrain.py [--store FOLDER] [--seeds 3] [--per-class 3 5]

The head alone is trained, on the features of the starter encoder, computed once for every text. No labelled row is kept
for validation: the guard's held-out folds are all that decides.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import common
import label_common
import numpy as np

from luthier.adapt import predict
from luthier.adapt.labelled import open_label_model
from luthier.prepare.base import Prepare, prepare, read_examples
from luthier.prepare.labels import read_labels
from luthier.prepare.makers.rows import Rows
from luthier.prepare.split import SplitBy
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.train.base import Train, open_tuned_labels, train
from luthier.train.labelled.warm import as_rows
from luthier.train.plans.head import HeadOnly
from luthier.train.strategies.selftrain import SelfTrain

TASK = Task(type="classify", metric="accuracy")


def write(folder: Path, per_class: int, seed: int) -> None:
    """`labelled.csv` (so many rows a class) and `rest.csv` (the other train rows, without their labels)."""
    source = common.data_folder() / "banking77" / "train.csv"
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes: dict[str, list[int]] = {}
    for at in np.random.default_rng(seed).permutation(len(rows)):
        classes.setdefault(rows[at]["category"], []).append(int(at))
    chosen = {at for places in classes.values() for at in places[:per_class]}
    rest = sorted({*range(len(rows))} - chosen)
    for name, label, places in (("labelled", True, sorted(chosen)), ("rest", False, rest)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerow(["text", "label"])
            out.writerows([rows[at]["text"], rows[at]["category"] if label else ""] for at in places)


def data_of(store: Store, folder: Path, unlabelled: str) -> Artifact:
    shared = common.data_folder()
    more = {"none": (), "own": (Rows(path=str(folder / "rest.csv"), unlabelled=True, text="text"),),
            "snips": (Rows(path=str(shared / "snips" / "intents.jsonl"), unlabelled=True, text="text", split="train"),)}
    makers = (Rows(path=str(folder / "labelled.csv"), split="train"), *more[unlabelled],
              Rows(path=str(shared / "banking77" / "test.csv"), split="test"))
    return prepare(None, TASK, Prepare(makers=makers, split=SplitBy(validation=0.0)), store=store, root=folder)


def score(store: Store, model: Artifact, data: Artifact, spec: Train) -> dict[str, Any]:
    """Train, then score every test row once, through the features that the frozen base model gives."""
    began = common.cpu_seconds()
    run = train(model, data, spec, store=store, root=common.HERE, progress=label_common.QUIET)
    used = common.cpu_seconds() - began
    tuned = open_tuned_labels(run)
    base = open_label_model(model, read_labels(data), max_length=spec.max_length)
    test = read_examples(data, "test")
    rows = tuned.rows(test)
    features = predict.features(base, rows, cache=store.cache("features"))
    found = predict.logits(tuned, as_rows(rows, features)).argmax(1)
    right = (found == np.array([row.target for row in rows])).tolist()
    return {"accuracy": float(np.mean(right)), "hits": right, "cpu_s": round(used, 1), "n": len(right),
            **{name: run.summary[name] for name in ("guard", "pseudo_rows", "labelled_rows", "unlabelled_rows")
               if name in run.summary}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--store", type=Path, help="keep features and runs here; a temporary folder if left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-class", type=int, nargs="+", default=[3, 5])
    options = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as aside:
        store = Store(options.store or Path(aside) / "store")
        model = label_common.base(store, TASK)
        for per_class in options.per_class:
            for seed in range(options.seeds):
                folder = Path(aside) / f"{per_class}-{seed}"
                folder.mkdir()
                write(folder, per_class, seed)
                spec = Train(plan=HeadOnly(), seed=seed)
                arms = {"supervised": score(store, model, data_of(store, folder, "none"), spec),
                        "selftrain": score(store, model, data_of(store, folder, "own"),
                                           spec.but(strategy=SelfTrain())),
                        "selftrain_on_snips": score(store, model, data_of(store, folder, "snips"),
                                                    spec.but(strategy=SelfTrain()))}
                if seed == 0:  # what the guard guards against
                    arms["unguarded_on_snips"] = score(store, model, data_of(store, folder, "snips"),
                                                       spec.but(strategy=SelfTrain(guard=False)))
                hits = {name: arm.pop("hits") for name, arm in arms.items()}
                difference = common.mean_difference([float(hit) for hit in hits["supervised"]],
                                                    [float(hit) for hit in hits["selftrain"]])
                runs.append({"per_class": per_class, "seed": seed, **arms, "difference": difference})
                print(per_class, seed, {name: round(arm["accuracy"], 4) for name, arm in arms.items()},
                      arms["selftrain"]["guard"]["sentence"], arms["selftrain_on_snips"]["guard"]["sentence"],
                      {name: arm["cpu_s"] for name, arm in arms.items()}, flush=True)
    means = {str(per_class): {arm: float(np.mean([run[arm]["accuracy"] for run in runs
                                                  if run["per_class"] == per_class and arm in run]))
                              for arm in ("supervised", "selftrain", "selftrain_on_snips", "unguarded_on_snips")}
             for per_class in options.per_class}
    better = all(run["selftrain"]["accuracy"] > run["supervised"]["accuracy"] for run in runs)
    vetoed = sum(bool(run["selftrain_on_snips"]["guard"].get("fell_back")) for run in runs)
    common.save("label_selftrain", {
        "data": "banking77", "model": "starter:encoder, frozen", "means": means, "better_on_every_seed": better,
        "vetoed_on_snips": f"{vetoed} of {len(runs)}", "runs": runs, "machine": common.machine()})
    print(means, "better on every seed:", better, "vetoed on snips:", vetoed, "of", len(runs))


if __name__ == "__main__":
    main()
