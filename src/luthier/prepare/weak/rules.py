"""Labelling rules: keywords, patterns, columns and lengths that speak for a class. Every rule is a source by itself."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from luthier.errors import DataError
from luthier.plugins import register
from luthier.prepare.weak.base import LABELERS, LabelerSpec, Source, Vote, WeakContext, WeakRow
from luthier.spec import Spec, check_pattern


class Rule(Spec):
    """If all that is written here holds for a row, the rule votes for its label; otherwise it says nothing."""

    label: str | tuple[str, ...]
    """The class; several where it is one of these (or, with several classes a row, all of these)."""
    name: str = ""
    """What the card calls it; empty makes a name of the label and the first condition."""
    any_of: tuple[str, ...] = ()
    """Words or phrases of which one must occur, in whole words and any case; `*` at an end stands for the rest of a
    word: `deliver*`."""
    all_of: tuple[str, ...] = ()
    """Words or phrases that must all occur."""
    none_of: tuple[str, ...] = ()
    """Words or phrases that must not occur."""
    pattern: str | None = None
    """A regular expression that must be found somewhere in the text (Python syntax, case ignored)."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column → the value that it must have (any case; `*` stands for anything). The maker must keep the column: its
    `groups`."""
    where: str | None = None
    """The row's file, such as `data/mails*.csv`."""
    min_words: int | None = Field(default=None, ge=0)
    """Least length of the text in words."""
    max_words: int | None = Field(default=None, ge=0)
    """Greatest length of the text in words."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        check_pattern(pattern or "")
        return pattern

    @field_validator("any_of", "all_of", "none_of")
    @classmethod
    def _says(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if any(not phrase.strip(" *") for phrase in phrases):
            raise ValueError("holds an empty word")
        return phrases

    @model_validator(mode="after")
    def _has_condition(self) -> Rule:
        if not self.labels or not all(label.strip() for label in self.labels):
            raise ValueError("a rule needs the label that it votes for")
        if not (self.any_of or self.all_of or self.none_of or self.pattern or self.columns or self.where
                or self.min_words is not None or self.max_words is not None):
            raise ValueError("a rule without a condition holds for every row; add any_of, pattern or another one")
        return self

    @property
    def labels(self) -> Vote:
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def title(self) -> str:
        first = next((text for text in (*self.any_of, *self.all_of, self.pattern, *self.columns.values(), self.where)
                      if text), "length" if not self.none_of else f"no {self.none_of[0]}")
        return self.name or f"{'/'.join(self.labels)}: {first}"

    def holds(self) -> Callable[[WeakRow], bool]:
        """The rule as a function, its patterns compiled."""
        any_of = _phrases(self.any_of) if self.any_of else None
        none_of = _phrases(self.none_of) if self.none_of else None
        all_of = [_phrases([phrase]) for phrase in self.all_of]
        pattern = re.compile(self.pattern, re.IGNORECASE) if self.pattern else None

        def test(row: WeakRow) -> bool:
            length = len(row.text.split())
            return ((any_of is None or any_of.search(row.text) is not None)
                    and all(one.search(row.text) for one in all_of)
                    and (none_of is None or none_of.search(row.text) is None)
                    and (pattern is None or pattern.search(row.text) is not None)
                    and all(fnmatch.fnmatchcase(row.columns.get(name, "").casefold(), value.casefold())
                            for name, value in self.columns.items())
                    and (self.where is None or fnmatch.fnmatchcase(re.sub(r":\d+$", "", row.where), self.where))
                    and (self.min_words is None or length >= self.min_words)
                    and (self.max_words is None or length <= self.max_words))

        return test


@register(LABELERS, "rules")
class Rules(LabelerSpec):
    """Labelling rules. Each is a source by itself, with its own figures and its own estimated accuracy."""

    rules: tuple[Rule, ...] = Field(min_length=1)
    """The rules; more than one may hold for a row, and they may contradict each other."""

    made_by: ClassVar = "rule"

    def vote(self, context: WeakContext) -> Sequence[Source]:
        """DataError for a rule about a column that no row has."""
        self._refuse_columns(context.rows)
        found: list[Source] = []
        titles: dict[str, int] = {}
        for rule in self.rules:
            holds = rule.holds()
            title = f"{self.name}: {rule.title}" if self.name else rule.title
            titles[title] = titles.get(title, 0) + 1
            if titles[title] > 1:
                title = f"{title} ({titles[title]})"
            found.append(Source(title, [rule.labels if holds(row) else () for row in context.rows]))
        return found

    def _refuse_columns(self, rows: Sequence[WeakRow]) -> None:
        kept: Mapping[str, str] = {name: "" for row in rows for name in row.columns}
        for rule in self.rules:
            for name in rule.columns:
                if rows and name not in kept:
                    raise DataError(f"prepare.weak: the rule '{rule.title}' asks for the column '{name}', which no row "
                                    f"has ({', '.join(kept) or 'none are kept'}); name it in the maker's `groups`, so "
                                    "that it is read")


def _phrases(phrases: Sequence[str]) -> re.Pattern[str]:
    """One pattern for several phrases: whole words, any white space between them."""
    parts = []
    for phrase in phrases:
        words = [re.escape(word).replace(r"\*", r"\w*") for word in phrase.split()]
        parts.append(r"\s+".join(words))
    return re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)", re.IGNORECASE)
