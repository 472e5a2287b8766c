"""The data card of labelled data: how many rows of which class, what was left out and why, what to be careful about.

`card.json` holds every figure; `card.html` is one self-contained page (no script, no network) with samples beside
their sources.
"""

from __future__ import annotations

import base64
import hashlib
import io
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.prepare.card import SPLITS, _bars, _dropped_samples, _figure, _histogram
from luthier.prepare.label_repeats import UNLABELLED, said
from luthier.prepare.labels import OUT_OF_SCOPE, labels_of
from luthier.prepare.privacy.report import warnings as privacy_warnings
from luthier.store import write_json, write_text
from luthier.task import Task
from luthier.types import Dropped, Example

_CONFLICTS = 20
_SAMPLES = 24
_CLASSES = 200
_THUMB = 72


def write_label_card(folder: Path, summary: Mapping[str, Any], *, task: Task, labels: Sequence[str],
                     examples: Sequence[Example], dropped: Sequence[Dropped], notes: Mapping[str, Mapping[str, Any]],
                     conflicts: Sequence[Mapping[str, Any]], rows: int, unread_documents: int, seed: int, root: Path,
                     privacy: Mapping[str, Any] | None = None, weak: Mapping[str, Any] | None = None) -> None:
    """Write `card.json` and `card.html`."""
    data = label_card_data(summary, task=task, labels=labels, examples=examples, dropped=dropped, notes=notes,
                           conflicts=conflicts, rows=rows, unread_documents=unread_documents, seed=seed,
                           privacy=privacy, weak=weak)
    write_json(folder / "card.json", data)
    write_text(folder / "card.html", render(data, root))


def label_card_data(summary: Mapping[str, Any], *, task: Task, labels: Sequence[str], examples: Sequence[Example],
                    dropped: Sequence[Dropped], notes: Mapping[str, Mapping[str, Any]],
                    conflicts: Sequence[Mapping[str, Any]], rows: int, unread_documents: int, seed: int,
                    privacy: Mapping[str, Any] | None = None, weak: Mapping[str, Any] | None = None
                    ) -> dict[str, Any]:
    """Every figure of the card as JSON-ready data."""
    seen = _Seen(task, labels, seed)
    for at, example in enumerate(examples):
        seen.take(at, example)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for drop in dropped:
        reasons[drop.step][drop.reason] += 1
    drops: Counter[str] = Counter()
    for inside in reasons.values():
        drops.update(inside)
    data: dict[str, Any] = {
        "summary": dict(summary), "task": task.type, "multi_label": task.multi_label, "rows": rows,
        "classes": seen.classes(), "out_of_scope": {split: seen.outside[split] for split in SPLITS},
        "makers": [{"maker": name, "kept": seen.made[name.split(" ")[0]], "dropped": dict(reasons[name.split(" ")[0]]),
                    "notes": {key: value for key, value in said_by.items() if not isinstance(value, dict)}}
                   for name, said_by in notes.items()],
        "drops": dict(drops.most_common()),
        "lengths": {name: _histogram(values, unit) for (name, unit), values in seen.lengths.items()},
        "conflicts": [dict(conflict) for conflict in conflicts[:_CONFLICTS]], "conflict_count": len(conflicts),
        "samples": _samples(examples, seen),
        "dropped_samples": _dropped_samples(dropped), "privacy": dict(privacy or {}),
        "weak": dict(weak or {}),
    }
    data["warnings"] = [*warnings(data, unread_documents, grouped=seen.grouped), *privacy_warnings(data["privacy"]),
                        *data["weak"].get("warnings", ())]
    return data


class _Seen:
    """What the card counts, of one row after the other: there may be more of them than memory holds."""

    def __init__(self, task: Task, labels: Sequence[str], seed: int):
        self._task, self._seed = task, seed
        self._labels = labels
        self._counts: dict[str, Counter[str]] = {label: Counter() for label in labels}
        self.made: Counter[str] = Counter()
        self.outside: Counter[str] = Counter()
        self.grouped = False
        """Some rows say what they belong to."""
        self.images = False
        self.lengths: dict[tuple[str, str], array[int]] = {}
        """By name and unit."""
        self.samples: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
        """By class: the rows with the least hash, with their numbers."""

    def take(self, at: int, example: Example) -> None:
        self.made[example.origin.step] += 1
        if OUT_OF_SCOPE in example.tags:
            self.outside[example.split] += 1
        if UNLABELLED in example.tags or OUT_OF_SCOPE in example.tags:
            return
        found = labels_of(example) if example.spans is None else tuple(tag.label for tag in example.spans)
        for label in found:
            self._counts.setdefault(label, Counter())[example.split] += 1
        self.grouped = self.grouped or bool(example.groups.get("together") or example.origin.documents)
        self.images = self.images or bool(example.image)
        place = hashlib.sha256(f"card\0{self._seed}\0{example.id}".encode()).digest()
        inside = self.samples[(labels_of(example) or ("",))[0]]
        inside.append((place, at))
        if len(inside) >= 4 * _SAMPLES:
            inside[:] = sorted(inside)[:_SAMPLES]
        task = self._task
        if task.type != "image":
            self._length("queries" if task.type == "embed" else "texts", "words", len(str(example.input).split()))
            if task.type == "embed":
                self._length("matching texts", "words", len((example.target or "").split()))
            if task.multi_label:
                self._length("labels a row", "labels", len(example.labels or ()))
            if task.type == "tag":
                self._length("tags a row", "tags", len(example.spans or ()))

    def _length(self, name: str, unit: str, value: int) -> None:
        self.lengths.setdefault((name, unit), array("q")).append(value)

    def classes(self) -> list[dict[str, Any]]:
        total = sum(sum(count.values()) for count in self._counts.values()) or 1
        return [{"label": label, **{split: count[split] for split in SPLITS}, "count": sum(count.values()),
                 "share": sum(count.values()) / total} for label, count in self._counts.items()]

    def chosen(self) -> list[tuple[str, int]]:
        """(class, number) of up to three rows of a class, fewer where there are many; a hash decides which."""
        each = max(1, min(8 if self.images else 3 if self._labels else 12, _SAMPLES // max(1, len(self._labels))))
        rows = [(place, at, label) for label, inside in self.samples.items() for place, at in sorted(inside)[:each]]
        return [(label, at) for _, at, label in sorted(rows)[:_SAMPLES]]


def _samples(examples: Sequence[Example], seen: _Seen) -> list[dict[str, Any]]:
    found = []
    for label, at in seen.chosen():
        example = examples[at]
        found.append({"label": said(example).replace("'", ""), "first": label, "split": example.split,
                      "image": example.image, "text": str(example.input)[:600],
                      "target": (example.target or "")[:400], "source": example.origin.where,
                      "spans": [[tag.start, tag.end, tag.label] for tag in example.spans or ()]})
    return sorted(found, key=lambda row: row["first"])


def warnings(data: Mapping[str, Any], unread_documents: int, *, grouped: bool) -> list[str]:
    """What a careful person would point out, most serious first."""
    found: list[str] = []
    summary, classes = data["summary"], data["classes"]
    if summary["test"] < 50:
        found.append(f"The test set has only {summary['test']} rows: differences between models will rarely be "
                     "certain. Add rows, or raise prepare.split.test.")
    if not summary["validation"]:
        found.append("There are no validation rows: training cannot tell when to stop. Raise prepare.split.validation.")
    few = [row["label"] for row in classes if row["train"] < 5]
    if few:
        found.append(f"{_count(len(few), 'class', 'classes')} with fewer than 5 training rows: {_names(few)}. Expect "
                     "mistakes there; label more of them, or merge them into others.")
    if data["task"] != "tag":
        untested = [row["label"] for row in classes if not row["test"]]
        if untested:
            found.append(f"{_count(len(untested), 'class', 'classes')} without a test row: {_names(untested)}. The "
                         "report cannot say how well they are told apart.")
    if len(classes) > 1:
        most, least = max(classes, key=lambda row: row["train"]), min(classes, key=lambda row: row["train"])
        if most["train"] >= 10 * max(1, least["train"]):
            found.append(f"The classes are uneven: “{most['label']}” has {most['train']:,} training rows, "
                         f"“{least['label']}” {least['train']:,}. Judge by macro F1 (task.metric: macro_f1), and see "
                         "the class weights in train.")
        if most["share"] > 0.6 and data["task"] in ("classify", "image") and not data["multi_label"]:
            found.append(f"Always answering “{most['label']}” would be right {most['share']:.0%} of the time; accuracy "
                         "alone says little here.")
    beside = data["out_of_scope"]
    if beside["train"]:
        found.append(f"{_count(beside['train'], 'row')} of none of the classes are for training, where they are not "
                     "used: give them to the test split, where they show how well such inputs are recognised.")
    if sum(beside.values()) and not beside["test"]:
        found.append("No row of none of the classes is in the test: the report cannot say how well such inputs are "
                     "recognised.")
    alike = _alike([row["label"] for row in classes])
    if alike:
        found.append("Some labels differ in case or spacing only, probably by mistake: "
                     + "; ".join(" / ".join(map(repr, names)) for names in alike[:5]) + ".")
    if data["conflict_count"]:
        found.append(f"{_count(data['conflict_count'], 'text')} stood in the data with different labels; see below. "
                     "People disagree there, or a label is wrong.")
    leaks = sum(count for reason, count in data["drops"].items() if reason.startswith("leak-"))
    if leaks > 0.05 * max(1, summary["train"]):
        found.append(f"{leaks:,} rows were dropped from training because they repeat validation or test rows, or share "
                     "a group with them: your own split is not clean.")
    if unread_documents:
        found.append(f"{unread_documents:,} documents of ingest.sources were not used: a labelled task learns from the "
                     "data its makers name.")
    if not grouped:
        found.append("The rows name no document, customer or other group. If several rows come from one source, name "
                     "its column as group_by of the maker: otherwise the test may be easier than real use.")
    return found


def _alike(labels: Sequence[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups["".join(sign for sign in label.casefold() if sign.isalnum()) or label].append(label)
    return [names for names in groups.values() if len(names) > 1]


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def render(data: Mapping[str, Any], root: Path) -> str:
    """The card as one HTML page; images are shown small, inside the page."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = lambda value: f"{value:.0%}"
    environment.filters["figure"] = _figure
    environment.globals.update(splits=SPLITS, shown_classes=_CLASSES, bars=_bars, marked=_marked,
                               thumbnail=lambda image: _thumbnail(root / image))
    most = max((row["count"] for row in data["classes"]), default=0) or 1
    return environment.get_template("label_card.html.j2").render(most=most, **data)


def _thumbnail(file: Path) -> str:
    """A small PNG as a data address."""
    from PIL import Image

    with Image.open(file) as image:
        image.draft("RGB", (_THUMB, _THUMB))
        small = image.convert("RGB")
        small.thumbnail((_THUMB, _THUMB))
        written = io.BytesIO()
        small.save(written, "PNG")
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def _marked(text: str, spans: Sequence[Sequence[Any]]) -> Any:
    """The text with its tags marked, escaped."""
    from markupsafe import Markup, escape

    found, at = Markup(""), 0
    for start, end, label in spans:
        if end > len(text):
            break
        found += escape(text[at:start]) + Markup("<mark>{} <b>{}</b></mark>").format(text[start:end], label)
        at = end
    return found + escape(text[at:])
