"""CLINC150: domains learned one after another with the starter encoder, fully fine-tuned. What is kept with each
protection, with the task named (task-incremental) and without (class-incremental).

Strengths are chosen on validation rows of another order and another draw (once, about 7 CPU minutes); `--strengths`
takes them from the command line. One seed of all methods takes about 8 CPU minutes at the default sizes.

    python benchmarks/forget_clinc.py [--seeds 3] [--strengths EWC=10000,LwF=1] [--methods naive,EWC]
"""

from __future__ import annotations

import argparse
import functools
import json
from typing import Any

import common
import label_jobs
from common import cpu_seconds
from forget_common import (
    Method,
    Parts,
    Setup,
    base_model,
    choose,
    in_tasks,
    learn,
    parse_strengths,
    report,
    strength_of,
)

from luthier.train.base import Train

METHODS = {
    "naive": Method(),
    "naive, masked to its classes": Method(heads="own"),
    "EWC": Method(heads="own", regularizer="ewc", options={"samples": 100}, strengths=(1e2, 1e3, 1e4, 1e5)),
    "LwF": Method(heads="own", regularizer="lwf", strengths=(0.25, 0.5, 1.0, 2.0, 4.0)),
    "replay": Method(replay=True),
    "LwF + replay": Method(regularizer="lwf", like="LwF", replay=True),
    "progressive, router": Method(strategy="progressive"),
    "joint": Method(strategy="joint"),
}


@functools.cache
def clinc() -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Rows by part, and intents by domain."""
    folder = common.data_folder() / "clinc150"
    return json.loads((folder / "data_full.json").read_text("utf-8")), json.loads(
        (folder / "domains.json").read_text("utf-8"))


def tasks_of(domains: list[str], intents: int) -> dict[str, list[str]]:
    return {name: sorted(clinc()[1][name])[:intents] for name in domains}


def parts_of(tasks: dict[str, list[str]], *, rows: int, held: int, test: int, seed: int) -> Parts:
    """`rows` train and `held` validation rows of every intent, drawn by the seed from the train rows; `test` of the
    test rows, the same for every seed."""
    data, known = clinc()[0], {label for labels in tasks.values() for label in labels}
    pools = {part: common.fixed_order([{"text": text, "label": label} for text, label in data[part] if label in known],
                                      "text") for part in ("train", "test")}
    train, validation = label_jobs.draw(pools["train"], (rows, held), seed)
    tested = [row for label in sorted(known) for row in [one for one in pools["test"] if one["label"] == label][:test]]
    return in_tasks(train, "train", tasks), in_tasks(validation, "validation", tasks), in_tasks(tested, "test", tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--domains", default="banking,travel,home", help="in the order learned")
    parser.add_argument("--intents", type=int, default=6, help="of each domain (at most 15)")
    parser.add_argument("--rows", type=int, default=16, help="train rows of each intent")
    parser.add_argument("--validation", type=int, default=4, help="validation rows of each intent")
    parser.add_argument("--test", type=int, default=12, help="test rows of each intent (at most 30)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--methods", default="", help="some of them, by name, separated by commas")
    parser.add_argument("--strengths", default="", help="such as EWC=10000,LwF=1; others are chosen")
    parser.add_argument("--name", default="forget_clinc", help="of the result file")
    told = parser.parse_args()
    began = cpu_seconds()
    domains = told.domains.split(",")
    tasks = tasks_of(domains, told.intents)
    wanted = told.methods.split(",") if told.methods else [*METHODS]
    methods = {name: METHODS[name] for name in wanted if METHODS[name].available}
    skipped = [name for name in wanted if not METHODS[name].available]
    model, store, folder = base_model(told.name)
    setup = Setup(model, store, folder, tasks, Train(epochs=told.epochs, max_length=told.max_length,
                                                     verify_resume=False, patience=0))
    given = parse_strengths(told.strengths)
    size = {"rows": told.rows, "held": told.validation, "test": told.test}
    chosen = choose(setup, {name: method for name, method in methods.items() if name not in given},
                    parts_of(tasks, **size, seed=1000), domains[::-1], mode="class_incremental", seed=1000)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    for seed in range(told.seeds):
        parts = parts_of(tasks, **size, seed=seed)
        for name, method in methods.items():
            strength = strength_of(name, method, chosen, given)
            runs[name].append(learn(setup, method, parts, domains, strength=strength, seed=seed)
                              | {"seed": seed, "strength": strength})
        facts = {"data": f"clinc150, {told.intents} intents of each domain, {told.rows} train, {told.validation} "
                         f"validation and {told.test} test rows of each intent", "order": domains, "seeds": seed + 1,
                 "base": "starter:encoder", "epochs": told.epochs, "store_share": setup.store_share,
                 "replay_share": setup.replay_share, "strengths": chosen, "strengths_given": given}
        report(told.name, facts, runs, naive="naive", joint="joint", skipped=skipped, began=began)


if __name__ == "__main__":
    main()
