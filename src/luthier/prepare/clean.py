"""Repair of text: what extraction breaks and what a page repeats. Meaning is never rewritten."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pydantic import Field

from luthier.prepare.steps import Kept, StepContext
from luthier.spec import Spec
from luthier.types import Document, Dropped, Span

VERSION = 2

_HYPHEN = re.compile(r"([^\W\d_]{2,})[-\u00ad\u2010][^\S\n]*\n\s*([a-zà-öø-ÿß]{2,})")
_COMPOUND = re.compile(r"[^\W\d_]{2,}-[a-zà-öø-ÿß]{2,}")
_SOFT = re.compile("\u00ad")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2060\ufeff]")
INVISIBLE = re.compile(
    "[\u200b\u2060-\u2064\u206a-\u206f\ufeff\u180e\u3164\u115f\u1160\uffa0\u202a-\u202e\u2066-\u2069"
    "\U000e0000-\U000e007f\U000e0100-\U000e01ef]|[\u200c\u200d\ufe00-\ufe0f]{3,}")
"""Characters that show nothing and can carry a text of their own: zero-width spaces, invisible operators, fillers,
marks that turn the writing direction, Unicode tags and variation selectors. Joiners that scripts and emoji need stay,
unless many stand in a row."""
_SPACES = re.compile(r"[^\S\n]+")
_BREAKS = re.compile(r"\n{3,}")
_END_NUMBERS = re.compile(r"^(?:\d+|[ivxlc]{1,6})\b|\b(?:\d+(?:/\d+)?|[ivxlc]{1,6})\W*$")
_PAGE_NUMBER = re.compile(
    r"^[\W_]*(?:(?:page|seite|p\.|pg\.?|página|pagina)\s*)?(?:\d{1,4}|[ivxlc]{1,6})"
    r"(?:\s*(?:/|of|von|de|di|sur)\s*\d{1,4})?[\W_]*$",
    re.IGNORECASE,
)
_EDGE = 2  # headers and footers are among the first or last two pieces of a page


class Clean(Spec):
    """Repair of text, document by document."""

    encoding: bool = True
    """Repair wrongly decoded text (mojibake), ligatures, control characters and invisible characters, with ftfy."""
    hyphenation: bool = True
    """Join words that a line end cut: `manage-` + `ment` becomes `management`. Hyphens inside lines stay, and so does
    one at a line end when the document writes the word with it elsewhere (`well-known`)."""
    page_furniture: bool = True
    """Drop headers, footers and page numbers that a paged document repeats at the edges of its pages."""
    repeated_on: float = Field(default=0.5, gt=0, le=1)
    """A line at the edge of a page is furniture when it stands on at least this share of the pages (and on three)."""
    min_words: int = Field(default=5, ge=1)
    """A document with fewer words after cleaning is dropped as `too-short`."""

    def apply(self, items: Iterable[Document], ctx: StepContext) -> Iterator[Kept[Document] | Dropped]:
        """Yield each document repaired: as many spans as before, the furniture's with an empty text, so that span
        numbers stay those of the source."""
        for document in items:
            compounds = {word.casefold() for span in document.spans for word in _COMPOUND.findall(span.text)}
            spans = [self._repair(span, compounds) for span in document.spans]
            furniture = self._furniture(spans) if self.page_furniture else set()
            for at in sorted(furniture):
                yield Dropped(item=f"{document.id}#{at}", step="clean", reason="page-furniture",
                              detail=document.path, text=spans[at].text[:300])
            kept = tuple(replace(span, text="") if at in furniture else span for at, span in enumerate(spans))
            if sum(len(span.text.split()) for span in kept) < self.min_words:
                yield Dropped(item=document.id, step="clean", reason="too-short", detail=document.path,
                              text=" ".join(span.text for span in kept).strip()[:300])
                continue
            title = self._text(document.title, compounds, code=False).replace("\n", " ")
            yield Kept(replace(document, title=title, spans=kept))

    def _repair(self, span: Span, compounds: set[str]) -> Span:
        text = self._text(span.text, compounds, code=span.kind in ("code", "table"))
        return span if text == span.text else replace(span, text=text)

    def _text(self, text: str, compounds: set[str], *, code: bool) -> str:
        if self.encoding:
            import ftfy

            # Curly quotes and entities are left as the author wrote them; code keeps every character but broken ones.
            text = ftfy.fix_text(text, uncurl_quotes=False, unescape_html=False, normalization="NFC")
            text = INVISIBLE.sub("", _CONTROL.sub("", text)) if not text.isascii() else _CONTROL.sub("", text)
        if code:
            return text.strip("\n")
        if self.hyphenation:
            text = _SOFT.sub("", _HYPHEN.sub(lambda match: _join(match, compounds), text))
        return _BREAKS.sub("\n\n", _SPACES.sub(" ", text)).strip()

    def _furniture(self, spans: list[Span]) -> set[int]:
        """Indices of spans that are headers, footers or page numbers."""
        pages: dict[int, list[int]] = {}
        for at, span in enumerate(spans):
            if span.page is not None and span.text:
                pages.setdefault(span.page, []).append(at)
        if len(pages) < 3:
            return set()
        edges = {page: dict.fromkeys([*inside[:_EDGE], *inside[-_EDGE:]]) for page, inside in pages.items()}
        seen: Counter[str] = Counter()
        for inside in edges.values():
            seen.update({_shape(spans[at].text) for at in inside})
        needed = max(3, self.repeated_on * len(pages))
        found = set()
        for inside in edges.values():
            for at in inside:
                text = spans[at].text
                if spans[at].kind == "table" or len(text.split()) > 25:
                    continue
                if _PAGE_NUMBER.match(text) or seen[_shape(text)] >= needed:
                    found.add(at)
        return found


def _join(match: re.Match[str], compounds: set[str]) -> str:
    hyphened = f"{match[1]}-{match[2]}"
    return hyphened if hyphened.casefold() in compounds else match[1] + match[2]


def _shape(text: str) -> str:
    """The line without a number at its ends, so that `Handbook 3` and `Handbook 4` are one; sentences stay whole."""
    plain = " ".join(text.casefold().split())
    return plain if plain.endswith((".", "!", "?", ":")) else _END_NUMBERS.sub("#", plain)
