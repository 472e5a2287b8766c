"""Versions of one document: `handbook_v1.pdf` and `handbook_v2.pdf`, draft and final, `terms 2024` and `terms 2025`.

Two documents are versions of one another when their names are the same but for a version mark and they share enough of
their text. Names alone prove nothing: the reports of two months differ in a date as well, but not in a few words only.
The newest is trained and searched; `superseded.jsonl` of the artifact names the older ones, for lineage.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field

from luthier.prepare.text import shingles, words
from luthier.shelf import view
from luthier.spec import Spec
from luthier.types import Document, Dropped

REASON = "superseded"
_SEP = r"(?:^|(?<=[\s_.()\[\]-]))"
_END = r"(?=$|[\s_.()\[\]-])"
_NUMBER = re.compile(rf"{_SEP}(?:v|ver|version|rev|revision|stand|fassung|ausgabe|edition|ed)[\s_.-]?(\d+(?:[._-]\d+)*)"
                     rf"{_END}|\((\d{{1,2}})\)$", re.IGNORECASE)
_STATE = re.compile(rf"{_SEP}(draft|entwurf|wip|old|alt|obsolete|archive[d]?|backup|copy|kopie|final|finished|approved|"
                    rf"freigegeben|latest|current|aktuell|new|neu|signed|unterzeichnet|clean){_END}", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_. ]?(0[1-9]|1[0-2])(?:[-_. ]?(0[1-9]|[12]\d|3[01]))?(?!\d)"
                   r"|(?<!\d)(0[1-9]|[12]\d|3[01])[-_. ](0[1-9]|1[0-2])[-_. ]((?:19|20)\d\d)(?!\d)")
_YEAR = re.compile(r"(?<!\d)((?:19|20)\d\d)(?!\d)")
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?")
_PDF_DATE = re.compile(r"D:(\d{4})(\d\d)(\d\d)(\d\d)?(\d\d)?(\d\d)?")
_PERIOD = re.compile(rf"{_SEP}(?:q[1-4]|h[12]|kw ?\d\d?|week ?\d\d?|jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|"
                     rf"okt|nov|dec|dez)[a-zä]*{_END}", re.IGNORECASE)
_SERIES = re.compile(rf"{_SEP}(?:reports?|bericht|monatsbericht|minutes|protokoll|newsletter|invoices?|rechnung(?:en)?|"
                     rf"log|statement|bulletin|agenda|meeting|payslip|abrechnung|journal){_END}", re.IGNORECASE)
_RANK = {"old": -3, "alt": -3, "obsolete": -3, "archive": -3, "archived": -3, "backup": -2, "copy": -2, "kopie": -2,
         "draft": -1, "entwurf": -1, "wip": -1, "clean": 1, "new": 1, "neu": 1, "current": 2, "aktuell": 2, "latest": 2,
         "final": 2, "finished": 2, "approved": 3, "freigegeben": 3, "signed": 4, "unterzeichnet": 4}
_DATES = ("date", "modified", "revised", "updated", "last_modified", "moddate", "created", "creationdate")


@dataclass(frozen=True)
class Named:
    """What a file name says of its version."""

    base: str
    """The name without its version marks, folded; equal for versions of one document."""
    marked: bool
    number: tuple[int, ...] = ()
    state: int = 0
    """Below 0 for drafts and copies, above for final ones."""
    day: tuple[int, int, int] | None = None
    period: bool = False
    """It names a year, day, month, quarter or week, as the parts of a series do."""
    series: bool = False
    """It calls itself a report, minutes, an invoice or the like: with another date it is another one."""


@dataclass(frozen=True, kw_only=True)
class Superseded:
    """An older version; its text stays in the artifact of ingest."""

    path: str
    document: str
    """Id of the document."""
    sha256: str
    title: str
    newer: str
    """Path of the version that counts."""
    newer_document: str
    shared: float
    """Share of the shorter text's 3-word runs that both hold."""


_MANY = 3
"""So many different months under one name are a series, whatever they share."""


class Versions(Spec):
    """Which of several versions of one document counts."""

    newest_only: bool = True
    """Train and search only the newest of several versions; false treats each as a document of its own."""
    similar: float = Field(default=0.5, gt=0, le=1)
    """Share of the shorter document's 3-word runs that must stand in the other one, beside a version mark in the
    names."""
    similar_dated: float = Field(default=0.8, gt=0, le=1)
    """The same where the names differ in a date or period only: the reports of two months share much, too."""

    def choose(self, documents: Sequence[Document]) -> tuple[Sequence[Document], list[Superseded], list[Dropped]]:
        """(documents that count, the others, a `Dropped` for each of these that names the newer one).

        Newer is, in this order: the later version number in the name, the later date in the document's own metadata,
        the later date in the name, the later state (draft before final).
        """
        if not self.newest_only:
            return documents, [], []
        groups: dict[tuple[str, str], list[tuple[Named, int]]] = {}
        for number, document in enumerate(documents):
            path = PurePosixPath(document.path)
            named = read_name(path.stem)
            groups.setdefault((path.parent.as_posix(), named.base), []).append((named, number))
        older: dict[str, tuple[Document, Document, float]] = {}
        for numbers in groups.values():
            if len(numbers) < 2 or not any(named.marked for named, _ in numbers):
                continue
            inside = [(named, documents[number]) for named, number in numbers]
            dated = {named.day for named, _ in inside if named.day is not None and named.day[1]}
            runs = {document.path: shingles(words(document.text), 3) for _, document in inside}
            ordered = sorted(inside, key=lambda row: _age(*row), reverse=True)
            for at, (named, document) in enumerate(ordered):
                for newer_named, newer in ordered[:at]:
                    if newer.path in older:
                        continue
                    share = _shared(runs[document.path], runs[newer.path])
                    if share >= self._needed(named, newer_named, many=len(dated) >= _MANY):
                        older[document.path] = (document, newer, share)
                        break
        drops = [Dropped(item=document.id, step="versions", reason=REASON, text=document.text[:300],
                         detail=f"{document.path}: {newer.path} is a newer version ({share:.0%} of the shorter text "
                                "is in both)")
                 for document, newer, share in older.values()]
        return (view(documents, (at for at, document in enumerate(documents) if document.path not in older))
                if older else documents,
                [Superseded(path=document.path, document=document.id, sha256=document.sha256, title=document.title,
                            newer=newer.path, newer_document=newer.id, shared=round(share, 3))
                 for document, newer, share in older.values()], drops)

    def _needed(self, one: Named, other: Named, *, many: bool) -> float:
        if one.number != other.number or one.day == other.day or not (one.period and other.period):
            return self.similar
        return 2.0 if one.series or many else self.similar_dated  # 2: never, the months of a series


def read_name(stem: str) -> Named:
    """What the name of a file, without its suffix, says of its version."""
    number: tuple[int, ...] = ()
    for match in _NUMBER.finditer(stem):
        number = tuple(int(part) for part in re.findall(r"\d+", match[1] or match[2]))
    rest = _NUMBER.sub(" ", stem)
    states = [match[1].casefold() for match in _STATE.finditer(rest)]
    rest = _STATE.sub(" ", rest)
    day = None
    for match in _DATE.finditer(rest):
        year, month, of_month = ((match[1], match[2], match[3] or "0") if match[1] else (match[6], match[5], match[4]))
        day = (int(year), int(month), int(of_month))
    period = day is not None or bool(_PERIOD.search(rest))
    rest = _DATE.sub(" ", rest)
    if day is None and (found := _YEAR.search(rest)):
        day, period = (int(found[1]), 0, 0), True
    rest = _YEAR.sub(" ", rest)
    base = " ".join(re.findall(r"\w+", rest.replace("_", " ").casefold()))
    return Named(base, bool(number or states or day), number, sum(_RANK[state] for state in states), day, period,
                 bool(_SERIES.search(stem)))


def _age(named: Named, document: Document) -> tuple[Any, ...]:
    return (named.number, _own_date(document), named.day or (0, 0, 0), named.state,
            document.path)


def _own_date(document: Document) -> tuple[int, ...]:
    """The latest date that the document says of itself; zeros where it says none."""
    found = [(0, 0, 0, 0, 0, 0)]
    for key, value in document.meta.items():
        if key.casefold() not in _DATES:
            continue
        if isinstance(value, datetime | date):
            value = value.isoformat()
        match = _ISO.search(str(value)) or _PDF_DATE.search(str(value))
        if match:
            found.append(tuple(int(part or 0) for part in match.groups()))  # type: ignore[arg-type]
    return max(found)


def _shared(one: set[str], other: set[str]) -> float:
    return len(one & other) / min(len(one), len(other)) if one and other else 0.0
