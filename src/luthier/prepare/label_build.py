"""The work behind `prepare` for labelled tasks: makers, repeats, the frozen split, the leak check, the data card.

Order: rows are read; rows without a usable label go; of rows that repeat each other one stays; the split is frozen;
held-out texts are kept out of training; every class must be trained on. All of it is deterministic from the seed.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.errors import DataError, SpecError
from luthier.index.rag import Rag
from luthier.ingest.forgotten import read_forgotten
from luthier.models.sources import file_hash
from luthier.prepare import label_repeats
from luthier.prepare.base import MakeContext, Prepare, no_split
from luthier.prepare.decisions import decided_rows
from luthier.prepare.decontaminate import drop_benchmarks
from luthier.prepare.forgotten_rows import drop_forgotten
from luthier.prepare.keys import key_of, shared
from luthier.prepare.label_repeats import drop_repeats
from luthier.prepare.label_split import assign, drop_leaks, group_of, same_words
from luthier.prepare.labels import FILE, OUT_OF_SCOPE, file_of, labels_of, ordered
from luthier.prepare.privacy.report import texts_of, write_privacy
from luthier.prepare.privacy.work import Guard
from luthier.prepare.weak.apply import FILE as WEAK_FILE
from luthier.prepare.weak.apply import label_rows
from luthier.progress import Progress, passing
from luthier.queues import read_review, write_review
from luthier.shelf import Memory, Sink, view
from luthier.store import Artifact, Store, write_json
from luthier.task import Task
from luthier.types import Dropped, Example, digest, write_jsonl

VERSION = 4
UNLABELLED = label_repeats.UNLABELLED
_HASH = re.compile(r"[0-9a-f]{64}")
_SHOWN = 5
_ORDER = {"train": 0, "validation": 1, "test": 2}
_NOT_READ = ("versions", "languages", "boilerplate", "clean", "injection", "chunk", "dedupe", "quality", "semantic",
             "volatility", "max_examples_per_document")


def refuse_settings(spec: Prepare) -> None:
    """SpecError for settings that labelled data is not prepared by."""
    default = Prepare()
    for name in _NOT_READ:
        if getattr(spec, name) != getattr(default, name):
            raise SpecError(f"prepare.{name} is for documents, which a labelled task has none of; leave it out")
    if spec.split.by == "passage":
        raise SpecError("prepare.split.by: 'passage' is for documents; for a labelled task take 'auto', or 'document' "
                        "to insist on rows that name their document or group")


def build_labelled(folder: Path, task: Task, spec: Prepare, *, documents: Artifact | None, store: Store, root: Path,
                   progress: Progress, guard: Guard | None = None) -> dict[str, Any]:
    """Fill the artifact's folder; returns its summary. Raises DataError where the rows cannot make a fair test."""
    from luthier.prepare.label_card import write_label_card

    memory = Memory(spec.memory_mb, folder)
    dropped = memory.drops()
    made, notes = _make(task, spec, store, root, progress, dropped, memory)
    read = len(made)
    forgotten = read_forgotten(root)
    if guard is not None:  # before decisions about rows, which name them by what is trained
        guard.records = memory.rows()
        clean = memory.examples()
        with passing(progress, "look for personal data", made, read) as looked:
            clean.extend(guard.examples(drop_forgotten(looked, forgotten, dropped, root=root), dropped))
        made = clean
    said = _Content(root)
    decided = decided_rows(made, root, dropped, id_of=lambda example: _named(example, said(example)).id)
    given = {said(made[at]): labels_of(made[at]) for at in decided}
    rows = memory.examples()
    rows.extend(drop_forgotten((decided.get(at, example) for at, example in enumerate(made)), forgotten, dropped,
                               root=root))
    usable = _usable(rows, task, dropped)
    keys = array("Q", (key_of(said(example)) for example in usable))
    unlike, conflicts = drop_repeats(usable, keys, said, task, dropped)
    named = memory.examples()
    named.extend(_named(example, said(example)) for example in view(usable, unlike))
    assigned = memory.examples()
    assigned.extend(assign(named, spec, given, said))
    examples = drop_leaks(_unique_ids(assigned, memory), dropped, memory, progress)
    examples = drop_benchmarks(examples, spec.decontaminate, root, dropped, memory)
    weak = label_rows(examples, task, spec.weak, store=store, root=root, validation=spec.split.validation,
                      progress=progress)
    examples = drop_leaks(weak.examples, dropped, memory) if weak.data.get("validation") else weak.examples
    order = bytes(2 * _ORDER[example.split] + (UNLABELLED in example.tags) for example in examples)
    examples = view(examples, sorted(range(len(order)), key=order.__getitem__))  # stable: then as read
    outside = sum(OUT_OF_SCOPE in example.tags for example in examples)
    labelled = view(examples, (at for at, example in enumerate(examples)
                               if UNLABELLED not in example.tags and OUT_OF_SCOPE not in example.tags))
    counts = Counter(example.split for example in labelled)
    _refuse_empty(counts, labelled, dropped, spec)
    labels = _labels(labelled, task, dropped)

    drops = guard.clean_drops(dropped, memory) if guard is not None else dropped
    privacy = write_privacy(folder, guard, texts_of((), examples), progress)
    if weak.review:
        write_review(folder, [*(item for item in read_review(folder) if item.queue != "labels"), *weak.review])
    if weak.data:
        write_json(folder / WEAK_FILE, weak.data)
    write_jsonl(folder / "passages.jsonl", [])
    write_jsonl(folder / "examples.jsonl", examples)
    write_jsonl(folder / "dropped.jsonl", drops)
    write_json(folder / FILE, {"labels": list(labels), "multi_label": task.multi_label})
    grouped = any(group_of(example) for example in labelled)
    write_json(folder / "splits.json", {
        "by": "document" if grouped else "question",
        "groups": {group: example.split for example in examples if (group := group_of(example))},
    })
    summary = {
        "documents": len({id for example in examples for id in example.origin.documents}), "passages": 0,
        "examples": len(examples), "train": counts["train"], "validation": counts["validation"],
        "test": counts["test"], "unlabelled": len(examples) - len(labelled) - outside, "out_of_scope": outside,
        "labels": len(labels), "personal_data": privacy.get("found", 0),
        **({"weak": weak.data["labelled"]} if weak.data else {}),
        "dropped": len(drops), "disjoint": "document" if grouped else "question", "language": task.language,
        "test_hash": digest(*sorted(example.id for example in labelled if example.split == "test")),
    }
    unread = int(documents.summary.get("documents", 0)) if documents is not None else 0
    write_label_card(folder, summary, task=task, labels=labels, examples=examples, dropped=drops, notes=notes,
                     conflicts=conflicts, rows=read, unread_documents=unread, seed=spec.seed, root=root,
                     privacy=privacy, weak=weak.data)
    progress.say(f"  {len(labelled):,} labelled rows ({counts['train']:,} train, {counts['validation']:,} validation, "
                 f"{counts['test']:,} test), "
                 + (f"{len(labels):,} labels, " if labels else "") + f"{summary['unlabelled']:,} unlabelled, "
                 + (f"{outside:,} of none of the classes, " if outside else "") +
                 f"{len(drops):,} dropped", **{key: summary[key] for key in ("train", "validation", "test")})
    return summary


def _make(task: Task, spec: Prepare, store: Store, root: Path, progress: Progress, dropped: Sink[Dropped],
          memory: Memory) -> tuple[Sequence[Example], dict[str, dict[str, Any]]]:
    made = memory.examples()
    notes: dict[str, dict[str, Any]] = {}
    for number, maker in enumerate(spec.makers, 1):
        said: dict[str, Any] = {}
        context = MakeContext(documents=(), passages=(), task=task, split_of=no_split, seed=spec.seed, root=root,
                              cache=store.cache("prepare"), progress=progress, rag=Rag(), examples=made[:],
                              notes=said, store=store)
        for found in maker.make(context):
            if isinstance(found, Dropped):
                dropped.append(found)
            else:
                made.append(found)
        notes[maker.kind if maker.kind not in notes else f"{maker.kind} {number}"] = said
    return made, notes


def _usable(made: Sequence[Example], task: Task, dropped: Sink[Dropped]) -> Sequence[Example]:
    """Rows whose labels the task can learn; a held-out row without a label measures nothing."""
    numbers = array("q")
    several = 0
    known = set(task.labels)
    for at, example in enumerate(made):
        found = labels_of(example)
        unknown = [label for label in found if known and label not in known]
        reason, detail = "", ""
        if unknown:
            reason, detail = "unknown-label", f"{', '.join(map(repr, unknown))} is not among task.labels"
        elif UNLABELLED in example.tags and example.split != "train":
            reason, detail = "no-label", f"a {example.split} row without an answer measures nothing"
        elif OUT_OF_SCOPE in example.tags:
            pass  # an answer: none of the classes
        elif example.labels is not None and not task.multi_label and len(example.labels) != 1:
            several += len(example.labels) > 1
            reason = "several-labels" if example.labels else "no-label"
            detail = f"{len(example.labels)} labels; the task has one a row"
        if reason:
            dropped.append(_drop(example, reason, detail))
        else:
            numbers.append(at)
    kept = view(made, numbers)
    if several > sum(OUT_OF_SCOPE not in example.tags for example in kept):
        raise DataError(f"{several:,} of {len(made):,} rows have several labels; set task.multi_label: true")
    if known and not any(labels_of(example) for example in kept):
        raise DataError(f"no row has one of task.labels ({', '.join(task.labels[:8])}); the data holds: "
                        f"{', '.join(ordered(label for example in made for label in labels_of(example))[:8])}")
    return kept


class _Content:
    """`content` of the rows of one run; an image is read once."""

    def __init__(self, root: Path):
        self._root = root
        self._images: dict[str, str] = {}

    def __call__(self, example: Example) -> str:
        if not example.image:
            return content(example, self._root)
        if example.image not in self._images:
            self._images[example.image] = content(example, self._root)
        return self._images[example.image]


def content(example: Example, root: Path) -> str:
    """What makes two rows the same: words (case and punctuation aside), exact text for tags, bytes for images."""
    if example.image:
        name = Path(example.image).name  # an image that Luthier wrote is named by its hash
        return "image\0" + (name if _HASH.fullmatch(name) else file_hash(root / example.image))
    if example.spans is not None:
        return "text\0" + " ".join(str(example.input).split())
    return "text\0" + same_words(example)


def _named(example: Example, key: str) -> Example:
    """An id from what the row says and the file it stands in: it changes with the row, not with the row's line."""
    spans = (f"{tag.start}-{tag.end}-{tag.label}" for tag in example.spans or ())
    return replace(example, id=digest("example", example.origin.step, file_of(example.origin.where), key,
                                      str(example.input), *(example.labels or ()), *spans, example.target or "",
                                      *example.negatives))


def _unique_ids(examples: Sequence[Example], memory: Memory) -> Sequence[Example]:
    """The second of two equal rows (a repeat that the data keeps) gets another id."""
    several = shared(array("Q", (key_of(example.id) for example in examples)))
    if not several.any():
        return examples
    seen: Counter[str] = Counter()
    found = memory.examples()
    for at, example in enumerate(examples):
        if several[at]:
            seen[example.id] += 1
            if (again := seen[example.id]) > 1:
                example = replace(example, id=digest("example", example.id, str(again)))
        found.append(example)
    return found


def _drop(example: Example, reason: str, detail: str) -> Dropped:
    return label_repeats.drop(example, reason, detail)


def _refuse_empty(counts: Mapping[str, int], labelled: Sequence[Example], dropped: Iterable[Dropped], spec: Prepare
                  ) -> None:
    if counts["train"] and counts["test"]:
        return
    reasons = Counter(drop.reason for drop in dropped).most_common(4)
    why = "; dropped: " + ", ".join(f"{count} × {reason}" for reason, count in reasons) if reasons else ""
    if not labelled:
        raise DataError(f"no row has an answer to learn from{why}; name the column of the answers in prepare.makers")
    lacking = "train" if not counts["train"] else "test"
    raise DataError(f"no {lacking} rows: {len(labelled)} labelled rows, all of them for "
                    f"{' and '.join(split for split in _ORDER if counts[split])}{why}; add rows, or set another share "
                    f"in prepare.split (now test {spec.split.test:g}); rows of a file named after a split, such as "
                    "test.csv, belong to it unless the maker's `split` says otherwise")


def _labels(labelled: Sequence[Example], task: Task, dropped: Iterable[Dropped]) -> tuple[str, ...]:
    """The classes in the order of the outputs. DataError names every class that is tested but never trained on, with
    its rows, and every class of `task.labels` that no train row has."""
    if task.type == "embed":
        return ()
    trained = {label for example in labelled if example.split == "train" for label in labels_of(example)}
    unseen: dict[str, list[str]] = defaultdict(list)
    for example in labelled:
        for label in labels_of(example):
            if label not in trained:
                unseen[label].append(f"{example.origin.where} ({example.split})")
    reasons = Counter(drop.reason for drop in dropped if drop.reason.startswith(("leak", "conflict", "duplicate")))
    why = "; train rows dropped: " + ", ".join(f"{n} × {reason}" for reason, n in reasons.items()) if reasons else ""
    if unseen:
        named = "\n".join(f"{label}: {', '.join(places[:_SHOWN])}" + (f" and {len(places) - _SHOWN} more" if
                          len(places) > _SHOWN else "") for label, places in list(sorted(unseen.items()))[:20])
        raise DataError(f"{len(unseen)} labels are in validation or test but in no train row{why}; add train rows of "
                        f"them, or leave these rows out (task.labels names the classes to keep):\n{named}")
    missing = [label for label in task.labels if label not in trained]
    if missing:
        raise DataError(f"no train row has the label{'s' * (len(missing) > 1)} {', '.join(map(repr, missing[:20]))} of "
                        f"task.labels{why}; add rows, or take the name{'s' * (len(missing) > 1)} out")
    labels = task.labels or ordered(trained)
    if len(labels) < (1 if task.type == "tag" or task.multi_label else 2):
        raise DataError(f"all train rows have the same label ({', '.join(labels) or 'none'}); at least two classes are "
                        "needed to learn to tell them apart")
    return tuple(labels)
