"""Stable or volatile: what is trained, and what goes to the search index only.

Weights cannot be edited when a price or an opening hour changes; a search index can, at once. A document's volatility
is declared, by itself (`volatility: volatile` or `stable` in its front matter or metadata) or by the project's
patterns, or estimated where the project asks for it: from how often its content changed in earlier ingests that the
store still holds, and from the density of dates, prices and phone numbers in its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from luthier.prepare.dedupe import in_order
from luthier.prepare.split import SplitBy, Splits
from luthier.shelf import Memory, view
from luthier.spec import Spec
from luthier.store import Artifact, Store
from luthier.types import Document, Passage, Split

if TYPE_CHECKING:
    from luthier.prepare.dedupe import Dedupe
    from luthier.prepare.steps import StepContext

TAG = "volatile"
"""Tag of a test question about a volatile document."""
META = "volatility"

_MONTH = r"(?:jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-zä]*"
_DATE = re.compile(rf"\b\d{{4}}-\d\d-\d\d\b|\b\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}}\b"
                   rf"|\b{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?\b|\b\d{{1,2}}\.? {_MONTH}\b|\b(?:19|20)\d\d\b",
                   re.IGNORECASE)
_PRICE = re.compile(r"[€$£¥]\s?\d[\d.,]*|\b\d[\d.,]*\s?(?:[€£]|(?:eur|usd|gbp|chf|euros?|dollars?|pounds?|cents?)\b)",
                    re.IGNORECASE)
_PHONE = re.compile(r"(?<![\w.])(?=(?:[^\d\n]{0,3}\d){7})(?:\+\d{1,3}[ ./-]?)?(?:\(?\d{2,5}\)?[ ./-]{1,3}){1,4}\d{3,}"
                    r"(?!\w)")


class Volatility(Spec):
    """Which documents are trained, and which go to the search index only."""

    patterns: dict[str, Literal["stable", "volatile"]] = {}
    """Paths that are declared, such as {"prices/*": volatile, "*.eml": volatile}; the last pattern that fits decides. A
    document that declares itself (`volatility:` in its front matter) comes before any pattern."""
    estimate: bool = False
    """Also treat documents as volatile that look so by the two figures below. The data card names them either way."""
    changes: int = Field(default=2, ge=1)
    """A document whose content changed at least so often in the earlier ingests that the store still holds looks
    volatile."""
    density: float = Field(default=3.0, gt=0)
    """A document with at least so many dates, prices and phone numbers per 100 words looks volatile."""


@dataclass(frozen=True, kw_only=True)
class Going:
    """Which way a document went."""

    path: str
    volatile: bool
    """To the index only; otherwise it is trained, and in the index as well."""
    why: str
    looks: bool = False
    """It looks volatile and nothing says that it is not."""

    def dump(self) -> dict[str, Any]:
        return {**asdict(self), "goes": "index only" if self.volatile else "trained, and index"}


def changes_of(documents: Artifact, store: Store) -> dict[str, int]:
    """Path → how often its content changed among this and the earlier ingest artifacts of the store; only paths that
    did. Depends on nothing that came later, so the same documents keep their history."""
    seen: dict[str, set[str]] = {path: {sha} for path, sha in documents.inputs.items()}
    made = float(documents.summary.get("made_at", 0))
    for other in store.artifacts():
        if other.stage == "ingest" and float(other.summary.get("made_at", 0)) <= made:
            for path, sha in other.inputs.items():
                if path in seen and len(str(sha)) == 64:  # what was set aside has a reason in place of a hash
                    seen[path].add(sha)
    return {path: len(hashes) - 1 for path, hashes in sorted(seen.items()) if len(hashes) > 1}


def density(text: str) -> float:
    """Dates, prices and phone numbers per 100 words."""
    words = len(text.split())
    return 100 * sum(len(kind.findall(text)) for kind in (_DATE, _PRICE, _PHONE)) / words if words else 0.0


def judge(documents: Iterable[Document], spec: Volatility, changes: Mapping[str, int]) -> dict[str, Going]:
    """Path → which way each document goes, and why. `changes`: as `changes_of` gives them, where they are known."""
    return {document.path: _judge(document, spec, changes.get(document.path, 0)) for document in documents}


def _judge(document: Document, spec: Volatility, changed: int) -> Going:
    said = str(document.meta.get(META, "")).strip().lower()
    odd = f" (its own '{META}: {said[:40]}' is neither stable nor volatile)" if said else ""
    if said in ("stable", "volatile"):
        return Going(path=document.path, volatile=said == "volatile", why=f"declared {said} by the document")
    fitting = [pattern for pattern in spec.patterns if fnmatchcase(document.path, pattern)]
    if fitting:
        told = spec.patterns[fitting[-1]]
        return Going(path=document.path, volatile=told == "volatile",
                     why=f"declared {told} by the pattern {fitting[-1]}{odd}")
    found = density(document.text)
    signs = [f"changed {changed} times"] if changed >= spec.changes else []
    signs += [f"{found:.1f} dates, prices and phone numbers per 100 words"] if found >= spec.density else []
    if not signs:
        return Going(path=document.path, volatile=False, why=f"nothing says that it changes{odd}")
    return Going(path=document.path, volatile=spec.estimate, looks=True,
                 why=f"looks volatile: {' and '.join(signs)}{odd}")


def drop_repeats(stable: Sequence[Passage], volatile: Sequence[Passage], dedupe: Dedupe, ctx: StepContext
                 ) -> tuple[Sequence[Passage], list[Any]]:
    """Volatile passages that repeat no other one, and what was dropped. Stable ones are never dropped for a volatile
    one: what is trained must not depend on what changes."""
    from luthier.types import Dropped

    mine = {passage.id for passage in volatile}
    gone = {found.item: found for found in dedupe.apply(together(stable, volatile, ctx.memory), ctx)
            if isinstance(found, Dropped) and found.item in mine}
    return view(volatile, (at for at, passage in enumerate(volatile) if passage.id not in gone)), [*gone.values()]


def together(stable: Sequence[Passage], volatile: Sequence[Passage], memory: Memory) -> Sequence[Passage]:
    """Both, in the order of path and place."""
    if not volatile:
        return stable
    both = memory.passages()
    both.extend(stable)
    both.extend(volatile)
    return view(both, in_order(both))


def held_out(splits: Splits, volatile: Sequence[Passage]) -> Splits:
    """The splits with every volatile passage in the test: it is never trained on."""
    test: Split = "test"
    documents = {passage.document: test for passage in volatile} if splits.by == "document" else {}
    return replace(splits, of_passage={**splits.of_passage, **{passage.id: test for passage in volatile}},
                   of_document={**splits.of_document, **documents})


def asked(volatile: Sequence[Passage], split: SplitBy, seed: int) -> list[Passage]:
    """The volatile passages that test questions are made about: the share of `split.test`, by path and heading, so that
    a changed fact leaves the choice alone."""
    return [passage for passage in volatile
            if split.by_hash("\0".join(["volatile", passage.path, *passage.heading]), seed) == "test"]
