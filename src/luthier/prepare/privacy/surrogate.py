"""Pseudonyms: made-up values of the same shape, the same for the same value under the same key, and nobody's.

E-mail addresses at example domains (RFC 2606), IP and MAC addresses of the documentation ranges (RFC 5737, 3849,
7042),
phone numbers in the national fiction ranges or else ones that the numbering plan does not assign, accounts at a bank
that does not exist, cards of the issuers' test ranges, national numbers whose check digit is wrong. Secrets are never
imitated.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from luthier.prepare.privacy.checks import iban_check, luhn_digit
from luthier.prepare.privacy.key import Key
from luthier.prepare.privacy.names import AMBIGUOUS, GIVEN, NOT_A_SURNAME, SURNAMES
from luthier.prepare.privacy.scan import normal

_GIVEN = tuple(dict.fromkeys(name for name in GIVEN if name.lower() not in AMBIGUOUS and name.isascii()))
_SURNAMES = tuple(dict.fromkeys(name for name in SURNAMES if name not in GIVEN and name.isalpha()
                                and name.lower() not in NOT_A_SURNAME))
_KNOWN_GIVEN = frozenset(name.lower() for name in GIVEN)
_TOWNS = ("Lindenfeld", "Ashbrook", "Neuhausen", "Westmere", "Altenbruch", "Fairhaven", "Rosedale", "Birkental",
          "Millbrook",
          "Steinbach", "Oakridge", "Kirchdorf", "Riverton", "Seefeld", "Northwood", "Marienau")
_CARDS = {"4": "400000", "5": "555555", "2": "222300", "3": "378282", "6": "601111"}
_PARTICLES = frozenset(("van", "der", "den", "de", "von", "zu", "la", "los", "las", "del", "della", "di", "da", "dos",
                        "do", "du", "le", "el", "al", "bin", "ibn", "ben", "ter", "ten", "af", "und"))
_WORD = re.compile(r"[^\W\d_]+")
_SSN = re.compile(r"\d{3}-?\d{2}-?\d{4}")
_STREET = frozenset("""
street st avenue ave av road rd boulevard blvd lane ln drive dr court ct way place pl terrace square parkway circle
close
crescent gardens row hill highway mews grove apt apartment suite unit flat floor rue de du des la le les l d bis ter
place
chemin allée impasse quai route cours calle c avenida avda plaza paseo camino via viale piazza corso largo box po p o
postfach straße strasse str weg platz allee gasse ring damm ufer am an der auf im in zum zur straat laan plein gracht
kade
gatan vägen n e s w f i se at ch a
""".split())
_ENDS = re.compile(r"(straße|strasse|str|weg|platz|allee|gasse|damm|ufer|ring|straat|laan|plein|gracht|kade|dijk|"
                   r"gatan|vägen)$",
                   re.IGNORECASE)


class Surrogates:
    """Made-up values by kind and value."""

    def __init__(self, key: Key):
        self.key = key
        self.given: dict[tuple[str, str], str] = {}
        """(kind, value) → its pseudonym, of everything asked for so far."""
        self._by_kind: dict[str, Callable[[str, str], str]] = {
            "PERSON": self._person, "EMAIL": self._email, "PHONE": self._phone, "IBAN": self._iban, "CARD": self._card,
            "BIRTHDATE": self._date, "ADDRESS": self._address, "DEVICE": self._device}

    def of(self, kind: str, value: str, rule: str = "") -> str:
        """The pseudonym of a value."""
        known = self.given.get((kind, value))
        if known is None:
            make = self._by_kind.get(kind)
            known = (f"[{kind}]" if kind == "SECRET" else make(value, normal(value)) if make
                     else self._shaped(kind, value))
            self.given[kind, value] = known
        return known

    def _digits(self, seed: str) -> Callable[[], str]:
        """A stream of digits that depends on the key and the seed."""
        pool, turn = "", 0

        def draw() -> str:
            nonlocal pool, turn
            if not pool:
                pool, turn = f"{self.key.draw('digits', seed, str(turn)) % 10**60:060d}", turn + 1
            one, pool = pool[0], pool[1:]
            return one

        return draw

    def _shaped(self, kind: str, value: str) -> str:
        """Digits for digits and letters for letters; a national number must not be valid by accident."""
        for turn in range(20):
            draw = self._digits(f"{kind}:{normal(value)}:{turn}")
            letters = self.key.draw(kind, normal(value), str(turn))
            signs = []
            for sign in value:
                if sign.isdigit():
                    sign = draw()
                elif sign.isalpha():
                    letters, place = divmod(letters, 26)
                    sign = chr((65 if sign.isupper() else 97) + place)
                signs.append(sign)
            if kind == "NATIONAL_ID" and _SSN.fullmatch(value):
                signs[0] = "9"  # no social security number begins so
            made = "".join(signs)
            if kind != "NATIONAL_ID" or not _national(made):
                return made
        return f"[{kind}]"

    def _person(self, value: str, _: str) -> str:
        return re.sub(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", lambda found: self._name(found[0], found.start() == 0), value)

    def _name(self, part: str, first: bool) -> str:
        """One part of a name: the same wherever it stands, so `Jane Miller`, `Mrs Miller` and `Jane` stay one woman."""
        lower = part.lower()
        if lower in _PARTICLES:
            return part
        pool = _GIVEN if lower in _KNOWN_GIVEN else _SURNAMES
        name = pool[self.key.draw("name", lower) % len(pool)]
        if len(part) == 1:
            return chr(65 + self.key.draw("initial", lower) % 26)
        return name.upper() if part.isupper() else name.lower() if part.islower() else name

    def _email(self, value: str, plain: str) -> str:
        local, at, domain = value.partition("@")
        if not at:  # written to fool robots; the pseudonym need not
            local, domain = re.split(r"\s?[\[({]\s?(?:at|ät)\s?[\])}]\s?", value, maxsplit=1, flags=re.IGNORECASE)
        draw = self._digits("email:" + plain)
        made = re.sub(r"\d", lambda _: draw(), _WORD.sub(lambda found: self._plain_name(found[0]), local))
        # The pool of names is small: two digits keep most addresses of different people apart.
        host = ("example.com", "example.org", "example.net")[self.key.draw("domain", normal(domain)) % 3]
        return f"{made}{draw()}{draw()}@{host}"

    def _plain_name(self, part: str) -> str:
        name = self._name(part, False).lower()
        return "".join({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"}.get(sign, sign) for sign in name).encode(
            "ascii", "ignore").decode() or "x"

    def _phone(self, value: str, plain: str) -> str:
        digits = [sign for sign in value if sign.isdigit()]
        kept, regions = _country_digits(value), _regions(value)
        for turn in range(40):
            draw = self._digits(f"phone:{plain}:{turn}")
            made = digits[:kept] + [draw() for _ in digits[kept:]]
            if kept < len(made) and digits[kept] == "0":
                made[kept] = "0"
            if value.startswith("+1") or (len(digits) in (10, 11) and digits[kept] != "0"
                                          and re.match(r"\(?\d{3}\)?[ .-]", value.removeprefix("1-"))):
                made[-7:-4] = "555"
                made[-4:-2] = "01"  # 555-0100 to 555-0199: set aside for fiction by the North American plan
                return _refill(value, made)
            text = _refill(value, made)
            if not any(_valid(text, region) for region in regions):
                return text
        return "[PHONE]"

    def _iban(self, value: str, plain: str) -> str:
        plain = plain.upper()
        draw = self._digits("iban:" + plain)
        account = "".join("X" if sign.isalpha() else "0" if at < 4 else draw() for at, sign in enumerate(plain[4:]))
        return _refill(value, [*(plain[:2] + iban_check(plain[:2], account) + account)], letters=True)

    def _card(self, value: str, plain: str) -> str:
        draw = self._digits("card:" + plain)
        begin = _CARDS.get(plain[0], "400000")
        body = begin + "".join(draw() for _ in range(len(plain) - len(begin) - 1))
        return _refill(value, [*(body + luhn_digit(body))])

    def _date(self, value: str, plain: str) -> str:
        number = self.key.draw("date", plain)

        def change(found: re.Match[str]) -> str:
            nonlocal number
            digits = found[0]
            number, rest = divmod(number, 1000)
            if len(digits) == 4:
                return str(int(digits) - 3 + rest % 7)
            wide = 9 if len(digits) == 1 else 12  # valid as a day and as a month
            return f"{rest % wide + 1:0{len(digits)}d}"

        parts = re.findall(r"\d+", value)
        if len(parts) == 3 and len(parts[2]) == 2:  # 12.03.80: the last is a year
            head, _, tail = value.rpartition(parts[2])
            return re.sub(r"\d+", change, head) + f"{(int(parts[2]) - 3 + number // 7 % 7) % 100:02d}" + tail
        return re.sub(r"\d+", change, value)

    def _address(self, value: str, plain: str) -> str:
        draw = self._digits("address:" + plain)
        number = self.key.draw("street", plain)
        town = len(value) - len(re.sub(r"^.*[\n,]|.*\d{4,5}", "", value, flags=re.DOTALL))

        def change(found: re.Match[str]) -> str:
            nonlocal number
            word, at = found[0], found.start()
            if word.lower() in _STREET or (word.isupper() and len(word) <= 3):
                return word
            number, rest = divmod(number, 1009)
            if at >= town > 0:
                return _TOWNS[rest % len(_TOWNS)]
            name = _SURNAMES[rest % len(_SURNAMES)]
            ending = _ENDS.search(word)
            if ending:
                return name + ending[0]
            return name if word[0].isupper() else word

        return re.sub(r"\d", lambda _: draw(), _WORD.sub(change, value))

    def _device(self, value: str, plain: str) -> str:
        number = self.key.draw("device", plain)
        if re.fullmatch(r"[\d.]+", value):
            return f"{('192.0.2', '198.51.100', '203.0.113')[number % 3]}.{number // 3 % 254 + 1}"
        if len(plain) == 12 and not value.count("::"):
            join = "-" if "-" in value else ":"
            return join.join(("00", "00", "5E", "00", "53", f"{number % 256:02X}"))
        return f"2001:db8::{number % 65536:x}:{number // 65536 % 65536:x}"


def _refill(shape: str, signs: list[str], *, letters: bool = False) -> str:
    """The signs in the places of the shape's digits (and letters), everything else as it was."""
    queue = iter(signs)
    return "".join(next(queue, "") if sign.isdigit() or (letters and sign.isalpha()) else sign for sign in shape)


def _country_digits(value: str) -> int:
    """How many of the first digits say which country it is (`+49` or `0049`)."""
    if not value.lstrip("(").startswith(("+", "00")):
        return 0
    try:
        import phonenumbers
        plain = value.lstrip("(")
        number = phonenumbers.parse("+" + plain[2:] if plain.startswith("00") else plain, None)
        return len(str(number.country_code)) + 2 * plain.startswith("00")
    except Exception:
        return 2


def _regions(value: str) -> list[str]:
    """Where a number could be somebody's; "" stands for a number with its country."""
    if value.lstrip("(").startswith(("+", "00")):
        return [""]
    return [region for region in ("US", "GB", "DE", "FR", "ES", "IT", "NL", "SE", "BR", "IN") if _valid(value, region)]


def _valid(value: str, region: str) -> bool:
    from luthier.prepare.privacy.recognizers.phone import _valid as kind_of

    plain = value.lstrip("(")
    return kind_of("+" + plain[2:] if not region and plain.startswith("00") else value, region) is not None


def _national(value: str) -> bool:
    from luthier.prepare.privacy.base import Signs
    from luthier.prepare.privacy.recognizers.national_id import NationalId

    found = NationalId().find(Signs(value))
    return any(hit.rule != "national_id/document" for hit in found if hit.rule != "national_id/us-ssn") \
        or bool(re.fullmatch(r"(?!000|666|9)\d{3}-?\d{2}-?\d{4}", value))
