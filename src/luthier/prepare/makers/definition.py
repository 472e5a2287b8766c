"""Definitions in the documents: "An X is a …", "X means …", glossaries and term lists, spelled-out abbreviations.

The answer is the defining text as it stands (origin `document`), the question is worded by rule. Sentences count only
where their subject is a term: "The deadline is the 15th" defines nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.plugins import register
from luthier.prepare.base import MAKERS
from luthier.prepare.makers._examples import Places, Seen, chat_example, drop
from luthier.prepare.makers._limits import usable
from luthier.prepare.makers._phrases import Phrases, phrases
from luthier.prepare.makers._sections import sections
from luthier.prepare.makers._tables import read_table
from luthier.prepare.makers._text import ends_well, one_line, plain, sentences
from luthier.prepare.makers._wording import Wording
from luthier.prepare.makers._words import word_set
from luthier.spec import Spec
from luthier.types import Document, Dropped, Example, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

TERM_COLUMNS = word_set(
    "term terms word abbreviation abbreviations acronym acronyms begriff begriffe abkürzung abkürzungen short "
    "expression")
MEANING_COLUMNS = word_set(
    "definition definitions meaning description explanation bedeutung definition erklärung erläuterung "
    "beschreibung long")
DEFINITIONS = re.compile(
    r"\b(?:glossar(?:y|ies)?|definitions?|terms? (?:used|and)|terminology|abbreviations?|acronyms?|"
    r"begriffe|begriffsbestimmungen|abkürzungen|definitionen)\b",
    re.IGNORECASE,
)

_SUBJECT = r"(?P<article>(?:An?|The)\s+)?(?P<term>[“\"']?[A-Za-z0-9][\w/+-]*(?: [\w/()+-]+){0,4}?[”\"']?)"
_ENGLISH = re.compile(
    rf"^{_SUBJECT}(?P<verb> (?:is|are) (?:an?|the|any|one of|defined as|the name)(?= )"
    r"| (?:means|refers to|denotes|stands for|describes)(?= ))")
_GERMAN = re.compile(
    r"^(?:(?P<article>Ein|Eine|Der|Die|Das) )?(?P<term>[„\"]?[A-ZÄÖÜ0-9][\w/-]*(?: [\w/-]+){0,3}?[“”\"]?)"
    r"(?P<verb> (?:ist|sind) (?:eine?|der|die|das|alle)(?= )| (?:bedeutet|bezeichnet|bezeichnen|steht für)(?= ))")
_NO_TERM = word_set(
    "this that these those it its he she they we you i there here what who which when where how why if one "
    "someone anyone everyone everything nothing something all some any each every both none most many few such "
    "another other others my your our his her their aim goal purpose reason result results problem answer "
    "question point idea thing things deadline date first second third next last same only main best following "
    "rest difference cause causes example exception key objective default limit cost price fee minimum maximum "
    "number amount total rate risk focus treatment prognosis outlook author today tomorrow below above note "
    "important however also so then thus but and or not no yes because although while since who whose whom "
    "after before during in on at by for from with to of as der die das dies diese dieser dieses es er sie wir "
    "ihr ziel grund ergebnis problem frage antwort beispiel folge ursache zweck hier dort wer was wie wo")
_PLACE = re.compile(
    r"(?:level|step|stage|phase|zone|section|part|option|group|class|category|type|figure|table|chapter|"
    r"line|column|row|page|appendix|article|stufe|schritt|phase|teil|abschnitt)\s\S+$",
    re.IGNORECASE,
)
_ALSO = re.compile(r"^(?:It|They|These|This|Such|Es|Sie|Er|Diese[rs]?)\b")


@dataclass
class Defined:
    term: str
    article: str
    meaning: str
    """The defining text as it stands."""
    start: int
    end: int
    form: str
    """`sentence`, `entry` (a glossary's) or `abbreviation`."""


@register(MAKERS, "definition")
class Definition(Spec):
    """Ask for the meaning of terms that the documents define."""

    max_answer: int = Field(default=600, ge=40)
    """Longest answer in characters; a longer definition is cut at the end of a sentence."""
    min_words: int = Field(default=5, ge=2)
    """A definition of fewer words says too little (spelled-out abbreviations excepted)."""
    abbreviations: bool = True
    """Also ask what abbreviations stand for that are spelled out once: "Service Level Agreement (SLA)"."""

    per_document: ClassVar[bool] = True
    uses_retriever: ClassVar[bool] = False
    VERSION: ClassVar[int] = 1

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """One example for each term of a document; dropped: too-little, duplicate, ambiguous, language, …"""
        words, places = phrases(context.task.language), Places(context)
        if words is None:
            for document in context.documents:
                yield drop(document.path, self.kind, "language", f"no wording for '{context.task.language}'")
            return
        for document in context.documents:
            seen, spelled = Seen(), set()
            for found in definitions(document, context.task.language):
                if found.form == "abbreviation":
                    if not self.abbreviations or found.term in spelled:
                        continue  # papers spell an abbreviation out again and again: the first time counts
                    spelled.add(found.term)
                question, answer = self._ask(found, document, words, context.task.language)
                item = f"{document.path}: {question}"
                reason = "too-little" if found.form != "abbreviation" and len(answer.split()) < self.min_words else ""
                if not reason:
                    answer, reason = usable(answer, least=10, most=self.max_answer)
                reason = reason or seen.clash(question, answer) or ""
                held = [] if reason else places.find(document, found.start, found.end, found.meaning)
                if reason or not held:
                    yield drop(item, self.kind, reason or "passage-removed", text=found.meaning)
                    continue
                yield chat_example(context, question, answer, step=self.kind, passages=held[:1], evidence=found.meaning,
                                   maker="rule" if found.form == "abbreviation" else "document")

    @staticmethod
    def _ask(found: Defined, document: Document, words: Phrases, language: str) -> tuple[str, str]:
        wording = Wording(document, language)
        title = wording.named
        if found.form == "abbreviation":
            question, answer = words.stands_for(found.term, title)
            return question, answer.format(wording.heading(found.meaning))
        if found.form == "sentence" and found.article is not None and language == "en":
            verb = "are" if re.match(r"(?:\S+ ){0,6}?are ", found.meaning[len(found.article):]) else "is"
            return f"What {verb} {found.article.lower()}{wording.heading(found.term)}?", found.meaning
        if found.form == "sentence" and language == "de":
            return f"Was ist {' '.join(filter(None, (found.article.lower(), found.term)))}?", found.meaning
        question = words.meaning(found.term, title, int(digest(found.term), 16))
        short = found.meaning[:1].islower() or len(found.meaning.split()) < 8 or not ends_well(found.meaning)
        answer = f"{found.term}: {found.meaning}" if short else found.meaning
        return question, answer if ends_well(answer) else f"{answer}."

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {}


def definitions(document: Document, language: str = "en") -> Iterator[Defined]:
    """Every defined term in reading order."""
    for section in sections(document):
        glossary = bool(DEFINITIONS.search(section.heading))
        first = section.end - len(section.body)
        for number, span in enumerate(section.body, first):
            if span.kind == "table":
                yield from _table(span.text, number)
            elif span.kind == "list" or (glossary and span.kind == "paragraph"):
                yield from _entries(span.text, number, glossary)
            if span.kind == "paragraph":
                text = plain(span.text)
                yield from _sentences(text, number, language)
            if span.kind in ("paragraph", "list"):
                yield from _abbreviations(one_line(span.text), number)


def _table(text: str, number: int) -> Iterator[Defined]:
    table = read_table(text)
    names = [re.sub(r"\W", "", name).lower() for name in table.header] if table else []
    if table is None or len(names) != 2:
        return
    term = next((i for i, name in enumerate(names) if name in TERM_COLUMNS), None)
    meaning = next((i for i, name in enumerate(names) if name in MEANING_COLUMNS), None)
    if term is None or meaning is None or term == meaning:
        return
    for row in table.rows:
        if row[term] and row[meaning]:
            yield Defined(row[term], "", row[meaning], number, number + 1, "entry")


def _entries(text: str, number: int, glossary: bool) -> Iterator[Defined]:
    """`**Term**: meaning` in any list, `Term: meaning` and `Term – meaning` in a glossary only."""
    for line in re.split(r"\n(?=\s*(?:[-*+•]|\d+[.)])\s|\S)", text):
        item = re.sub(r"^\s*(?:[-*+•]|\d+[.)])\s+", "", line)
        bold = re.match(
            r"^(?:\*\*|__)(?P<term>[^*_]{2,50}?)\s*:?(?:\*\*|__)\s*[:–—-]?\s+(?P<meaning>\S.*)$", item, re.DOTALL
        )
        loose = re.match(r"^(?P<term>[^:–—.!?]{2,50}?)\s*(?::|\s[–—-])\s+(?P<meaning>\S.*)$", item, re.DOTALL)
        found = (bold if glossary else None) or (loose if glossary else None)
        if found:
            term = plain(found["term"]).strip(" \"“”„'")
            if 1 <= len(term.split()) <= 6:
                yield Defined(term, "", plain(found["meaning"]), number, number + 1, "entry")


def _sentences(text: str, number: int, language: str) -> Iterator[Defined]:
    pattern = _GERMAN if language == "de" else _ENGLISH if language == "en" else None
    lines = sentences(text) if pattern else []
    for at, sentence in enumerate(lines):
        found = pattern.match(sentence) if pattern else None
        if not found or not ends_well(sentence):
            continue
        term, article = found["term"], found["article"] or ""
        bare = term.strip("“”\"'„").lower().split()
        explicit = (
            not re.match(r" (?:is|are|ist|sind|describes) ", found["verb"] + " ") or "defined as" in found["verb"]
        )
        half = term.lower().split()
        if half[:len(half) // 2] == half[len(half) // 2:] or {"a", "an", "the"} & set(half[1:]):
            continue  # "Radiation therapy Radiation therapy is …": a heading that ran into its text
        if sentence.count(found["verb"].strip()) > 1 or _PLACE.match(term):
            continue  # "Amber means charging, green means full": a list; "Level 2 is the …": a place in one
        if any(word in _NO_TERM for word in (bare if not explicit else bare[:1])) or (
                not explicit and not _defining(sentence[found.end():], article, found["verb"])):
            continue
        meaning = sentence
        if at + 1 < len(lines) and _ALSO.match(lines[at + 1]) and len(sentence) + len(lines[at + 1]) < 400:
            both = f"{sentence} {lines[at + 1]}"
            meaning = both if both in text else sentence
        yield Defined(term.strip("“”\"'„"), article, meaning, number, number + 1, "sentence")


def _defining(rest: str, article: str, verb: str) -> bool:
    """Whether "X is …" goes on as a definition does: a kind, then what sets it apart; not an evaluation or an event."""
    head = rest.strip().lower()
    if re.match(
        r"(?:good|bad|great|common|must|big|small|new|lot|bit|few|major|key|first|second|next|last|same|only|best|"
        r"main|most|important|result|reason|case|problem|question|matter|number of|little|way to go)\b",
        head,
    ):
        return False
    if article.strip() == "The" and verb.split()[-1] in ("a", "an"):
        return len(head.split()) >= 5
    marked = re.search(
        r"\b(?:that|which|who|whose|where|used|designed|caused|characterized|characterised|made|in which|"
        r"for|of|between|consisting|containing|responsible|with|by|"
        r"für|von|zwischen|mit|durch|zum|zur)\b|, (?:der|die|das|den|dem|deren|dessen|in|bei|mit)\b",
        head,
    )
    return bool(marked) and len(head.split()) >= 4


def _abbreviations(text: str, number: int) -> Iterator[Defined]:
    """`Service Level Agreement (SLA)`: the capitals before the bracket must spell what stands in it."""
    for found in re.finditer(r"\(([A-Z][A-Z0-9&]{1,6})s?\)", text):
        short = found[1]
        before = re.findall(r"[\w'’&-]+|[^\w\s]", text[:found.start()])
        letters = [c for c in short if c.isalpha()]
        for size in range(len(letters), min(len(letters) + 3, len(before)) + 1):
            run = before[-size:]
            if any(not re.match(r"[\w&]", word) for word in run):
                break
            initials = [part[0].upper() for word in run for part in word.split("-")
                        if part and part.lower() not in ("of", "and", "the", "for", "in", "on", "to")]
            every = [part[0].upper() for word in run for part in word.split("-") if part]
            if letters in (initials, every) and run[0][0].lower() == letters[0].lower() and run[0].lower() not in (
                    "of", "and", "the", "for", "in", "on", "to"):
                start = text.rindex(run[0], 0, found.start())
                long = _whole(text, run, found.start())
                yield Defined(short, "", long or text[start:found.start()].strip(), number, number + 1, "abbreviation")
                break


def _whole(text: str, run: list[str], end: int) -> str:
    """The verbatim text of the words of `run`, which end at `end`."""
    at = end
    for word in reversed(run):
        at = text.rindex(word, 0, at)
    return text[at:end].strip()
