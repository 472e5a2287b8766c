"""Rows of tables as questions: "What is the notice period for grade 3, according to the Staff Handbook?"

Only tables with a column that names the rows and headers that are names are used; from anything else no natural
question follows, and the table is dropped with its reason. The answer is a sentence that quotes the cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.plugins import register
from luthier.prepare.base import MAKERS
from luthier.prepare.makers._examples import Places, Seen, chat_example, drop
from luthier.prepare.makers._phrases import Phrases, phrases, says_attribute
from luthier.prepare.makers._sections import Section, sections
from luthier.prepare.makers._tables import (
    Table,
    empty,
    is_number,
    key_column,
    key_noun,
    read_table,
    shaped,
    split_unit,
    with_unit,
)
from luthier.prepare.makers._text import content, stem
from luthier.prepare.makers._wording import Wording
from luthier.prepare.makers._words import word_set
from luthier.prepare.makers.definition import MEANING_COLUMNS, TERM_COLUMNS
from luthier.prepare.makers.faq import ANSWER_COLUMNS, QUESTION_COLUMNS
from luthier.spec import Spec
from luthier.types import Document, Dropped, Example, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

_NO_NOUN = word_set(
    "name names item items type types title key entry label description what who case scenario situation "
    "question topic subject bezeichnung was art eintrag option feature property parameter field setting "
    "attribute merkmal eigenschaft element task activity")
_VAGUE = word_set(
    "limit number amount rate level count total maximum minimum average threshold target condition type class "
    "category value term day hour interval action step"
)
_NO_CONTEXT = frozenset(map(stem, word_set("table overview list matrix summary tabelle übersicht liste")))
_NOT_ASKED = word_set(
    "note notes remark remarks comment comments bemerkung bemerkungen anmerkung anmerkungen hinweis hinweise "
    "link url example examples beispiel reference source see other misc no nr id")
_TRUTH = word_set(
    "yes no y n true false ✓ ✔ ✗ ✘ x - – ja nein wahr falsch o ● ○")


@register(MAKERS, "table")
class TableQuestions(Spec):
    """Ask for the cells and rows of tables whose rows have a name."""

    max_per_table: int = Field(default=12, ge=1)
    """At most this many questions from one table; a hash chooses them, evenly over the table."""
    rows: bool = True
    """Also ask for whole rows ("What details does … give for …?") where a row has two or more values."""
    max_answer: int = Field(default=600, ge=40)
    """Longest answer in characters; longer cells and rows are dropped, for a cut cell would be half the truth."""

    per_document: ClassVar[bool] = True
    uses_retriever: ClassVar[bool] = False
    VERSION: ClassVar[int] = 1

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """Examples of origin `rule`; dropped tables: no-header, no-key-column, odd-header, language, …"""
        places, words = Places(context), phrases(context.task.language)
        for document in context.documents:
            seen, wording = Seen(), Wording(document, context.task.language)
            for section in sections(document):
                first = section.end - len(section.body)
                for number, span in enumerate(section.body, first):
                    if span.kind != "table":
                        continue
                    where = f"{document.path}: table {section.heading or number}"
                    table = read_table(span.text)
                    reason = "language" if words is None else _unfit(table)
                    if reason or table is None or words is None:
                        yield drop(where, self.kind, reason, text=span.text)
                        continue
                    asked = list(self._ask(table, section, wording, words))
                    for question, answer, quote in self._choose(asked, document, context.seed):
                        clash = seen.clash(question, answer)
                        found = [] if clash else places.find(document, number, number + 1, quote)
                        reason = clash or ("answer-too-long" if len(answer) > self.max_answer else
                                           "" if found else "passage-removed")
                        if reason:
                            yield drop(f"{document.path}: {question}", self.kind, reason, text=answer)
                        else:
                            yield chat_example(context, question, answer, step=self.kind, maker="rule",
                                               passages=found[:1], evidence=quote)

    def _choose(self, asked: list[tuple[str, str, str]], document: Document, seed: int) -> list[tuple[str, str, str]]:
        if len(asked) <= self.max_per_table:
            return asked
        ranked = sorted(range(len(asked)), key=lambda i: digest(str(seed), document.path, asked[i][0]))
        return [asked[i] for i in sorted(ranked[:self.max_per_table])]

    def _ask(self, table: Table, section: Section, wording: Wording, words: Phrases) -> Iterator[tuple[str, str, str]]:
        """(question, answer, quoted cells) for every cell and row that can be asked for."""
        key = key_column(table)
        assert key is not None
        title = wording.named
        columns = []
        for number, header in enumerate(table.header):
            if number == key:
                continue
            name, unit = split_unit(header)
            columns.append((number, wording.column(name), unit,
                            _askable(name, [row[number] for row in table.rows])))
        for row in table.rows:
            name = self._row(table.header[key], row[key], wording)
            shown = []
            for number, column, unit, askable in columns:
                cell = row[number]
                if empty(cell):
                    continue
                told = with_unit(cell, unit)
                shown.append(f"{column}: {told.rstrip('.')}")
                if not askable or cell.strip(" .").lower() in _TRUTH:
                    continue
                about = _needed_heading(section, wording, column, name)
                question = words.cell_question(column, name, words.place(title, about), int(digest(name, column), 16))
                inside = wording.row(told.split()[0]) + told[len(told.split()[0]):]
                yield _capital(question), words.cell_answer(column, name, inside), f"{row[key]} {cell}"
            if self.rows and len(shown) >= 2:
                about = _needed_heading(section, wording, "", name)
                question = words.row_question(name, words.place(title, about), int(digest(name), 16))
                yield _capital(question), f"{_capital(name)} – {'; '.join(shown)}.", " ".join(
                    cell for cell in row if not empty(cell))

    @staticmethod
    def _row(header: str, key: str, wording: Wording) -> str:
        """How a row is named: `grade 3`, `plan Basic`, `Hotel in Germany`."""
        noun = wording.column(split_unit(header)[0])
        unit = split_unit(header)[1]
        coded = is_number(key) or bool(re.fullmatch(r"[A-Z]{0,3}[-\s]?\d+[A-Za-z]?|[A-Z]{1,2}", key))
        last = re.sub(r"\W", "", noun.split()[-1]).lower() if noun else ""
        if noun and (coded or (key_noun(noun) and len(key.split()) == 1)) and last not in _NO_NOUN and (
                last not in key.lower().split()):
            return f"{noun} {with_unit(key, unit)}"
        return wording.row(with_unit(key, unit))

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {}


def _unfit(table: Table | None) -> str:
    if table is None:
        return "no-header"
    names = {re.sub(r"\W", "", name).lower() for name in table.header}
    if names & QUESTION_COLUMNS and names & ANSWER_COLUMNS:
        return "made-by-faq"
    if len(table.header) == 2 and names & TERM_COLUMNS and names & MEANING_COLUMNS:
        return "made-by-definition"
    if not shaped(table):
        return "odd-header"
    return "" if key_column(table) is not None else "no-key-column"


def _askable(name: str, cells: list[str]) -> bool:
    """Whether "What is the <name> …?" asks well: no remark columns, no yes/no columns, no bare participles."""
    plain_name = re.sub(r"\W", "", name.split()[-1]).lower() if name.split() else ""
    filled = [cell for cell in cells if not empty(cell)]
    if plain_name in _NOT_ASKED or not filled:
        return False
    if all(cell.strip().rstrip(".").lower() in _TRUTH for cell in filled):
        return False
    return (
        not re.fullmatch(r"\w+(?:ed|able|ible|ory)\??", name, re.IGNORECASE)
        and not name.endswith("?")
        and not re.match(r"(?:who|what|when|where|how|why|is|are|can|does|do|has)\b", name, re.IGNORECASE)
    )


def _needed_heading(section: Section, wording: Wording, column: str, row: str) -> str:
    """The section's heading where title, column and row do not yet say what the table is about."""
    heading = section.heading
    known = set(content(f"{wording.title} {column} {row}", wording.language))
    new = set(content(heading, wording.language)) - known - _NO_CONTEXT
    if (
        not new
        or len(heading.split()) > 7
        or heading.endswith("?")
        or re.match(r"(?i)tab(?:le|elle)\b|sheet\d*", heading)
    ):
        return ""
    if not column or not says_attribute(column) or column.split()[-1].lower().rstrip("s") in _VAGUE:
        return heading
    return ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
