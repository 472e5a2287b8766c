"""A heading and its section as question and answer: "What does the Travel Policy say about hotel bookings?"

The answer is the section's own text (origin `rule`: worded question, quoted answer), cut at the end of a sentence where
it is too long. Headings that are questions belong to `faq`; headings without meaning of their own ("Contents",
"References") are dropped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from luthier.plugins import register
from luthier.prepare.base import MAKERS
from luthier.prepare.makers._examples import Places, Seen, chat_example, drop
from luthier.prepare.makers._limits import usable
from luthier.prepare.makers._phrases import Phrases, phrases
from luthier.prepare.makers._sections import (
    Section,
    in_sentence,
    named,
    sections,
    similar_heading,
    small_words,
    title_of,
)
from luthier.prepare.makers._text import clip, is_item, is_question, key
from luthier.spec import Spec
from luthier.types import Document, Dropped, Example, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

_BOILERPLATE = re.compile(
    r"^(?:(?:table of )?contents?|toc|index|references?|bibliography|(?:version|revision|document|change) (?:history|log|control)|"
    r"changelog|copyright|imprint|legal notice|disclaimer|footnotes?|list of (?:figures|tables)|acknowledge?ments?|"
    r"further reading|see also|related (?:links|documents|topics)|links|sources?|navigation|menu|share this|"
    r"inhalt(?:sverzeichnis)?|impressum|quellen|literatur(?:verzeichnis)?|siehe auch|änderungshistorie|glossar(?:y)?)$",
    re.IGNORECASE)
_GENERAL = re.compile(
    r"^(?:introduction|overview|summary|abstract|about(?: this .*)?|general|preface|foreword|background|purpose|at a glance|"
    r"einleitung|überblick|zusammenfassung|allgemeines|vorwort|zweck)$", re.IGNORECASE)
_WHOLE = re.compile(r"^(?:introduction|overview|summary|abstract|about(?: this .*)?|at a glance|einleitung|überblick|"
                    r"zusammenfassung)$", re.IGNORECASE)


@register(MAKERS, "section")
class SectionQuestions(Spec):
    """Ask what a document says under each of its headings."""

    min_answer: int = Field(default=60, ge=1)
    """Shortest section in characters that is worth a question."""
    max_answer: int = Field(default=900, ge=80)
    """Longest answer in characters; a longer section is cut at the end of a sentence, never inside one."""
    max_cut: float = Field(default=0.6, ge=0, le=1)
    """Greatest share of a section that may be cut away; a longer section answers its heading too badly and is dropped."""

    per_document: ClassVar[bool] = True
    uses_retriever: ClassVar[bool] = False
    VERSION: ClassVar[int] = 1

    @model_validator(mode="after")
    def _ordered(self) -> SectionQuestions:
        if self.min_answer >= self.max_answer:
            raise ValueError(f"min_answer ({self.min_answer}) must be below max_answer ({self.max_answer})")
        return self

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """At most one example a section; dropped: boilerplate-heading, answer-too-short, answer-too-long, …"""
        words, places, language = phrases(context.task.language), Places(context), context.task.language
        for document in context.documents:
            if words is None:
                yield drop(document.path, self.kind, "language", f"no wording for '{language}'")
                continue
            seen, small = Seen(), small_words(document)
            every = list(sections(document))
            often = Counter(key(section.heading) for section in every)
            for section in every:
                if not section.heading or is_question(section.heading) or not section.body:
                    continue
                item = f"{document.path}: {section.heading}"
                if _BOILERPLATE.match(section.heading):
                    yield drop(item, self.kind, "boilerplate-heading", text=section.text())
                    continue
                answer, reason, whole = self._answer(section)
                if reason:
                    yield drop(item, self.kind, reason, text=clip(whole))
                    continue
                question = self._question(section, document, words, language, small, often)
                clash = seen.clash(question, answer)
                first = section.end - len(section.body)
                found = [] if clash else places.find(document, first, section.end, answer)
                if clash or not found:
                    yield drop(item, self.kind, clash or "passage-removed", text=clip(answer))
                    continue
                yield chat_example(context, question, answer, step=self.kind, maker="rule", passages=found,
                                   evidence=answer)

    def _answer(self, section: Section) -> tuple[str, str, str]:
        """(answer, reason to drop, whole text)."""
        texts = section.text()
        while texts and texts.rstrip().endswith(":"):  # "The limits are:" announces a table that `table` asks for
            texts = texts.rstrip().rpartition("\n\n")[0]
        if not texts:
            return "", "no-text" if not section.text() else "answer-incomplete", section.text()
        if all(is_item(line) and len(line.split()) < 4 for line in texts.split("\n") if line.strip()) and len(texts) < 120:
            return "", "answer-too-short", texts
        cut, reason = usable(texts, least=self.min_answer, most=self.max_answer)
        if not reason and 1 - len(cut) / len(texts) > self.max_cut:
            return "", "answer-too-long", texts
        return cut, reason, texts

    @staticmethod
    def _question(section: Section, document: Document, words: Phrases, language: str, small: frozenset[str],
                  often: Counter[str]) -> str:
        raw = title_of(document)
        title, heading = named(raw, language), in_sentence(section.heading, small, language)
        variant = int(digest(document.path, section.heading), 16)
        parent = section.path[-1] if section.path else ""
        if (similar_heading(section.heading, raw) and key(section.heading) == key(raw)) or (
                _WHOLE.match(section.heading) and not parent):
            return words.whole(title)
        how = words.how_to(heading)
        repeated = often[key(section.heading)] > 1 or bool(_GENERAL.match(section.heading))
        if how and not repeated:
            return how
        listed = [span for span in section.body if span.kind == "list"]
        if listed and not repeated:
            asked = words.listing(heading, title)
            if asked:
                return asked
        return words.about(heading, title, parent if repeated and parent else "", variant)

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {}
