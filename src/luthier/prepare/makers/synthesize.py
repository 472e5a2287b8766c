"""Questions and answers written by a teacher model, each checked against its passage before it may be used.

The teacher is the starter, another local model, or an OpenAI-compatible endpoint that the user names. A candidate
stays only if its question finds its own passage again among the first `top_k` hits (round-trip consistency, Alberti
et al. 2019), its answer is supported by the passage (content words and every number; with the quote that supports
it), it is no repeat and no echo, and it can be understood alone. The rates go into the data card. Small teachers
invent answers, so for them the answer is a sentence of the passage and the teacher only words the question.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from luthier.errors import ModelError
from luthier.plugins import register
from luthier.prepare.base import MAKERS
from luthier.prepare.makers import _teacher
from luthier.prepare.makers._checks import Repeats, form, grounded
from luthier.prepare.makers._examples import chat_example, drop
from luthier.prepare.makers._teacher import Candidate, Kind
from luthier.spec import Spec
from luthier.store import canonical
from luthier.types import Dropped, Example, Passage, digest

if TYPE_CHECKING:
    from luthier.models.base import Chat
    from luthier.prepare.base import MakeContext


@register(MAKERS, "synthesize")
class Synthesize(Spec):
    """Let a teacher model write questions about the passages, and keep those that pass every check."""

    teacher: str = "starter:chat"
    """Local model that writes: `starter:chat`, a folder, a GGUF file or `hub:owner/name`. Not used with `base_url`."""
    base_url: str | None = None
    """Address of an OpenAI-compatible endpoint, such as http://localhost:8000/v1. Your passages are sent to it."""
    model: str | None = None
    """Name of the model at the endpoint."""
    api_key_env: str | None = None
    """Environment variable that holds the endpoint's key; null for an endpoint without one."""
    style: Literal["auto", "sentence", "pairs"] = "auto"
    """`pairs`: the teacher writes questions and answers. `sentence`: the answer is a sentence of the passage and the
    teacher words its question (for small models). `auto`: sentence for the starter, else pairs."""
    questions: int = Field(default=2, ge=1, le=20)
    """Questions asked for each passage."""
    kinds: tuple[Kind, ...] = Field(default=("fact", "how", "definition", "list"), min_length=1)
    """What questions of the style `pairs` ask for."""
    max_passages: int = Field(default=400, ge=1)
    """Most passages that are asked about, chosen by a hash over all documents; it bounds time and cost."""
    min_chars: int = Field(default=150, ge=1)
    """Passages with less text are not asked about."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Randomness of the teacher; 0 always takes the likeliest word. Small teachers invent less at 0."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """With a temperature above 0, only the likeliest words that make up this share are drawn from."""
    max_new_tokens: int = Field(default=400, ge=16)
    """Longest reply of the teacher in tokens, for all questions of a passage together."""
    top_k: int = Field(default=5, ge=1)
    """A question must find its own passage among this many hits."""
    min_support: float = Field(default=0.75, ge=0, le=1)
    """Share of the answer's content words that must stand in the passage. Its numbers must all stand there."""
    min_question_support: float = Field(default=0.6, ge=0, le=1)
    """Share of the question's content words that must stand in passage or answer."""
    min_relevance: float = Field(default=0.5, ge=-1, le=1)
    """Least cosine between question and answer in the style `sentence`, where small teachers wander off. Needs an index
    with vectors."""
    near: float = Field(default=0.75, gt=0, le=1)
    """Questions of one passage whose word pairs overlap this much (Jaccard) are repeats."""
    semantic: float | None = Field(default=0.95, gt=0, le=1)
    """Questions whose vectors have this cosine are repeats, across all passages; null switches it off. Needs an index
    with vectors."""
    min_yield: float = Field(default=0.2, ge=0, le=1)
    """Below this share of kept candidates a warning is given."""
    batch: int = Field(default=16, ge=1)
    """Passages sent to the teacher together; a killed run loses at most one batch."""
    timeout_s: float = Field(default=120, gt=0)
    """Longest wait for one reply of an endpoint, in seconds."""
    parallel: int = Field(default=4, ge=1, le=64)
    """Requests to an endpoint at a time."""

    per_document: ClassVar[bool] = False
    uses_retriever: ClassVar[bool] = True
    VERSION: ClassVar[int] = 1

    @model_validator(mode="after")
    def _one_teacher(self) -> Synthesize:
        if self.base_url and not self.model:
            raise ValueError("base_url needs `model`, the model's name at the endpoint")
        if (self.model or self.api_key_env) and not self.base_url:
            raise ValueError("model and api_key_env belong to an endpoint; give its address as base_url "
                             "(a local model is named as `teacher`)")
        return self

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The teacher: the fingerprint of a local model's weights, or the endpoint's address and model name."""
        return {"teacher": self._identity(root), "prompts": str(_teacher.VERSION)}

    def _identity(self, root: Path) -> str:
        if self.base_url:
            return f"{self.base_url.rstrip('/')} {self.model}"
        from luthier.models.sources import resolve

        return resolve(self.teacher, root=root).fingerprint

    def _open(self, root: Path) -> Chat:
        if self.base_url and self.model:
            from luthier.models.endpoint import EndpointChat

            return EndpointChat(self.base_url, self.model, self.api_key_env, timeout_s=self.timeout_s,
                                parallel=self.parallel)
        from luthier.models.generate import LocalChat

        return LocalChat.load(self.teacher, root=root)

    @property
    def _style(self) -> Literal["sentence", "pairs"]:
        if self.style != "auto":
            return self.style
        return "pairs" if self.base_url or not self.teacher.startswith("starter:") else "sentence"

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """Checked examples of origin `teacher`, refused candidates with their reason; rates in `context.notes`.

        Raises ModelError when the teacher fails; what it wrote before is kept in the cache, so the next run goes on.
        """
        began = time.monotonic()
        passages = self._choose(context)
        written = self._ask(passages, context)
        candidates = [(passage, found) for passage in passages for found in written[passage.id]["candidates"]]
        notes = context.notes
        notes |= {
            "teacher": f"{self.model} at {self.base_url}" if self.base_url else self.teacher, "style": self._style,
            "passages": len(passages), "asked": sum(row["asked"] for row in written.values()),
            "parsed": len(candidates),
        }
        counts: Counter[str] = Counter()
        yield from self._check(candidates, context, counts)
        for name in ("well_formed", "retrieved", "supported", "new", "kept"):
            notes[name] = counts[name]
        for name in ("retrieved", "supported"):
            notes[f"{name}_rate"] = round(counts[name] / len(candidates), 3) if candidates else 0.0
        notes["yield"] = round(counts["kept"] / notes["asked"], 3) if notes["asked"] else 0.0
        notes["teacher_seconds"] = round(sum(row["seconds"] for row in written.values()), 1)
        notes["seconds"] = round(time.monotonic() - began, 1)
        if passages and notes["yield"] < self.min_yield:
            notes["warning"] = (
                f"The teacher {notes['teacher']} was asked for {notes['asked']} questions and {counts['kept']} "
                f"passed the "
                f"checks ({notes['yield']:.0%}); a larger teacher, or your own pairs, would give more."
            )
            context.progress.say(f"  synthesize: {notes['warning']}")

    def _choose(self, context: MakeContext) -> list[Passage]:
        fit = [p for p in context.passages if len(p.text) >= self.min_chars and (
            self._style == "pairs" or _teacher.focus_sentences(p, 1, context.task.language, context.seed))]
        kept = {p.id for p in sorted(fit, key=lambda p: digest(str(context.seed), p.id))[:self.max_passages]}
        return [p for p in fit if p.id in kept]

    def _ask(self, passages: Sequence[Passage], context: MakeContext) -> dict[str, dict[str, Any]]:
        """What the teacher wrote for each passage: from the cache, else asked now, a batch at a time."""
        settings = canonical([_teacher.VERSION, self._identity(context.root), self._style, self.questions, self.kinds,
                              self.temperature, self.top_p, self.max_new_tokens, context.seed, context.task.language])
        keys = {p.id: digest("synthesize", settings, p.headed, p.id if self._style == "sentence" else "", length=40)
                for p in passages}
        written: dict[str, dict[str, Any]] = {}
        missing = []
        for passage in passages:
            stored = context.cache.get(keys[passage.id])
            if stored is None:
                missing.append(passage)
            else:
                written[passage.id] = _read(json.loads(stored))
        if not missing:
            return written
        chat = self._open(context.root)
        with context.progress.track("ask the teacher", len(passages), unit="passages", done=len(written)) as bar:
            for start in range(0, len(missing), self.batch):
                part = missing[start:start + self.batch]
                began = time.monotonic()
                try:
                    rows = self._batch(chat, part, context)
                except ModelError as error:
                    raise ModelError(
                        f"synthesize: {error}. What the teacher wrote for {len(written)} of {len(passages)} "
                        "passages is kept: run again to go on"
                    ) from None
                spent = (time.monotonic() - began) / len(part)
                for passage, row in zip(part, rows):
                    row["seconds"] = round(spent, 3)
                    context.cache.put(keys[passage.id], json.dumps(row, ensure_ascii=False).encode(
                        "utf-8", "surrogatepass"))
                    written[passage.id] = _read(row)
                left = len(missing) - start - len(part)
                if start == 0 and left:
                    context.progress.say(self._forecast(rows, spent, len(part), left))
                bar.advance(len(part))
        return written

    def _forecast(self, rows: Sequence[dict[str, Any]], seconds: float, done: int, left: int) -> str:
        tokens = sum(row["tokens"] for row in rows) / done * (left + done)
        cost = f", about {tokens / 1000:.0f} thousand tokens in all" if self.base_url and tokens else ""
        return f"  synthesize: {left} passages left, about {max(seconds * left / 60, 0.1):.1f} minutes{cost}"

    def _batch(self, chat: Chat, passages: Sequence[Passage], context: MakeContext) -> list[dict[str, Any]]:
        language, prompts, owners = context.task.language, [], []
        for number, passage in enumerate(passages):
            if self._style == "pairs":
                prompts.append(_teacher.pairs_prompt(passage, self.questions, self.kinds, language))
                owners.append((number, ""))
                continue
            for focus in _teacher.focus_sentences(passage, self.questions, language, context.seed):
                prompts.append(_teacher.sentence_prompt(passage, focus, language))
                owners.append((number, focus))
        told = chat.complete(
            prompts, max_new_tokens=self.max_new_tokens if self._style == "pairs" else min(64, self.max_new_tokens),
            temperature=self.temperature, top_p=self.top_p, seed=_seed(context.seed, passages[0].id), what="teacher")
        rows: list[dict[str, Any]] = [{"asked": 0, "tokens": 0, "candidates": []} for _ in passages]
        for (number, focus), reply in zip(owners, told):
            row = rows[number]
            row["tokens"] += reply.num_prompt_tokens + reply.num_tokens
            if focus:
                row["asked"] += 1
                question = _teacher.read_question(reply.text)
                found = [Candidate(question, focus, focus)] if question else []
            else:
                row["asked"] += self.questions
                found = _teacher.read_pairs(reply.text, self.questions, reply.finish == "stop")
            row["candidates"] += [asdict(candidate) for candidate in found]
        return rows

    def _check(self, candidates: Sequence[tuple[Passage, Candidate]], context: MakeContext, counts: Counter[str]
               ) -> Iterator[Example | Dropped]:
        """Every check is made of every candidate, so that the rates do not depend on their order."""
        if not candidates:
            return
        language, retriever = context.task.language, context.retriever()
        questions = [candidate.question for _, candidate in candidates]
        hits = retriever.search(questions, self.top_k)
        encode = retriever.encoder.encode if retriever.spec.mode != "keywords" else None
        repeats = Repeats([e.question for e in context.examples], near=self.near, semantic=self.semantic)
        asked = encode(questions) if encode else ()
        vectors = list(asked) if self.semantic is not None else []
        answers = (
            encode([candidate.answer for _, candidate in candidates]) if encode and self._style == "sentence" else ()
        )
        for number, (passage, candidate) in enumerate(candidates):
            candidate = Candidate(candidate.question, _teacher.tidy_answer(candidate.answer), candidate.focus)
            vector = vectors[number] if len(vectors) else None
            reason, detail = form(candidate, language)
            verdict = grounded(candidate, passage, language, min_support=self.min_support,
                               min_question=self.min_question_support)
            found = any(hit.passage.id == passage.id for hit in hits[number])
            again, like = repeats.find(candidate.question, passage.id, vector)
            counts["well_formed"] += not reason
            counts["retrieved"] += found
            counts["supported"] += verdict.supported
            counts["new"] += not again
            if not reason:
                reason, detail = again, like
            if not reason:
                reason, detail = verdict.reason, verdict.detail
            if not reason and not found:
                reason, detail = "not-retrieved", f"its own passage is not among the first {self.top_k} hits"
            if not reason and len(answers) and (cosine := float(answers[number] @ asked[number])) < self.min_relevance:
                reason, detail = "off-topic", f"cosine {cosine:.2f} between question and answer"
            if reason:
                yield drop(passage.id, self.kind, reason, f"{passage.citation}: {detail}",
                           f"{candidate.question}\n{candidate.answer}")
                continue
            repeats.add(candidate.question, passage.id, vector)
            counts["kept"] += 1
            yield chat_example(context, candidate.question, candidate.answer, step=self.kind, maker="teacher",
                               passages=[passage], evidence=verdict.evidence)


def _seed(seed: int, name: str) -> int:
    return int(digest(str(seed), name), 16) % 2**31


def _read(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "candidates": [Candidate(**found) for found in row["candidates"]]}
