"""Text classification, full data: tuned against TF-IDF and frozen features (both with a logistic regression).

    python benchmarks/label_text.py banking77 [--seeds 3]

Data sets: banking77, cuad_clauses, medical_abstracts. The recipe of each was chosen on validation rows. On banking77 it
is then trained on all train rows to its end: among 5 % of them the noise is larger than the gain.
Prints and saves, for every seed, test accuracy and CPU seconds, and the paired difference to the better baseline.
"""

from __future__ import annotations

import argparse

import common
import label_common as lab

from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train

SETS = {
    "banking77": ([{"kind": "rows", "path": "banking77/train.csv"},
                   {"kind": "rows", "path": "banking77/test.csv", "split": "test"}],
                  Train(epochs=2, plan={"kind": "discriminative", "divide_by": 1.1}, learning_rate=2e-4,
                        loss={"kind": "cross_entropy", "smoothing": 0.1}), 0.0),
    "cuad_clauses": ([{"kind": "rows", "path": "cuad_clauses/train.jsonl"},
                      {"kind": "rows", "path": "cuad_clauses/test.jsonl", "split": "test"}],
                     Train(epochs=2, plan={"kind": "discriminative", "divide_by": 1.2}, learning_rate=2e-4,
                           max_length=128, max_truncated_share=0.3), 0.05),
    "medical_abstracts": ([{"kind": "rows", "path": "medical_abstracts/train.jsonl"},
                           {"kind": "rows", "path": "medical_abstracts/test.jsonl", "split": "test"}],
                          Train(epochs=2, plan={"kind": "discriminative", "divide_by": 1.2}, learning_rate=1e-4,
                                max_length=128, max_truncated_share=0.7), 0.05),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=[*SETS])
    parser.add_argument("--seeds", type=int, default=3)
    told = parser.parse_args()
    files, spec, validation = SETS[told.data]
    store = Store(lab.scratch(f"text-{told.data}"))
    task = Task(type="classify")
    data, model = lab.tables(store, task, files, validation=validation), lab.base(store, task)
    classical = lab.classical(data, model, store)
    for name, found in classical.items():
        print(f"{told.data}  {name:9} accuracy {found['accuracy']:.4f}  {found['cpu_s']:.0f} CPU s", flush=True)
    best = max(classical, key=lambda name: classical[name]["accuracy"])
    runs = []
    for seed in range(told.seeds):
        found = lab.fitted(store, model, data, spec.but(seed=seed))
        found["against"] = {name: lab.paired(found["hits"], one["hits"]) for name, one in classical.items()}
        gain = found["against"][best]
        print(f"{told.data}  seed {seed}    accuracy {found['accuracy']:.4f}  {found['cpu_s']:.0f} CPU s  "
              f"against {best} {gain['change']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})", flush=True)
        runs.append(found)
        path = common.save(f"label_text_{told.data}", {
            "data": {"name": told.data, **dict(data.summary)}, "recipe": spec.dump(),
            "baselines": {name: lab.bare(one) for name, one in classical.items()},
            "best_baseline": best, "tuned": lab.over_seeds([run["accuracy"] for run in runs]),
            "every_seed_beats_it": all(run["accuracy"] > classical[best]["accuracy"] for run in runs),
            "runs": [lab.bare(run) for run in runs], "machine": common.machine()})
    print(f"saved {path}")


if __name__ == "__main__":
    main()
