"""Question–answer pairs that stand in the documents: FAQ pages, "Q:/A:" paragraphs, question headings, Q&A tables.

Questions and answers are taken over as they are written (origin `document`); only marks such as "Q:" and Markdown go.
A question that needs its page to be understood ("How long does it take?") is given its heading in front.
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
from luthier.prepare.makers._limits import MAX_ANSWER, usable
from luthier.prepare.makers._sections import Section, sections
from luthier.prepare.makers._tables import read_table
from luthier.prepare.makers._text import content, evidence, is_question, one_line, plain, refers_to_page, stands_alone
from luthier.prepare.makers._wording import Wording
from luthier.prepare.makers._words import word_set
from luthier.spec import Spec
from luthier.types import Document, Dropped, Example

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

QUESTION_COLUMNS = word_set(
    "question questions q frage fragen f pregunta domanda vraag pergunta query prompt")
ANSWER_COLUMNS = word_set(
    "answer answers a antwort antworten réponse reponse respuesta risposta antwoord resposta response reply")

_ASKED = re.compile(r"^\W{0,3}(?:Q(?:uestion)?|F(?:rage)?|Pregunta|Domanda)\s*\d{0,3}\s*[:.)–-]\W{0,3}\s*(?=\S)",
                    re.IGNORECASE)
_ANSWERED = re.compile(
    r"^\W{0,3}(?:A(?:nswer)?|Antwort|R(?:éponse|esposta|espuesta|isposta)?)\s*\d{0,3}\s*[:.)–-]\W{0,3}"
    r"\s*(?=\S)",
    re.IGNORECASE,
)


_GENERIC = re.compile(
    r"^(?:.*\b(?:faqs?|questions?|q ?& ?a|fragen|general|allgemein(?:es)?|help|misc\w*|other)\b.*)$", re.IGNORECASE
)


@dataclass
class Found:
    """A pair as it stands in the document."""

    question: str
    answer: str
    start: int
    end: int
    context: str
    """The heading it stands under."""


@register(MAKERS, "faq")
class Faq(Spec):
    """Take over question–answer pairs that stand in the documents."""

    max_answer: int = Field(default=MAX_ANSWER, ge=40)
    """Longest answer in characters; a longer one is cut at the end of a sentence."""
    min_answer: int = Field(default=2, ge=1)
    """Shortest answer in characters ("No" is an answer when a person wrote it)."""

    per_document: ClassVar[bool] = True
    uses_retriever: ClassVar[bool] = False
    VERSION: ClassVar[int] = 1

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """One example for each pair; dropped: no-answer, answer-too-long, needs-context, duplicate, ambiguous, …"""
        places, language = Places(context), context.task.language
        for document in context.documents:
            seen = Seen()
            for pair in pairs(document, language):
                item = f"{document.path}: {pair.question}"
                answer, reason = usable(pair.answer, least=self.min_answer, most=self.max_answer)
                question = tidy(pair.question)
                if not reason:
                    question, reason = self_contained(question, pair.context, document, language)
                reason = reason or seen.clash(question, answer) or ""
                if reason:
                    yield drop(item, self.kind, reason, text=f"{pair.question}\n{pair.answer}")
                    continue
                found = places.find(document, pair.start, pair.end, answer)
                if not found:
                    yield drop(item, self.kind, "passage-removed", "its text is in no passage that was kept", answer)
                    continue
                quote, _ = evidence(answer, found[0].text, language=language)
                yield chat_example(context, question, answer, step=self.kind, maker="document", passages=found,
                                   evidence=quote)

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {}


def self_contained(question: str, heading: str, document: Document, language: str) -> tuple[str, str]:
    """(the question, with its heading or title in front where it needs one, "") or ("", `needs-context`)."""
    title = Wording(document, language).title
    mail = document.reader == "eml"  # a mail's questions are about its subject and seldom repeat it
    if stands_alone(question, language) and not mail:
        return question, ""
    about = title if mail or _GENERIC.match(heading or "FAQ") else heading
    bare = re.sub(
        r"\b(?:it|its|they|them|this|that|these|those|es|sie|diese[rsnm]?)\b", " ", question, flags=re.IGNORECASE
    )
    if refers_to_page(question, language) or not content(f"{about} {bare}", language):
        return "", "needs-context"
    return f"{about}: {question}", ""


def tidy(question: str) -> str:
    """A question as a person would type it: no blank before its mark, no leading list sign."""
    question = re.sub(r"^(?:[-*•]|\d{1,3}[.)])\s+", "", one_line(question))
    question = re.sub(r"\s+([?!.,;:])", r"\1", question)
    question = re.sub(r"\b([Ww]hat|[Ww]ho) is \(are\) ", r"\1 is ", question)  # MedQuAD's templates
    question = re.sub(r"[?？]{2,}$", "?", question)
    return question[:1].upper() + question[1:]


def pairs(document: Document, language: str = "en") -> Iterator[Found]:
    """Every pair in reading order, each piece of the document used once."""
    for section in sections(document):
        heading = section.heading
        marked = _ASKED.match(heading)
        if heading and (marked or is_question(heading, language)):
            question = _ASKED.sub("", heading) if marked else heading
            answer = _ANSWERED.sub("", section.text(tables=True), count=1)
            if _only_tables(section):
                continue  # `table` says it in sentences
            yield Found(question, answer, section.start, section.end, section.path[-1] if section.path else "")
        else:
            yield from _inside(section, language)


def _only_tables(section: Section) -> bool:
    return bool(section.body) and all(span.kind in ("table", "row") for span in section.body)


def _inside(section: Section, language: str) -> Iterator[Found]:
    """Pairs among the paragraphs, lists and tables of a section whose heading is no question."""
    first = section.end - len(section.body)
    question, answer, began, marked = "", [], 0, False
    about = section.heading

    def done(end: int) -> Iterator[Found]:
        if question and (answer or marked):
            yield Found(question, "\n\n".join(answer), began, end, about)

    for number, span in enumerate(section.body, first):
        if span.kind == "table":
            yield from done(number)
            question, answer = "", []
            yield from _from_table(span.text, number, about)
            continue
        text = span.text.strip()
        for asked, told in _lines(text, language):
            if asked:
                yield from done(number)
                question, answer, began, marked = asked[0], [], number, asked[1]
                if told:
                    answer.append(told)
            elif question and marked and answer and span.kind == "paragraph" and _is_label(told):
                yield from done(number)  # a heading that the reader could not tell from text
                question, answer = "", []
            elif question and told:
                answered = _ANSWERED.match(told)
                if answer and not marked and not answered and span.kind not in ("list",):
                    continue  # after a bold question only its own paragraph (and list) is the answer
                answer.append(_ANSWERED.sub("", told, count=1) if answered else told)
        if question and answer and not marked and span.kind == "paragraph" and not answer[-1].endswith(":"):
            yield from done(number + 1)
            question, answer = "", []
    yield from done(section.end)


def _is_label(text: str) -> bool:
    return len(text.split()) <= 6 and "\n" not in text and not re.search(r"[.!?:;,)\d]$", text)


def _lines(text: str, language: str) -> Iterator[tuple[tuple[str, bool] | None, str]]:
    """A span as (question and whether it was marked "Q:", text after it); (None, text) for what asks nothing."""
    pending: list[str] = []
    for raw in text.split("\n"):
        line = raw.strip()
        bold = re.match(r"^(?:[-*+]\s+|\d{1,3}[.)]\s+)?(\*\*|__)(.+?)\1\s*(.*)$", line)
        mark = _ASKED.match(line)
        asked: tuple[str, bool] | None = None
        told = ""
        if mark:
            rest = plain(line[mark.end():].replace("**", ""))
            cut = re.search(r"[?？]\s+(?=\S)", rest)
            question, told = (rest[:cut.end()].strip(), rest[cut.end():]) if cut else (rest, "")
            if is_question(question, language) or _ANSWERED.search(text[text.find(raw) + len(raw):].lstrip("\n")[:20]):
                asked, told = (question, True), _ANSWERED.sub("", told, count=1)
        elif bold and is_question(bold.group(2), language):
            asked, told = (plain(bold.group(2)), False), plain(bold.group(3))
        elif (
            is_question(line, language)
            and not pending
            and len(text.split("\n")) > 1
            and line == text.split("\n")[0].strip()
        ):
            asked, told = (plain(line), False), ""
        if asked:
            if pending:
                yield None, plain("\n".join(pending))
                pending = []
            yield asked, told
        elif line or pending:
            pending.append(raw)
    if pending:
        yield None, plain("\n".join(pending))


def _from_table(text: str, number: int, about: str) -> Iterator[Found]:
    table = read_table(text)
    if table is None:
        return
    names = [re.sub(r"\W", "", name).lower() for name in table.header]
    asked = next((i for i, name in enumerate(names) if name in QUESTION_COLUMNS), None)
    told = next((i for i, name in enumerate(names) if name in ANSWER_COLUMNS), None)
    if asked is None or told is None:
        return
    for row in table.rows:
        if row[asked]:
            yield Found(row[asked], row[told], number, number + 1, about)
