"""Postal addresses: street, number, and where they follow, postcode and town, in the layouts of eight countries."""

from __future__ import annotations

import re
from collections.abc import Iterator

from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.prepare.privacy.lazy import lazy

_CAP = r"[A-ZÀ-ÖØ-Þ][\w’'.-]*"
_GAP = r"[ \t\u00a0]*(?:,|\n|\s[-–•|]\s)?[ \t\u00a0\n]{0,3}"
_TOWN = (rf"{_CAP}(?:[ -](?:{_CAP}|am|an|der|im|in|ob|bei|de|la|le|les|sur|sous|en|aux|del|di|upon|under|on|"
         r"the)){0,4}")
_US_POST = r"(?:[A-Z]{2}|[A-Z][a-z]+(?: [A-Z][a-z]+)?)\.?,?\s{1,2}\d{5}(?:-\d{4})?"
_UK_POST = r"[A-Z]{1,2}\d[A-Z\d]?\s?\d[ABD-HJLNP-UW-Z]{2}\b"
_KIND_EN = (r"(?:Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Terrace|"
            r"Ter|Square|Sq|Parkway|"
            r"Pkwy|Circle|Cir|Close|Crescent|Cres|Gardens|Gdns|Row|Hill|Highway|Hwy|Mews|Grove|Trail|Loop|Walk|"
            r"Broadway)")
_UNIT = r"(?:,?\s(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Room|#)\.?\s?#?[\w-]{1,6})?"

_FORMS: tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...] = (
    ("en", lazy(rf"(?<![\w.,/$€£-])(?:(?:Flat|Apt|Unit|Apartment|"
                      r"Suite)\s\w{1,4},?\s)?\d{1,5}[A-Za-z]?,?\s(?:[NSEW]{1,2}\.?\s)?"
                      rf"(?:(?!{_KIND_EN}\b)[A-Z0-9][\w’'.-]*\s){{1,4}}"
                      rf"{_KIND_EN}\b\.?(?:\s[NSEW]{{1,2}}\b)?{_UNIT}"),
     lazy(rf"{_GAP}(?:{_TOWN}{_GAP}){{0,2}}(?:{_US_POST}|{_UK_POST})")),
    ("post", lazy(r"(?<![\w.,/$€£-])(?:(?:Flat|Apt|Unit|Apartment|Suite)\s\w{1,4},?\s)?\d{1,5}[A-Za-z]?,?\s"
                        rf"(?:{_CAP}\s){{1,3}}?{_CAP}{_UNIT}(?={_GAP}(?:{_TOWN}{_GAP}){{0,2}}(?:{_US_POST}|"
                        rf"{_UK_POST}))"),
     lazy(rf"{_GAP}(?:{_TOWN}{_GAP}){{0,2}}(?:{_US_POST}|{_UK_POST})")),
    ("de", lazy(r"(?<![\w-])(?:(?:[A-ZÄÖÜ][\w.ßäöü-]*[ -]){0,2}[A-ZÄÖÜ][\wßäöü-]*(?:straße|strasse|str\.|"
                      r"weg|platz|allee|gasse|damm|"
                      r"ufer|steig|graben|chaussee|ring|stieg|pfad)|[A-ZÄÖÜ][\wäöüß-]+[ -](?:Straße|Strasse|Str\.|"
                      r"Weg|Platz|Allee|Gasse|Damm|Ufer|Ring)|"
                      r"(?:Am|An der|Auf der|Im|In der|Zum|Zur|Unter den) [A-ZÄÖÜ][\wäöüß-]+)"
                      r"\s\d{1,4}(?:\s?[a-z](?![\w]))?(?:\s?[-–/]\s?\d{1,4})?(?![\w.,]*\d)"),
     lazy(rf"{_GAP}(?:(?:D|DE|A|AT|CH)[- ])?\d{{4,5}}\s{_TOWN}")),
    ("fr", lazy(r"(?<![\w-])\d{1,4}(?:\s?(?:bis|ter|quater))?,?\s(?:rue|avenue|av\.|boulevard|bd|place|"
                      r"chemin|allée|impasse|quai|route|"
                      r"cours|square|passage)\s(?:(?:de|du|des|la|le|les|à|aux|d['’]|l['’])\s?){0,2}"
                      r"[A-ZÀ-Ö0-9][\w’'-]*(?:[ -](?:(?:de|du|des|la)\s)?[A-ZÀ-Ö0-9][\w’'-]*){0,4}", re.IGNORECASE),
     lazy(rf"{_GAP}(?:F-)?\d{{5}}\s{_TOWN}(?:\sCEDEX(?:\s\d+)?)?")),
    ("nl", lazy(r"(?<![\w-])(?:[A-Z][\w.-]*\s){0,3}[A-Z][\w-]*(?:straat|laan|weg|plein|gracht|kade|dijk|"
                      r"singel|hof|pad|boulevard|steeg|dreef|park|markt|baan|ring)\s\d{1,4}\s?"
                      r"(?:[a-zA-Z](?![\w])|-\d{1,3})?"),
     lazy(rf"{_GAP}\d{{4}}\s?[A-Z]{{2}}(?:,?\s{{1,2}}{_TOWN})?")),
    ("es", lazy(r"(?<![\w-])(?:Calle|C/|Avenida|Avda\.?|Plaza|Paseo|Camino|Carrer|Ronda|Rua|Cuesta|"
                      r"Rambla|Glorieta|Alameda|Callejón|Pasaje|Pasadizo|Urbanización|Acceso|Vial|C\.|"
                      r"Travessa|Praça)\s?"
                      r"(?:(?:de|del|la|las|los|el|da|do|dos)\s){0,3}[A-ZÁÉÍÓÚÑ][\wáéíóúñ’'.-]*"
                      r"(?:\s(?:(?:de|del|la|y|da|"
                      r"do)\s){0,2}[A-ZÁÉÍÓÚÑ][\wáéíóúñ-]*){0,4},?\s(?:n[.ºo]*\s?)?\d{1,5}(?:,?\s\d{1,2}[ºª]\s?\w?|\s(?:Piso|Puerta|Apt\.|Apto\.?)\s\d{1,3}\s?)?"),
     lazy(rf"{_GAP}(?:{_TOWN}{_GAP})?\d{{5}}(?:-\d{{3}})?(?:\s{_TOWN})?")),
    ("it", lazy(r"(?<![\w-])(?:Via|Viale|Piazza|Corso|Largo|Vicolo|Strada|Piazzale)\s(?:(?:della|delle|dei|"
                      r"del|di|dell['’]|degli|San|Santa)\s?){0,2}"
                      r"[A-ZÀ-Ö][\w’'.-]*(?:\s[A-ZÀ-Ö][\w’'-]*){0,3},?\s(?:n\.\s?)?\d{1,4}(?:/?[A-Za-z](?!\w))?(?:\s(?:Piano|Appartamento|Interno|Int\.)\s\d{1,3})?"),
     lazy(rf"{_GAP}(?:I-)?\d{{5}},?\s{_TOWN}(?:\s\([A-Z]{{2}}\))?")),
    ("sv", lazy(r"(?<![\w-])[A-ZÅÄÖ][\wåäöé-]*(?:gatan|vägen|gata|väg|torget|stigen|gränd|"
                      r"allén)\s\d{1,4}\s?(?:[A-Z](?!\w))?"),
     lazy(rf"{_GAP}(?:SE-)?\d{{3}}\s?\d{{2}}\s{_TOWN}")),
    ("box", lazy(r"(?<![\w-])(?:P\.?\s?O\.?\s?Box|Postfach|BP|Apartado(?: de Correos)?|Casella Postale|"
                       r"Postbus)\s\d{1,6}(?:\s\d{2})?"),
     lazy(rf"{_GAP}(?:{_TOWN}{_GAP})?(?:{_US_POST}|{_UK_POST}|\d{{4,5}}\s{_TOWN})")),
)
_POSTED = lazy(rf"{_UK_POST}|\b(?:[A-Z]{{2}}|[A-Z][a-z]+),?\s\d{{5}}\b")
_WORDS = {
    "en": frozenset(("street st avenue ave av road rd boulevard blvd lane ln drive dr court ct way place pl "
                     "terrace ter square sq "
                     "parkway pkwy circle cir close crescent cres gardens gdns row hill highway hwy mews grove "
                     "trail loop walk broadway").split()),
    "post": frozenset(),
    "fr": frozenset("rue avenue av boulevard bd place chemin allée impasse quai route cours square passage".split()),
    "es": frozenset("calle c avenida avda plaza paseo camino carrer ronda cuesta rambla glorieta alameda callejón "
                    "pasaje pasadizo "
                    "urbanización acceso vial rua travessa praça largo".split()),
    "it": frozenset("via viale piazza corso largo vicolo strada piazzale".split()),
    "box": frozenset("box postfach bp apartado casella postbus".split()),
}
_ENDS = lazy(r"(?:stra(?:ß|ss)e|str\.|weg|platz|allee|gasse|damm|ufer|steig|graben|chaussee|ring|stieg|pfad|"
                   r"straat|laan|plein|gracht|"
                   r"kade|dijk|singel|hof|pad|boulevard|steeg|dreef|gatan|vägen|gata|väg|torget|stigen|gränd|"
                   r"allén)\s\d|\b(?:am|an der|"
                   r"auf der|im|in der|zum|zur|"
                   r"unter den) [a-zäöüß-]+ \d")
_CUE = lazy(r"address|adresse|anschrift|dirección|indirizzo|adres\b|lives? at|wohnt|wohnhaft|résid|reside|"
                  r"domicil|ship to|deliver|"
                  r"send (?:it |them )?to|street:|straße:|located at|home\b|mail to|vive en|habite|abita|bor på|"
                  r"residing|moved to")


@register(RECOGNIZERS, "address")
class Address(Rule):
    """Street addresses of the English-speaking countries, Germany, Austria, Switzerland, France, the Netherlands,
    Spain, Italy and Sweden, and post boxes. One without a postcode or a word such as `address` before it is unsure."""

    def wants(self, signs: Signs) -> bool:
        return signs.digits >= 1 and bool(_languages(signs))

    def find(self, signs: Signs) -> Iterator[Hit]:
        languages = _languages(signs)
        for name, street, town in _FORMS:
            if name not in languages:
                continue
            for found in street.finditer(signs.text):
                after = town.match(signs.text, found.end())
                cue = _CUE.search(signs.near(found.start(), 40))
                confidence = 0.93 if after else 0.85 if cue else 0.4 if name == "de" and _weak(found[0]) else 0.65
                end = after.end() if after else found.end()
                while end > found.start() and signs.text[end - 1] in ".,;:- \n":
                    end -= 1
                yield Hit(found.start(), end, "ADDRESS", confidence, f"address/{name}")


def _weak(street: str) -> bool:
    """`Am Montag 12`, `Im Jahr 2020`: a preposition and a number prove nothing without a postcode."""
    return street.split()[0] in ("Am", "An", "Auf", "Im", "In", "Zum", "Zur", "Unter")


def _languages(signs: Signs) -> set[str]:
    found = {name for name, words in _WORDS.items() if not words.isdisjoint(signs.words)}
    if signs.digits >= 4 and _POSTED.search(signs.text):
        found.add("post")
    if _ENDS.search(signs.lower):
        found |= {"de", "nl", "sv"}
    return found
