"""The systems that tag: each word's commonest tag, and the tuned network."""

from __future__ import annotations

import time
from typing import Any

from luthier.evaluate.labels import baselines, spans
from luthier.evaluate.labels.bench import Bench, Said


def tag(bench: Bench) -> tuple[dict[str, Said], dict[str, Any]]:
    """(what each system said, the tuned model's waiting times)."""
    texts = [example.question for example in bench.test]
    right = [spans.as_pieces(example.spans or ()) for example in bench.test]
    kinds = sorted({kind for row in right for _, _, kind in row} | set(bench.labels))
    said: dict[str, Said] = {}
    latency: dict[str, Any] = {}

    def add(name: str, given: list[list[spans.Piece]], facts: dict[str, Any]) -> None:
        said[name] = Said(spans.compare(texts, right, given, kinds), facts, shown=given)

    if bench.wants("lookup"):
        bench.progress.say("  lookup")
        began = time.process_time()
        found = baselines.lookup(bench.train, bench.test)
        add("lookup", found, {"cpu_s": round(time.process_time() - began, 1)})
    if bench.run is not None and bench.wants("tuned"):
        from luthier.adapt import predict
        from luthier.adapt.spans import decode_spans
        from luthier.evaluate.labels.classes import waiting

        bench.progress.say("  tuned")
        model = bench.open_tuned()
        rows = model.rows(bench.test, targets=False)
        began = time.process_time()
        logits = predict.tag_logits(model, rows, progress=bench.progress, what="test rows")
        cpu_s = time.process_time() - began
        given = [spans.as_pieces(tags) for tags in decode_spans(model, bench.test, rows, logits)]
        add("tuned", given, {"cpu_s": round(cpu_s, 1)})
        latency = {**waiting(bench, model), "batched_cpu_ms": round(1000 * cpu_s / len(rows), 3)}
    return said, latency


def kinds_of(bench: Bench) -> list[str]:
    """The kinds of tag in the order of the counts."""
    return sorted({one.label for example in bench.test for one in example.spans or ()} | set(bench.labels))
