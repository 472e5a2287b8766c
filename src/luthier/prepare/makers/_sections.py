"""Sections of a document: a heading with the text that belongs to it alone, and titles as people would say them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from luthier.prepare.makers._text import one_line, plain, words
from luthier.prepare.makers._words import word_set
from luthier.types import Document, Span


@dataclass(frozen=True)
class Section:
    """A heading and the spans up to the next heading of any level."""

    heading: str
    """Plain text without numbering; empty for what stands before the first heading."""
    path: tuple[str, ...]
    """Headings above it, outermost first, the document's title left out."""
    start: int
    """Number of the heading's span (of the first span where there is no heading)."""
    end: int
    """One past the last span."""
    body: tuple[Span, ...]

    def text(self, *, tables: bool = False) -> str:
        """The body as plain text, paragraphs and lists apart by a blank line; tables and code only when asked for."""
        skipped = () if tables else ("table", "row")
        return "\n\n".join(filter(None, (plain(span.text) for span in self.body if span.kind not in skipped)))


def sections(document: Document) -> Iterator[Section]:
    """Every section in reading order, also those without a text of their own."""
    stack: list[tuple[int, str]] = []
    start, heading = 0, ""
    spans = document.spans
    for number, span in enumerate(spans):
        if span.kind != "heading":
            continue
        if number > start or heading:
            yield _section(document, stack, heading, start, number)
        heading = bare_heading(span.text)
        level = span.level or 1
        while stack and stack[-1][0] >= level:
            stack.pop()
        stack.append((level, heading))
        start = number
    if start < len(spans):
        yield _section(document, stack, heading, start, len(spans))


def _section(document: Document, stack: list[tuple[int, str]], heading: str, start: int, end: int) -> Section:
    title = one_line(document.title).casefold()
    above = tuple(text for _, text in stack[:-1] if text and text.casefold() != title) if heading else ()
    first = start + 1 if heading or (start < end and document.spans[start].kind == "heading") else start
    return Section(heading=heading, path=above, start=start, end=end, body=document.spans[first:end])


def bare_heading(text: str) -> str:
    """A heading without Markdown, numbering ("3.2", "§ 4", "Chapter 3:", "A.") and a closing colon."""
    text = one_line(text)
    text = re.sub(r"^(?:chapter|section|part|article|appendix|annex|kapitel|abschnitt|teil|artikel|anhang)\s+"
                  r"(?:\d+(?:\.\d+)*|[IVXLC]+|[A-Z])\s*[:.–—-]\s*(?=\S)", "", text, flags=re.IGNORECASE)
    text = re.sub(r"^§+\s*\d+[a-z]?\s*[:.–—-]?\s*(?=\S)", "", text)
    text = re.sub(r"^(?:\d{1,2}(?:\.\d{1,3})+\.?|\d{1,2}[.)]|\(?[a-zA-Z][.)]|[IVX]{1,5}[.)])\s+(?=\S)", "", text)
    return text.rstrip(" :").strip()


_DOCUMENT_NOUNS = word_set(
    "handbook policy policies guide manual agreement report faq faqs terms procedure procedures plan contract "
    "catalogue catalog brochure charter code regulations rules specification specifications standard "
    "instructions checklist directive statement datasheet list schedule overview description runbook playbook "
    "newsletter minutes notes sheet guidelines act statute prospectus protocol register")
_FILE_NAME = re.compile(r"\.(?:pdf|docx?|pptx?|xlsx?|html?|md|txt|csv|tsv|jsonl?|eml|xml)$", re.IGNORECASE)


def title_of(document: Document) -> str:
    """The document's title as people would write it: a file name loses its ending, dashes and underscores."""
    title = one_line(document.title)
    top = next((one_line(span.text) for span in document.spans if span.kind == "heading" and span.level <= 1), "")
    if top and top != title and re.search(rf"(?:^|[|–—:·] |- ){re.escape(top)}(?:$| [|–—·]| -)", title):
        title = top  # "Delivery and returns – Tarnvik Help": the site's name says nothing here
    if not title or _FILE_NAME.search(title) or "_" in title or re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)+", title):
        title = _FILE_NAME.sub("", title or document.path.rsplit("/", 1)[-1])
        title = re.sub(r"[_\s]+|(?<=[a-z])-(?=[a-z0-9])", " ", title).strip()
        title = title[:1].upper() + title[1:]
    return bare_heading(title)


def named(title: str, language: str = "en") -> str:
    """A title inside a sentence: `the Travel Policy`, or in quotes where an article would read badly."""
    found = title.split()
    if language == "en" and found and len(found) <= 8 and not re.search(r"[:|?!–—,]| - ", title):
        last = re.sub(r"\W", "", found[-1]).lower()
        if found[0].lower() in ("the", "our"):
            return f"the {' '.join(found[1:])}"
        if last in _DOCUMENT_NOUNS and found[0].lower() not in ("your", "my", "how", "a", "an", "all", "what", "why"):
            return f"the {title}"
    return f"„{title}“" if language == "de" else f'"{title}"'


def in_sentence(phrase: str, lower_words: frozenset[str], language: str = "en") -> str:
    """A heading or column name as it reads inside a sentence: words that the documents also write small become small.

    `lower_words` are the words seen in lower case (see `small_words`). Acronyms, names and German nouns keep their
    capitals.
    """
    if language == "de":
        return phrase
    out = []
    for word in phrase.split():
        core = re.sub(r"^\W+|\W+$", "", word)
        simple = core[:1].isupper() and (core[1:].islower() or len(core) == 1 or ("-" in core and core[1:] == core[1:].lower()))
        known = core.lower() in lower_words or core.lower() in _SMALL
        out.append(word.replace(core, core.lower(), 1) if simple and known else word)
    return " ".join(out)


def column_name(header: str, document: Document) -> str:
    """A column's name inside a sentence, small unless the document's prose writes it with a capital."""
    prose = " ".join(plain(span.text) for span in document.spans if span.kind not in ("heading", "table", "row"))
    if re.search(rf"(?<![.!?:\n] )(?<!^)(?<![\n\w-]){re.escape(header)}\b", prose) and header[:1].isupper():
        return header
    words_seen = []
    for word in header.split():
        name = word[:1].isupper() and word[1:].islower() and not re.search(
            rf"[a-z,;)] {re.escape(word)}\b", prose)
        words_seen.append(word.lower() if name else word)
    return " ".join(words_seen)


_SMALL = word_set(
    "a an the and or of for to in on at by with from your our my how what when where who why which if per as "
    "is are price prices name names type types date dates time times number numbers size sizes status code "
    "codes cost costs fee fees limit limits rate rates amount amounts weight length width height colour color "
    "model models role roles country countries city cities department departments contact contacts phone email "
    "address owner owners duration deadline deadlines description version versions level levels category "
    "categories requirement requirements response resolution maximum minimum total annual monthly weekly daily "
    "period notice hours days weeks months years availability warranty delivery interval service plan plans "
    "product products item items unit units step steps reset resetting setting using working getting "
    "requesting reporting ordering booking returning leave expenses travel training equipment holidays "
    "benefits password passwords account accounts support")


def small_words(document: Document) -> frozenset[str]:
    """Words that the document's running text writes in lower case."""
    return frozenset(
        word for span in document.spans if span.kind != "heading"
        for word in re.findall(r"(?<![\w.@/-])[a-zà-ÿ][a-zà-ÿ'’-]+(?![\w@])", plain(span.text)))


def similar_heading(first: str, second: str) -> bool:
    """Whether one heading says no more than another."""
    a, b = set(words(first)), set(words(second))
    return bool(a) and (a <= b or b <= a)
