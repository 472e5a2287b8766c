"""One evaluation from start to end: ask, score, compare, decide, write."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.errors import MissingExtra, ModelError
from luthier.evaluate.base import Evaluate
from luthier.evaluate.compare import Bootstrap, Column
from luthier.evaluate.judge import judge
from luthier.evaluate.metrics import METRICS, Context, Metric, Prediction
from luthier.evaluate.outcome import Table, compare, slices
from luthier.evaluate.recitation import recitation, sentence
from luthier.evaluate.retention import retention
from luthier.evaluate.systems import TOO_LONG, Latency, Opened, Subject
from luthier.evaluate.testset import TestSet, closed_prompt, test_set, with_prompt
from luthier.index.rag import Rag
from luthier.progress import Progress
from luthier.store import Artifact, Store, write_json, write_text
from luthier.task import Task
from luthier.types import Example, Message, Passage, write_jsonl

DEPTH = 10
"""Hits looked at for recall."""


def measure(folder: Path, *, data: Artifact, index: Artifact | None, model: Artifact, run: Artifact | None, task: Task,
            rag: Rag, spec: Evaluate, store: Store, root: Path, progress: Progress) -> Mapping[str, Any]:
    """Fill the artifact's folder; see `evaluate`."""
    from luthier.adapt.base import read_facts
    from luthier.prepare.base import read_examples, read_passages

    began = time.monotonic()
    notes: list[str] = []
    tests = test_set(read_examples(data), read_passages(data), task, max_questions=spec.max_questions, seed=spec.seed)
    systems, retriever = _systems(spec, task, index, run, root, notes)
    embed = _embedder(retriever)
    metrics = _metrics(spec, task, embed, notes)
    decision = task.metric if task.type == "assistant" else "answer_loss"
    if task.type == "completion" and task.metric != "answer_loss":
        notes.append(f"A completion task has no answers to score, so the systems are compared by the loss of the text "
                     f"and not by '{task.metric}'.")
    progress.say(f"  {tests.facts['num_questions']} test questions, {tests.facts['disjoint']}-disjoint from training; "
                 f"systems: {', '.join(systems)}")

    found = _Retrieval(tests, retriever, rag, task)
    subjects = _subjects(model, run, store, progress)
    facts = read_facts(model)
    predictions: dict[str, list[Prediction]] = {}
    speed: dict[str, Latency] = {}
    kept: dict[str, Any] = {}
    recited: dict[str, Any] = {"values": 0, "checked": False, "why": "no tuned model was measured", "mode": "off"}
    losses_wanted = any(metric.needs == "loss" for metric in metrics)
    for name, members in (("base", ("base", "retrieval")), ("tuned", ("tuned", "tuned_retrieval"))):
        for system in (member for member in members if member in systems):
            predictions[system] = _ask(subjects[name], system, tests, found, task, spec, losses_wanted)
            if spec.latency_questions and task.type == "assistant":
                speed[system] = _latency(subjects[name], system, tests, found, task, spec)
        if name in subjects:  # the base's figures come back from the cache when the tuned model is measured
            kept = retention(subjects["base"], subjects[name] if name == "tuned" else None, spec.retention,
                             system=task.system, root=root, samples=spec.bootstrap_samples, seed=spec.seed)
            if name == "tuned":
                recited = recitation(
                    spec.recitation, data=data, task=task, tuned=subjects["tuned"], base=subjects["base"], store=store,
                    examples=read_examples(data, "train"), root=root, seed=spec.seed,
                    answers={system: [row.text for row in predictions[system] if row.text is not None]
                             for system in members if system in predictions})
            subjects[name].close()
    if said := sentence(recited):
        notes.append(said)
    for system, rows in predictions.items():
        for count, what in ((sum(row.finish == TOO_LONG for row in rows), "did not fit the model's context and count "
                             "as unanswered; lower rag.max_context_tokens"),
                            (sum(row.finish == "length" for row in rows), f"were cut at {spec.max_new_tokens} tokens "
                             "(evaluate.max_new_tokens)")):
            if count:
                notes.append(f"{system}: {count} of {len(rows)} answers {what}.")

    context = Context(task, tests.sources, embed)
    draws = Bootstrap(tests.units.ids, samples=spec.bootstrap_samples, seed=spec.seed)
    table = Table(metrics=metrics, decision=decision, draws=draws, columns={
        system: {metric.kind: Column(metric.score(tests.examples, rows, context), metric.weights(rows),
                                     None if type(metric).finish is Metric.finish else metric.finish)
                 for metric in metrics} for system, rows in predictions.items()})
    report = compare(table, tests=tests.facts, spec=spec, retention=kept)
    search_mb = _search_mb(index, retriever)
    for system, rows in predictions.items():
        report["systems"][system] |= _cost(rows, speed.get(system), search_mb if "retrieval" in system else 0.0)
    report |= {
        "privacy": recited, "retrieval": found.quality(spec.seed), "slices": slices(table, tests, spec),
        "notes": notes, "judge": _judge(spec, task, tests, predictions, store, progress),
        "model": {"name": facts["name"], "source": facts["source"], "parameters": facts.get("parameters")},
        "artifacts": {name: None if one is None else f"{one.stage}/{one.id}"
                      for name, one in (("data", data), ("index", index), ("model", model), ("run", run))},
        "settings": spec.dump(), "rag": rag.dump(), "task": task.dump(),
        "resources": {"peak_memory_mb": _peak_mb(), "seconds": round(time.monotonic() - began, 1)},
    }
    rows = _rows(tests, predictions, table)
    write_jsonl(folder / "predictions.jsonl", rows)
    write_json(folder / "report.json", report)
    from luthier.evaluate.report import render

    write_text(folder / "report.html", render(report, rows))
    progress.say(f"  {report['verdict']['sentence']}")
    return {"verdict": {key: report["verdict"][key] for key in ("choice", "sentence", "conclusive")},
            "metric": decision, "num_questions": tests.facts["num_questions"],
            "values": {system: report["systems"][system]["metrics"][decision] for system in predictions}}


def _systems(spec: Evaluate, task: Task, index: Artifact | None, run: Artifact | None, root: Path,
             notes: list[str]) -> tuple[list[str], Any]:
    wanted: list[str] = list(spec.systems)
    for missing, why, applies in (
        ("retrieval", "a completion task asks no questions, so nothing is retrieved", task.type == "completion"),
        ("retrieval", "there is no index", index is None and task.type != "completion"),
        ("tuned", "there is no trained run", run is None),
    ):
        gone = [system for system in wanted if missing in system] if applies else []
        if gone:
            notes.append(f"Not measured: {', '.join(gone)}, because {why}.")
            wanted = [system for system in wanted if system not in gone]
    if index is None or task.type == "completion":
        return wanted, None
    from luthier.index.base import open_index

    return wanted, open_index(index.path, root=root)


def _embedder(retriever: Any) -> Callable[[Sequence[str]], Any] | None:
    """Texts to unit vectors with the index's encoder; None where it has none."""
    if retriever is None:
        return None
    try:
        encoder = retriever.encoder
    except (ModelError, MissingExtra):
        return None
    return functools.partial(encoder.encode)


def _metrics(spec: Evaluate, task: Task, embed: Any, notes: list[str]) -> list[Metric]:
    chosen = {metric.kind: metric for metric in spec.metrics}
    for kind in (task.metric, "refused_wrongly") if task.type == "assistant" else ("answer_loss",):
        chosen.setdefault(kind, METRICS.get(kind)())  # type: ignore[arg-type]
    if task.type == "completion":
        chosen = {kind: metric for kind, metric in chosen.items() if metric.needs == "loss"}
    if "similarity" in chosen and embed is None and task.metric != "similarity":
        notes.append("Not measured: similarity, because there is no encoder.")
        del chosen["similarity"]
    return list(chosen.values())


def _subjects(model: Artifact, run: Artifact | None, store: Store, progress: Progress) -> dict[str, Subject]:
    from luthier.adapt.base import open_base, read_facts

    cache = store.cache("answers")
    facts = read_facts(model)
    identity = {name: facts.get(name) for name in ("fingerprint", "template", "stop_ids", "dtype")}
    task = {"system": facts.get("task", {}).get("system")}
    from luthier.store import canonical

    found = {"base": Subject(canonical(["base", identity, task]), lambda: Opened(open_base(model)), cache, progress)}
    if run is not None:
        from luthier.train.base import open_tuned

        found["tuned"] = Subject(canonical(["tuned", run.id, identity, task]),
                                 lambda: Opened(open_tuned(run, model)), cache, progress)
    return found


class _Retrieval:
    """Passages for every question, searched once."""

    def __init__(self, tests: TestSet, retriever: Any, rag: Rag, task: Task):
        self.tests, self.retriever, self.rag, self.task = tests, retriever, rag, task
        self.hits: list[list[Any]] = []
        self.cpu_seconds = 0.0
        if retriever is not None:
            questions = [example.question for example in tests.examples]
            retriever.search(questions[:1], 1)  # loads the encoder, which is not a question's cost
            began = time.process_time()
            self.hits = retriever.search(questions, rag.top_k)
            self.cpu_seconds = (time.process_time() - began) / len(questions)

    def passages(self, place: int) -> tuple[Passage, ...]:
        """What stands in the prompt of question `place`, best first."""
        return tuple(self.rag.fit([hit.passage for hit in self.hits[place]]))

    def prompt(self, example: Example, passages: Sequence[Passage]) -> tuple[Message, ...]:
        """Earlier turns stay in front; the last question is asked over the passages."""
        closed = closed_prompt(example, self.task.system)
        lead = closed[0].content if closed[0].role == "system" else None
        asked = self.rag.messages(example.question, passages, lead, refusal=self.task.refusal)
        history = closed[1:-1] if lead is not None else closed[:-1]
        return (*asked[:-1], *history, asked[-1])

    def search_and_prompt(self, example: Example) -> tuple[Message, ...]:
        """As one user's request does it."""
        hits = self.retriever.search([example.question], self.rag.top_k)[0]
        return self.prompt(example, [hit.passage for hit in hits])

    def quality(self, seed: int) -> dict[str, Any]:
        """recall@k and mean reciprocal rank of the source passage, on answerable questions that name one."""
        if self.retriever is None:
            return {}
        from luthier.index.recall import recall

        asked = [example for example in self.tests.examples if "unanswerable" not in example.tags]
        found = recall(self.retriever, [e.question for e in asked], [e.origin.passages for e in asked], seed=seed,
                       at=sorted({1, 3, 5, DEPTH, self.rag.top_k}))
        return {name: one for name, one in found.items() if one["n"]}


def _ask(subject: Subject, system: str, tests: TestSet, found: _Retrieval, task: Task, spec: Evaluate,
         losses_wanted: bool) -> list[Prediction]:
    grounded = "retrieval" in system
    passages = [found.passages(place) if grounded else () for place in range(len(tests.examples))]
    if task.type == "completion":
        prompted = list(tests.examples)
        answers: list[Any] = [None] * len(prompted)
    else:
        prompted = [with_prompt(example, found.prompt(example, given) if grounded
                                else closed_prompt(example, task.system))
                    for example, given in zip(tests.examples, passages, strict=True)]
        answers = subject.answers([example.input for example in prompted],  # type: ignore[misc]
                                  max_new_tokens=spec.max_new_tokens, what=f"answers, {system}")
    losses = subject.losses(prompted, what=f"answer loss, {system}") if losses_wanted else [None] * len(prompted)
    return [
        Prediction(example=example.id, system=system, passages=given,
                   loss_sum=None if loss is None else loss.sum, loss_tokens=0 if loss is None else loss.tokens,
                   **({} if answer is None else {
                       "text": answer.text, "num_tokens": answer.num_tokens, "finish": answer.finish,
                       "seconds": answer.seconds,
                       "cpu_seconds": answer.cpu_seconds + (found.cpu_seconds if grounded else 0.0)}))
        for example, given, loss, answer in zip(tests.examples, passages, losses, answers, strict=True)
    ]


def _latency(subject: Subject, system: str, tests: TestSet, found: _Retrieval, task: Task,
             spec: Evaluate) -> Latency:
    few = tests.examples[:: max(1, len(tests.examples) // spec.latency_questions)][: spec.latency_questions]
    make = found.search_and_prompt if "retrieval" in system else lambda example: closed_prompt(example, task.system)
    return subject.latency([functools.partial(make, example) for example in few], system=system,
                           max_new_tokens=spec.max_new_tokens, what=f"latency, {system}")


def _cost(rows: Sequence[Prediction], speed: Latency | None, search_mb: float) -> dict[str, Any]:
    """Latency of single requests, and what a thousand answers cost when they come in batches."""
    import numpy as np

    if rows[0].text is None:
        return {}
    count = len(rows)
    found: dict[str, Any] = {
        "cpu_s_per_1000_answers": round(1000 * sum(row.cpu_seconds for row in rows) / count, 1),
        "wall_s_per_1000_answers": round(1000 * sum(row.seconds for row in rows) / count, 1),
        "mean_answer_tokens": round(sum(row.num_tokens for row in rows) / count, 1),
        "cut_share": round(sum(row.finish == "length" for row in rows) / count, 4),
    }
    if speed is not None and speed.seconds:
        p50, p95 = np.percentile(speed.seconds, [50, 95])
        found["latency_s"] = {"p50": round(float(p50), 4), "p95": round(float(p95), 4), "n": len(speed.seconds)}
        found["latency_s"]["cpu_p50"] = round(float(np.median(speed.cpu_seconds)), 4)
        found["tokens_per_s"] = round(sum(speed.tokens) / max(sum(speed.generating), 1e-9), 2)
    if speed is not None:
        found["memory_mb"] = round(speed.weights_mb + search_mb, 1)
    return found


def _search_mb(index: Artifact | None, retriever: Any) -> float:
    """Size of the index and, where it searches by meaning, of the encoder's weights."""
    if index is None or retriever is None:
        return 0.0
    files = [file for file in index.path.rglob("*") if file.is_file()]
    if retriever.spec.mode != "keywords":
        files += retriever.encoder.files.folder.glob("*.safetensors")
    return sum(file.stat().st_size for file in files) / 1e6


def _peak_mb() -> float:
    """Most memory this process has held so far."""
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _judge(spec: Evaluate, task: Task, tests: TestSet, predictions: Mapping[str, Sequence[Prediction]], store: Store,
           progress: Progress) -> dict[str, Any] | None:
    if spec.judge is None:
        return None
    if task.type == "completion":
        return {"skipped": "a completion task has no answers to judge"}
    answers: dict[str, Sequence[str]] = {system: [row.text or "" for row in rows]
                                         for system, rows in predictions.items()}
    return judge(spec.judge, tests.examples, answers, cache=store.cache("judge"), samples=spec.bootstrap_samples,
                 seed=spec.seed, progress=progress)


def _rows(tests: TestSet, predictions: Mapping[str, Sequence[Prediction]], table: Table) -> list[dict[str, Any]]:
    """`predictions.jsonl`: everything that is known about one answer, with its lineage."""
    from dataclasses import asdict

    rows = []
    for place, example in enumerate(tests.examples):
        for system, answers in predictions.items():
            answer = answers[place]
            scores = {}
            for metric in table.metrics:
                value = table.columns[system][metric.kind].values[place]
                scores[metric.kind] = None if value is None else round(float(metric.finish(value)), 6)
            rows.append({
                "example": example.id, "system": system, "question": example.question, "reference": example.target,
                "answer": answer.text, "finish": answer.finish if answer.text is not None else None,
                "num_tokens": answer.num_tokens, "seconds": round(answer.seconds, 4),
                "passages": [{"id": p.id, "document": p.document, "citation": p.citation} for p in answer.passages],
                "sources": [{"id": p.id, "document": p.document, "citation": p.citation}
                            for p in tests.sources.get(example.id, ())[:3]],
                "origin": asdict(example.origin), "tags": list(example.tags), "scores": scores,
            })
    return rows
