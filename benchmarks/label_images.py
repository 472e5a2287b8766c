"""Image classification with starter:image: frozen, gradually unfrozen and full, against training from scratch.

    python benchmarks/label_images.py blood_cells [--seeds 3]

Data sets: blood_cells (990 crops, split by slide), fashion_mnist (600 of its train and all 2,000 test images).
Every run sees the same images at the same size for the same number of epochs; from scratch gets three times as many.
"""

from __future__ import annotations

import argparse
import hashlib

import common
import label_common as lab
import numpy as np

from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train
from luthier.train.plans.all import All
from luthier.train.plans.discriminative import Discriminative
from luthier.train.plans.gradual import Gradual
from luthier.train.plans.head import HeadOnly

SIZE = {"blood_cells": 48, "fashion_mnist": 48}
EPOCHS = {"blood_cells": 3, "fashion_mnist": 3}


def recipes(epochs: int) -> dict[str, tuple[bool, Train]]:
    """(pretrained, training) by name."""
    groups = 10  # layer groups of the starter: with `every` below, all but the lowest two join in the first half
    return {
        "frozen": (True, Train(plan=HeadOnly(), epochs=10)),
        "gradual": (True, Train(plan=Gradual(every=epochs / (2 * groups), divide_by=1.3, lowest=1), epochs=epochs,
                                learning_rate=1e-3)),
        "full": (True, Train(plan=Discriminative(divide_by=1.3), epochs=epochs, learning_rate=1e-3)),
        "scratch": (False, Train(plan=All(), epochs=3 * epochs, learning_rate=1e-3, patience=0)),
    }


def makers(name: str) -> list[dict]:
    if name == "blood_cells":
        return [{"kind": "image_folders", "path": "blood_cells/images", "labels": "../labels.csv", "image": "path",
                 "label": "label", "group_by": "source_image"}]
    folder = lab.scratch("fashion_mnist_600")
    file = folder / "fashion_600.npz"
    if not file.exists():
        whole = np.load(common.data_folder() / "fashion_mnist" / "fashion_mnist_8k.npz")
        order = sorted(range(len(whole["x_train"])), key=lambda at: hashlib.sha256(f"luthier|{at}".encode()).digest())
        kept = np.sort(order[:600])
        np.savez(file, x_train=whole["x_train"][kept], y_train=whole["y_train"][kept], x_test=whole["x_test"],
                 y_test=whole["y_test"])
    return [{"kind": "rows", "path": str(file)}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=[*SIZE])
    parser.add_argument("--seeds", type=int, default=3)
    told = parser.parse_args()
    store, task = Store(lab.scratch(f"images-{told.data}")), Task(type="image")
    data = lab.tables(store, task, makers(told.data))
    runs: dict[str, list[dict]] = {}
    for seed in range(told.seeds):
        for name, (pretrained, spec) in recipes(EPOCHS[told.data]).items():
            model = lab.base(store, task, image_size=SIZE[told.data], pretrained=pretrained)
            found = lab.fitted(store, model, data, spec.but(seed=seed))
            runs.setdefault(name, []).append(found)
            print(f"{told.data}  seed {seed}  {name:8} accuracy {found['accuracy']:.4f} (n = {found['n']})  "
                  f"{found['cpu_s']:.0f} CPU s", flush=True)
        path = common.save(f"label_images_{told.data}", {
            "data": {"name": told.data, **dict(data.summary)}, "image_size": SIZE[told.data],
            "recipes": {name: {"pretrained": p, **spec.dump()} for name, (p, spec)
                        in recipes(EPOCHS[told.data]).items()},
            "accuracy": {name: lab.over_seeds([run["accuracy"] for run in found]) for name, found in runs.items()},
            "cpu_s": {name: common.spread([run["cpu_s"] for run in found]) for name, found in runs.items()},
            "against_scratch": {name: lab.paired([hit for run in found for hit in run["hits"]],
                                                 [hit for run in runs["scratch"] for hit in run["hits"]])
                                for name, found in runs.items() if name != "scratch"},
            "runs": {name: [lab.bare(run) for run in found] for name, found in runs.items()},
            "machine": common.machine()})
    print(f"saved {path}")


if __name__ == "__main__":
    main()
