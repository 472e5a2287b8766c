"""The data of an update: all present rows with the splits that they had, and those of them that are trained on.

Both are laid out as prepare's artifact. `whole_data` keeps every known row in the split it had when the live release
was made (the test stays frozen), and tags each with the update it came with (`groups: {since: update 2}`);
`update_rows` holds new and changed train rows, some past ones of all classes alike, and validation and test whole.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.prepare.base import OWN_SPLIT, read_dropped, read_examples
from luthier.prepare.label_build import content
from luthier.prepare.label_repeats import UNLABELLED
from luthier.prepare.label_split import drop_leaks, group_of
from luthier.prepare.labels import OUT_OF_SCOPE, labels_of
from luthier.project.updating import Updating
from luthier.store import Artifact, Store, write_json
from luthier.task import Task
from luthier.types import Dropped, Example, Split, digest, write_jsonl
from luthier.watch.changes import Changes, describe

STAGE, ROWS_STAGE = "update-data", "update-rows"
VERSION = 1
SINCE = "since"
"""Key of `Example.groups`: with which data a row came."""
FIRST = "first data"
CHANGES = "changes.json"
_COPIED = ("passages.jsonl", "labels.json", "splits.json", "card.json", "card.html")


def batches(data: Artifact) -> list[str]:
    """Names of the data that came one after another, the first data among them."""
    return list(data.summary.get("batches", [FIRST]))


def whole_data(prepared: Artifact, before: Artifact, changes: Changes, *, task: Task, store: Store, root: Path
               ) -> Artifact:
    """All present rows, with known rows in the split that they had in `before` (the live release's data)."""
    def make(folder: Path) -> dict[str, Any]:
        names = [*batches(before), f"update {len(batches(before))}"]
        rows = read_examples(prepared)
        dropped: list[Dropped] = []
        if task.labelled:
            rows = drop_leaks(_pinned(rows, changes, read_examples(before), root), dropped)
        else:
            rows = list(_unmoved(rows, changes, dropped))
        rows = [_dated(example, changes, names) for example in rows]
        counts = Counter(example.split for example in rows
                         if UNLABELLED not in example.tags and OUT_OF_SCOPE not in example.tags)
        for name in _COPIED:
            if (prepared.path / name).is_file():
                shutil.copyfile(prepared.path / name, folder / name)
        write_jsonl(folder / "examples.jsonl", rows)
        write_jsonl(folder / "dropped.jsonl", [*read_dropped(prepared), *dropped])
        write_json(folder / CHANGES, describe(changes, read_examples(prepared)))
        kept = {name: prepared.summary[name] for name in ("documents", "passages", "unlabelled", "labels", "disjoint",
                                                          "language") if name in prepared.summary}
        return {**kept, "examples": len(rows), **{split: counts[split] for split in ("train", "validation", "test")},
                "dropped": prepared.summary["dropped"] + len(dropped), "batches": names,
                "changes": changes.counts(),
                "test_hash": digest(*sorted(example.id for example in rows if example.split == "test"))}

    inputs: dict[str, Any] = {"data": prepared, "before": before, "task": task.dump()}
    documents = next((value for value in prepared.inputs.values() if str(value).startswith("ingest/")), None)
    if documents is not None:
        inputs["documents"] = documents
    return store.build(STAGE, version=VERSION, spec={}, inputs=inputs, make=make)


def read_described(data: Artifact) -> dict[str, Any]:
    """The content of changes.json."""
    return json.loads((data.path / CHANGES).read_text("utf-8"))


def _pinned(rows: Sequence[Example], changes: Changes, old: Sequence[Example], root: Path) -> list[Example]:
    """Rows and groups that were there before keep their split; where the data itself names it, the data decides."""
    split_of: dict[str, Split] = {}
    for example in old:
        if UNLABELLED not in example.tags:
            split_of[_unit(example, root)] = example.split
    moved = {id: changes.before[id].split for id in changes.before}
    found = []
    for example in rows:
        split = moved.get(example.id) or split_of.get(_unit(example, root), example.split)
        fixed = UNLABELLED in example.tags or OWN_SPLIT in example.tags
        found.append(example if fixed else replace(example, split=split))
    return found


def _unit(example: Example, root: Path) -> str:
    return group_of(example) or content(example, root)


def _unmoved(rows: Sequence[Example], changes: Changes, dropped: list[Dropped]) -> Iterator[Example]:
    """Without the rows of documents that crossed between training and test since: they would measure what was learned,
    or learn what is measured."""
    for example in rows:
        old = changes.kept.get(example.id) or changes.before.get(example.id)
        if old is not None and (old.split == "test") != (example.split == "test"):
            dropped.append(Dropped(item=example.id, step="update", reason="moved-between-splits",
                                   detail=f"{example.origin.where}: {old.split} before, {example.split} now"))
        else:
            yield example


def _dated(example: Example, changes: Changes, names: Sequence[str]) -> Example:
    old = changes.kept.get(example.id) or changes.before.get(example.id)
    if old is None and example.id in changes.status:
        since = names[-1]
    else:
        since = (old.groups.get(SINCE) if old is not None else None) or FIRST
    return replace(example, groups={**example.groups, SINCE: since})


def update_rows(whole: Artifact, spec: Updating, *, seed: int, store: Store) -> Artifact:
    """What an update that begins from the live model trains on; see the module."""
    def make(folder: Path) -> dict[str, Any]:
        rows = read_examples(whole)
        told = read_described(whole)
        fresh = {*told["new"], *(row["id"] for row in told["changed"])}
        train = [example for example in rows if example.split == "train" and UNLABELLED not in example.tags]
        past = choose_past([example for example in train if example.id not in fresh],
                           count_past(sum(example.id in fresh for example in train), spec), seed=seed)
        chosen = fresh | {example.id for example in past}
        kept = [example for example in rows
                if example.split != "train" or UNLABELLED in example.tags or example.id in chosen]
        for name in _COPIED:
            if (whole.path / name).is_file():
                shutil.copyfile(whole.path / name, folder / name)
        write_jsonl(folder / "examples.jsonl", kept)
        write_jsonl(folder / "dropped.jsonl", [])
        summary = {name: value for name, value in whole.summary.items() if name not in ("seconds", "made_at")}
        return {**summary, "examples": len(kept), "train": sum(example.id in chosen for example in train),
                "new_rows": sum(example.id in fresh for example in train), "past_rows": len(past)}

    settings = {"past": spec.past, "least_past": spec.least_past, "seed": seed}
    return store.build(ROWS_STAGE, version=VERSION, spec=settings, inputs={"data": whole}, make=make)


def count_past(num_new: int, spec: Updating) -> int:
    """Past rows beside `num_new` new ones."""
    if not spec.past:
        return 0
    return max(round(num_new * spec.past / (1 - spec.past)), spec.least_past)


def choose_past(rows: Sequence[Example], count: int, *, seed: int) -> list[Example]:
    """At most `count` rows, of all classes alike (of all documents, where rows have no class), at least one of each:
    round by round, the next of each class by a hash. In the rows' own order."""
    strata: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(rows, key=lambda example: digest(str(seed), "past", example.id)):
        strata[_stratum(example)].append(example)
    order = sorted(((place, name) for name, inside in strata.items() for place in range(len(inside))))
    least = len(strata) if count else 0
    chosen = {strata[name][place].id for place, name in order[: max(count, least)]}
    return [example for example in rows if example.id in chosen]


def _stratum(example: Example) -> str:
    labels = labels_of(example)
    return labels[0] if labels else example.origin.documents[0] if example.origin.documents else ""

