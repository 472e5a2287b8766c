"""Signs that a line was read wrongly: words that look like none, in Latin script."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\S+")
_EDGE = re.compile(r"^[\W_]+|[\W_]+$")
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_VOWEL = re.compile(r"[aeiouyAEIOUYÀ-ÆÈ-ÏÒ-ÖØ-Ýà-æè-ïò-öø-ýÿőűœ]")
_CONSONANTS = re.compile(r"[^\Waeiouyà-æè-ïò-öø-ýÿ\d_]{9,}", re.IGNORECASE)
_MIXED = re.compile(r"[A-Za-z]\d+[a-z]|[a-z]{2}[A-Z]|[A-Za-z][|!{}\[\]<>~^_=;:]+[A-Za-z]|(.)\1\1")
_ALONE = frozenset("aioyeuàèéìòùAIOYEU")
_LINK = re.compile(r"https?:|www\.|\w@\w|[\\/]")


def is_wordlike(token: str) -> bool:
    """Whether a token could be a word, a number or an abbreviation; other scripts than Latin always could."""
    if _LINK.search(token):
        return True
    core = _EDGE.sub("", token)
    if not core:
        return len(token) <= 3 or len(set(token)) == 1
    if not _LATIN.search(core):
        return True
    if _MIXED.search(core) or _CONSONANTS.search(core):
        return False
    if len(core) == 1:
        return core in _ALONE or core.isupper() or token[-1:] in ".):"
    return bool(_VOWEL.search(core)) or core.isupper() or len(core) <= 3 or bool(re.search(r"\d", core))


def word_share(text: str) -> float:
    """Share of the characters that stand in word-like tokens; 0 for an empty text.

    Prose of European languages has .97 to 1, mechanical garbage .3 to .8.
    """
    tokens = _TOKEN.findall(text)
    chars = sum(map(len, tokens))
    return sum(len(token) for token in tokens if is_wordlike(token)) / chars if chars else 0.0
