"""Phone numbers, validated against the numbering plans of the phonenumbers library (a port of Google's "
  "libphonenumber)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from pydantic import Field

from luthier.errors import need
from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.prepare.privacy.lazy import lazy

_CANDIDATE = lazy(r"(?<![\w/.,:;#§$€£=@&%-])(?:\+|"
                        r"\(\+)?\(?\d(?:[ \u00a0]?[().\-/\u2010-\u2013]?[ \u00a0(]?\d){6,16}(?![\w%])"
                        r"(?![.,:/-]\d)")
_CUE = lazy(r"\b(?:tel|phone|telephone|telefon\w*|tél|téléphone|teléfono|telefono|telefoon|mobil\w*|cell|"
                  r"call(?:ed|s)?|fax|"
                  r"ruf\w*|handy|portable|móvil|cellulare|gsm|whatsapp|sms|text|hotline|extension|dial|ring|"
                  r"reach(?:ed)?|ph|fon|"
                  r"contact|nummer|numéro|celular|ligue|llam[ea]\w*|chiam\w+|bel(?:len)?|zurückrufen|telefone|"
                  r"anruf\w*|appele[rz])\b")
_OTHER = lazy(r"\b(?:order|invoice|article|item|part|serial|account|acct|konto|kontonr|bestell\w*|"
                    r"artikel\w*|rechnung\w*|"
                    r"isbn|issn|ean|upc|sku|version|model|ticket|case|customer|kunden\w*|reference|ref|vat|"
                    r"tracking|batch|lot|"
                    r"patent|doi|pmid|id|chassis|imei|policy|catalog(?:ue)?|facture|commande|pedido|factura)\b")
_FORM = lazy(r"\(0?\d{2,5}\)[ -]?\d|0\d{1,5}[ /-]+\d|\d{3}[-.]\d{3}[-.]\d{4}$|0\d(?:[ .]\d\d){4}$")
_DATE = lazy(r"(?:19|20)\d\d[-./ ][01]?\d[-./ ][0-3]?\d|[0-3]?\d[-./ ][01]?\d[-./ ](?:19|20)\d\d"
                   r"|(?:19|20)\d\d ?[-\u2013] ?(?:19|20)\d\d")
_NOT_PERSONAL = (3, 4, 5, 8, 10)
"""phonenumbers.PhoneNumberType: toll free, premium rate, shared cost, UAN, voice mail."""


@register(RECOGNIZERS, "phone")
class Phone(Rule):
    """Phone numbers that the country's numbering plan allows. Free and premium numbers are an organisation's and are
    left alone; a number in national form counts less without a word such as `phone` before it. Needs the extra
    `privacy`."""

    regions: tuple[str, ...] = Field(default=("US", "GB", "DE", "FR", "ES", "IT", "NL", "SE", "BR", "IN"), min_length=1)
    """Countries whose national form (without +49 and the like) is understood, as ISO 3166 codes, likeliest first."""

    def wants(self, signs: Signs) -> bool:
        return signs.digits >= 7

    def find(self, signs: Signs) -> Iterator[Hit]:
        text = signs.text
        for found in _CANDIDATE.finditer(text):
            raw = found[0]
            if _DATE.search(raw) and not raw.startswith("+"):
                continue
            start, end = found.span()
            if raw.startswith("(") and ")" not in raw:
                start += 1
                raw = raw[1:]
            before = signs.near(start, 32)
            cue = _cue(before)
            confidence = self._judge(raw, cue, text[end : end + 1])
            if confidence and not cue and _OTHER.search(before):
                confidence -= 0.5
            if confidence > 0:
                yield Hit(start, end, "PHONE", round(confidence, 2), "phone")

    def _judge(self, raw: str, cue: bool, after: str) -> float:
        international = raw.lstrip("(").startswith(("+", "00"))
        for region in ("",) if international else self.regions:
            kind = _valid("+" + raw.lstrip("(")[2:] if raw.startswith("00") else raw, region)
            if kind is None:
                continue
            if kind in _NOT_PERSONAL:
                return 0.0
            if international:
                return 0.95
            formed = bool(_FORM.match(raw))
            return 0.9 if cue else 0.82 if raw.startswith("(") else 0.65 if formed else 0.3
        # A plan changes faster than a library: after `phone:` a number that only looks right counts as unsure.
        digits = sum(sign.isdigit() for sign in raw)
        return 0.6 if cue and 7 <= digits <= 15 and (international or raw.startswith(("0", "("))) else 0.0


def _cue(before: str) -> bool:
    """Whether a word for phone numbers stands before, nearer than one for other numbers."""
    cues = [found.end() for found in _CUE.finditer(before)]
    others = [found.end() for found in _OTHER.finditer(before)]
    return bool(cues) and (not others or max(cues) >= max(others))


@lru_cache(maxsize=65_536)
def _valid(raw: str, region: str) -> int | None:
    """The type of a valid number; None for one that the plan does not know."""
    phonenumbers = need("phonenumbers", extra="privacy")
    try:
        number = phonenumbers.parse(raw, region or None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number) or (region and not phonenumbers.is_valid_number_for_region(number,
                                                                                                           region)):
        return None
    return int(phonenumbers.number_type(number))
