"""Index: passages made searchable by meaning and by words, and searched with fused ranks.

`index` writes a self-contained folder (all but the encoder's weights, which its source names); `open_index` opens it
from the store or from a release.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from luthier.errors import DataError, ModelError, StoreError
from luthier.models.sources import resolve
from luthier.progress import Progress, Silent
from luthier.spec import Spec
from luthier.store import Artifact, Cache, Store, write_json
from luthier.types import Passage, decode_passage, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from luthier.index.embed import Encoder
    from luthier.index.keywords import Keywords
    from luthier.index.vectors import ExactVectors

VERSION = 1
Mode = Literal["hybrid", "dense", "keywords"]


class Index(Spec):
    """How passages are searched."""

    encoder: str = "starter:encoder"
    """Model that turns text into vectors: `starter:encoder`, a local folder, or `hub:owner/name`."""
    mode: Mode = "hybrid"
    """`dense` searches by meaning, `keywords` by words (BM25; needs no encoder), `hybrid` fuses the two rankings."""
    language: str | None = None
    """Two-letter language of stemmer and stop words; null takes the task's."""
    pooling: Literal["auto", "mean", "cls"] = "auto"
    """How token vectors become one vector; `auto` follows the encoder's own files, else `mean`."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest text the encoder reads, in its tokens; null takes the encoder's own limit."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the encoder; `auto` takes bfloat16 where the processor computes it natively."""
    query_prefix: str = ""
    """Text put before every question for the encoder, such as `query: ` for E5 models."""
    passage_prefix: str = ""
    """Text put before every passage for the encoder, such as `passage: ` for E5 models."""
    candidates: int = Field(default=50, ge=1)
    """Hits of each ranking that fusion looks at."""
    rrf_constant: int = Field(default=60, ge=0)
    """Constant k of reciprocal rank fusion, score = Σ 1 / (k + rank); larger values flatten the differences."""
    k1: float = Field(default=1.5, ge=0)
    """BM25: how quickly repeated words stop counting."""
    b: float = Field(default=0.75, ge=0, le=1)
    """BM25: how strongly long passages are discounted."""

    def identity(self, root: Path) -> dict[str, Any]:
        """What a search result depends on beside the passages: these settings and the encoder's weights."""
        print_of = None
        if self.mode != "keywords":
            print_of = resolve(self.encoder, purpose="encoder", root=root).fingerprint
        return {"spec": self.dump(), "encoder": print_of}


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A passage found for a query."""

    passage: Passage
    score: float
    """By mode: fused score (hybrid), cosine (dense) or BM25 (keywords); comparable within one search only."""
    rank: int
    """From 1, best first."""
    cosine: float | None = None
    """Similarity of query and passage by meaning, -1 to 1; None where the dense ranking did not see it."""


class Retriever:
    """Searches passages. Safe to use from several threads; the encoder loads at the first dense search."""

    def __init__(self, passages: Sequence[Passage], spec: Index, *, vectors: ExactVectors | None,
                 keywords: Keywords | None, encoder: Callable[[], Encoder]):
        self.passages = list(passages)
        self.spec = spec
        self._vectors, self._keywords, self._make_encoder = vectors, keywords, encoder
        self._encoder: Encoder | None = None
        self._lock = threading.Lock()

    @property
    def encoder(self) -> Encoder:
        """The encoder that the vectors were made with (loads nothing yet)."""
        with self._lock:
            if self._encoder is None:
                self._encoder = self._make_encoder()
            return self._encoder

    def search(self, queries: Sequence[str], k: int, *, mode: Mode | None = None) -> list[list[Hit]]:
        """The k best passages for each query, best first; fewer where fewer match.

        `mode` overrides the spec's, to compare rankings; it cannot ask for a part that the index lacks.
        """
        mode = mode or self.spec.mode
        if not queries or not self.passages:
            return [[] for _ in queries]
        if k < 1:
            raise ValueError("k must be at least 1")
        depth = k if mode != "hybrid" else max(k, self.spec.candidates)
        dense = self._dense(queries, depth) if mode != "keywords" else None
        found = []
        for at, query in enumerate(queries):
            cosines = dict(dense[at]) if dense is not None else {}
            if mode == "dense":
                ranked = list(cosines.items())
            elif mode == "keywords":
                ranked = self._words(query, depth)
            else:
                from luthier.index.fuse import fuse

                words = [item for item, _ in self._words(query, depth)]
                ranked = fuse([list(cosines), words], constant=self.spec.rrf_constant)
            found.append([
                Hit(passage=self.passages[item], score=float(score), rank=rank, cosine=cosines.get(item))
                for rank, (item, score) in enumerate(ranked[:k], start=1)
            ])
        return found

    def _dense(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        if self._vectors is None:
            raise DataError("this index has no vectors (mode: keywords); search it by keywords or make it again")
        items, cosines = self._vectors.search(self.encoder.encode(queries, prefix=self.spec.query_prefix), k)
        return [list(zip(map(int, row), map(float, values))) for row, values in zip(items, cosines)]

    def _words(self, query: str, k: int) -> list[tuple[int, float]]:
        if self._keywords is None:
            raise DataError("this index has no keywords (mode: dense); search it by meaning or make it again")
        return self._keywords.search(query, k)


def index(passages: Artifact, spec: Index, *, store: Store, root: Path, progress: Progress = Silent()) -> Artifact:
    """Make passages searchable: `passages.jsonl`, `vectors.safetensors` [n, d], `keywords/`, `index.json`.

    `passages` is prepare's artifact. Vectors are cached by text, so a changed document embeds only its own passages.
    Raises DataError when there is no passage, ModelError or MissingExtra for an unfit encoder.
    """
    inputs = {"passages": passages, "encoder": spec.identity(root)["encoder"]}

    def make(folder: Path) -> Mapping[str, Any]:
        found = [decode_passage(row) for row in read_jsonl(passages.path / "passages.jsonl")]
        if not found:
            raise DataError("there are no passages to index; see what was dropped with: luthier show prepare")
        language = spec.language or str(passages.summary.get("language", "en"))
        built = build_retriever(found, spec, language=language, cache=store.cache("embeddings"), root=root,
                                progress=progress)
        return _save(built, folder, language, inputs["encoder"])

    return store.build("index", version=VERSION, spec=spec, inputs=inputs, make=make)


def build_retriever(passages: Sequence[Passage], spec: Index, *, language: str, cache: Cache | None, root: Path,
                    progress: Progress = Silent()) -> Retriever:
    """A retriever in memory; over no passages it finds nothing."""
    texts = [passage.headed for passage in passages]
    vectors = keywords = None
    encoder: Encoder | None = None
    if spec.mode != "dense":
        from luthier.index.keywords import Keywords

        keywords = Keywords.build(texts, language=language, k1=spec.k1, b=spec.b)
    if spec.mode != "keywords":
        from luthier.index.vectors import ExactVectors

        encoder = _encoder(spec, root, cache)
        vectors = ExactVectors(encoder.encode(texts, prefix=spec.passage_prefix, progress=progress,
                                              what="embed passages"))
    made = encoder
    return Retriever(passages, spec, vectors=vectors, keywords=keywords,
                     encoder=lambda: made if made is not None else _encoder(spec, root, cache))


def open_index(folder: Path, *, root: Path) -> Retriever:
    """Open an index from the store or a release. StoreError for a damaged one, ModelError for a changed encoder."""
    try:
        told = json.loads((folder / "index.json").read_text("utf-8"))
        passages = [decode_passage(row) for row in read_jsonl(folder / "passages.jsonl")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"no usable index in {folder} ({error}); make it again with: luthier index") from None
    spec = Index.model_validate(told["spec"])
    vectors = keywords = None
    if spec.mode != "keywords":
        from luthier.index.vectors import ExactVectors

        vectors = ExactVectors.load(folder / "vectors.safetensors")
        if len(vectors.vectors) != len(passages):
            raise StoreError(f"{folder}: {len(vectors.vectors)} vectors for {len(passages)} passages; the index is "
                             "damaged, make it again with: luthier index")
    if spec.mode != "dense":
        from luthier.index.keywords import Keywords

        keywords = Keywords.load(folder / "keywords", size=len(passages), language=told["language"])

    def encoder() -> Encoder:
        made = _encoder(spec, root, None)
        if told["encoder"] not in (None, made.files.fingerprint):
            raise ModelError(f"the index in {folder} was made with another version of the encoder '{spec.encoder}'; "
                             "make it again with: luthier index")
        return made

    return Retriever(passages, spec, vectors=vectors, keywords=keywords, encoder=encoder)


def _encoder(spec: Index, root: Path, cache: Cache | None) -> Encoder:
    from luthier.index.embed import Encoder

    return Encoder(spec.encoder, root=root, pooling=spec.pooling, max_tokens=spec.max_tokens, dtype=spec.dtype,
                   cache=cache)


def _save(built: Retriever, folder: Path, language: str, print_of: str | None) -> dict[str, Any]:
    write_jsonl(folder / "passages.jsonl", built.passages)
    summary: dict[str, Any] = {"passages": len(built.passages), "mode": built.spec.mode, "language": language}
    if built._vectors is not None:
        built._vectors.save(folder / "vectors.safetensors")
        summary |= {"dimension": int(built._vectors.vectors.shape[1]), "encoder": built.encoder.files.name,
                    "dtype": built.encoder.dtype, "max_tokens": built.encoder.max_tokens,
                    "truncated": built.encoder.num_truncated}
    if built._keywords is not None:
        built._keywords.save(folder / "keywords")
    write_json(folder / "index.json", {"spec": built.spec.dump(), "language": language, "encoder": print_of,
                                       "format": VERSION})
    return summary
