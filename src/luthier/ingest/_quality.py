"""Does a page's text look like language? Signs that need no dictionary, each with the share that gave it away."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Any

GLUED_CHARS = 40
"""A Latin-script token longer than this is not a word; the longest compounds of German law have about 40."""
GLUED_MEAN = 12.0
"""Mean token length from which words are glued; English prose has about 5, German 6.5, Finnish 8."""
BAD = ("garbled", "glued-words", "split-words")
"""Warnings of pages that `bad_pages: drop` leaves out."""
MAX_JUDGED = 2_000_000
"""Characters of one page that are looked at."""
_EXPECTED = re.compile(r"https?:|www\.|[@/\\_=<>{}|]|\.{4,}|-{4,}|\d{6,}")
_LETTERS = re.compile(r"[A-Za-zÀ-ɏ]+")
_SPACED = re.compile(r"(?<!\S)(?:[^\W\d_] ){4,}[^\W\d_](?!\S)")  # five letters that stand alone
_VOWELS = re.compile(r"[aeiouyAEIOUYÀ-ÆÈ-ÏÒ-ÖØ-Ýà-æè-ïò-öø-ýÿ]")
_BROKEN = re.compile("[\ufffd\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ue000-\uf8ff]|[■□▯]{2,}|\\(cid:\\d+\\)")


def judge_text(text: str) -> list[dict[str, Any]]:
    """Warnings for one page: `garbled` (broken characters or words without vowels), `glued-words`,
    `split-words` (letters that stand apart)."""
    chars = len(text) - text.count(" ") - text.count("\n")
    if chars < 40:
        return []
    found: list[dict[str, Any]] = []
    if len(text) > MAX_JUDGED:  # an endless text is judged by its beginning and its end
        text = text[: MAX_JUDGED // 2] + "\n" + text[-MAX_JUDGED // 2 :]
        chars = len(text) - text.count(" ") - text.count("\n")
    broken = sum(len(hit.group()) for hit in _BROKEN.finditer(text)) / max(chars, 1)
    words = [word for word in _LETTERS.findall(text) if len(word) >= 4 and not word.isupper()]
    silent = sum(not _VOWELS.search(word) for word in words) / len(words) if len(words) >= 20 else 0.0
    if broken > 0.02 or silent > 0.3:
        found.append({"warning": "garbled", "value": round(max(broken, silent), 3)})
    tokens = [token for token in text.split() if _LETTERS.search(token) and not _EXPECTED.search(token)]
    latin = [token for token in tokens if token.isascii() or sum(map(len, _LETTERS.findall(token))) > len(token) / 2]
    if len(latin) >= 3 or any(len(token) > 10 * GLUED_CHARS for token in latin):
        mean = sum(map(len, latin)) / len(latin) if len(latin) >= 20 else 0.0
        long = sum(len(token) for token in latin if len(token) > GLUED_CHARS) / sum(map(len, latin))
        if long > 0.15 or mean > GLUED_MEAN:
            found.append({"warning": "glued-words", "value": round(long if long > 0.15 else mean, 3)})
    letters = sum(map(len, re.findall(r"[^\W\d_]+", text)))
    apart = sum(len(hit.group()) // 2 + 1 for hit in _SPACED.finditer(text))
    if apart >= 20 and apart > 0.05 * letters:
        found.append({"warning": "split-words", "value": round(apart / letters, 3)})
    return found


def agreement(ours: str, theirs: str) -> tuple[float, float]:
    """Share of the second text's words that the first has, and share of its neighbouring word pairs (order)."""
    a, b = _norm(ours), _norm(theirs)
    common = sum((Counter(a) & Counter(b)).values()) / max(len(b), 1)
    if len(b) < 8:  # too few to tell more than that they are gone
        return (1.0 if common >= 0.5 or not b else common), 1.0
    pairs = Counter(pairwise(a)) & Counter(pairwise(b))
    return common, sum(pairs.values()) / max(len(b) - 1, 1)


def _norm(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
