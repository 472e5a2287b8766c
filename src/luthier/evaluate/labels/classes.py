"""The systems that classify: commonest class, linear models, a chat model, and the tuned network."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from luthier.evaluate.labels import baselines
from luthier.evaluate.labels.baselines import Fit, Split
from luthier.evaluate.labels.bench import Bench, Said
from luthier.evaluate.labels.calibrate import fit_temperature, probabilities
from luthier.evaluate.labels.metrics import Classes, Sets
from luthier.store import canonical
from luthier.types import Example, digest

CENTRE_ROWS, LEAST_OF_CLASS = 3000, 20
"""Train rows that class centres are computed from: together, and at least of each class."""


@dataclass(frozen=True)
class Tuned:
    """The tuned network's logits and what they are calibrated by."""

    validation: np.ndarray
    test: np.ndarray
    foreign: np.ndarray
    """Logits [n, classes] of the rows that belong to no class."""
    temperature: float
    features: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None
    """Pooled features of the rows of `centre_rows`, the validation, test and foreign rows, where there are any of the
    latter."""
    cpu_s: float


@dataclass(frozen=True)
class Found:
    """All systems' answers to the test rows, and the probabilities of the validation rows."""

    said: dict[str, Said]
    validation: dict[str, np.ndarray]
    tuned: Tuned | None
    latency: dict[str, Any]


def classify(bench: Bench) -> Found:
    """Ask every system that the settings name and the task allows."""
    train, validation, test = (bench.split(rows) for rows in (bench.train, bench.validation, bench.test))
    right = test.targets
    cache = bench.store.cache("label-baselines")
    content, spec, classes = baselines.content(train, validation, test), bench.spec.labels, len(bench.labels)
    if bench.task.type == "image":  # rows name files, and the data's id knows what is in them
        content += bench.data.id
    said: dict[str, Said] = {}
    outside: dict[str, np.ndarray] = {}

    def add(name: str, parts: Sequence[str], make: Callable[[], Fit]) -> None:
        bench.progress.say(f"  {name}")
        fit = baselines.kept(cache, name, [content, *parts], make)
        said[name] = Said(_answers(right, fit.test, bench), fit.facts)
        outside[name] = fit.validation

    if bench.wants("majority"):
        add("majority", [], lambda: baselines.majority(train, validation, test, classes))
    if bench.wants("tfidf") and bench.task.type == "classify":
        add("tfidf", [str(spec.tfidf_c)], lambda: baselines.tfidf(train, validation, test, classes, spec.tfidf_c))
    if bench.wants("zero_shot") and spec.zero_shot is not None and bench.task.type == "classify":
        add("zero_shot", [canonical(spec.zero_shot.dump()), spec.zero_shot.fingerprint(bench.root)],
            lambda: _zero_shot(bench, test))
    if bench.task.type == "image" and (bench.wants("pixels") or bench.wants("tfidf")):
        add("pixels", [str(spec.features_c)], lambda: _pixels(bench, (train, validation, test)))
    if bench.wants("features"):
        add("features", [str(spec.features_c), bench.model.id], lambda: _features(bench, (train, validation, test)))
    tuned, latency = None, {}
    if bench.run is not None and bench.wants("tuned"):
        bench.progress.say("  tuned")
        tuned, latency = _tuned(bench, validation, test)
        calibrated = probabilities(tuned.test, bench.task.multi_label, tuned.temperature)
        facts = {"cpu_s": round(tuned.cpu_s, 1)} if tuned.cpu_s else {}
        said["tuned"] = Said(_answers(right, calibrated, bench), facts)
        outside["tuned"] = probabilities(tuned.validation, bench.task.multi_label, tuned.temperature)
    return Found(said, outside, tuned, latency)


def _answers(right: np.ndarray, probs: np.ndarray, bench: Bench) -> Classes | Sets:
    probs = np.asarray(probs, dtype=np.float64)
    return Sets(right, probs) if bench.task.multi_label else Classes(right, probs)


def _features(bench: Bench, splits: Sequence[Split]) -> Fit:
    from luthier.adapt import predict
    base = bench.open_base(bench.labels)
    values = [predict.features(base, base.rows(split.examples, targets=False), cache=bench.store.cache("features"),
                               progress=bench.progress, what="features of the base model") for split in splits]
    train, validation, test = splits
    return baselines.on_features(values, train, validation, test, len(bench.labels), bench.spec.labels.features_c)


def _pixels(bench: Bench, splits: Sequence[Split]) -> Fit:
    processor = bench.open_base(bench.labels).processor
    values = [baselines.pixels(split.examples, lambda example: processor.read(example).data) for split in splits]
    train, validation, test = splits
    return baselines.on_features(values, train, validation, test, len(bench.labels), bench.spec.labels.features_c)


def _zero_shot(bench: Bench, test: Split) -> Fit:
    from luthier.evaluate.labels.zero_shot import zero_shot

    spec = bench.spec.labels.zero_shot
    assert spec is not None
    began = time.process_time()
    found = zero_shot(spec, test.texts, bench.labels, root=bench.root, progress=bench.progress)
    return Fit(np.zeros((0, len(bench.labels))), found,
               {"model": spec.model, "cpu_s": round(time.process_time() - began, 1)})


def _tuned(bench: Bench, validation: Split, test: Split) -> tuple[Tuned, dict[str, Any]]:
    from luthier.adapt import predict
    from luthier.adapt.backbones.base import Row

    model = bench.open_tuned()
    order = [model.labels.index(label) for label in bench.labels]

    def rows(examples: Sequence[Example]) -> list[Any]:
        return model.rows(examples, targets=False)

    def ask(some: list[Any], what: str) -> np.ndarray:
        if not some:
            return np.zeros((0, len(order)), dtype=np.float32)
        return predict.logits(model, some, progress=bench.progress, what=what)[:, order]

    features = None
    if bench.foreign:  # one pass gives the features, and the head makes logits of them
        cache = bench.store.cache("features")
        model = as_base(bench, model)
        parts = [predict.features(model, rows(examples), cache=cache, progress=bench.progress,
                                  what="features of the tuned model")
                 for examples in (centre_rows(bench), validation.examples, test.examples, bench.foreign)]
        features = parts[0], parts[1], parts[2], parts[3]
        finished = [[Row(str(at), value, 1) for at, value in enumerate(part)] for part in parts[1:]]
        outside, inside, foreign = (ask(one, "rows") for one in finished)
        cpu_s = 0.0
    else:
        outside = ask(rows(validation.examples), "validation rows")
        began = time.process_time()
        inside, foreign = ask(rows(test.examples), "test rows"), np.zeros((0, len(order)), dtype=np.float32)
        cpu_s = time.process_time() - began
    multi = bench.task.multi_label
    temperature = fit_temperature(outside, validation.targets, multi) if len(outside) else model.temperature
    if not len(outside):
        bench.notes.append("There are no validation rows, so the probabilities of the tuned model are not calibrated.")
    latency = waiting(bench, model)
    if cpu_s:
        latency["batched_cpu_ms"] = round(1000 * cpu_s / len(test.examples), 3)
    return Tuned(outside, inside, foreign, temperature, features, cpu_s), latency


def as_base(bench: Bench, model: Any) -> Any:
    """The tuned model; where only its head was trained, under the base model's name, so that features that were
    computed for the baseline and for training are found."""
    from luthier.adapt.ensemble import same_backbone

    base = bench.open_base(bench.labels)
    kept = getattr(model.module, "shared", True) and not model.module.pool_trains
    return model.but(fingerprint=base.fingerprint) if kept and same_backbone(model.module, base.module) else model


def centre_rows(bench: Bench) -> list[Example]:
    """The train rows whose mean is a class's centre: all, or of large classes some, chosen by a hash."""
    most = max(LEAST_OF_CLASS, CENTRE_ROWS // len(bench.labels))
    seen: Counter[tuple[str, ...]] = Counter()
    found = []
    for example in sorted(bench.train, key=lambda one: digest(str(bench.spec.seed), one.id)):
        label = example.labels or ()
        seen[label] += 1
        if seen[label] <= most:
            found.append(example)
    return found


def waiting(bench: Bench, model: Any) -> dict[str, Any]:
    """Milliseconds that one row takes by itself: from the text or image to the logits."""
    from luthier.adapt import predict

    count = bench.spec.labels.latency_rows
    few = bench.test[:: max(1, len(bench.test) // count)][:count] if count else []
    walls, cpus = [], []
    for at, example in enumerate([*few[:1], *few]):
        wall, cpu = time.perf_counter(), time.process_time()
        predict.logits(model, model.rows([replace(example, target=None)], targets=False)) \
            if model.task.type != "tag" else predict.tag_logits(model, model.rows([example], targets=False))
        if at:  # the first call warms up
            walls.append(1000 * (time.perf_counter() - wall))
            cpus.append(1000 * (time.process_time() - cpu))
    if not walls:
        return {}
    return {"n": len(walls), "single_ms_p50": round(float(np.median(walls)), 2),
            "single_ms_p95": round(float(np.quantile(walls, 0.95)), 2),
            "single_cpu_ms": round(float(np.median(cpus)), 2)}
