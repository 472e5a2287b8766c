"""Dates of birth: a full date behind a word that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator

from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.prepare.privacy.lazy import lazy

_MONTHS = (
    "jan(?:uary|uar|uari|vier)?|jän(?:ner)?|feb(?:ruary|ruar|ruari)?|févr(?:ier)?|march|mar(?:s|zo|ch)?|märz|mrz|"
    "maart|"
    "apr(?:il|ile)?|avril|abril|may|mai|mei|mayo|maggio|june?|juni|juin|junio|giugno|july?|juli|juillet|julio|luglio|"
    "aug(?:ust|ustus)?|août|agosto|sep(?:t(?:ember|embre)?)?|septiembre|settembre|o[ck]t(?:ober|obre)?|octubre|"
    "ottobre|"
    "nov(?:ember|embre|iembre)?|de[cz](?:ember|embre)?|déc(?:embre)?|diciembre|dicembre|enero|gennaio|febrero|"
    "febbraio|aprile")
_DATE = (rf"(?:[0-3]?\d[./-][01]?\d[./-](?:19|20)?\d\d|[01]?\d[/-][0-3]?\d[/-](?:19|20)?\d\d|(?:19|"
         rf"20)\d\d[-/.][01]?\d[-/.][0-3]?\d"
         rf"|[0-3]?\d(?:st|nd|rd|th|\.|er|º)?\s(?:of\s|de\s)?(?:{_MONTHS})\.?,?\s(?:de\s)?(?:19|20)\d\d"
         rf"|(?:{_MONTHS})\.?\s[0-3]?\d(?:st|nd|rd|th)?,?\s(?:19|20)\d\d)(?!\d)")
_FOUND = lazy(
    r"(?:\b(?:born|date of birth|birth ?date|birthday|d\.?o\.?b\.?|geboren|geb\.?|geburtsdatum|geburtstag|née?|"
    r"nacid[oa]|"
    r"fecha de nacimiento|nat[oa]|data di nascita|date de naissance|geboortedatum|född|nascid[oa]|data de nascimento)"
    r"(?![^\W_])[^\n\d]{0,28}?|(?<!\S)\*\s?)(" + _DATE + ")", re.IGNORECASE)
_AFTER = lazy(rf"({_DATE}) ?(?:Geburtstag|is (?:my|his|her|their) birthday|geboren)", re.IGNORECASE)
_CUES = frozenset((
    "born", "birth", "birthdate", "birthday", "dob", "geboren", "geb", "geburtsdatum", "geburtstag", "né", "née",
    "nacido",
    "nacida", "nacimiento", "nato", "nata", "nascita", "naissance", "geboortedatum", "född", "nascido", "nascida",
    "nascimento"))


@register(RECOGNIZERS, "birthdate")
class Birthdate(Rule):
    """Full dates behind `born`, `date of birth` and the same in other languages; other dates are left alone."""

    def wants(self, signs: Signs) -> bool:
        return signs.digits >= 4 and (not _CUES.isdisjoint(signs.words) or "*" in signs.text or "d.o.b" in signs.lower)

    def find(self, signs: Signs) -> Iterator[Hit]:
        for found in _AFTER.finditer(signs.text):
            yield Hit(found.start(1), found.end(1), "BIRTHDATE", 0.85, "birthdate")
        for found in _FOUND.finditer(signs.text):
            starred = found[0].startswith("*")
            yield Hit(found.start(1), found.end(1), "BIRTHDATE", 0.6 if starred else 0.92, "birthdate")
