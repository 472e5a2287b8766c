"""Names of documents, headings, columns and rows as they read inside a sentence."""

from __future__ import annotations

import re
from functools import cached_property

from luthier.prepare.makers._sections import bare_heading
from luthier.prepare.makers._text import one_line, plain
from luthier.prepare.makers._words import word_set
from luthier.types import Document

_DOCUMENT_NOUNS = word_set(  # singular ones: "What does the Warranty terms say" would be wrong
    "handbook policy guide manual agreement report procedure plan contract catalogue catalog brochure charter code "
    "specification standard checklist directive statement datasheet list schedule overview description runbook "
    "playbook "
    "newsletter sheet act statute prospectus protocol register"
)
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
_FILE_NAME = re.compile(r"\.(?:pdf|docx?|pptx?|xlsx?|html?|md|txt|csv|tsv|jsonl?|eml|xml)$", re.IGNORECASE)


class Wording:
    """How one document's title, headings, column names and row names are written inside a sentence.

    Capitals that only open a line ("Notice period") become small; names keep theirs. What is a name is read from the
    document itself: a word that its prose writes small, or never writes with a capital inside a sentence, is none.
    """

    def __init__(self, document: Document, language: str = "en"):
        self.document, self.language = document, language

    @cached_property
    def _prose(self) -> str:
        return "\n".join(
            plain(span.text) for span in self.document.spans if span.kind not in ("heading", "table", "row")
        )

    @cached_property
    def _lower(self) -> frozenset[str]:
        return frozenset(re.findall(r"(?<![\w.@/-])[a-zà-ÿ][a-zà-ÿ'’-]+(?![\w@])",
                                    "\n".join(plain(s.text) for s in self.document.spans if s.kind != "heading")))

    @cached_property
    def _names(self) -> frozenset[str]:
        """Words written with a capital inside a sentence."""
        return frozenset(re.findall(r"(?<=[a-z,;0-9)] )[A-ZÀ-Þ][\w'’-]*", self._prose))

    @cached_property
    def title(self) -> str:
        """The title as people would write it: no site name behind it, no file ending, no first section as a title."""
        document = self.document
        title = one_line(document.title)
        top = [one_line(span.text) for span in document.spans if span.kind == "heading" and span.level <= 1]
        if top and top[0] != title and re.search(rf"(?:^|[|–—:·] |- ){re.escape(top[0])}(?:$| [|–—·]| -)", title):
            title = top[0]  # "Delivery and returns – Tarnvik Help": the site's name says nothing here
        stem = _FILE_NAME.sub("", document.path.rsplit("/", 1)[-1])
        if len(top) > 2 and top[0] == title and re.search(r"[A-Za-z]{4}", stem):
            title = stem  # one heading among its equals is a section, not the document
        if not title or _FILE_NAME.search(title) or "_" in title or title == stem:
            title = re.sub(r"[_\s]+|(?<=[a-z])-(?=[a-z0-9])", " ", _FILE_NAME.sub("", title or stem)).strip()
            title = title[:1].upper() + title[1:]
        return bare_heading(title)

    @property
    def named(self) -> str:
        """The title inside a sentence: `the Travel Policy`, or in quotes where an article would read badly."""
        title = self.title
        found = title.split()
        if self.language == "en" and found and len(found) <= 8 and not re.search(r"[:|?!–—,;()]| - ", title):
            head = re.split(r"\s+(?:of|for|to|on|in)\s+", title)[0].split()
            last = re.sub(r"\W", "", head[-1]).lower()
            if found[0].lower() in ("the", "our") and len(found) > 1 and last in _DOCUMENT_NOUNS:
                return f"the {' '.join(found[1:])}"
            if last in _DOCUMENT_NOUNS and found[0].lower() not in (
                "your",
                "my",
                "how",
                "a",
                "an",
                "all",
                "what",
                "why",
            ):
                return f"the {title}"
        return f"„{title}“" if self.language == "de" else f'"{title}"'

    def heading(self, phrase: str) -> str:
        """A heading: in sentence case its first word is made small, in capitals all, else what prose has small."""
        if self.language == "de":
            return phrase
        found = phrase.split()
        if phrase.isupper() and re.search(r"[A-Z]{4}", phrase):
            return " ".join(word if word in self._names and word.lower() not in self._lower | _SMALL else word.lower()
                            for word in found)
        if phrase in self._prose and not self._opens(phrase):
            return phrase  # written like this inside a sentence: a name
        out = [self._small(word) for word in found]
        sentence = any(word[:1].islower() and word.lower() not in _LINKS for word in found[1:])
        if out and out[0] == found[0] and (sentence or found[0].endswith("ing")) and self._plain_word(found[0]) and (
                not (len(found) > 1 and re.match(r"[A-Z0-9]", found[1]))):
            out[0] = found[0].lower()
        return " ".join(out)

    def column(self, phrase: str) -> str:
        """A column's name: small, unless prose writes it with a capital inside a sentence."""
        if self.language == "de" or (phrase[:1].isupper() and phrase in self._prose and not self._opens(phrase)):
            return phrase
        words = [word.lower() if self._plain_word(word) else word for word in phrase.split()]
        return re.sub(r"^(.*\S) ((?:19|20)\d\d)$", r"\1 in \2", " ".join(words))

    def row(self, phrase: str) -> str:
        """A row's name or a cell: most are names, so only words that prose writes small lose their capital."""
        if self.language == "de" or (phrase in self._prose and not self._opens(phrase)):
            return phrase
        out = [self._small(word) for word in phrase.split()]
        if any(word[:1].islower() and word not in _LINKS for word in phrase.split()[1:]) and self._plain_word(out[0]):
            out[0] = out[0].lower()  # sentence case: "Suspension fork", "Chain lock, security level 12"
        return " ".join(out)

    def _opens(self, phrase: str) -> bool:
        """Whether prose has the phrase only where a sentence or line begins."""
        return not re.search(rf"(?<=[a-z,;0-9)] ){re.escape(phrase)}(?!\w)", self._prose)

    def _small(self, word: str) -> str:
        core = re.sub(r"^\W+|\W+$", "", word)
        simple = core[:1].isupper() and (core[1:].islower() or len(core) == 1)
        known = core.lower() in self._lower or core.lower() in _SMALL
        return word.replace(core, core.lower(), 1) if simple and known else word

    def _plain_word(self, word: str) -> bool:
        """A capitalised word that is no name: never capital inside a sentence, or small somewhere too."""
        core = re.sub(r"^\W+|\W+$", "", word)
        return core[:1].isupper() and core[1:].islower() and (
            core not in self._names or core.lower() in self._lower)


_LINKS = word_set("a an the and or of for to in on at by with from vs per as is")
