"""Text tools that makers share: Markdown to plain text, sentences, trimming, how much of a text another holds."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from luthier.prepare.makers._words import ABBREVIATIONS, STOP_WORDS, word_set

_WORD = re.compile(r"\w+(?:[.,:/'’-]\w+)*", re.UNICODE)


def plain(text: str) -> str:
    """Markdown without its marks: emphasis, links, images, code ticks, escapes and heading signs go; lists stay."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u00ad", "").replace("\u00a0", " ")
    text = re.sub(r"!\[([^\]]*)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)", r"\1", text)
    text = re.sub(r"\[([^\]]+)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)", r"\1", text)
    text = re.sub(r"<(https?://[^>\s]+|[\w.+-]+@[\w.-]+)>", r"\1", text)
    text = re.sub(r"<br\s*/?>", "\n", text, flags=re.IGNORECASE)
    text = re.sub(r"^[ \t]{0,3}(?:```|~~~).*$\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"^[ \t]{0,3}#{1,6}[ \t]+", "", text, flags=re.MULTILINE)
    text = re.sub(r"^[ \t]{0,3}>[ \t]?", "", text, flags=re.MULTILINE)
    text = re.sub(r"(\*\*\*|\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text, flags=re.DOTALL)
    text = re.sub(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])", r"\1", text)
    text = re.sub(r"(?<![\w_])_(?=[^\s_])([^_\n]+?)(?<=[^\s_])_(?![\w_])", r"\1", text)
    text = re.sub(r"(?<!`)`([^`\n]+)`(?!`)", r"\1", text)
    text = re.sub(r"\\([\\`*_{}\[\]()#+.!|<>~-])", r"\1", text)
    text = re.sub(r"^[ \t]*[*+•·▪–][ \t]+", "- ", text, flags=re.MULTILINE)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" *\n *", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def one_line(text: str) -> str:
    """Plain text with every run of white space made one space."""
    return re.sub(r"\s+", " ", plain(text)).strip()


def sentences(text: str) -> list[str]:
    """Sentences in order; a line of a list is one. Knows common abbreviations, initials and decimal points."""
    found: list[str] = []
    for line in text.split("\n"):
        start = 0
        for match in re.finditer(r"[.!?…]+[\"'”’)\]]*(?=\s+\S)", line):
            before = line[start:match.start()].rsplit(None, 1)[-1].lstrip("(\"'“") if line[start:match.start()] else ""
            after = line[match.end():].lstrip()[:1]
            mark = match.group()[0]
            if mark == "." and (before.lower() in ABBREVIATIONS or re.fullmatch(r"[A-Za-z]", before)):
                continue
            if mark == "." and before.isdigit() and len(before) <= 2 and (start == match.start() - len(before)):
                continue  # "1. First step": the number of an item, not a sentence
            if after.islower() and mark == ".":
                continue  # "approx. three": a sentence does not start in lower case
            found.append(line[start:match.end()].strip())
            start = match.end()
        if line[start:].strip():
            found.append(line[start:].strip())
    return found


def is_item(line: str) -> bool:
    """Whether a line is an item of a list."""
    return bool(re.match(r"\s*(?:[-*+•]|\(?(?:\d{1,3}|[a-z])[.)])\s+\S", line))


def ends_well(text: str) -> bool:
    """Whether a text ends at the end of a sentence (closing quotes and brackets may follow)."""
    return bool(re.search(r"[.!?…。]['\"”’)\]]*$", text.strip()))


def trim(text: str, limit: int) -> str:
    """The longest beginning of `text` of at most `limit` characters that ends with a sentence or a list item.

    Empty when not even the first sentence fits; a line that announces what is cut off ("Bring:") goes too.
    """
    text = text.strip()
    if len(text) <= limit:
        return text
    kept, end = 0, 0
    for piece in sentences(text):
        at = text.index(piece, end)
        if at + len(piece) > limit:
            break
        kept = end = at + len(piece)
    cut = text[:kept].rstrip()
    while cut.endswith(":"):
        lines = cut.rsplit("\n", 1)
        parts = sentences(lines[-1])
        shorter = " ".join(parts[:-1])
        cut = (lines[0] + ("\n" + shorter if shorter else "") if len(lines) > 1 else shorter).rstrip()
    return cut


def words(text: str) -> list[str]:
    """Lower-case words and numbers, without accents' encoding differences."""
    return [word.lower() for word in _WORD.findall(unicodedata.normalize("NFKC", text))]


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """A crude stem: English endings (-s, -ed, -ing, -e) go, then six letters count; numbers stay whole."""
    if any(ch.isdigit() for ch in word):
        return word.strip(".,:")
    word = re.split(r"['’]", word)[0]
    if len(word) > 3 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[:-len(ending)]
            break
    return word[:6].removesuffix("e") if len(word) > 3 else word


def content(text: str, language: str = "en") -> list[str]:
    """Stems of the words that carry meaning, in order, hyphenated words split."""
    stop = STOP_WORDS.get(language, STOP_WORDS["en"])
    found = []
    for word in words(text):
        pieces = [word] if any(ch.isdigit() for ch in word) else re.split(r"[-/.:,]", word)
        found += [
            stem(piece) for piece in pieces if piece and piece not in stop and (len(piece) > 1 or piece.isdigit())
        ]
    return found


def support(claim: str, source: str, language: str = "en") -> float:
    """Share of the claim's content words that occur in the source, 0 to 1; 0 for a claim without content."""
    wanted = content(claim, language)
    have = set(content(source, language))
    return sum(word in have for word in wanted) / len(wanted) if wanted else 0.0


def numbers(text: str) -> set[str]:
    """Numbers in a text, thousands separators and leading zeros aside; item numbers of lists do not count."""
    text = re.sub(r"^\s*\(?\d{1,3}[.)]\s+", "", text, flags=re.MULTILINE)
    return {re.sub(r"(?<=\d)[,'’](?=\d{3}\b)", "", found).lstrip("0") or "0"
            for found in re.findall(r"\d+(?:[.,:'’]\d+)*", text)}


def evidence(claim: str, source: str, *, language: str = "en", most: int = 3) -> tuple[str, float]:
    """The run of at most `most` sentences of the source that supports the claim best: (verbatim quote, support share).

    Of equally good runs the shortest wins, then the first.
    """
    pieces = sentences(source)
    have = [set(content(piece, language)) for piece in pieces]
    wanted = content(claim, language)
    if not pieces or not wanted:
        return "", 0.0
    best, chosen = (-1.0, 0, 0), (0, 1)
    for length in range(1, min(most, len(pieces)) + 1):
        for start in range(len(pieces) - length + 1):
            union = set().union(*have[start:start + length])
            share = sum(word in union for word in wanted) / len(wanted)
            if (share, -length, -start) > best:
                best, chosen = (share, -length, -start), (start, start + length)
    begin = end = 0
    for number, piece in enumerate(pieces[:chosen[1]]):
        at = source.index(piece, end)
        begin = at if number == chosen[0] else begin
        end = at + len(piece)
    return source[begin:end], best[0]


def key(text: str) -> str:
    """What two texts share when only case, punctuation and white space differ."""
    return " ".join(words(text))


def overlap(first: str, second: str) -> float:
    """Jaccard similarity of two texts' sets of word pairs (single words for one-word texts), 0 to 1."""
    def grams(text: str) -> set[tuple[str, ...]]:
        found = words(text)
        return {tuple(found[i:i + 2]) for i in range(len(found) - 1)} or {tuple(found)}

    a, b = grams(first), grams(second)
    return len(a & b) / len(a | b) if a | b else 0.0


def is_question(text: str, language: str = "en") -> bool:
    """Whether a line asks: it ends with a question mark and is no longer than a question is."""
    line = one_line(text)
    return line.endswith(("?", "？")) and 2 <= len(line.split()) <= 45 and not line.startswith(("http", "www."))


_DANGLING = {
    "en": r"\b(?:this|these|those|its|they|them|their|he|she|his|her|here|the following|aforementioned|"
    r"that(?=\W*$| (?:is|was|mean|work|cost|happen|cause|take|apply)\b)|"
    r"it(?! (?:takes?|costs?)\b.*\bto\b| (?:possible|safe|necessary|allowed|legal|normal|dangerous|worth|true|better|"
    r"ok|okay|required|important|advisable|mandatory)\b))\b",
    "de": r"\b(?:dies|diese[rsnm]?|es|sie|ihr|ihre[rsnm]?|hier|folgende[rsnm]?)\b",
}


_WEAK = frozenset(map(stem, word_set(
    "long old far often soon big large high low work take cost happen mean do lang oft hoch groß")))


def refers_to_page(question: str, language: str = "en") -> bool:
    """Whether a question points at the page it was made from ("the text above"), so that nobody can answer it alone."""
    strict = {
        "en": r"\b(?:th(?:is|e|at|ese|e (?:above|following|given|provided|preceding)) "
        r"(?:text|passage|author|article|section|paragraph|excerpt|context|speaker|writer|narrator|"
        r"above|following)s?|"
        r"(?:this|the given|the provided|the following|the above) (?:document|table|list|figure|page|example|"
        r"sentence|statement|information|story|image|picture)|mentioned (?:above|below|here)|as (?:above|below)|"
        r"see (?:above|below)|"
        r"(?:according|based) (?:to|on) (?:this|the (?:text|passage|context|article|document)))\b",
        "de": r"\b(?:(?:dies(?:er|es|em|en|e)|der|dem|des|das|den) (?:obige[nmrs]? |folgende[nmrs]? |"
        "vorliegende[nmrs]? )?"
        r"(?:text|textes|abschnitt|abschnitts|absatz|autor|autors|passage|kontext|artikel|artikels)|"
        r"oben genannte?[nmrs]?|siehe (?:oben|unten))\b",
    }
    return bool(re.search(strict.get(language, strict["en"]), question, re.IGNORECASE))


def stands_alone(question: str, language: str = "en") -> bool:
    """Whether a question makes sense without its page: no pointer to the page, no pronoun in place of its subject.

    A pronoun is fine once two content words stand before it: "Can I test a bike before I buy it?" says what "it" is,
    "How do I cancel it?" does not.
    """
    if refers_to_page(question, language):
        return False
    dangling = re.search(_DANGLING.get(language, _DANGLING["en"]), question, re.IGNORECASE)
    before = question[:dangling.start()] if dangling else question
    return len(set(content(before, language)) - _WEAK) >= (2 if dangling else 1)


def clip(text: str, limit: int = 300) -> str:
    """The first `limit` characters, for a person to judge by."""
    return text if len(text) <= limit else text[:limit - 1].rstrip() + "…"
