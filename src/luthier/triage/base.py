"""Triage: what is this document, which fields does it hold, which data set does it belong to?

The class comes from the labelled example documents most like it (retrieval), from the descriptions of the classes, from
a released classifier where the project has one, and, for those still in doubt, from a chat model. Fields come from
labels and values, patterns and tables, from a released `tag` model or from a chat model; a value is always a piece of
the document, with its place. What stays in doubt is left open and goes to the review queue `labels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field as Setting
from pydantic import field_validator, model_validator

from luthier.errors import SpecError
from luthier.executors import Executor
from luthier.ingest.base import Ingest
from luthier.progress import Progress, Silent
from luthier.spec import Spec, check_pattern
from luthier.store import Artifact, Store
from luthier.types import digest

VERSION = 1


class TriageClass(Spec):
    """A kind of document."""

    name: str = Setting(min_length=1)
    """What documents of this kind are called."""
    description: str = ""
    """What they are, in a sentence; read where there are no examples, and by a chat model."""
    examples: tuple[str, ...] = ()
    """Files or folders of such documents, relative to the project folder. Three are a start, ten are good."""
    dataset: str = ""
    """The data set that such documents belong to; empty takes the name of the class."""


class Field(Spec):
    """Something that documents say about themselves, such as a date or a total."""

    name: str = Setting(min_length=1)
    """What the field is called in the result."""
    labels: tuple[str, ...] = ()
    """Words that stand before its value ("Invoice no: X"), on the line above it, or in the table cell before or above
    it; any case. The first that is found counts."""
    pattern: str | None = None
    """A regular expression whose match (or first group) is the value, case ignored; looked for where no label was
    found. `^` and `$` are line ends."""
    type: Literal["text", "number", "amount", "date", "email", "iban"] = "text"
    """What the value must look like; text is anything. With neither label nor pattern, the type alone is looked for;
    dates, e-mail addresses and IBANs also where the label or pattern was not found."""
    take: Literal["first", "last", "largest"] = "first"
    """Which one counts where several are found."""
    description: str = ""
    """What it is, in words, for a chat model; empty takes the name."""
    tag: str = ""
    """The tag of a released `tag` model that marks it; empty takes the name."""
    classes: tuple[str, ...] = ()
    """Kinds of documents that have it; empty means all."""
    required: bool = False
    """A document without it is put up for review."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        check_pattern(pattern or "")
        return pattern

    @model_validator(mode="after")
    def _findable(self) -> Field:
        if self.take == "largest" and self.type not in ("number", "amount"):
            raise ValueError("take: largest is for the types number and amount")
        return self


class Triage(Spec):
    """What documents may be and what they may hold; run by `luthier triage FOLDER`."""

    classes: tuple[TriageClass, ...] = ()
    """The kinds of documents; none leaves the class out."""
    fields: tuple[Field, ...] = ()
    """What is looked for in them."""
    encoder: str = "starter:encoder"
    """Encoder model source that compares documents."""
    k: int = Setting(default=3, ge=1)
    """Example documents of each class that count, the most like ones."""
    passages: int = Setting(default=4, ge=1)
    """Pieces of 1,000 characters from the start of a document that are compared."""
    min_probability: float = Setting(default=0.6, ge=0, le=1)
    """A document gets its likeliest class from this probability on; the others are left open."""
    min_similarity: float = Setting(default=0.1, ge=-1, le=1)
    """A document less like every class than this (cosine) is left open."""
    release: str | None = None
    """Release that helps, as NAME/VERSION, or `live` for the project's live one: a classifier gives the class, a `tag`
    model the fields; null uses none."""
    chat: str | None = None
    """Chat model that is asked where the rest is in doubt: `starter:chat`, a folder, `hub:owner/name`, or with
    `base_url` the model's name there; null asks none."""
    base_url: str | None = None
    """Address of an OpenAI-compatible endpoint for `chat`; documents in doubt are sent to it."""
    api_key_env: str | None = None
    """Environment variable that holds the endpoint's key."""
    review: int = Setting(default=200, ge=0)
    """Most documents that a person is asked about."""

    @model_validator(mode="after")
    def _consistent(self) -> Triage:
        names = [one.name for one in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("classes holds a name twice")
        if len(names) == 1:
            raise ValueError("one class alone tells nothing apart; add another one, such as 'other' with a description")
        if len({one.name for one in self.fields}) != len(self.fields):
            raise ValueError("fields holds a name twice")
        for one in self.fields:
            unknown = [name for name in one.classes if name not in names]
            if unknown:
                raise ValueError(f"the field '{one.name}' is for the class '{unknown[0]}', which classes does not name")
            if one.required and not names:
                raise ValueError(f"the field '{one.name}' is required, so documents without it are put up for review "
                                 "under their class; name classes, or leave required out")
            if not (one.labels or one.pattern or one.type != "text" or self.chat or self.release):
                raise ValueError(f"the field '{one.name}' can be found by nothing; give it labels, a pattern or a "
                                 "type, or name a chat model or a release")
        if (self.base_url or self.api_key_env) and not self.chat:
            raise ValueError("base_url and api_key_env belong to an endpoint; name its model as `chat`")
        if self.api_key_env and not self.base_url:
            raise ValueError("api_key_env belongs to an endpoint; give its address as base_url")
        return self


def triage(sources: Sequence[str | Path], spec: Triage, *, store: Store, root: Path, releases: Path | None = None,
           ingest: Ingest | None = None, executor: Executor | None = None, progress: Progress = Silent()) -> Artifact:
    """Judge every document below `sources`.

    The artifact holds triage.jsonl (a line a document, by path), triage.csv, summary.json, set_aside.jsonl and
    review.jsonl. A document that was judged before with the same settings is neither read nor judged again. Decisions
    in `labels/decisions*.jsonl` that name a document (`id`, or `where`: its path) are its class, and the document then
    serves as an example. SpecError where there is nothing to look for; DataError where a class has no usable example
    and no description, or nothing can be read.
    """
    from luthier.triage import run

    if not spec.classes and not spec.fields:
        raise SpecError("triage: there is nothing to look for; name classes, fields, or both in the section triage")
    return run.run(sources, spec, store=store, root=root, releases=releases, ingest=ingest or Ingest(),
                   executor=executor, progress=progress)


def settings_key(spec: Triage, more: Mapping[str, Any]) -> str:
    """What one document's judgement depends on beside the document."""
    from luthier.store import canonical

    return digest(canonical([VERSION, spec.dump(), more]), length=40)
