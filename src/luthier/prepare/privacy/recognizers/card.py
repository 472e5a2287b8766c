"""Payment cards: an issuer's number range, its length, and the Luhn check digit."""

from __future__ import annotations

from collections.abc import Iterator

from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.prepare.privacy.checks import luhn
from luthier.prepare.privacy.lazy import lazy

_CANDIDATE = lazy(r"(?<![\w.,-])\d(?:[ \u00a0-]?\d){11,18}(?![\w-])(?!\.\d)")
_GROUPED = lazy(r"\d{4}([ \u00a0-])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ \u00a0-])\d{6}\2\d{4,5}")
_CUE = lazy(r"card|visa|master|amex|american express|credit|debit|kredit|karte|carte|tarjeta|carta di|kaart|"
                  r"cartão|"
                  r"discover|diners|jcb|maestro|payment|charge|paid with|cc\b|pan\b")
_OTHER = lazy(r"order|track|invoice|serial|imei|isbn|ean\b|sku|article|ticket|reference|ref\b|barcode|"
                    r"bestell|artikel|"
                    r"part\b|shipment|parcel|meter|batch|timestamp|gtin|commande|pedido|document")


@register(RECOGNIZERS, "card")
class Card(Rule):
    """Card numbers of the known issuers. One in sixteen-digit runs of another meaning passes now and then, so words
    such as `order` before it count against, and words such as `card` for it."""

    def wants(self, signs: Signs) -> bool:
        return signs.digits >= 12

    def find(self, signs: Signs) -> Iterator[Hit]:
        for found in _CANDIDATE.finditer(signs.text):
            digits = "".join(sign for sign in found[0] if sign.isdigit())
            issuer = _issuer(digits)
            if not issuer or not luhn(digits) or len(set(digits)) < 2:
                continue
            before = signs.near(found.start(), 48)
            cue = bool(_CUE.search(before))
            grouped = bool(_GROUPED.fullmatch(found[0]))
            if issuer == "maestro" and not cue:
                continue
            confidence = 0.95 if cue else 0.3 if _OTHER.search(before) else 0.9 if grouped else 0.65
            yield Hit(found.start(), found.end(), "CARD", confidence, f"card/{issuer}")


def _issuer(digits: str) -> str:
    """The issuer whose ranges and lengths fit; empty for none (ISO/IEC 7812 ranges as the issuers publish them)."""
    count, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    if digits[0] == "4" and count in (13, 16, 19):
        return "visa"
    if count == 16 and (51 <= two <= 55 or 2221 <= four <= 2720):
        return "mastercard"
    if count == 15 and two in (34, 37):
        return "amex"
    if count == 16 and (four == 6011 or two == 65 or 644 <= three <= 649):
        return "discover"
    if count == 14 and (two in (36, 38, 39) or 300 <= three <= 305):
        return "diners"
    if count == 16 and 3528 <= four <= 3589:
        return "jcb"
    if count in (16, 19) and two == 62:
        return "unionpay"
    return "maestro" if two in (50, 56, 57, 58, 63, 67) and 12 <= count <= 19 else ""
