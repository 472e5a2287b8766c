"""Give rows without a label the one that the sources, weighed by the label model, speak for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier.errors import DataError
from luthier.prepare.label_repeats import UNLABELLED
from luthier.prepare.labels import OUT_OF_SCOPE, ordered
from luthier.prepare.split import unit_interval
from luthier.prepare.weak import combine, figures
from luthier.prepare.weak.base import WEAK, Source, Weak, WeakContext, WeakRow, named_labels, near, readable
from luthier.progress import Progress
from luthier.queues import ReviewItem
from luthier.store import Store
from luthier.task import Task
from luthier.types import Example

FILE = "weak.json"


@dataclass
class WeakResult:
    """What became of the rows."""

    examples: Sequence[Example]
    """All rows, in their order; some now have a label."""
    data: dict[str, Any] = field(default_factory=dict)
    """Figures for the card; empty where nothing was asked for."""
    review: list[ReviewItem] = field(default_factory=list)


def label_rows(examples: Sequence[Example], task: Task, spec: Weak, *, store: Store, root: Path,
               validation: float = 0.0, progress: Progress) -> WeakResult:
    """Vote, combine, and label the training rows that have no label.

    Where no person labelled a validation row, the share `validation` of the rows labelled here goes to it. Raises
    DataError for a label that nothing else knows.
    """
    if not spec.labelers:
        return WeakResult(examples)
    labels = _labels(examples, task, spec)
    held = [example for example in examples if example.split == "validation" and example.labels
            and OUT_OF_SCOPE not in example.tags]
    known = [example for example in examples if example.split == "train" and example.labels
             and OUT_OF_SCOPE not in example.tags]
    waiting = [example for example in examples if example.split == "train" and UNLABELLED in example.tags]
    asked = [*known, *held, *waiting]
    context = WeakContext(
        rows=[_row(example, known=at < len(known)) for at, example in enumerate(asked)], labels=labels,
        descriptions={label: spec.descriptions.get(label) or readable(label) for label in labels},
        multi_label=task.multi_label, root=root, store=store, seed=spec.seed, progress=progress)
    sources: list[tuple[Source, str]] = []
    for labeler in spec.labelers:
        for source in labeler.vote(context):
            _refuse_votes(source, labels, len(asked))
            sources.append((_named(source, [other.name for other, _ in sources]), labeler.made_by))
    truth = [set(example.labels or ()) if at < len(known) + len(held) else None for at, example in enumerate(asked)]
    found = combine.combine([source for source, _ in sources], labels, truth, learn=len(known), spec=spec,
                            multi_label=task.multi_label)
    made = {one.id: _label(one, asked_at, found, sources, spec)
            for asked_at, one in enumerate(asked) if asked_at >= len(known) + len(held)}
    made = {id: example for id, example in made.items() if example is not None}
    data = figures.figures(sources, labels, truth, found, spec, made=len(made), waiting=len(waiting),
                           learn=len(known))
    moved = 0
    if not held and validation > 0:
        for id, example in made.items():
            if unit_interval(id, spec.seed) < validation:
                made[id], moved = replace(example, split="validation"), moved + 1
    data["validation"] = moved
    data["warnings"] = figures.warnings(data)
    review = [*_ask(asked, len(known) + len(held), found, sources, labels, spec), *_doubt(known, found, labels, spec)]
    progress.say(figures.line(data))
    return WeakResult([made.get(example.id, example) for example in examples], data, review)


def _labels(examples: Sequence[Example], task: Task, spec: Weak) -> tuple[str, ...]:
    held = {label for example in examples for label in example.labels or ()}
    named = {*spec.descriptions, *named_labels(spec)}
    if not task.labels and held:
        for label in sorted(named - held):
            raise DataError(f"prepare.weak names the label '{label}', which no labelled row has{near(label, held)}; "
                            "name all classes in task.labels if it is a new one")
    labels = task.labels or ordered(held | named)
    if not labels:
        raise DataError("prepare.weak: there is no class to choose from; label some rows, or name the classes in "
                        "task.labels")
    return tuple(labels)


def _row(example: Example, *, known: bool) -> WeakRow:
    return WeakRow(example.id, str(example.input), example.origin.where, dict(example.groups),
                   example.labels if known else None)


def _refuse_votes(source: Source, labels: Sequence[str], rows: int) -> None:
    if len(source.votes) != rows:
        raise DataError(f"prepare.weak: the labeler '{source.name}' gave {len(source.votes)} votes for {rows} rows")
    wrong = next((label for vote in source.votes for label in vote if label not in labels), None)
    if wrong is not None:
        raise DataError(f"prepare.weak: the labeler '{source.name}' voted for '{wrong}', which is no class"
                        f"{near(str(wrong), labels)}; the classes: {', '.join(labels[:12])}")


def _named(source: Source, taken: Sequence[str]) -> Source:
    name, number = source.name, 2
    while name in taken:
        name, number = f"{source.name} ({number})", number + 1
    return Source(name, source.votes)


def _label(example: Example, at: int, found: combine.Combined, sources: Sequence[tuple[Source, str]], spec: Weak
           ) -> Example | None:
    """The row with its label, or None where that is too uncertain or nobody spoke."""
    labels, chance = found.answers[at], float(found.sure[at])
    if not found.spoke[at] or labels is None or chance < spec.min_probability:
        return None
    voters = [(number, source, made_by) for number, (source, made_by) in enumerate(sources) if source.votes[at]]
    agree = [voter for voter in voters if set(voter[1].votes[at]) & set(labels)] or voters
    best = max(agree, key=lambda voter: (float(found.accuracy[voter[0]]), -voter[0]))
    tags = tuple(tag for tag in example.tags if tag != UNLABELLED)
    return replace(example, labels=labels, tags=(*tags, WEAK), weight=example.weight * chance,
                   origin=replace(example.origin, maker=best[2], step=f"weak: {best[1].name}",  # type: ignore[arg-type]
                                  evidence=_votes_said(at, sources)))


def _votes_said(at: int, sources: Sequence[tuple[Source, str]], most: int = 8) -> str:
    said = [f"{source.name} → {', '.join(source.votes[at])}" for source, _ in sources if source.votes[at]]
    return "; ".join(said[:most]) + (f"; and {len(said) - most} more" if len(said) > most else "")


def _ask(asked: Sequence[Example], begin: int, found: combine.Combined, sources: Sequence[tuple[Source, str]],
         labels: Sequence[str], spec: Weak) -> list[ReviewItem]:
    """Rows whose sources disagree, the least certain first."""
    items: list[tuple[float, int]] = []
    for at in range(begin, len(asked)):
        votes = {source.votes[at] for source, _ in sources if source.votes[at]}
        if len(votes) > 1:
            items.append((float(found.sure[at]), at))
    return [ReviewItem(
        queue="labels", id=asked[at].id, text=str(asked[at].input), proposal=found.best[at], choices=tuple(labels),
        confidence=round(sure, 4), where=asked[at].origin.where, reason="sources of weak labels disagree",
        context=_votes_said(at, sources), notes={"votes": {source.name: list(source.votes[at]) for source, _ in sources
                                                           if source.votes[at]}, "by": "weak"})
        for sure, at in sorted(items)[: spec.review]]


def _doubt(known: Sequence[Example], found: combine.Combined, labels: Sequence[str], spec: Weak) -> list[ReviewItem]:
    """Labelled training rows where everything that was voted speaks for another class: perhaps mislabelled."""
    items = []
    for at, example in enumerate(known):
        said = found.crossed[at]
        if said is None or found.multi_label or not found.spoke[at]:
            continue
        top = int(said.argmax())
        own = float(said[labels.index((example.labels or ("",))[0])]) if example.labels else 1.0
        if labels[top] not in (example.labels or ()) and said[top] >= 0.9 and own <= 0.05:
            items.append((own, example, labels[top], float(said[top])))
    items.sort(key=lambda item: (item[0], item[1].id))
    return [ReviewItem(queue="labels", id=example.id, text=str(example.input), proposal=[label], choices=tuple(labels),
                       confidence=round(own, 4), where=example.origin.where,
                       reason=f"labelled {', '.join(example.labels or ())}, but the weak labels say {label} "
                              f"({chance:.0%})", notes={"given": list(example.labels or ()), "by": "weak"})
            for own, example, label, chance in items[: max(0, spec.review // 4)]]
