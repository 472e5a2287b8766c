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
from luthier.prepare.makers._sections import Section, sections
from luthier.prepare.makers._text import clip, is_item, is_question, key
from luthier.prepare.makers._wording import Wording
from luthier.prepare.makers.definition import DEFINITIONS
from luthier.spec import Spec
from luthier.types import Dropped, Example, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

_BOILERPLATE = re.compile(
    r"^(?:(?:table of )?contents?|toc|index|references?|bibliography|"
    r"(?:version|revision|document|change) (?:history|log|control)|"
    r"changelog|copyright|imprint|legal notice|disclaimer|footnotes?|list of (?:figures|tables)|acknowledge?ments?|"
    r"further reading|see also|links|sources?|navigation|menu|share this|glossar(?:y)?|"
    r"(?:related|popular|useful|quick|more|further|top) (?:links|documents|pages|topics|articles|information|"
    r"questions)|"
    r"inhalt(?:sverzeichnis)?|impressum|quellen|literatur(?:verzeichnis)?|siehe auch|änderungshistorie)$",
    re.IGNORECASE,
)
_GENERAL = re.compile(
    r"^(?:introduction|overview|summary|abstract|about(?: this .*)?|general|preface|foreword|background|purpose|"
    r"at a glance|contact|scope|notes?|details|einleitung|überblick|zusammenfassung|allgemeines|vorwort|zweck)$",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"^(?:introduction|overview|summary|abstract|about(?: this .*)?|at a glance|einleitung|überblick|"
                    r"zusammenfassung)$", re.IGNORECASE)


def is_asked(section: Section) -> bool:
    """Whether a section is one to ask about: it has a heading of its own meaning that is no question, and a text."""
    return bool(section.heading and section.body and not is_question(section.heading)
                and not _BOILERPLATE.match(section.heading) and not DEFINITIONS.search(section.heading)
                and not _GENERAL.match(section.heading) and section.text())


@register(MAKERS, "section")
class SectionQuestions(Spec):
    """Ask what a document says under each of its headings."""

    min_answer: int = Field(default=60, ge=1)
    """Shortest section in characters that is worth a question."""
    max_answer: int = Field(default=900, ge=80)
    """Longest answer in characters; a longer section is cut at the end of a sentence, never inside one."""
    max_cut: float = Field(default=0.6, ge=0, le=1)
    """Greatest share of a section that may be cut away; a longer section is dropped, for it would be half an answer."""

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
            seen, wording = Seen(), Wording(document, language)
            every = list(sections(document))
            often = Counter(key(section.heading) for section in every)
            for section in every:
                if not section.heading or is_question(section.heading) or not section.body:
                    continue
                item = f"{document.path}: {section.heading}"
                if _BOILERPLATE.match(section.heading):
                    yield drop(item, self.kind, "boilerplate-heading", text=section.text())
                    continue
                if DEFINITIONS.search(section.heading):
                    yield drop(item, self.kind, "made-by-definition", text=section.text())
                    continue
                whole = self._whole(section, wording)
                answer, reason = self._answer(section, first_only=whole)
                if reason:
                    yield drop(item, self.kind, reason, text=section.text())
                    continue
                question = (words.whole(wording.named) if whole else
                            self._question(section, wording, words, often))
                clash = seen.clash(question, answer)
                first = section.end - len(section.body)
                found = [] if clash else places.find(document, first, section.end, answer)
                if clash or not found:
                    yield drop(item, self.kind, clash or "passage-removed", text=clip(answer))
                    continue
                yield chat_example(context, question, answer, step=self.kind, maker="rule", passages=found,
                                   evidence=answer)

    def _answer(self, section: Section, *, first_only: bool) -> tuple[str, str]:
        """(answer, reason to drop it). Of a section that introduces its document only the first paragraphs answer."""
        texts = section.text().split("\n\n")
        if first_only:
            enough = next((i for i in range(1, len(texts)) if len("\n\n".join(texts[:i])) >= 2 * self.min_answer), None)
            texts = texts[:enough]
        while texts and re.search(r"[:?？]$", texts[-1]):  # "The limits are:" announces a table that `table` asks for
            texts.pop()
        text = "\n\n".join(texts)
        if not text:
            return "", "answer-incomplete" if section.text() else "no-text"
        lines = [line for line in text.split("\n") if line.strip()]
        if all(is_item(line) and len(line.split()) <= 4 for line in lines) and len(text) < 120:
            return "", "answer-too-short"
        cut, reason = usable(text, least=self.min_answer, most=self.max_answer)
        return ("", "answer-too-long") if not reason and 1 - len(cut) / len(text) > self.max_cut else (cut, reason)

    @staticmethod
    def _whole(section: Section, wording: Wording) -> bool:
        """Whether the section introduces the document: it bears the title, or says so ("Overview") at the top."""
        return key(section.heading) == key(wording.title) or (not section.path and bool(_WHOLE.match(section.heading)))

    @staticmethod
    def _question(section: Section, wording: Wording, words: Phrases, often: Counter[str]) -> str:
        title, heading = wording.named, wording.heading(section.heading)
        parent = section.path[-1] if section.path else ""
        how = words.how_to(heading)
        repeated = often[key(section.heading)] > 1 or bool(_GENERAL.match(section.heading))
        if how and not repeated:
            return how
        if not repeated and any(span.kind == "list" for span in section.body):
            asked = words.listing(heading, title)
            if asked:
                return asked
        return words.about(heading, title, parent if repeated else "", int(digest(wording.title, heading), 16))

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {}
