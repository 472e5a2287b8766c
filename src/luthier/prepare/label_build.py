"""The work behind `prepare` for labelled tasks: makers, repeats, the frozen split, the leak check, the data card.

Order: rows are read; rows without a usable label go; of rows that repeat each other one stays; the split is frozen;
held-out texts are kept out of training; every class must be trained on. All of it is deterministic from the seed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.errors import DataError, SpecError
from luthier.index.rag import Rag
from luthier.ingest.forgotten import read_forgotten
from luthier.models.sources import file_hash
from luthier.prepare import label_repeats
from luthier.prepare.base import OWN_SPLIT, TOGETHER, MakeContext, Prepare, no_split
from luthier.prepare.decisions import apply_decisions
from luthier.prepare.decontaminate import drop_benchmarks
from luthier.prepare.forgotten_rows import drop_forgotten
from luthier.prepare.label_repeats import drop_repeats
from luthier.prepare.labels import FILE, OUT_OF_SCOPE, file_of, labels_of, ordered
from luthier.prepare.leak import find_leaks
from luthier.prepare.privacy.report import texts_of, write_privacy
from luthier.prepare.privacy.work import Guard
from luthier.prepare.split import unit_interval
from luthier.prepare.stratify import stratify
from luthier.prepare.text import normalise, words
from luthier.prepare.weak.apply import FILE as WEAK_FILE
from luthier.prepare.weak.apply import label_rows
from luthier.progress import Progress
from luthier.queues import read_review, write_review
from luthier.store import Artifact, Store, write_json
from luthier.task import Task
from luthier.types import Dropped, Example, Split, digest, write_jsonl

VERSION = 4
UNLABELLED = label_repeats.UNLABELLED
LONG_RUN, LONG_NEAR = 16, 20
"""Words from which on a text is compared by its 13-word runs, and by its likeness: two short customer questions that
differ in a word are two questions; equal ones are always found."""
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

    dropped: list[Dropped] = []
    made, notes = _make(task, spec, store, root, progress, dropped)
    read = len(made)
    forgotten = read_forgotten(root)
    if guard is not None:  # before decisions about rows, which name them by what is trained
        made = guard.examples(drop_forgotten(made, forgotten, dropped, root=root), dropped)
    decided = apply_decisions(made, root, dropped, id_of=lambda example: _named(example, content(example, root)).id)
    given = {content(old, root): labels_of(old) for old, new in zip(made, decided) if old is not new}
    made = drop_forgotten(decided, forgotten, dropped, root=root)
    made = _usable(made, task, dropped)
    keyed = [(example, content(example, root)) for example in made]
    keyed, conflicts = drop_repeats(keyed, task, dropped)
    examples = _assign([(_named(example, key), key) for example, key in keyed], spec, given)
    examples = _unique_ids(examples)
    examples = drop_leaks(examples, dropped)
    examples = drop_benchmarks(examples, spec.decontaminate, root, dropped)
    weak = label_rows(examples, task, spec.weak, store=store, root=root, validation=spec.split.validation,
                      progress=progress)
    examples = drop_leaks(weak.examples, dropped) if weak.data.get("validation") else weak.examples
    examples.sort(key=lambda example: (_ORDER[example.split], UNLABELLED in example.tags))  # stable: then as read
    outside = sum(OUT_OF_SCOPE in example.tags for example in examples)
    labelled = [example for example in examples if UNLABELLED not in example.tags and OUT_OF_SCOPE not in example.tags]
    counts = Counter(example.split for example in labelled)
    _refuse_empty(counts, labelled, dropped, spec)
    labels = _labels(labelled, task, dropped)

    dropped = guard.clean_drops(dropped) if guard is not None else dropped
    privacy = write_privacy(folder, guard, texts_of((), examples), progress)
    if weak.review:
        write_review(folder, [*(item for item in read_review(folder) if item.queue != "labels"), *weak.review])
    if weak.data:
        write_json(folder / WEAK_FILE, weak.data)
    write_jsonl(folder / "passages.jsonl", [])
    write_jsonl(folder / "examples.jsonl", examples)
    write_jsonl(folder / "dropped.jsonl", dropped)
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
        "dropped": len(dropped), "disjoint": "document" if grouped else "question", "language": task.language,
        "test_hash": digest(*sorted(example.id for example in labelled if example.split == "test")),
    }
    unread = int(documents.summary.get("documents", 0)) if documents is not None else 0
    write_label_card(folder, summary, task=task, labels=labels, examples=examples, dropped=dropped, notes=notes,
                     conflicts=conflicts, rows=read, unread_documents=unread, seed=spec.seed, root=root,
                     privacy=privacy, weak=weak.data)
    progress.say(f"  {len(labelled):,} labelled rows ({counts['train']:,} train, {counts['validation']:,} validation, "
                 f"{counts['test']:,} test), "
                 + (f"{len(labels):,} labels, " if labels else "") + f"{summary['unlabelled']:,} unlabelled, "
                 + (f"{outside:,} of none of the classes, " if outside else "") +
                 f"{len(dropped):,} dropped", **{key: summary[key] for key in ("train", "validation", "test")})
    return summary


def _make(task: Task, spec: Prepare, store: Store, root: Path, progress: Progress, dropped: list[Dropped]
          ) -> tuple[list[Example], dict[str, dict[str, Any]]]:
    made: list[Example] = []
    notes: dict[str, dict[str, Any]] = {}
    for number, maker in enumerate(spec.makers, 1):
        said: dict[str, Any] = {}
        context = MakeContext(documents=(), passages=(), task=task, split_of=no_split, seed=spec.seed, root=root,
                              cache=store.cache("prepare"), progress=progress, rag=Rag(), examples=tuple(made),
                              notes=said, store=store)
        for found in maker.make(context):
            if isinstance(found, Dropped):
                dropped.append(found)
            else:
                made.append(found)
        notes[maker.kind if maker.kind not in notes else f"{maker.kind} {number}"] = said
    return made, notes


def _usable(made: Sequence[Example], task: Task, dropped: list[Dropped]) -> list[Example]:
    """Rows whose labels the task can learn; a held-out row without a label measures nothing."""
    kept: list[Example] = []
    several = 0
    known = set(task.labels)
    for example in made:
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
            kept.append(example)
    if several > sum(OUT_OF_SCOPE not in example.tags for example in kept):
        raise DataError(f"{several:,} of {len(made):,} rows have several labels; set task.multi_label: true")
    if known and not any(labels_of(example) for example in kept):
        raise DataError(f"no row has one of task.labels ({', '.join(task.labels[:8])}); the data holds: "
                        f"{', '.join(ordered(label for example in made for label in labels_of(example))[:8])}")
    return kept


def content(example: Example, root: Path) -> str:
    """What makes two rows the same: words (case and punctuation aside), exact text for tags, bytes for images."""
    if example.image:
        name = Path(example.image).name  # an image that Luthier wrote is named by its hash
        return "image\0" + (name if _HASH.fullmatch(name) else file_hash(root / example.image))
    if example.spans is not None:
        return "text\0" + " ".join(str(example.input).split())
    return "text\0" + same_words(example)


def same_words(example: Example) -> str:
    """What two texts share that say the same: the words, case and punctuation aside; of a text without words, itself.
    Shared with the training contract."""
    text = str(example.input)
    return normalise(text) or text.strip()


def _named(example: Example, key: str) -> Example:
    """An id from what the row says and the file it stands in: it changes with the row, not with the row's line."""
    spans = (f"{tag.start}-{tag.end}-{tag.label}" for tag in example.spans or ())
    return replace(example, id=digest("example", example.origin.step, file_of(example.origin.where), key,
                                      str(example.input), *(example.labels or ()), *spans, example.target or "",
                                      *example.negatives))


def _unique_ids(examples: Sequence[Example]) -> list[Example]:
    """The second of two equal rows (a repeat that the data keeps) gets another id."""
    seen: Counter[str] = Counter()
    found = []
    for example in examples:
        seen[example.id] += 1
        again = seen[example.id]
        found.append(example if again == 1 else replace(example, id=digest("example", example.id, str(again))))
    return found


def group_of(example: Example) -> str:
    """What must stay in one split with others; empty for a row by itself."""
    group = example.groups.get(TOGETHER, "")
    return group or (f"document={example.origin.documents[0]}" if example.origin.documents else "")


def _assign(keyed: Sequence[tuple[Example, str]], spec: Prepare, given: Mapping[str, tuple[str, ...]]
            ) -> list[Example]:
    """The user's own split where the data gives one; the shares for the rest, by group and class.

    A split that the data names nowhere (a file of train and one of test rows has no validation) gets its share of the
    rows that name none or, where all name one, of the train rows. `given` are the labels that corrected rows had in the
    data, by content: a correction does not move the split.
    """
    examples = [example for example, _ in keyed]
    key_of = {id(example): key for example, key in keyed}
    if spec.split.by == "document" and not all(group_of(example) for example in examples):
        raise DataError("prepare.split.by is 'document', but some rows name no document or group; name the column as "
                        "`group_by` of the maker, or set by: auto")
    answered = [example for example in examples if UNLABELLED not in example.tags]
    inside = [example for example in answered if OUT_OF_SCOPE not in example.tags]
    own = {example.split for example in inside if OWN_SPLIT in example.tags}
    open_rows = [example for example in inside if OWN_SPLIT not in example.tags]
    if not open_rows:
        open_rows = [example for example in inside if example.split == "train"]
    shares: dict[Split, float] = {"test": spec.split.test, "validation": spec.split.validation}
    shares = {split: share for split, share in shares.items() if share > 0 and split not in own}
    shares["train"] = 1 - sum(shares.values())
    of_group = {group: example.split for example in answered  # a group whose split the data names stays whole
                if OWN_SPLIT in example.tags and example.split != "train" and (group := group_of(example))}
    units: dict[str, list[str]] = defaultdict(list)
    unit_of: dict[int, str] = {}
    for example in open_rows:
        unit = group_of(example) or f"row={key_of[id(example)]}"
        if unit not in of_group:
            unit_of[id(example)] = unit
            units[unit] += given.get(key_of[id(example)], labels_of(example)) or ("",)
    found = stratify(units, shares, seed=spec.seed)
    for example in answered:
        if OUT_OF_SCOPE in example.tags and OWN_SPLIT not in example.tags:
            unit = unit_of[id(example)] = group_of(example) or f"row={key_of[id(example)]}"
            found.setdefault(unit, _held_split(unit, spec))
    result = []
    for example in examples:
        split = found.get(unit_of.get(id(example), ""), example.split)
        if UNLABELLED not in example.tags and OWN_SPLIT not in example.tags:
            split = of_group.get(group_of(example), split)
        result.append(replace(example, split=split))
    return result


def _held_split(unit: str, spec: Prepare) -> Split:
    """Validation or test, in the proportion of their shares: in train, a row of none of the classes would be of no
    use."""
    held = spec.split.test + spec.split.validation
    return "validation" if held and unit_interval(unit, spec.seed) >= spec.split.test / held else "test"


def drop_leaks(examples: Sequence[Example], dropped: list[Dropped]) -> list[Example]:
    """Remove train (and unlabelled) rows that nearly repeat validation or test texts, or share a group with them, then
    validation rows that do so with the test."""
    kept = list(examples)
    for held_split, checked in (("test", ("train", "validation")), ("validation", ("train",))):
        held = [example for example in kept if example.split == held_split]
        groups = {group: example.id for example in held if (group := group_of(example))}
        rows = [(at, example) for at, example in enumerate(kept) if example.split in checked]
        gone: dict[int, Dropped] = {}
        for at, example in rows:
            if (group := group_of(example)) in groups:
                gone[at] = _drop(example, "leak-group", f"{group} is in {held_split}, too ({groups[group]})")
        said = {same_words(example): example for example in held if not example.image}
        for at, example in rows:  # tagged texts that differ in case only are two rows, but not across splits
            if not example.image and (other := said.get(same_words(example))) is not None:
                gone.setdefault(at, _drop(example, "leak-same", f"the same words as {held_split} text {other.id} "
                                                                f"({other.origin.where})"))
        for at, other, share, reason in near_repeats(rows, held):
            gone.setdefault(at, _drop(kept[at], reason, f"{share:.0%} of it is {held_split} text {other.id} "
                                                        f"({other.origin.where})"))
        dropped.extend(gone[at] for at in sorted(gone))
        kept = [example for at, example in enumerate(kept) if at not in gone]
    return kept


def near_repeats(rows: Sequence[tuple[int, Example]], held: Sequence[Example]
                 ) -> Iterator[tuple[int, Example, float, str]]:
    """(number, the held-out row, share, reason) of each of the numbered rows whose longer text repeats a held-out one.

    Shared with the training contract, so that both judge alike.
    """
    texts = [(at, text) for at, example in rows if len(words(text := str(example.input))) >= LONG_RUN]
    others = [(example, text) for example in held if len(words(text := str(example.input))) >= LONG_RUN]
    if not texts or not others:
        return
    for leak in find_leaks([text for _, text in texts], [text for _, text in others]):
        at, text = texts[leak.item]
        if leak.reason == "leak-near" and len(words(text)) < LONG_NEAR:
            continue
        yield at, others[leak.held][0], leak.share, leak.reason


def _refuse_empty(counts: Mapping[str, int], labelled: Sequence[Example], dropped: Sequence[Dropped], spec: Prepare
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


def _labels(labelled: Sequence[Example], task: Task, dropped: Sequence[Dropped]) -> tuple[str, ...]:
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


def _drop(example: Example, reason: str, detail: str) -> Dropped:
    return label_repeats.drop(example, reason, detail)
