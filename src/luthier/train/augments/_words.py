"""What text augmentations share: words and their places, a replacement that keeps the case, the user's lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.errors import DataError

if TYPE_CHECKING:
    import numpy as np

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
"""Letters of any script, with an apostrophe inside; digits and signs are never touched."""


def change_words(text: str, share: float, rng: np.random.Generator, change: Callable[[str], str]) -> str:
    """Every word is changed with probability `share`; what stands between words stays."""
    found = [*WORD.finditer(text)]
    chosen = rng.random(len(found)) < share
    parts, last = [], 0
    for match, hit in zip(found, chosen):
        parts += [text[last : match.start()], change(match[0]) if hit else match[0]]
        last = match.end()
    return "".join([*parts, text[last:]])


def cased(word: str, like: str) -> str:
    """`word` in capitals, or with a first capital, where `like` is written so."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def pattern_of(phrases: Sequence[str]) -> re.Pattern[str]:
    """Finds whole phrases whatever their case, the longest first."""
    longest = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
    inside = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in longest)
    return re.compile(rf"(?<!\w)(?:{inside})(?!\w)", re.IGNORECASE)


def swap(text: str, pattern: re.Pattern[str], choose: Callable[[str], str]) -> str:
    """Every phrase that the pattern finds becomes `choose(phrase in small letters)`, its case kept."""
    return pattern.sub(lambda match: cased(choose(" ".join(match[0].lower().split())), match[0]), text)


def read_groups(path: Path, *, field: str, least: int = 2, most: int | None = None) -> list[list[str]]:
    """The lines of a user's list, each cut at commas or tabs; empty lines and lines that begin with # are skipped.
    DataError names the line that does not fit."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{field}: {path} cannot be read ({error}); write one group a line, such as: car, auto"
                        ) from None
    groups = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = [" ".join(part.lower().split()) for part in re.split(r"[,\t]", line)]
        words = [*dict.fromkeys(word for word in words if word)]
        if len(words) < least or (most is not None and len(words) > most):
            wanted = f"{least}" if most == least else f"at least {least}"
            raise DataError(f"{path}:{number}: {len(words)} different entries in '{line.strip()[:60]}', {wanted} are "
                            "needed, with commas between them")
        groups.append(words)
    if not groups:
        raise DataError(f"{field}: {path} holds no line to use; write one group a line, such as: car, auto")
    return groups


def others(groups: Sequence[Sequence[str]]) -> Mapping[str, list[str]]:
    """What each phrase may become: the rest of all groups that name it."""
    found: dict[str, list[str]] = {}
    for group in groups:
        for phrase in group:
            known = found.setdefault(phrase, [])
            known += [other for other in group if other != phrase and other not in known]
    return found
