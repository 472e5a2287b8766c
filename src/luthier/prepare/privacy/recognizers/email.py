"""E-mail addresses, also as people hide them from robots: `jane (at) acme (dot) com`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.prepare.privacy.lazy import lazy

_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_PLAIN = lazy(r"(?<![\w.+%-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}@"
                    rf"((?:{_LABEL}\.){{1,6}}([^\W\d_]{{2,24}}))(?![\w@-])")
_HIDDEN = lazy(
    rf"(?<![\w.+-])[\w.+-]{{2,64}} ?[\[({{] ?(?:at|ät) ?[\])}}] ?{_LABEL}(?: ?[\[({{] ?(?:dot|punkt) ?[\])}}] ?|\.)"
    r"(?:[\w-]{2,30}\.)?[a-zA-Z]{2,12}(?!\w)", re.IGNORECASE)
_LOGIN = lazy(r"://[^\s/]*:$")
_NOT_A_DOMAIN = frozenset(("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "json", "html", "py", "txt", "pdf"))
_RESERVED = ("example", "test", "invalid", "localhost", "local")
"""RFC 2606: nobody's; what Luthier's own pseudonyms use."""
_SHARED = frozenset(("noreply", "no-reply", "donotreply", "mailer-daemon", "postmaster", "webmaster"))


@register(RECOGNIZERS, "email")
class Email(Rule):
    """E-mail addresses. Reserved example domains and senders that nobody reads (noreply@) are left alone."""

    def wants(self, signs: Signs) -> bool:
        return "@" in signs.text or ("at" in signs.words and ("(at" in signs.lower or "[at" in signs.lower
                                                              or "( at" in signs.lower or "[ at" in signs.lower))

    def find(self, signs: Signs) -> Iterator[Hit]:
        text = signs.text
        if "@" in text:
            for found in _PLAIN.finditer(text):
                start, (local, _, domain) = found.start(), found[0].partition("@")
                lead = len(local) - len(local.lstrip(".'`*/=|"))  # quotes and marks around, no part of the address
                local = local[lead:].lower()
                parts = domain.lower().split(".")
                if (not local or local in _SHARED or parts[-1] in _NOT_A_DOMAIN or parts[-1] in _RESERVED
                        or parts[-2] == "example" or (local == "git" and text[found.end() : found.end() + 1] == ":")):
                    continue
                if "://" in text and _LOGIN.search(text[max(0, start - 80) : start]):
                    continue  # a password in an address: the recogniser `secret` takes both
                yield Hit(start + lead, found.end(), "EMAIL", 0.97, "email")
        for found in _HIDDEN.finditer(text) if "at" in signs.words else ():
            yield Hit(found.start(), found.end(), "EMAIL", 0.9, "email/hidden")
