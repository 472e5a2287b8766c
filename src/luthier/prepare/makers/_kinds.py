"""Kinds of questions, and which of them a passage can be asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.prepare.injection import find
from luthier.prepare.makers._text import content, ends_well, is_item, plain, sentences
from luthier.prepare.makers._words import word_set
from luthier.types import Passage, digest

Kind = Literal["fact", "list", "procedure", "definition", "how", "why", "comparison", "unanswerable"]
DEFAULT: tuple[Kind, ...] = ("fact", "list", "procedure", "definition", "comparison", "unanswerable")
GIVEN: tuple[Kind, ...] = ("fact", "list", "procedure")
"""What a small teacher can be asked for, which words the question of an answer that is given."""
RARE: dict[Kind, int] = {"comparison": 4, "unanswerable": 8}
"""These are asked of every n-th passage only."""

MOST_WORDS = 160
"""Longest list that is given as an answer."""


@dataclass(frozen=True)
class Block:
    """A list in a passage."""

    text: str
    """Verbatim, with the line that announces it."""
    items: tuple[str, ...]
    steps: bool
    """The items are numbered, or announced as steps."""


def blocks(text: str, least: int = 3) -> list[Block]:
    """The lists of a text with at least `least` items, with the line above where that one announces them."""
    lines = text.split("\n")
    found: list[Block] = []
    at = 0
    while at < len(lines):
        if not is_item(lines[at]):
            at += 1
            continue
        end = at
        while end < len(lines) and (is_item(lines[end]) or not lines[end].strip()):
            end += 1
        while not lines[end - 1].strip():
            end -= 1
        items = tuple(re.sub(r"^\s*(?:[-*+•]|\(?(?:\d{1,3}|[a-z])[.)])\s+", "", line) for line in lines[at:end]
                      if line.strip())
        above = at - 1
        while above >= 0 and not lines[above].strip():
            above -= 1
        lead = lines[above] if above >= 0 and lines[above].rstrip().endswith(":") else ""
        if len(items) >= least:
            numbered = bool(re.match(r"\s*\(?\d", lines[at]))
            found.append(Block("\n".join(lines[above if lead else at:end]), items,
                               numbered or bool(_STEPS.search(lead))))
        at = end
    return found


_STEPS = re.compile(r"\b(?:steps?|procedure|proceed|as follows|in this order|how to|schritte?|so gehen|vorgehen)\b",
                    re.IGNORECASE)
_DOING = re.compile(
    r"\b(?:first|then|next|finally|afterwards|before you|after you|click|press|select|open the|enter the|fill in|"
    r"step \d|must be (?:done|sent|signed|reported|ordered)|zuerst|danach|anschließend|klicken|drücken|wählen)\b",
    re.IGNORECASE)
_MEANS = re.compile(r"\b(?:is|are) (?:an?|the|any|one)\b|\bmeans?\b|\brefers? to\b|\bstands for\b|"
                    r"\bist (?:ein|der|die|das)|\bbezeichnet\b|\bbedeutet\b", re.IGNORECASE)
_WHY = re.compile(r"\b(?:because|since|therefore|so that|in order to|due to|reason|caused? by|weil|da(?:mit|her)|"
                  r"deshalb|grund)\b", re.IGNORECASE)
_SEVERAL = re.compile(r"(?:[^,;.]+[,;]){2,}[^,;.]*\b(?:and|or|und|oder)\b", re.IGNORECASE)


def fits(kind: Kind, text: str, language: str) -> bool:
    """Whether a text may hold an answer of this kind. Only for English and German is that looked at."""
    if language not in ("en", "de") or kind in ("fact", "how", "comparison", "unanswerable"):
        return True
    if kind == "list":
        return bool(blocks(text)) or bool(_SEVERAL.search(text))
    if kind == "procedure":
        return any(block.steps for block in blocks(text)) or len(_DOING.findall(text)) >= 2
    return bool((_MEANS if kind == "definition" else _WHY).search(text))


def choose(passage: Passage, kinds: Sequence[Kind], count: int, language: str, seed: int) -> list[Kind]:
    """`count` kinds to ask a passage for: those that it fits, in an order by hash, from the start again when they are
    fewer. It depends on nothing but the passage, so a change elsewhere asks nothing anew."""
    open_to: list[Kind] = [kind for kind in kinds if fits(kind, passage.text, language) and
                           int(digest(str(seed), passage.id, "rare", kind), 16) % RARE.get(kind, 1) == 0]
    order: list[Kind] = sorted(open_to, key=lambda kind: digest(str(seed), passage.id, kind))
    common: list[Kind] = [kind for kind in order if kind not in RARE]
    rare: list[Kind] = [kind for kind in order if kind in RARE]
    both: list[Kind] = [*rare, *common]
    found = both[:count]  # a rare one has its turn where it comes up
    while common and len(found) < count:
        found += common[:count - len(found)]
    return found


_NO_START = word_set(
    "it they this these that those he she his her their its such but and or so then also however therefore thus "
    "otherwise instead if both each here there another yes no please see note example for")


@dataclass(frozen=True)
class Focus:
    """A piece of a passage that is an answer by itself."""

    text: str
    kind: Kind


def focuses(passage: Passage, kinds: Sequence[Kind], count: int, language: str, seed: int) -> list[Focus]:
    """Up to `count` pieces of the passage that are answers by themselves, in reading order: lists, steps, sentences."""
    found: list[Focus] = []
    for block in blocks(passage.text):
        kind: Kind = "procedure" if block.steps else "list"
        if kind in kinds and len(block.text.split()) <= MOST_WORDS and not orders(block.text):
            found.append(Focus(plain(block.text), kind))
    found = sorted(found, key=lambda focus: digest(str(seed), passage.id, focus.text))[:max(1, count // 2)]
    if "fact" in kinds:
        found += [Focus(text, "fact") for text in focus_sentences(passage, count - len(found), language, seed)]
    return found[:count]


def focus_sentences(passage: Passage, count: int, language: str, seed: int) -> list[str]:
    """Up to `count` sentences of the passage that say something by themselves, spread by a hash, in reading order."""
    found = []
    for sentence in sentences(plain(passage.text)):
        length = len(sentence.split())
        if (6 <= length <= 45 and ends_well(sentence) and not sentence.endswith(("?", ":")) and "|" not in sentence
                and not is_item(sentence) and sentence.split()[0].strip(",").lower() not in _NO_START
                and len(set(content(sentence, language))) >= 4 and not orders(sentence)):
            found.append(sentence)
    chosen = sorted(found, key=lambda sentence: digest(str(seed), passage.id, sentence))[:count]
    return [sentence for sentence in dict.fromkeys(found) if sentence in chosen]


def orders(text: str) -> bool:
    """Whether a piece of a document speaks to a language model ("ignore the instructions above"), not to a reader."""
    return any(hit.strong for hit in find(text))
