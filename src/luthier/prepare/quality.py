"""How good a passage's text is, with reasons: after the rules of Gopher (Rae et al. 2021, appendix A) and C4 (Raffel
et al. 2020, section 2.2), adapted to passages of company documents, where lists, tables and code are normal.

The score is 1 less what each finding costs. The default bound drops only what no reader could use.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import Field

from luthier.prepare.text import words
from luthier.shelf import Sink, view
from luthier.spec import Spec
from luthier.types import Dropped, Passage

_TABLE = re.compile(r"^\s*\|.*\|\s*$")
_BULLET = re.compile(r"^\s*(?:[-*+•▪◦‣·]|\d{1,3}[.)])\s")
_FENCE = re.compile(r"^\s*(?:```|~~~)|^(?: {4}|\t)\S", re.MULTILINE)
_PLACEHOLDER = re.compile(r"lorem ipsum|dolor sit amet", re.IGNORECASE)
_SCRIPT = re.compile(r"\b(?:enable|activate|turn on|aktivieren sie|requires?) (?:your )?(?:java ?script|cookies)\b",
                     re.IGNORECASE)
_ENDS = re.compile(r"[.!?:;…。！？)\]\"'”’»|`]\s*$")
_ODD = re.compile(r"[^\w\s.,;:!?'\"()\[\]{}/%&@+=*<>|#$€£§°„“”‘’»«–—•·…-]")
_VOWEL = re.compile(r"[aeiouyäöüáàâéèêíìîóòôúùûæøåœ]", re.IGNORECASE)
_LATIN = re.compile(r"^[A-Za-zÀ-ÿ]+$")
_WORST, _LISTED = 5, 200


class Judged(NamedTuple):
    """What was found in a text."""

    score: float
    """0 (no reader could use it) to 1."""
    reasons: tuple[str, ...]
    """Slugs, the most costly first: few-letters, symbols, repeated-lines, repeated-words, menu, ocr-junk, numbers,
    placeholder, script-notice, truncated, odd-words."""


class Quality(Spec):
    """A score of each passage's text, and what is dropped for it."""

    min_score: float = Field(default=0.3, ge=0, le=1)
    """Passages with a lower score (0 to 1) are dropped as `quality`, with their findings; 0 drops none. Two findings
    together, or one that leaves nothing to read (placeholder text, garbage of a scan), reach the default."""
    min_words: int = Field(default=8, ge=1)
    """Shorter passages are not judged: too little to go by."""

    def judge(self, text: str) -> Judged:
        """The score of a text and the findings that lower it."""
        return judge(text) if len(text.split()) >= self.min_words else Judged(1.0, ())

    def keep(self, passages: Sequence[Passage], dropped: Sink[Dropped]) -> tuple[Sequence[Passage], dict[str, Any]]:
        """(the passages that are good enough, the figures for the data card)."""
        kept, scores, found = array("q"), array("d"), Counter()
        worst: list[tuple[float, Passage, Judged]] = []
        for at, passage in enumerate(passages):
            judged = self.judge(passage.text)
            scores.append(judged.score)
            found.update(judged.reasons)
            if judged.reasons:
                worst.append((judged.score, passage, judged))
                if len(worst) > _LISTED:
                    worst = _least(worst)[:_WORST]
            if judged.score < self.min_score:
                dropped.append(Dropped(
                    item=passage.id, step="quality", reason="quality", text=passage.text[:300],
                    detail=f"{passage.citation}: score {judged.score:.2f}: {', '.join(judged.reasons)}"))
            else:
                kept.append(at)
        return view(passages, kept), {
            "n": len(scores), "min_score": self.min_score, "dropped": len(passages) - len(kept),
            "bins": [sum(low <= min(score, 0.999) * 10 < low + 1 for score in scores) for low in range(10)],
            "reasons": dict(found.most_common()),
            "worst": [{"score": round(score, 2), "where": passage.citation, "reasons": list(judged.reasons),
                       "text": passage.text[:300], "dropped": score < self.min_score}
                      for score, passage, judged in _least(worst)[:_WORST]],
        }


def _least(rows: list[tuple[float, Passage, Judged]]) -> list[tuple[float, Passage, Judged]]:
    return sorted(rows, key=lambda row: (row[0], row[1].path, row[1].spans))


def judge(text: str) -> Judged:
    """The score of a text of any length and its findings. Tables and code are spared the rules about prose."""
    lines = [line for line in text.splitlines() if line.strip()]
    tokens = text.split()
    if not tokens:
        return Judged(0.0, ("few-letters",))
    structured = bool(_FENCE.search(text)) or sum(bool(_TABLE.match(line)) for line in lines) > len(lines) / 2
    costs: dict[str, float] = {}
    if _PLACEHOLDER.search(text):
        costs["placeholder"] = 0.8
    if _SCRIPT.search(text) and len(tokens) < 60:
        costs["script-notice"] = 0.5
    _repeated(lines, tokens, costs, structured=structured)
    if not structured:
        _letters(text, tokens, costs)
        _shape(text, lines, tokens, costs)
    return Judged(max(0.0, round(1 - sum(costs.values()), 3)), tuple(sorted(costs, key=lambda name: -costs[name])))


def _letters(text: str, tokens: Sequence[str], costs: dict[str, float]) -> None:
    signs = sum(not sign.isspace() for sign in text)
    letters = sum(sign.isalpha() for sign in text)
    digits = sum(sign.isdigit() for sign in text)
    odd = len(_ODD.findall(text)) - sum(not sign.isascii() and not sign.isprintable() for sign in text)
    with_letter = sum(any(sign.isalpha() for sign in token) for token in tokens) / len(tokens)
    if digits > letters and digits > 0.4 * signs:
        costs["numbers"] = 0.4  # Gopher asks for a letter in 80 % of the words
    elif with_letter < 0.5 or letters < 0.4 * signs:
        costs["few-letters"] = 0.5
    if odd > 0.1 * signs:
        costs["symbols"] = 0.4
    latin = [token for token in (token.strip(".,;:!?()[]\"'") for token in tokens) if _LATIN.match(token)]
    if len(latin) >= 8:
        length = sum(map(len, latin)) / len(latin)
        single = sum(len(token) == 1 for token in latin) / len(latin)
        long = [token for token in latin if len(token) > 2 and not token.isupper()]
        mute = sum(not _VOWEL.search(token) for token in long) / max(8, len(long))
        mixed = sum(token[1:] != token[1:].lower() and not token.isupper() for token in latin) / len(latin)
        if single > 0.4 or mute > 0.3 or mixed > 0.4:
            costs["ocr-junk"] = 0.75
        elif length > 14 or length < 2.5:
            costs["odd-words"] = 0.4  # Gopher: a mean of 3 to 10 letters; German compounds are longer


def _repeated(lines: Sequence[str], tokens: Sequence[str], costs: dict[str, float], *, structured: bool) -> None:
    many = Counter(" ".join(line.split()).casefold() for line in lines)
    extra = sum(count - 1 for count in many.values())
    if len(lines) >= 6 and extra > 0.4 * len(lines):  # Gopher: 30 % of the lines
        costs["repeated-lines"] = 0.4
    if structured or len(tokens) < 24:
        return
    said = words(" ".join(tokens))
    runs = Counter(tuple(said[at : at + 3]) for at in range(len(said) - 2))
    covered = sum(count for count in runs.values() if count > 2)
    if runs and covered > 0.5 * max(1, len(said) - 2):
        costs["repeated-words"] = 0.75 if covered > 0.8 * len(said) else 0.4


def _shape(text: str, lines: Sequence[str], tokens: Sequence[str], costs: dict[str, float]) -> None:
    short = sum(len(line.split()) <= 3 for line in lines)
    ends = sum(bool(_ENDS.search(line)) for line in lines)
    bullets = sum(bool(_BULLET.match(line)) for line in lines)
    bars = sum(text.count(sign) for sign in ("|", "»", "›", "·"))
    if (len(lines) >= 8 and short > 0.8 * len(lines) and not ends and not bullets) or bars > 0.15 * len(tokens):
        costs["menu"] = 0.4
    dots = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    if len(lines) >= 3 and dots > 0.3 * len(lines):
        costs["truncated"] = 0.3
    elif len(lines) == 1 and len(tokens) >= 8 and not _ENDS.search(text):
        costs["truncated"] = 0.1
