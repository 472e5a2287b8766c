"""What personal data is looked for and what happens to it: the settings, the seam, and what a recogniser is.

A recogniser is one file in `luthier.prepare.privacy.recognizers`: a `Spec` that derives from `Rule` and says for a
text
where it sees personal data, of which kind, and how sure it is. The rules validate what can be validated (check digits,
numbering plans, dates) and ask for context where the form alone proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast

from pydantic import Field, field_validator, model_validator

from luthier.plugins import Seam
from luthier.spec import Spec

VERSION = 1

RECOGNIZERS = Seam("recognizer", package="luthier.prepare.privacy.recognizers")

KINDS: Mapping[str, str] = {
    "PERSON": "names of people", "EMAIL": "e-mail addresses", "PHONE": "phone numbers", "ADDRESS": "postal addresses",
    "BIRTHDATE": "dates of birth", "IBAN": "bank accounts", "CARD": "payment cards",
    "NATIONAL_ID": "numbers that a state gives a person", "DEVICE": "IP and MAC addresses",
    "SECRET": "passwords, keys and tokens",
}
"""The kinds that the built-in recognisers find; a `pattern` or a model may add others."""

_WORD = re.compile(r"[^\W\d_]+")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Hit:
    """A piece of a text that may be personal data."""

    start: int
    end: int
    kind: str
    """One of `KINDS`, or a kind of the user's."""
    confidence: float
    """0 to 1: how sure the rule is that this is personal data."""
    rule: str
    """Which rule found it, such as `iban` or `person/title`."""
    by_person: bool = False
    """A person said so (labels/privacy.jsonl)."""


class Signs:
    """A text with the cheap facts that decide which recognisers look at it at all: computed once, shared by all."""

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def lower(self) -> str:
        return self.text.lower()

    @cached_property
    def words(self) -> frozenset[str]:
        """The different words in lower case, without digits."""
        return frozenset(_WORD.findall(self.lower))

    @cached_property
    def digits(self) -> int:
        """How many digits the text holds."""
        return len(_DIGIT.findall(self.text))

    def near(self, at: int, back: int = 40, ahead: int = 0) -> str:
        """The text around a place, in lower case: where words of context are looked for."""
        return self.text[max(0, at - back) : at + ahead].lower()


class Recognizer(Protocol):
    """Finds personal data in texts. A registered `Spec` whose fields are its settings; derive from `Rule`."""

    kind: ClassVar[str]

    def find_all(self, texts: Sequence[Signs], root: Path) -> Iterator[tuple[int, Hit]]:
        """Yield (number of the text, hit); overlaps are settled by whoever asks."""
        ...

    def inputs(self, root: Path) -> Mapping[str, str]:
        """What else the result depends on: the fingerprint of a model. Fast."""
        ...

    def dump(self) -> dict[str, Any]: ...


class Rule(Spec):
    """A recogniser that looks at one text at a time. Override `wants` (cheap) and `find`."""

    def wants(self, signs: Signs) -> bool:
        """Whether the text can hold a hit at all; most texts end here, so it must be fast."""
        return True

    def find(self, signs: Signs) -> Iterator[Hit]:
        """Where the text holds personal data."""
        raise NotImplementedError

    def find_all(self, texts: Sequence[Signs], root: Path) -> Iterator[tuple[int, Hit]]:
        wants, find = self.wants, self.find
        for at, signs in enumerate(texts):
            if wants(signs):
                for hit in find(signs):
                    yield at, hit

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {}


DEFAULT = ("email", "phone", "iban", "card", "national_id", "network", "secret", "birthdate", "address", "person")


def default_recognizers() -> tuple[Recognizer, ...]:
    """Every rule that needs no model."""
    return tuple(cast(Recognizer, RECOGNIZERS.get(kind)()) for kind in DEFAULT)


class Privacy(Spec):
    """Personal data and secrets in documents, pairs and labelled rows: found, reported, and taken out on request."""

    mode: Literal["off", "report", "redact", "pseudonymise", "refuse"] = "report"
    """`report` finds and counts, and changes nothing. `redact` writes `[EMAIL]` for an address, and so on.
    `pseudonymise` writes a made-up value of the same shape, the same one for the same value in every document.
    `refuse` redacts what is sure and leaves out the paragraphs and rows that hold something unsure which nobody has
    decided about yet. `off` does not look."""
    recognizers: tuple[Annotated[Recognizer, RECOGNIZERS], ...] = Field(default_factory=default_recognizers)
    """What is looked for. Add `{kind: ner, model: FOLDER}` for names that no rule knows, or
    `{kind: pattern, name: EMPLOYEE, regex: …}` for numbers of your own."""
    allow: tuple[str, ...] = ()
    """Values that are not personal data here, such as `support@acme.com`, `*@acme.com` or a product's name; case aside,
    `*` stands for anything."""
    min_confidence: float = Field(default=0.5, gt=0, le=1)
    """Hits of a smaller confidence are ignored."""
    sure: float = Field(default=0.8, gt=0, le=1)
    """Hits of a smaller confidence are unsure: `luthier review` asks a person about them, and until then `redact` and
    `pseudonymise` take them out. With 1, `refuse` leaves out everything that holds a hit."""
    strict: bool = False
    """With `refuse`: stop with the list of unsure hits instead of leaving their paragraphs and rows out."""
    key_file: str = Field(default=".luthier/privacy.key", min_length=1)
    """File with the secret key, relative to the project folder; made at the first run that takes something out,
    readable for you alone and outside git. Keep it: another key gives other pseudonyms."""
    key_env: str | None = None
    """Environment variable that holds the key instead."""
    map_file: str | None = None
    """With `pseudonymise`: also write which value became which, one JSON object a line. This file undoes everything:
    keep it apart. Null writes none."""

    @field_validator("mode", mode="before")
    @classmethod
    def _yaml_off(cls, mode: Any) -> Any:
        return "off" if mode is False else mode  # YAML reads a bare `off` as false

    @model_validator(mode="after")
    def _fits(self) -> Privacy:
        if self.sure < self.min_confidence:
            raise ValueError(f"sure ({self.sure:g}) must be at least min_confidence ({self.min_confidence:g})")
        if self.strict and self.mode != "refuse":
            raise ValueError("strict belongs to mode: refuse; set it, or leave strict out")
        if self.map_file and self.mode != "pseudonymise":
            raise ValueError("map_file belongs to mode: pseudonymise; set it, or leave map_file out")
        return self

    @property
    def rewrites(self) -> bool:
        """Whether values are taken out."""
        return self.mode in ("redact", "pseudonymise", "refuse")
