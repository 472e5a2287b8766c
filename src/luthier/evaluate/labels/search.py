"""The systems that rank texts for a query: keyword search, the untouched encoder, and the tuned one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from luthier.evaluate.labels import ranking
from luthier.evaluate.labels.bench import Bench, Said
from luthier.evaluate.labels.metrics import Ranks
from luthier.types import Example, digest

CHUNK = 256
SHOWN = 3


def candidates(bench: Bench) -> tuple[list[str], list[Example], list[list[int]]]:
    """(texts searched, queries, places of each query's matching texts).

    Texts that match a test query always; then those of the other rows and the named negatives, by a hash, up to the
    limit. Rows that ask the same query are one query with several matching texts.
    """
    wanted: dict[str, list[str]] = {}
    asked: dict[str, Example] = {}
    for example in bench.test:
        asked.setdefault(example.question, example)
        matching = wanted.setdefault(example.question, [])
        if example.target is not None and example.target not in matching:
            matching.append(example.target)
    texts = dict.fromkeys(text for matching in wanted.values() for text in matching)
    others = {text for example in (*bench.test, *bench.validation, *bench.train)
              for text in (example.target, *example.negatives) if text and text not in texts}
    room = max(0, bench.spec.labels.max_candidates - len(texts))
    texts |= dict.fromkeys(sorted(others, key=lambda text: digest(str(bench.spec.seed), text))[:room])
    place = {text: at for at, text in enumerate(texts)}
    return list(texts), list(asked.values()), [[place[text] for text in wanted[query]] for query in asked]


def search(bench: Bench) -> tuple[dict[str, Said], dict[str, Any]]:
    """(where each system put the matching texts, the tuned model's waiting times)."""
    texts, queries, wanted = candidates(bench)
    bench.test = queries
    bench.facts |= {"num_questions": len(queries), "num_candidates": len(texts)}
    said: dict[str, Said] = {}
    latency: dict[str, Any] = {}

    def add(name: str, score: Callable[[Sequence[Example]], np.ndarray], began: float) -> None:
        places: list[np.ndarray] = []
        shown: list[list[str]] = []
        for start in range(0, len(queries), CHUNK):
            part = score(queries[start : start + CHUNK])
            places += ranking.places(part, wanted[start : start + CHUNK])
            shown += [[texts[at] for at in np.argsort(-row, kind="stable")[:SHOWN]] for row in part]
        said[name] = Said(Ranks(tuple(places)), {"cpu_s": round(time.process_time() - began, 1)}, shown=shown)

    if bench.wants("bm25"):
        from luthier.index.keywords import Keywords

        bench.progress.say("  bm25")
        began = time.process_time()
        index = Keywords.build(texts, language=bench.task.language)
        add("bm25", lambda some: np.stack([index.scores(query.question) for query in some]), began)
    if bench.wants("base"):
        bench.progress.say("  base")
        add("base", *_by_vectors(bench, bench.open_base(()), texts, queries))
    if bench.run is not None and bench.wants("tuned"):
        from luthier.evaluate.labels.classes import waiting

        bench.progress.say("  tuned")
        model = bench.open_tuned()
        add("tuned", *_by_vectors(bench, model, texts, queries))
        latency = waiting(bench, model)
    return said, latency


def _by_vectors(bench: Bench, model: Any, texts: Sequence[str], queries: Sequence[Example]
                ) -> tuple[Callable[[Sequence[Example]], np.ndarray], float]:
    from luthier.adapt import predict
    from luthier.adapt.backbones.base import Row

    began = time.process_time()
    rows = [Row(str(at), tuple(ids), len(ids)) for at, ids in enumerate(model.processor.encode(texts))]
    documents = predict.logits(model, rows, progress=bench.progress, what="texts")
    vectors = predict.logits(model, model.rows(queries, targets=False), progress=bench.progress, what="queries")
    place = {query.id: at for at, query in enumerate(queries)}
    return lambda some: vectors[[place[query.id] for query in some]] @ documents.T, began
