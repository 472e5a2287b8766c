"""Labels for rows that have none, from sources that are cheap and often wrong: rules, likeness, models.

A labeler looks at every row and gives the votes of one or more sources. A label model (`label_model`) estimates from
their agreement, and from the rows that people labelled, how far each can be trusted, and what each row most likely is.
Only training rows get such labels; what is measured on stays human.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

from luthier.errors import SpecError
from luthier.plugins import Seam
from luthier.progress import Progress, Silent
from luthier.spec import Spec
from luthier.store import Store
from luthier.task import Task

LABELERS = Seam("labeler", package="luthier.prepare.weak")

WEAK = "weak"
"""Tag of a row whose label comes from `prepare.weak`."""

Vote = tuple[str, ...]
"""What a source says about a row: a class, several (one of these; all of these where a row may have several), or ()
for nothing."""


@dataclass(frozen=True)
class WeakRow:
    """What a labeler may read of a row."""

    id: str
    text: str
    where: str
    """File and line."""
    columns: Mapping[str, str]
    """The columns that the maker keeps (its `groups`)."""
    known: Vote | None = None
    """What a person said, where the row may be learned from; None for all others. A labeler must not
    use a row's own."""


@dataclass(frozen=True, kw_only=True)
class WeakContext:
    """What labelers read."""

    rows: Sequence[WeakRow]
    labels: tuple[str, ...]
    descriptions: Mapping[str, str]
    """Label → what it means, for every label: the user's words, else the name with spaces."""
    multi_label: bool
    root: Path
    store: Store
    seed: int = 0
    progress: Progress = Silent()


@dataclass(frozen=True)
class Source:
    """One voice: a rule, a model."""

    name: str
    votes: Sequence[Vote]
    """One a row of the context."""


class Labeler(Protocol):
    """Gives votes. A registered `Spec` (best derived from `LabelerSpec`)."""

    kind: ClassVar[str]
    made_by: ClassVar[Literal["rule", "teacher", "pseudo"]]
    """What a row is said to be made by whose label comes from it: a rule, a model that was asked, or likeness."""
    name: str

    def vote(self, context: WeakContext) -> Sequence[Source]:
        """The votes of its sources on all rows. Deterministic."""
        ...

    def inputs(self, root: Path) -> Mapping[str, str]:
        """What else the votes depend on: fingerprints of models, hashes of files. Fast."""
        ...

    def dump(self) -> dict[str, Any]: ...


class LabelerSpec(Spec):
    """Fields and habits of every labeler."""

    name: str = ""
    """What the card calls it; empty takes its kind."""

    made_by: ClassVar[Literal["rule", "teacher", "pseudo"]] = "rule"

    def inputs(self, root: Path) -> Mapping[str, str]:
        """For a class of a local file: that file, so that an edit makes the labels anew."""
        from luthier.models.sources import file_hash

        file = getattr(sys.modules.get(type(self).__module__), "__file__", None)
        return {"code": file_hash(Path(file))} if file and ":" in self.kind else {}


class RowLabeler(LabelerSpec):
    """Base of a user's own labelling function: derive, write `label`, and name it as `kind: my_module:MyClass`."""

    def label(self, text: str, columns: Mapping[str, str]) -> str | Sequence[str] | None:
        """The class of one row, several, or None for no opinion."""
        raise NotImplementedError

    def vote(self, context: WeakContext) -> Sequence[Source]:
        votes: list[Vote] = []
        for row in context.rows:
            found = self.label(row.text, row.columns)
            votes.append((found,) if isinstance(found, str) else tuple(found or ()))
        return [Source(self.name or self.kind, votes)]


class Weak(Spec):
    """Labels for rows that have none (task classify)."""

    labelers: tuple[Annotated[Labeler, LABELERS], ...] = ()
    """What votes on the rows without a label; none leaves those rows as they are."""
    descriptions: dict[str, str] = Field(default_factory=dict)
    """Label → what it means, in a sentence: read by `descriptions`, `zero_shot` and `teacher`. Labels that are not
    here are known by their names."""
    combine: Literal["model", "majority"] = "model"
    """`model` estimates from the votes how far each source can be trusted, class by class, and weighs them by it;
    `majority` counts votes (the share of the votes is then the probability)."""
    min_probability: float = Field(default=0.7, ge=0, le=1)
    """A row gets its likeliest label from this probability on; the others stay without a label."""
    human_weight: float = Field(default=10.0, gt=0)
    """A row that a person labelled counts as this many others where the sources' accuracies are estimated."""
    strength: float = Field(default=100.0, ge=0)
    """Rows of belief that draw a source's accuracies for single classes towards its overall accuracy; 0 is the plain
    model of Dawid and Skene, for many votes a class."""
    silence: bool = True
    """Whether a source that says nothing about a row is evidence, too."""
    calibrate: bool = True
    """Soften the probabilities so that they fit the rows that people labelled (from 30 such rows on)."""
    review: int = Field(default=100, ge=0)
    """Most rows that a person is asked about in the review queue `labels`: those the sources disagree most about."""
    seed: int = 0
    """Chooses the parts in which the accuracy is measured, and the rows of labelers with `max_rows`."""

    def inputs(self, root: Path) -> list[Any]:
        """What the labels depend on beside the rows and these settings."""
        return [dict(labeler.inputs(root)) for labeler in self.labelers]


def readable(label: str) -> str:
    """`card_not_working` as words."""
    return " ".join(label.replace("_", " ").replace("-", " ").split())


def refuse_misfit(task: Task, spec: Weak) -> None:
    """SpecError where the task has no rows that weak labels are for, or a setting could not be honoured."""
    if not spec.labelers:
        if spec.descriptions:
            raise SpecError("prepare.weak.descriptions is set, but prepare.weak.labelers names nothing that reads them")
        return
    if task.type != "classify":
        raise SpecError(f"prepare.weak gives texts their classes (task classify), not the task '{task.type}'; leave it "
                        "out")
    if task.labels:
        for label in (*spec.descriptions, *named_labels(spec)):
            if label not in task.labels:
                raise SpecError(f"prepare.weak names the label '{label}', which is not in task.labels"
                                + near(label, task.labels))


def named_labels(spec: Weak) -> tuple[str, ...]:
    """The labels that rules name."""
    found = [label for labeler in spec.labelers for rule in getattr(labeler, "rules", ()) for label in rule.labels]
    return tuple(dict.fromkeys(found))


def near(label: str, known: Sequence[str] | set[str]) -> str:
    """A hint for a label that nobody knows."""
    found = difflib.get_close_matches(label, sorted(known), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""
