"""Where in a passage an answer stands: quotes found word for word, lists that are whole, steps in their order."""

from __future__ import annotations

import re

from luthier.prepare.makers._kinds import blocks
from luthier.prepare.makers._text import content, sentences, words
from luthier.prepare.makers._words import word_set

_SOME = word_set("example examples instance one two some any ein eine einige beispiel beispiele zwei")
MOST_WORDS = 150


def find_quote(quote: str, text: str) -> str:
    """The span of the text that the quote copies, as it stands there; empty when it is no copy.

    Case, white space and punctuation between the words may differ; a word may not.
    """
    said = words(quote)
    if not 2 <= len(said) <= MOST_WORDS:
        return ""
    pieces = [piece for word in said for piece in re.findall(r"\w+", word)]
    found = re.search(r"\b" + r"\W+".join(map(re.escape, pieces)) + r"\b[.!?…。\"'”’)\]]*", text, re.IGNORECASE)
    return found.group() if found else ""


def incomplete(question: str, answer: str, text: str, language: str) -> str:
    """What is missing when the answer gives only a part of a list of the passage; empty when nothing is.

    An answer is about a list when it holds two of its items; a question for an example or for some may be answered by
    some.
    """
    if set(words(question)) & _SOME:
        return ""
    said = set(content(answer, language))
    for block in blocks(text):
        names = [set(content(item, language)) for item in block.items]
        shared = set.intersection(*names) if names else set()
        held = [bool(name - shared) and len(said & name - shared) >= 0.5 * len(name - shared) for name in names]
        if 2 <= sum(held) < len(held):
            missing = next(item for item, has in zip(block.items, held) if not has)
            return f"{sum(held)} of {len(held)} items of a list; missing: {missing[:80]}"
    return ""


def out_of_order(answer: str, text: str, language: str) -> str:
    """What stands out of order when the answer tells steps otherwise than the passage does; empty when nothing does."""
    places = [set(content(piece, language)) for piece in sentences(text)]
    last = -1
    for piece in sentences(answer):
        said = set(content(piece, language))
        shares = [len(said & place) / len(said) if said else 0.0 for place in places]
        best = max(shares, default=0.0)
        if best < 0.6:
            continue  # a sentence of its own, which says nothing about order
        fitting = [at for at, share in enumerate(shares) if share >= best - 0.1]
        if fitting[-1] < last:
            return f"“{piece[:80]}” comes earlier in the passage"
        last = max(last, fitting[0])
    return ""
