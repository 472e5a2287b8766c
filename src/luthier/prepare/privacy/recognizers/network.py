"""Addresses of devices: IP and MAC."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.prepare.privacy.lazy import lazy

_V4 = lazy(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-])(?!\.\d)")
_V6 = lazy(r"(?<![\w:.])(?=[0-9a-fA-F]*:)(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])")
_MAC = lazy(r"(?<![\w:-])[0-9a-fA-F]{2}(?:([:-])[0-9a-fA-F]{2})(?:\1[0-9a-fA-F]{2}){4}(?![\w:-])")
_CUE = lazy(r"\bip(?:v[46])?\b|\bhost\b|address|adresse|client|login|logged|from\b|visitor|session|remote|"
                  r"router|server")
_VERSION = lazy(r"version|release|\bv\.?\s*$|firmware|section|build|chapter|clause|§|update|kapitel|"
                      r"abschnitt|driver")
_DOCUMENTATION = lazy(r"00[:-]00[:-]5e[:-]00[:-]53", re.IGNORECASE)
"""RFC 7042: MAC addresses for examples, which Luthier's pseudonyms use."""


@register(RECOGNIZERS, "network")
class Network(Rule):
    """Public IP addresses and MAC addresses. Private, reserved and documentation ranges are nobody's; version and
    section numbers of four parts are told apart by their words and their size."""

    def wants(self, signs: Signs) -> bool:
        return (signs.digits >= 4 and signs.text.count(".") >= 3) or signs.text.count(":") >= 3 or \
            (signs.digits >= 1 and signs.text.count("-") >= 5)

    def find(self, signs: Signs) -> Iterator[Hit]:
        text = signs.text
        for found in _V4.finditer(text):
            if not _public(found[0]):
                continue
            before, just = signs.near(found.start(), 32), signs.near(found.start(), 14)
            octets = [int(part) for part in found[0].split(".")]
            small = max(octets) < 30
            if _VERSION.search(just) or (small and not _CUE.search(before)):
                continue
            yield Hit(found.start(), found.end(), "DEVICE", 0.9 if _CUE.search(before) else 0.75, "network/ipv4")
        if text.count(":") >= 2:
            for found in _V6.finditer(text):
                if _public(found[0]) and sum(sign.isdigit() for sign in found[0]) >= 2:
                    yield Hit(found.start(), found.end(), "DEVICE", 0.9, "network/ipv6")
        for found in _MAC.finditer(text):
            if not _DOCUMENTATION.match(found[0]) and len(set(found[0].lower())) > 3:
                yield Hit(found.start(), found.end(), "DEVICE", 0.9, "network/mac")


def _public(value: str) -> bool:
    try:
        return ipaddress.ip_address(value).is_global
    except ValueError:
        return False
