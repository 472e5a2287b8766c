"""Keyword search: BM25 (Robertson and Zaragoza 2009, the Lucene variant) by the library bm25s, with stemming.

Words are cut, stopped and stemmed here, the same way for passages and queries, so a saved index needs to remember
only its language. Snowball stemmers and bm25s's stop-word lists; a language without either is searched by plain words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from luthier.errors import need

STEMMERS = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian",
    "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch",
    "no": "norwegian", "nb": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian",
    "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}
STOP_LISTS = {
    "da": "DANISH", "de": "GERMAN", "en": "EN_PLUS", "es": "SPANISH", "fr": "FRENCH", "it": "ITALIAN", "ko": "KOREAN",
    "nb": "NORWEGIAN", "nl": "DUTCH", "no": "NORWEGIAN", "pt": "PORTUGUESE", "ru": "RUSSIAN", "sv": "SWEDISH",
    "tr": "TURKISH", "zh": "CHINESE",
}
_WORD = re.compile(r"[぀-ヿ㐀-鿿]+|[^\W぀-ヿ㐀-鿿]+")
_CJK = re.compile(r"[぀-ヿ㐀-鿿]")


class Keywords:
    """A BM25 index over texts."""

    def __init__(self, engine: Any, size: int, language: str):
        self._engine, self._size, self._language = engine, size, language

    @classmethod
    def build(cls, texts: Sequence[str], *, language: str = "en", k1: float = 1.5, b: float = 0.75) -> Keywords:
        """Index the texts, in order; text i is item i of a search."""
        bm25s = need("bm25s", extra="index")
        tokens = [tokenise(text, language) for text in texts]
        if not any(tokens):  # nothing but stop words or signs: there is nothing to find, and bm25s refuses it
            return cls(None, len(texts), language)
        engine = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy", csc_backend="numpy")
        engine.index(tokens, show_progress=False)
        return cls(engine, len(texts), language)

    def scores(self, query: str) -> np.ndarray:
        """float32 [n]: BM25 of every text for the query; 0 where no word is shared."""
        if self._engine is None:
            return np.zeros(self._size, dtype=np.float32)
        known = [token for token in tokenise(query, self._language) if token in self._engine.vocab_dict]
        if not known:
            return np.zeros(self._size, dtype=np.float32)
        return np.asarray(self._engine.get_scores(known), dtype=np.float32)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """The k best texts that share a word with the query, best first; ties in order of the texts."""
        scores = self.scores(query)
        order = np.argsort(-scores, kind="stable")[:k]
        return [(int(at), float(scores[at])) for at in order if scores[at] > 0]

    def save(self, folder: Path) -> None:
        """Write the index into a folder as numpy and JSON files (no pickle)."""
        folder.mkdir(parents=True, exist_ok=True)
        if self._engine is not None:
            self._engine.save(folder, show_progress=False)

    @classmethod
    def load(cls, folder: Path, *, size: int, language: str) -> Keywords:
        """Read back what `save` wrote."""
        if not (folder / "params.index.json").is_file():
            return cls(None, size, language)
        bm25s = need("bm25s", extra="index")
        return cls(bm25s.BM25.load(folder, load_corpus=False), size, language)


def tokenise(text: str, language: str) -> list[str]:
    """Case-folded, stopped and stemmed words; runs of Chinese or Japanese characters as overlapping pairs."""
    stops, stem = _stops(language), _stemmer(language)
    tokens: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if _CJK.match(word):
            tokens.extend([word] if len(word) == 1 else [word[at : at + 2] for at in range(len(word) - 1)])
        elif word not in stops:
            tokens.append(word)
    return stem(tokens)


@lru_cache(maxsize=8)
def _stops(language: str) -> frozenset[str]:
    need("bm25s", extra="index")
    from bm25s import stopwords

    listed = getattr(stopwords, f"STOPWORDS_{STOP_LISTS[language]}", ()) if language in STOP_LISTS else ()
    return frozenset(listed)


@lru_cache(maxsize=8)
def _stemmer(language: str) -> Any:
    if language not in STEMMERS:
        return list
    stemmer = need("Stemmer", extra="index")
    if STEMMERS[language] not in stemmer.algorithms():
        return list
    return stemmer.Stemmer(STEMMERS[language]).stemWords
