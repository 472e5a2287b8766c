"""Secrets: keys and tokens by the prefixes that their issuers give them, private keys, passwords near their word."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from pydantic import Field

from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.prepare.privacy.lazy import lazy

_KNOWN: tuple[tuple[str, str], ...] = (
    ("aws", r"(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}"),
    ("github", r"gh[pousr]_[A-Za-z0-9]{36,80}"), ("github", r"github_pat_[A-Za-z0-9_]{40,100}"),
    ("gitlab", r"glpat-[A-Za-z0-9_-]{20,60}"),
    ("slack", r"xox[abeprs]-[A-Za-z0-9-]{10,200}"),
    ("slack", r"hooks\.slack\.com/services/T[A-Z0-9]{6,14}/B[A-Z0-9]{6,14}/[A-Za-z0-9]{18,30}"),
    ("stripe", r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,120}"), ("stripe", r"whsec_[A-Za-z0-9]{24,80}"),
    ("google", r"AIza[0-9A-Za-z_-]{35}"), ("google", r"ya29\.[0-9A-Za-z_-]{20,200}"),
    ("google", r"GOCSPX-[0-9A-Za-z_-]{20,40}"),
    ("openai", r"sk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{20,180}"), ("huggingface", r"hf_[A-Za-z0-9]{30,50}"),
    ("npm", r"npm_[A-Za-z0-9]{36}"), ("pypi", r"pypi-[A-Za-z0-9_-]{40,220}"),
    ("sendgrid", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{30,60}"), ("twilio", r"(?:SK|AC)[0-9a-f]{32}"),
    ("digitalocean", r"do[opr]_v1_[0-9a-f]{64}"), ("telegram", r"\d{8,10}:AA[A-Za-z0-9_-]{33}"),
    ("jwt", r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{10,}"),
    ("azure", r"(?<=AccountKey=)[A-Za-z0-9+/=]{40,100}"),
)
_PREFIXED = lazy("(?<![A-Za-z0-9_])(?:" + "|".join(f"({form})" for _, form in _KNOWN) + ")")
_LONG = lazy(r"[A-Za-z0-9_-]{16}")
_PEM = lazy(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----[\s\S]{20,20000}?"
                  r"(?:-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z)")
_URL = lazy(r"\b[a-z][a-z0-9+.-]{1,20}://([^\s/:@'\"<>]{0,80}:[^\s/@'\"<>]{2,120})@", re.IGNORECASE)
_ASSIGNED = lazy(
    r"(?<![^\W_])((?:pass(?:word|wd|phrase|code)|pwd|pw|passwort|kennwort|mot de passe|contraseña|password "
    r"temporanea|wachtwoord|"
    r"senha|lösenord|(?:api|access|secret|private|auth|client|encryption|license|signing|deploy|master|session|"
    r"service|webhook|bot|ssh|root)"
    r"[ _-]?(?:key|token|secret)|key|"
    r"secret|token|bearer|credentials?|pin(?:[ -]?code)?|zugangscode|lizenzschlüssel))\w{0,12}['\"]?"
    r"(\s*(?:[:=]|=>|:=)\s*|\s+(?:is now|is|ist|lautet|est|es|war|was set to|set to|becomes)\s*:?\s+|\s+)"
    r"(?:['\"`“„«]([^'\"`”“»\n]{3,120})['\"`”“»]|([^\s'\"`,;<>()\[\]{}|]{4,200}))", re.IGNORECASE)
_CUES = frozenset((
    "password", "passwd", "passphrase", "passcode", "pwd", "pw", "passwort", "kennwort", "passe", "contraseña",
    "wachtwoord", "senha", "lösenord", "key", "token", "secret", "bearer", "credentials", "credential", "pin",
    "zugangscode", "lizenzschlüssel", "apikey", "api_key", "pincode"))
_PLACEHOLDER = lazy(r"^(?:[x*•.#_-]+|<.*>|"
                          r"\$\{?.*|%.*%|\{.*\}|\[.*\]|your[-_ ].*|changeme|example.*|none|null|true|false)$",
                          re.IGNORECASE)


@register(RECOGNIZERS, "secret")
class Secret(Rule):
    """Keys, tokens, private keys, addresses with a password in them, and what stands behind `password:` and the like if
    it looks like a secret."""

    min_entropy: float = Field(default=3.0, ge=0, le=8)
    """Least bits for each character of a value after a word such as `token`; `aaaa1111` has 1, random text above 3.5.
    Short passwords are judged by their mix of letters, digits and signs instead."""

    def wants(self, signs: Signs) -> bool:
        return bool(_LONG.search(signs.text)) or "://" in signs.text or not _CUES.isdisjoint(signs.words)

    def find(self, signs: Signs) -> Iterator[Hit]:
        text = signs.text
        if "PRIVATE KEY" in text:
            for found in _PEM.finditer(text):
                yield Hit(found.start(), found.end(), "SECRET", 0.99, "secret/private-key")
        for found in _PREFIXED.finditer(text):
            name = _KNOWN[(found.lastindex or 1) - 1][0]
            if _mixed(found[0]) or name == "azure":
                yield Hit(found.start(), found.end(), "SECRET", 0.97, f"secret/{name}")
        if "://" in text:
            for found in _URL.finditer(text):
                if not _PLACEHOLDER.match(found[1].partition(":")[2]):
                    yield Hit(found.start(1), found.end(1), "SECRET", 0.95, "secret/url")
        if not _CUES.isdisjoint(signs.words):
            yield from self._assigned(text)

    def _assigned(self, text: str) -> Iterator[Hit]:
        at = 0
        while found := _ASSIGNED.search(text, at):
            group = 3 if found[3] is not None else 4
            value = found[group].rstrip(".,;:!?") if group == 4 else found[group]
            at = found.start(group)
            if _PLACEHOLDER.match(value):
                continue
            named, quoted, sign = found[1].lower(), group == 3, found[2].strip(" \n\t")
            strong = bool(sign) and sign[0] in ":="
            confidence = self._judge(value, pin="pin" in named[:3], strong=strong, quoted=quoted,
                                     bare=named == "key",
                                     password=named[:2] in ("pa", "pw", "ke", "mo", "co", "wa", "se", "lö"))
            if confidence:
                yield Hit(found.start(group), found.start(group) + len(value), "SECRET", confidence, "secret/named")

    def _judge(self, value: str, *, pin: bool, strong: bool, quoted: bool, password: bool, bare: bool) -> float:
        letters, digits = any(s.isalpha() for s in value), any(s.isdigit() for s in value)
        signs = any(not s.isalnum() and not s.isspace() for s in value[:-1])
        if pin:
            return 0.85 if value.isdigit() and 4 <= len(value) <= 8 else 0.0
        if "://" in value or (" " in value.strip() and not quoted):
            return 0.0
        if len(value) >= 16 and letters and digits and entropy(value) >= self.min_entropy:
            return 0.92
        if bare:
            return 0.0
        if len(value) >= 6 and ((letters and digits) or (signs and digits)) and not _plain(value):
            return 0.88 if strong or quoted else 0.82
        if len(value) >= 8 and letters and signs and not _plain(value) and (strong or quoted):
            return 0.75
        if password and strong and 6 <= len(value) <= 64 and " " not in value and "/" not in value:
            return 0.55  # `password: butterfly`, or `Password: required`
        return 0.0


def entropy(text: str) -> float:
    """Shannon's entropy of the characters, in bits for each."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values()) if text else 0.0


def _mixed(value: str) -> bool:
    """Letters and digits both, as random strings of that length have them."""
    return any(sign.isdigit() for sign in value) and any(sign.isalpha() for sign in value)


_PLAIN = lazy(r"(?:[^\W\d_]+[-_/.])*[^\W\d_]+|\d+[-–]\d+|\d+\s?[a-zA-Z%]{1,3}|(?:SHA|AES|RSA|RFC|ISO|TLS|MD|"
                    r"OAuth|v)-?\d.*|"
                    r"https?:.*|.*\.(?:html?|php|md|txt|pdf|py|js|json|ya?ml)|.*\(\)?", re.IGNORECASE)


def _plain(value: str) -> bool:
    """A word, a compound, a quantity, the name of an algorithm or of a file."""
    return bool(_PLAIN.fullmatch(value))
