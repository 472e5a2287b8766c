"""A kind of personal data of the user's own: an employee number, a customer number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from pydantic import Field, field_validator

from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.spec import check_pattern


@register(RECOGNIZERS, "pattern")
class Pattern(Rule):
    """What a regular expression finds: `{kind: pattern, name: EMPLOYEE, regex: 'E-[0-9]{6}'}`."""

    name: str = Field(pattern=r"^[A-Z][A-Z0-9_]{1,30}$")
    """The kind, in capitals: the label that stands in the text after redaction."""
    regex: str = Field(min_length=2)
    """Python regular expression; its first group, if it has one, is the value, else all of it."""
    context: tuple[str, ...] = ()
    """Words one of which must stand within 60 characters before it, case aside; none asks for nothing."""
    confidence: float = Field(default=0.95, gt=0, le=1)
    """How sure a hit is."""

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str) -> str:
        if check_pattern(regex).match(""):
            raise ValueError("the expression also fits nothing at all; make it ask for at least one character")
        return regex

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.regex)

    def find(self, signs: Signs) -> Iterator[Hit]:
        for found in self._compiled.finditer(signs.text):
            group = 1 if self._compiled.groups else 0
            if found[group] and (not self.context or any(word.lower() in signs.near(found.start(), 60)
                                                         for word in self.context)):
                yield Hit(found.start(group), found.end(group), self.name, self.confidence, "pattern")
