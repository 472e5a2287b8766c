"""Numbers that a state gives a person. Each country's form, date and check digits; words of context for weak ones.

Sources: the issuing authorities' published rules (SSA for the US, BZSt for Germany, HMRC NIM39110 for the UK, INSEE
for
France, BRP for the Netherlands, Interior Ministry for Spain, DM 23.12.1976 for Italy, Skatteverket for Sweden, Receita
Federal for Brazil, UIDAI for India, ZAS for Switzerland, DVV for Finland, MSWiA for Poland).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.prepare.privacy.checks import ean13, luhn, mod11_10, verhoeff, weighted
from luthier.prepare.privacy.lazy import lazy


@dataclass(frozen=True)
class _Id:
    name: str
    form: re.Pattern[str]
    valid: Callable[[str], bool]
    """Of the letters and digits alone, in upper case."""
    cue: str
    """Regular expression of words that stand before such a number."""
    alone: float
    """Confidence without such a word."""


def _digits(value: str) -> str:
    return "".join(sign for sign in value if sign.isdigit())


def _steuer_id(value: str) -> bool:
    first = value[:10]
    most = max(first.count(sign) for sign in set(first))  # one digit stands twice or three times, the others once
    return value[0] != "0" and (most, len(set(first))) in ((2, 9), (3, 8)) and mod11_10(value)


def _nino(value: str) -> bool:
    return value[:2] not in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ")


def _nir(value: str) -> bool:
    number = value[:13].replace("2A", "19").replace("2B", "18")
    return number.isdigit() and (1 <= int(value[3:5]) <= 12 or 20 <= int(value[3:5]) <= 42 or int(value[3:5]) >= 50) \
        and 97 - int(number) % 97 == int(value[13:])


def _bsn(value: str) -> bool:
    return value[:2] != "00" and weighted(value, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def _dni(value: str) -> bool:
    number = str("XYZ".find(value[0])) + value[1:-1] if value[0] in "XYZ" else value[:-1]
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == value[-1]


_CF_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (
    1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22,
    25, 24, 23)))


def _codice_fiscale(value: str) -> bool:
    total = sum(_CF_ODD[sign] if at % 2 == 0 else int(sign, 36) - 10 * sign.isalpha()
                for at, sign in enumerate(value[:15]))
    return chr(65 + total % 26) == value[15]


def _date(year: int, month: int, day: int) -> bool:
    try:
        datetime.date(year or 2000, month, day)
    except ValueError:
        return False
    return True


def _personnummer(value: str) -> bool:
    short = _digits(value)[-10:]
    day = int(short[4:6])
    return _date(1900 + int(short[:2]), int(short[2:4]), day - 60 if day > 60 else day) and luhn(short)


def _cpf(value: str) -> bool:
    if len(set(value)) == 1:
        return False
    first = weighted(value, range(10, 1, -1)) * 10 % 11 % 10
    second = weighted(value, range(11, 1, -1)) * 10 % 11 % 10
    return value[9:] == f"{first}{second}"


def _pesel(value: str) -> bool:
    month = int(value[2:4])
    return 1 <= month % 20 <= 12 and 1 <= int(value[4:6]) <= 31 and \
        (10 - weighted(value, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10) % 10 == int(value[10])


def _hetu(value: str) -> bool:
    return _date(1900 + int(value[4:6]), int(value[2:4]), int(value[:2])) and \
        "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(_digits(value[:6] + value[-4:-1])) % 31] == value[-1]


def _form(pattern: str) -> re.Pattern[str]:
    return lazy(rf"(?<![\w.,-])(?:{pattern})(?![\w-])(?![.,]\d)")


_IDS = (
    _Id("us-ssn", _form(r"(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}"), lambda value: True,
        r"ssn|social security|soc\.? sec|tax id|taxpayer|itin", 0.6),
    _Id("us-ssn", _form(r"(?!000|666|9)\d{3}[ .]?(?!00)\d{2}[ .]?(?!0000)\d{4}"), lambda value: True,
        r"ssn|social security (?:number|no|#)", 0.0),
    _Id("de-steuer-id", _form(r"[1-9]\d(?: ?\d{3}){3}"), _steuer_id,
        r"steuer|idnr|id-?nr|tin\b|tax id|tax number|identifikationsnummer", 0.4),
    _Id("uk-nino", _form(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]"), _nino,
        r"national insurance|nino\b|ni (?:number|no)", 0.82),
    _Id("fr-nir", _form(r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}"), _nir,
        r"sécurité sociale|securite sociale|\bnir\b|insee|nss\b|social security|assuré", 0.9),
    _Id("nl-bsn", _form(r"\d{9}|\d{3}[. ]\d{3}[. ]\d{3}|\d{4}\.\d{2}\.\d{3}"), _bsn,
        r"\bbsn\b|burgerservice|sofi", 0.0),
    _Id("es-dni", _form(r"\d{8}[- ]?[A-HJ-NP-TV-Z]|\d{2}\.\d{3}\.\d{3}-?[A-HJ-NP-TV-Z]"), _dni,
        r"\bdni\b|\bnif\b|d\.n\.i|identidad|\bnie\b", 0.75),
    _Id("es-nie", _form(r"[XYZ][- ]?\d{7}[- ]?[A-HJ-NP-TV-Z]"), _dni, r"\bnie\b|\bnif\b|extranjer|identidad", 0.82),
    _Id("it-codice-fiscale", _form(r"[A-Z]{6}\d\d[ABCDEHLMPRST]\d\d[A-Z]\d{3}[A-Z]"), _codice_fiscale,
        r"codice fiscale|\bc\.?f\b|cod\. fisc", 0.95),
    _Id("se-personnummer", _form(r"(?:19|20)?\d{6}[-+]\d{4}"), _personnummer, r"personn|p-?nr|pnr|swedish|org", 0.82),
    _Id("se-personnummer", _form(r"(?:19|20)?\d{10}"), _personnummer, r"personn|\bpnr\b", 0.0),
    _Id("br-cpf", _form(r"\d{3}\.\d{3}\.\d{3}-\d{2}"), _cpf, r"\bcpf\b|cadastro", 0.93),
    _Id("br-cpf", _form(r"\d{11}"), _cpf, r"\bcpf\b|cadastro", 0.0),
    _Id("in-aadhaar", _form(r"[2-9]\d{3}[ -]?\d{4}[ -]?\d{4}"), verhoeff, r"a+dh?a+r|uidai|\buid\b", 0.4),
    _Id("ch-ahv", _form(r"756\.?\d{4}\.?\d{4}\.?\d{2}"), ean13, r"\bahv\b|\bavs\b|sozialversicherung", 0.9),
    _Id("pl-pesel", _form(r"\d{11}"), _pesel, r"pesel", 0.0),
    _Id("fi-hetu", _form(r"\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y]"), _hetu, r"hetu|henkilötunnus|personbeteckning", 0.85),
    _Id("ca-sin", _form(r"[1-79]\d{2}[ -]?\d{3}[ -]?\d{3}"), luhn, r"\bsin\b|social insurance", 0.0),
)
_CUES = {one: lazy(one.cue) for one in _IDS}
_OTHER = lazy(r"order|part|artikel|article|serial|invoice|sku|model|rechnung|bestell|item|ticket|batch|"
                    r"lot\b|ref\b|"
                    r"reference|version|catalog|isbn|phone|tel\b|pedido|facture")
_DOCUMENT = lazy(
    r"\b(?:passport|pass(?:nummer|-?nr)|reisepass\w*|personalausweis\w*|ausweis\w*|passeport|pasaporte|passaporto|"
    r"paspoort\w*|"
    r"driver'?s? licen[cs]e|driving licen[cs]e|führerschein\w*|permis de conduire|identity card|id card|carta "
    r"d'identità|"
    r"social security|medical record|mrn|patient(?:en)?(?: id|-?nr)|insurance (?:id|member)|versichertennummer)"
    r"\.?\s*(?:number|no|nr|num|numéro|número|numero|nummer|id|#|n°)?\.?\s*(?:is|ist|:|#|=)?\s*"
    r"((?=(?:[A-Z-]*\d){3})[A-Z0-9]{1,4}-?[A-Z0-9]{4,12})(?![\w-])", re.IGNORECASE)


@register(RECOGNIZERS, "national_id")
class NationalId(Rule):
    """Personal numbers of the US, the UK, Germany, France, Spain, Italy, the Netherlands, Sweden, Brazil, India,
    Switzerland, Poland, Finland and Canada, with their check digits; passport, licence and patient numbers after the
    word that names them."""

    def wants(self, signs: Signs) -> bool:
        return signs.digits >= 6

    def find(self, signs: Signs) -> Iterator[Hit]:
        text = signs.text
        for one in _IDS:
            for found in one.form.finditer(text):
                if not one.valid("".join(sign for sign in found[0] if sign.isalnum() or sign in "+")):
                    continue
                before = signs.near(found.start(), 48)
                cue = _CUES[one].search(before)
                confidence = 0.95 if cue else one.alone
                if not cue and _OTHER.search(before):
                    confidence -= 0.4
                if confidence > 0:
                    yield Hit(found.start(), found.end(), "NATIONAL_ID", round(confidence, 2),
                              f"national_id/{one.name}")
        for found in _DOCUMENT.finditer(text):
            yield Hit(found.start(1), found.end(1), "NATIONAL_ID", 0.88, "national_id/document")
