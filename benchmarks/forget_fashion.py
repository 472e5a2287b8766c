"""Permuted Fashion-MNIST: five tasks, each with the pixels in another order, learned one after another by one network
of 784-256-256-10 with a shared head (domain-incremental). What does each protection keep?

    python benchmarks/forget_fashion.py [--seeds 3] [--small] [--only naive,joint]      # about 15 CPU minutes

Methods: naive, joint (all tasks at once), EWC, L2-SP, learning without forgetting, a store of 500 rows replayed at half
of every update, and progressive full columns (with and without the task named). Strengths are chosen on the validation
rows of a set of permutations of its own; test rows of the three seeds see the chosen strength alone.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import common
import label_common as lab
import numpy as np

from luthier.adapt import predict
from luthier.adapt.head import Head
from luthier.evaluate.forgetting import backward_transfer, mean_over_seeds, recovered_over_seeds
from luthier.plugins import Seam
from luthier.prepare.base import read_examples
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.train.base import REGULARIZERS, STRATEGIES, Train, open_tuned_labels, train
from luthier.train.keeps.reservoir import Reservoir
from luthier.train.labelled.matrix import answers_by_mode, matrix_of
from luthier.train.replay import Replay
from luthier.train.strategies.sequence import TaskSequence
from luthier.train.streams import read_tensors

TASKS, CHOOSE = 5, 100
"""Tasks; and the seed whose permutations choose strengths."""
ROWS = {"train": 1500, "validation": 300, "test": 800}
RECORD = TASKS * ROWS["test"]
SMALL = {"train": 150, "validation": 60, "test": 60}
STRENGTHS = {"ewc": (20.0, 100.0, 500.0, 2500.0), "l2sp": (0.001, 0.005, 0.025, 0.125), "lwf": (0.3, 1.0, 3.0)}
MORE: dict[str, dict[str, Any]] = {"ewc": {"fisher": "exact", "samples": 100}}
BASE = Train(epochs=8, batch_size=32, validate_every=94, learning_rate=1e-3, schedule="constant", warmup_share=0.0,
             weight_decay=0.0, patience=0, verify_resume=False)
LOGITS = "class_incremental"


def permuted(seed: int, sizes: dict[str, int]) -> Path:
    """A table of images: every task holds the same rows with its pixels in an order drawn from the seed."""
    from PIL import Image

    folder = lab.scratch("forget-fashion") / f"images-{seed}-{sizes['train']}"
    table = folder / "rows.csv"
    if table.exists():
        return table
    whole = np.load(common.data_folder() / "fashion_mnist" / "fashion_mnist_8k.npz")
    rng = np.random.default_rng([seed, 7])
    own, held = rng.permutation(len(whole["x_train"])), rng.permutation(len(whole["x_test"]))
    places = {"train": own[: sizes["train"]], "validation": own[-sizes["validation"]:], "test": held[: sizes["test"]]}
    rows = []
    for task in range(TASKS):
        order = rng.permutation(28 * 28)
        for split, chosen in places.items():
            x, y = (whole["x_test"], whole["y_test"]) if split == "test" else (whole["x_train"], whole["y_train"])
            for at in chosen:
                name = f"{task}/{split}-{at}.png"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(x[at].reshape(-1)[order].reshape(28, 28)).save(folder / name)
                rows.append((name, f"class {y[at]}", f"task {task + 1}", split))
    with table.open("w", newline="") as file:  # last: the table stands for the whole folder
        csv.writer(file).writerows([("image", "label", "task", "split"), *rows])
    return table


def spec_of(method: str, seed: int, strength: float | None = None) -> Train:
    """The training of one method."""
    spec = BASE.but(seed=seed)
    if method == "joint":
        return spec
    if method.startswith("progressive"):
        columns: Any = STRATEGIES.kinds()["progressive"]
        return spec.but(strategy=columns(size="full", router="class", record=RECORD))
    spec = spec.but(strategy=TaskSequence(record=RECORD))
    if method == "replay":
        return spec.but(keep=Reservoir(size=100 * TASKS), replay=Replay(source="past", share=0.5))
    if method == "naive":
        return spec
    protection: Any = REGULARIZERS.kinds()[method]
    return spec.but(regularizers=(protection(strength=strength, **MORE.get(method, {})),))


class Setup:
    """Data and base model of one seed."""

    def __init__(self, seed: int, sizes: dict[str, int]):
        self.store = Store(lab.scratch("forget-fashion"))
        task, table = Task(type="image"), permuted(seed, sizes)
        self.seed = seed
        self.data = lab.tables(self.store, task, [{"kind": "rows", "path": str(table), "groups": ["task"]}])
        self.model = lab.base(self.store, task, model="mlp:256x256", head=Head(warm_start=False, dropout=0.0))

    def run(self, method: str, strength: float | None = None) -> dict[str, Any]:
        """Average accuracy over the tasks after the last one, on validation and test rows, and R on test rows."""
        cpu = common.cpu_seconds()
        run = train(self.model, self.data, spec_of(method, self.seed, strength), store=self.store,
                    root=common.data_folder(), progress=lab.QUIET)
        used = round(common.cpu_seconds() - cpu, 1)
        found = self.joint(run) if method == "joint" else self.stages(run)
        found["cpu_s"] = used
        router = run.path / "router.json"
        if router.is_file():
            found["router"] = json.loads(router.read_text("utf-8"))["accuracy"]
        return found

    def right(self, split: str, ids: list[str] | None = None) -> tuple[Any, np.ndarray, np.ndarray, list[str]]:
        """Examples with their class and task, and the names of the classes."""
        from luthier.prepare.labels import read_labels

        labels = list(read_labels(self.data))
        known = {example.id: example for example in read_examples(self.data, split)}  # type: ignore[arg-type]
        examples = [known[id] for id in ids] if ids is not None else [*known.values()]
        targets = np.array([labels.index((example.labels or ("",))[0]) for example in examples])
        owners = np.array([int(example.groups["task"].split()[1]) - 1 for example in examples])
        return examples, targets, owners, labels

    def joint(self, run: Artifact) -> dict[str, Any]:
        model, found = open_tuned_labels(run, root=common.data_folder()), {}
        for split in ("validation", "test"):
            examples, targets, owners, _ = self.right(split)
            hits = predict.logits(model, model.rows(examples)).argmax(1) == targets
            found[split] = float(np.mean([hits[owners == task].mean() for task in range(TASKS)]))
        return found

    def stages(self, run: Artifact) -> dict[str, Any]:
        told = json.loads((run.path / "stages.json").read_text("utf-8"))
        stored, _ = read_tensors(run.path / "stages.safetensors")
        found: dict[str, Any] = {}
        for split in ("validation", "test"):
            _, targets, owners, labels = self.right(split, told["ids"][split])
            assert told["outputs"] == labels and told["tasks"] == [f"task {at + 1}" for at in range(TASKS)]
            every = np.ones((TASKS, len(labels)), dtype=bool)
            named = stored[f"{split}_named"].numpy() if f"{split}_named" in stored else None
            modes = answers_by_mode(stored[split].numpy(), targets, owners, every, named)
            for mode, hits in modes.items():
                matrix = matrix_of(hits[1:] if told["has_start"] else hits, owners, TASKS)
                name = split if mode == LOGITS else f"{split}_named"
                found[name] = float(matrix[-1].mean())
                if split == "test":
                    found[f"matrix_{mode}"] = np.round(matrix, 4).tolist()
                    found[f"backward_{mode}"] = float(backward_transfer(np.where(np.isnan(matrix), 0.0, matrix)))
        return found


def registered(seam: Seam, kind: str) -> bool:
    return kind in seam.kinds()


def chosen_strengths(setup: Setup, methods: list[str]) -> dict[str, Any]:
    """Each regularizer's best strength on validation rows of permutations that no test row sees."""
    found = {}
    for method in methods:
        tried = {strength: setup.run(method, strength)["validation"] for strength in STRENGTHS[method]}
        best = max(tried, key=lambda strength: tried[strength])
        edge = best in (min(tried), max(tried))
        told = ", ".join(f"{strength:g}: {value:.4f}" for strength, value in tried.items())
        print(f"{method:12} validation {told}; kept {best:g}" + (" (at the edge of what was tried)" if edge else ""),
              flush=True)
        found[method] = {"best": best, "tried": {f"{strength:g}": value for strength, value in tried.items()},
                         "at_the_edge": edge}
    return found


def compared(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean and 95 % interval over seeds, backward transfer, and the share recovered between naive and joint."""
    scores = {name: [run["test"] for run in found] for name, found in runs.items()}
    if "progressive" in runs:
        scores["progressive, task named"] = [run["test_named"] for run in runs["progressive"]]
    report: dict[str, Any] = {}
    for name, values in scores.items():
        mode = "task_incremental" if name.endswith("named") else LOGITS
        found = runs[name.partition(",")[0]]
        report[name] = {"accuracy": mean_over_seeds(values).dump()}
        if f"backward_{mode}" in found[0]:
            report[name]["backward_transfer"] = mean_over_seeds([run[f"backward_{mode}"] for run in found]).dump()
        if "router" in found[0] and mode == LOGITS:
            report[name]["router_accuracy"] = mean_over_seeds([run["router"] for run in found]).dump()
        if {"naive", "joint"} <= runs.keys() and (
                share := recovered_over_seeds(values, scores["naive"], scores["joint"])):
            report[name]["recovered"] = share.dump()
    if {"ewc", "l2sp"} <= runs.keys():
        apart = mean_over_seeds([a - b for a, b in zip(scores["ewc"], scores["l2sp"])])
        tie = apart.low is None or apart.low <= 0 <= (apart.high or 0)
        report["ewc_against_l2sp"] = {**apart.dump(), "tie": tie, "sentence": (
            "EWC and L2-SP tie, each at its own best strength" if tie else
            f"{'EWC' if apart.value > 0 else 'L2-SP'} is better, each at its own best strength")
            + f" (EWC - L2-SP {apart.value:+.4f})."}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=1, help="the first seed; the strengths' grid was laid around 0's")
    parser.add_argument("--small", action="store_true", help="few rows, to see that it runs")
    parser.add_argument("--only", default="", help="methods, by commas")
    told = parser.parse_args()
    sizes = SMALL if told.small else ROWS
    wanted = told.only.split(",") if told.only else [
        "naive", "joint", *(kind for kind in STRENGTHS if registered(REGULARIZERS, kind)), "replay",
        *(kind for kind in ["progressive"] if registered(STRATEGIES, kind))]
    began = common.cpu_seconds()
    strengths = chosen_strengths(Setup(CHOOSE, sizes), [method for method in wanted if method in STRENGTHS])
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in wanted}
    for seed in range(told.first, told.first + told.seeds):
        setup = Setup(seed, sizes)
        for method in wanted:
            found = setup.run(method, strengths[method]["best"] if method in strengths else None)
            runs[method].append(found)
            named = f", task named {found['test_named']:.4f}, router {found['router']:.4f}" if "router" in found else ""
            print(f"seed {seed}  {method:12} {found['test']:.4f}{named}  {found['cpu_s']:.0f} CPU s", flush=True)
    report = compared(runs)
    for name, one in report.items():
        if "accuracy" in one:
            share = f", recovers {one['recovered']['value']:.0%}" if "recovered" in one else ""
            back = f", backward transfer {one['backward_transfer']['value']:+.4f}" if "backward_transfer" in one else ""
            value = one["accuracy"]
            between = "" if value["low"] is None else f" ({value['low']:.4f} to {value['high']:.4f})"
            print(f"{name:24} {value['value']:.4f}{between}{back}{share}")
        else:
            print(one["sentence"])
    print(f"{common.cpu_seconds() - began:.0f} CPU s in all")
    if not told.small and not told.only:
        path = common.save("forget_fashion", {
            "tasks": TASKS, "rows": sizes, "network": "784-256-256-10", "training": BASE.dump(),
            "seeds": [*range(told.first, told.first + told.seeds)], "strengths": strengths, "methods": report,
            "runs": runs, "cpu_s": round(common.cpu_seconds() - began, 1),
            "machine": common.machine()})
        print(f"saved {path}")


if __name__ == "__main__":
    main()
