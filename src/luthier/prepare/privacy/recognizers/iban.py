"""Bank accounts (IBAN, ISO 13616): length by country and check digits."""

from __future__ import annotations

from collections.abc import Iterator

from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.prepare.privacy.checks import mod97
from luthier.prepare.privacy.lazy import lazy

LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24,
    "XK": 20,
}
"""Characters of an IBAN by country (SWIFT's IBAN registry)."""

_START = lazy(r"(?<![A-Za-z0-9])([A-Z]{2}|[a-z]{2})[ \u00a0-]?\d{2}(?=[ \u00a0-]?[A-Za-z0-9]{2})")


@register(RECOGNIZERS, "iban")
class Iban(Rule):
    """IBANs whose length and check digits are right, spaced or not."""

    def wants(self, signs: Signs) -> bool:
        return signs.digits >= 10

    def find(self, signs: Signs) -> Iterator[Hit]:
        text = signs.text
        for found in _START.finditer(text):
            length = LENGTHS.get(found[1].upper())
            end = length and _end(text, found.start(), length)
            if end:
                value = "".join(sign for sign in text[found.start() : end] if sign.isalnum()).upper()
                if value.isascii() and mod97(value) == 1 and not value.endswith("0" * 12):
                    yield Hit(found.start(), end, "IBAN", 0.99, "iban")


def _end(text: str, at: int, length: int) -> int | None:
    """Where so many letters and digits end that follow each other, single spaces and hyphens aside."""
    gap = False
    while at < len(text):
        if text[at].isalnum():
            length -= 1
            gap = False
            if not length:
                return None if text[at + 1 : at + 2].isalnum() else at + 1
        elif text[at] not in " \u00a0-" or gap:
            return None
        else:
            gap = True
        at += 1
    return None
