"""Three domains with heads of their own, learned one after another in three orders: messages to a bank (banking77),
medical abstracts, contract clauses (cuad_clauses). The starter encoder, fully fine-tuned; the task is named.

Separate heads barely forget: what is asked here is how much the shared encoder loses, and whether the order matters.
Strengths are chosen on validation rows of a fourth order and another draw; `--strengths` takes them from the command
line. One seed of all methods and orders takes about 25 CPU minutes at the default sizes.

    python benchmarks/forget_domains.py [--seeds 3] [--strengths EWC=10000,LwF=1]
"""

from __future__ import annotations

import argparse
from typing import Any

import common
import label_jobs
import numpy as np
from common import cpu_seconds
from forget_common import (
    Method,
    Parts,
    Setup,
    base_model,
    choose,
    in_tasks,
    last,
    learn,
    parse_strengths,
    report,
    strength_of,
)

from luthier.evaluate import forgetting
from luthier.train.base import Train

METHODS = {
    "naive": Method(heads="own"),
    "EWC": Method(heads="own", regularizer="ewc", options={"samples": 50}, strengths=(1e2, 1e3, 1e4)),
    "LwF": Method(heads="own", regularizer="lwf", strengths=(0.5, 2.0)),
    "replay": Method(heads="own", replay=True),
    "joint": Method(strategy="joint", heads="own"),
}
ORDERS = (("banking", "medicine", "law"), ("medicine", "law", "banking"), ("law", "banking", "medicine"))
CHOOSING = ("law", "medicine", "banking")
INTENTS = 20
"""Intents of banking77 that are used."""


def pools() -> dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Train and test rows by domain."""
    medicine = [common.fixed_order(common.read_rows(common.data_folder() / "medical_abstracts" / f"{part}.jsonl"),
                                   "text") for part in ("train", "test")]
    return {"banking": label_jobs.banking(INTENTS), "medicine": (medicine[0], medicine[1]), "law": label_jobs.cuad()}


def parts_of(rows: int, held: int, test: int, seed: int) -> tuple[Parts, dict[str, list[str]]]:
    """About as many rows of every domain, as many of each of its classes; and the labels of every domain."""
    found: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    tasks = {}
    for name, (pool, tested) in pools().items():
        labels = sorted({row["label"] for row in pool})
        tasks[name] = labels
        each = [max(1, round(count / len(labels))) for count in (rows, held)]
        for split, part in zip(("train", "validation"), label_jobs.draw(pool, each, seed)):
            found[split] += part
        found["test"] += tested[:test]
    train, validation, test_rows = (in_tasks(found[split], split, tasks) for split in ("train", "validation", "test"))
    return (train, validation, test_rows), tasks


def by_order(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Average accuracy of every method by order, and the range over orders of the means over seeds."""
    found: dict[str, Any] = {}
    for name, each in runs.items():
        values = {order: [last(one, "task_incremental") for one in each if one["order"] == order]
                  for order in dict.fromkeys(one["order"] for one in each)}
        means = [float(np.mean(some)) for some in values.values()]
        found[name] = {"orders": {order: forgetting.mean_over_seeds(some).dump() for order, some in values.items()},
                       "range": round(max(means) - min(means), 6)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--orders", type=int, default=3, help="how many of the three")
    parser.add_argument("--rows", type=int, default=80, help="train rows of each domain")
    parser.add_argument("--validation", type=int, default=30)
    parser.add_argument("--test", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=64, help="tokens; longer texts lose their end")
    parser.add_argument("--methods", default="")
    parser.add_argument("--strengths", default="", help="such as EWC=10000,LwF=1; others are chosen")
    parser.add_argument("--name", default="forget_domains", help="of the result file")
    told = parser.parse_args()
    began = cpu_seconds()
    wanted = told.methods.split(",") if told.methods else [*METHODS]
    methods = {name: METHODS[name] for name in wanted if METHODS[name].available}
    skipped = [name for name in wanted if not METHODS[name].available]
    model, store, folder = base_model(told.name)
    size = {"rows": told.rows, "held": told.validation, "test": told.test}
    parts, tasks = parts_of(**size, seed=1000)
    setup = Setup(model, store, folder, tasks, Train(
        epochs=told.epochs, max_length=told.max_length, max_truncated_share=1.0, verify_resume=False, patience=0))
    given = parse_strengths(told.strengths)
    chosen = choose(setup, {name: method for name, method in methods.items() if name not in given}, parts, CHOOSING,
                    mode="task_incremental", seed=1000)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    for seed in range(told.seeds):
        parts, _ = parts_of(**size, seed=seed)
        for name, method in methods.items():
            strength = strength_of(name, method, chosen, given)
            once = learn(setup, method, parts, ORDERS[0], strength=strength, seed=seed) \
                if method.strategy == "joint" else None  # it has no order: run once, told for each
            for order in ORDERS[: told.orders]:
                one = once or learn(setup, method, parts, order, strength=strength, seed=seed)
                runs[name].append({**one, "seed": seed, "order": " → ".join(order), "strength": strength})
        facts = {"data": f"banking77 ({INTENTS} intents), medical_abstracts, cuad_clauses: about {told.rows} train "
                         f"rows and {told.test} test rows each", "seeds": seed + 1, "base": "starter:encoder",
                 "epochs": told.epochs, "store_share": setup.store_share, "replay_share": setup.replay_share,
                 "strengths": chosen, "strengths_given": given, "by_order": by_order(runs)}
        report(told.name, facts, runs, naive="naive", joint="joint", skipped=skipped, began=began)


if __name__ == "__main__":
    main()
