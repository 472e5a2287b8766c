"""All recognisers over texts at once: overlaps settled, the user's allow list and people's decisions applied."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from luthier.errors import DataError, MissingExtra
from luthier.prepare.privacy.base import KINDS, Hit, Privacy, Signs
from luthier.queues import Decided, latest, read_decided
from luthier.types import digest

_SIGN = re.compile(r"[^\W_]")
_KIND = re.compile(r"[A-Z][A-Z0-9_]{1,30}")


def normal(value: str) -> str:
    """The value without case, spaces and punctuation: what two ways of writing the same number or name share."""
    return "".join(_SIGN.findall(value.casefold()))


def question_id(kind: str, value: str) -> str:
    """Id of the question whether a value is personal data: one for each kind and value, wherever it stands."""
    return digest("privacy", kind, normal(value))


def masked(value: str) -> str:
    """First and last character only."""
    value = " ".join(value.split())
    return f"{value[0]}•••{value[-1]}" if len(value) > 3 else "•••"


@dataclass(frozen=True)
class Found:
    """What stands in a text."""

    hits: tuple[Hit, ...]
    """By position, without overlaps."""
    ignored: tuple[Hit, ...] = ()
    """Allowed by the user or rejected by a person."""


class Scanner:
    """Looks for personal data as the settings say."""

    def __init__(self, spec: Privacy, root: Path):
        """Raises DataError for a decision that cannot be honoured."""
        self.spec, self.root = spec, root
        self.notes: list[str] = []
        """What was not looked for, and why."""
        self._allow = [re.compile(fnmatch.translate(" ".join(value.split()).casefold())) for value in spec.allow]
        self._decided = _decisions(read_decided(root, "privacy"))
        self._recognizers = list(spec.recognizers)

    @property
    def decided(self) -> Mapping[str, Decided]:
        """What people decided, by question."""
        return self._decided

    def scan(self, texts: Sequence[str]) -> list[Found]:
        """What stands in each text."""
        signs = [Signs(text) for text in texts]
        raw: list[list[Hit]] = [[] for _ in texts]
        least = self.spec.min_confidence
        for recognizer in list(self._recognizers):
            try:
                for at, hit in recognizer.find_all(signs, self.root):
                    raw[at].append(hit)
            except MissingExtra as error:
                if self.spec.rewrites:
                    raise
                self._recognizers.remove(recognizer)
                self.notes.append(f"{recognizer.kind} was not looked for: {error}")
        return [_NOTHING if not hits else self._settle(text, hits, least) for text, hits in zip(texts, raw)]

    def _settle(self, text: str, hits: Iterable[Hit], least: float) -> Found:
        judged, ignored = [], []
        for hit in _apart([hit for hit in hits if hit.confidence >= least]):
            value = text[hit.start : hit.end]
            decision = self._decided.get(question_id(hit.kind, value))
            if decision is None and self._allowed(value):
                ignored.append(hit)
            elif decision is None:
                judged.append(hit)
            elif decision.verdict == "reject":
                ignored.append(replace(hit, by_person=True))
            else:
                kind = str(decision.value).strip().upper() if decision.verdict == "edit" else hit.kind
                judged.append(replace(hit, kind=kind, confidence=1.0, by_person=True))
        return Found(tuple(judged), tuple(ignored))

    def _allowed(self, value: str) -> bool:
        plain = " ".join(value.split()).casefold()
        return any(pattern.match(plain) for pattern in self._allow)

    def sure(self, hit: Hit) -> bool:
        """Whether nobody needs to be asked."""
        return hit.by_person or hit.confidence >= self.spec.sure

    def spread(self, texts: Sequence[str], found: Sequence[Found]) -> list[Found]:
        """The same for texts of one document, where a name that is sure in one place is a name in the others, too: `Dr.
        Jane Miller` makes a later `Jane Miller` sure, and a later `Miller` likely."""
        wanted = _names(text[hit.start : hit.end] for text, one in zip(texts, found) for hit in one.hits
                        if hit.kind == "PERSON" and self.sure(hit))
        if not wanted:
            return list(found)
        pattern = re.compile(r"(?<![\w@.-])(?:" + "|".join(map(re.escape, sorted(wanted, key=len, reverse=True)))
                             + r")(?![\w@-])")
        result = []
        for text, one in zip(texts, found):
            taken = [(hit.start, hit.end) for hit in (*one.hits, *one.ignored)]
            here = {text[hit.start : hit.end].split()[-1] for hit in one.hits
                    if hit.kind == "PERSON" and self.sure(hit)}
            more = [Hit(match.start(), match.end(), "PERSON", max(wanted[match[0]], 0.85 * (match[0] in here)),
                        "person/repeated")
                    for match in pattern.finditer(text)
                    if all(match.end() <= start or match.start() >= end for start, end in taken)]
            if more:
                judged = self._settle(text, more, self.spec.min_confidence)
                one = Found(tuple(sorted((*one.hits, *judged.hits), key=lambda hit: hit.start)),
                            (*one.ignored, *judged.ignored))
            result.append(one)
        return result


_NOTHING = Found(())


def _apart(hits: Sequence[Hit]) -> list[Hit]:
    """Of hits that overlap the surest stays, of equals the longest; by position."""
    if len(hits) < 2:
        return list(hits)
    kept: list[Hit] = []
    hits = [_widest(hit, hits) for hit in hits]
    # Confidences of rules are rough: half a tenth is no reason to prefer a piece to the whole.
    for hit in sorted(hits, key=lambda hit: (-round(hit.confidence * 10), hit.start - hit.end, hit.start, hit.kind)):
        if all(hit.end <= other.start or hit.start >= other.end for other in kept):
            kept.append(hit)
    return sorted(kept, key=lambda hit: hit.start)


def _widest(hit: Hit, hits: Sequence[Hit]) -> Hit:
    """The longest hit of the same kind around it, as sure as the surer of the two: `Gabriel Novais` in `Enzo Gabriel
    Novais`."""
    around = [other for other in hits if other.kind == hit.kind and other.start <= hit.start and other.end >= hit.end]
    widest = max(around, key=lambda other: other.end - other.start)
    return replace(widest, confidence=max(hit.confidence, widest.confidence))


def _decisions(decided: Sequence[Decided]) -> dict[str, Decided]:
    found = latest(decided)
    for one in found.values():
        if one.verdict == "edit" and not _KIND.fullmatch(str(one.value).strip().upper()):
            raise DataError(f"{one.source}: the `value` of an edit is the right kind, such as {', '.join(KINDS)}; "
                            f"found "
                            f"{one.value!r}")
    return found


def _names(sure: Iterable[str]) -> dict[str, float]:
    """What to look for again, and how sure it is then."""
    names = set(sure)
    full = {name for name in names if " " in name}
    last = {part for name in full if len(part := name.split()[-1]) > 3 and part[0].isupper()}
    return {**dict.fromkeys(last, 0.7), **{name: 0.85 for name in names - full if len(name) > 3},
            **dict.fromkeys(full, 0.9)}


def inputs(spec: Privacy, root: Path) -> dict[str, Any]:
    """What the result depends on beside the settings and the key: models of recognisers."""
    found = {f"{at}:{recognizer.kind}": dict(recognizer.inputs(root)) for at, recognizer in enumerate(spec.recognizers)}
    return {name: value for name, value in found.items() if value}
