"""Questions and answers written by a teacher model, each checked against its passage before it may be used.

The teacher is the starter, another local model, or an OpenAI-compatible endpoint that the user names. It is asked for
kinds of questions that a passage fits (facts, lists, procedures, comparisons of two documents, questions without an
answer). A candidate stays only if its answer rests on a span of the passage word for word, its question finds its own
passage again (round-trip consistency, Alberti et al. 2019), a reader comes to the answer with the passage and not
without it, and it is no repeat and no echo. Small teachers invent answers, so for them the answer is a piece of the
passage and the teacher only words the question. A teacher that is too weak is told so, early, and trains nothing.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from luthier.errors import ModelError
from luthier.plugins import register
from luthier.prepare.base import MAKERS
from luthier.prepare.makers import _kinds, _teacher
from luthier.prepare.makers._calls import Asker, Call, Forecast, fingerprint, local_chat, speed_of
from luthier.prepare.makers._coverage import coverage, spread
from luthier.prepare.makers._examples import chat_example, drop
from luthier.prepare.makers._judge import Judge, Judged
from luthier.prepare.makers._kinds import Kind
from luthier.prepare.makers._pair_review import REVIEWED, Decisions, Restored, item, restored
from luthier.prepare.makers._teacher import Manner
from luthier.prepare.makers._tone import Tone
from luthier.prepare.makers._yield import note, surely_below
from luthier.queues import decided_hash
from luthier.spec import Spec
from luthier.types import Dropped, Example, Passage, digest

if TYPE_CHECKING:
    from luthier.models.base import Chat
    from luthier.prepare.base import MakeContext
    from luthier.store import Cache

READER_TOKENS = 80


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
    """`pairs`: the teacher writes questions and answers. `sentence`: the answer is a sentence or list of the passage
    and the teacher words its question (for small models). `auto`: sentence for the starter, else pairs."""
    questions: int = Field(default=2, ge=1, le=20)
    """Questions asked for each passage."""
    kinds: tuple[Kind, ...] | None = Field(default=None, min_length=1)
    """What to ask for: fact, list, procedure, definition, how, why, comparison (of passages of two documents),
    unanswerable (the right answer is the task's refusal). A passage is asked for kinds that it fits, in turn; every
    fourth for a comparison, every eighth for a question without answer. Null takes fact, list, procedure, definition,
    comparison, unanswerable; with the style `sentence` only fact, list and procedure are possible."""
    tone: Tone = Tone()
    """How questions and answers shall sound (style `pairs`), and what stands around the answer."""
    reword: float = Field(default=0.3, ge=0, le=1)
    """Share of the passages whose questions are asked for in other words than the text's, which are harder to search
    (style `pairs`)."""
    max_easy: float = Field(default=1.0, ge=0, le=1)
    """Largest share of easy questions (passage found first, worded like it) among those kept; what is over is dropped,
    by hash."""
    max_passages: int = Field(default=400, ge=1)
    """Most passages that are asked about: documents take turns, long ones are covered to their end, and passages that
    no earlier maker made an example of come first. It bounds time and cost."""
    enough: int | None = Field(default=None, ge=1)
    """A document with this many kept questions is not asked about further; null asks on."""
    min_chars: int = Field(default=150, ge=1)
    """Passages with less text are not asked about."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Randomness of the teacher; 0 always takes the likeliest word. Small teachers invent less at 0."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """With a temperature above 0, only the likeliest words that make up this share are drawn from."""
    max_new_tokens: int = Field(default=400, ge=16)
    """Longest reply of the teacher in tokens, for all questions of a passage together."""
    top_k: int = Field(default=5, ge=1)
    """A question must find its own passage among this many hits (a comparison its two among twice as many)."""
    min_support: float = Field(default=0.75, ge=0, le=1)
    """Share of the answer's content words that must stand in the passage, and in the span that is given as evidence
    (with headings and question). Its numbers must all stand there."""
    min_question_support: float = Field(default=0.6, ge=0, le=1)
    """Share of the question's content words that must stand in passage or answer."""
    min_relevance: float = Field(default=0.5, ge=-1, le=1)
    """Least cosine between question and answer in the style `sentence`, where small teachers wander off. Needs an index
    with vectors."""
    near: float = Field(default=0.75, gt=0, le=1)
    """Questions of one passage whose word pairs overlap this much (Jaccard) are repeats."""
    semantic: float | None = Field(default=0.95, gt=0, le=1)
    """Questions whose vectors have this cosine are repeats, across all passages and earlier makers; null switches it
    off. Needs an index with vectors."""
    reader: str = "auto"
    """Who answers each question with and without its passage: `teacher`, `extract` (a rule that picks two sentences; it
    reads facts only, and only with the passage), another local model, or `off`. `auto`: teacher for the style `pairs`,
    extract for `sentence`."""
    pilot: int = Field(default=24, ge=1)
    """Passages asked about before the teacher is judged for the first time, and then again after as many."""
    min_yield: float = Field(default=0.2, ge=0, le=1)
    """The teacher is too weak when the share of asked questions that are kept is surely (95 %) below this; when it is
    below, but not surely, a warning is given."""
    weak: Literal["review", "keep"] = "review"
    """What happens with a teacher that is too weak: `review` stops asking, and what passed waits for a person (queue
    `pairs`); `keep` asks on and keeps what passes."""
    review: Literal["unsure", "all", "none"] = "unsure"
    """Which pairs a person is asked about: those that one last check speaks against, also the kept ones, or none.
    Decisions in labels/pairs.jsonl are always honoured."""
    max_review: int = Field(default=300, ge=0)
    """Most pairs put up for review, the surest first."""
    price: tuple[float, float] | None = None
    """Price of a million tokens of prompt and of reply, in your currency, for the forecast."""
    batch: int = Field(default=16, ge=1)
    """Prompts that a local teacher answers together; a killed run loses what was being asked at that moment."""
    timeout_s: float = Field(default=120, gt=0)
    """Longest wait for one reply of an endpoint, in seconds."""
    parallel: int = Field(default=4, ge=1, le=64)
    """Requests to an endpoint at a time."""

    per_document: ClassVar[bool] = False
    uses_retriever: ClassVar[bool] = True
    VERSION: ClassVar[int] = 2

    @model_validator(mode="after")
    def _one_teacher(self) -> Synthesize:
        if self.base_url and not self.model:
            raise ValueError("base_url needs `model`, the model's name at the endpoint")
        if (self.model or self.api_key_env) and not self.base_url:
            raise ValueError("model and api_key_env belong to an endpoint; give its address as base_url "
                             "(a local model is named as `teacher`)")
        if self.small and (wrong := [kind for kind in self.kinds or () if kind not in _kinds.GIVEN]):
            raise ValueError(f"kind '{wrong[0]}' needs the style pairs and a larger teacher; with the style sentence "
                             f"there are {', '.join(_kinds.GIVEN)}")
        if self.small and self.tone.voice:
            raise ValueError("tone.voice needs the style pairs; with the style sentence answers are the document's own")
        return self

    @property
    def small(self) -> bool:
        """The teacher only words questions (style `sentence`)."""
        if self.style != "auto":
            return self.style == "sentence"
        return not self.base_url and self.teacher.startswith("starter:")

    @property
    def reading(self) -> str:
        """The reader, with `auto` resolved."""
        return self.reader if self.reader != "auto" else "extract" if self.small else "teacher"

    @property
    def wanted(self) -> tuple[Kind, ...]:
        return self.kinds or (_kinds.GIVEN if self.small else _kinds.DEFAULT)

    @property
    def named(self) -> str:
        """The teacher, for people."""
        return f"{self.model} at {self.base_url}" if self.base_url else self.teacher

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The teacher: the fingerprint of a local model's weights, or the endpoint's address and model name; the same
        of another reader; and what people decided about pairs."""
        found = {"teacher": self._identity(root), "prompts": str(_teacher.VERSION)}
        if self.reading not in ("off", "extract", "teacher"):
            found["reader"] = fingerprint(self.reading, root)
        if decided := decided_hash(root, "pairs"):
            found["decided"] = decided
        return found

    def _identity(self, root: Path) -> str:
        return f"{self.base_url.rstrip('/')} {self.model}" if self.base_url else fingerprint(self.teacher, root)

    def _open(self, root: Path) -> Chat:
        if self.base_url and self.model:
            from luthier.models.endpoint import EndpointChat

            return EndpointChat(self.base_url, self.model, self.api_key_env, timeout_s=self.timeout_s, parallel=1)
        return local_chat(self.teacher, root)

    def forecast(self, passages: int, words: float, *, replies: Cache, root: Path) -> Forecast:
        """What asking about so many passages of so many words in all will take at most; asks nothing.

        Tokens are estimated at 1.45 for a word; half of the questions are taken to reach the reader.
        """
        count = min(passages, self.max_passages)
        each = 1.45 * words / max(1, passages)
        if self.small:
            calls, sent, written = count * self.questions, 230 + each / 4, 20.0
        else:
            extra = sum(1 / _kinds.RARE[kind] for kind in self.wanted if kind in _kinds.RARE)
            calls = math.ceil(count * (1 + min(extra, 1)))
            sent, written = 330 + each + 60 * self.tone.shots, 75.0 * self.questions
        told, replied = calls * sent, calls * written
        if self.reading not in ("off", "extract"):
            reads = count * self.questions  # half of the questions, each with the passage and without
            calls, told, replied = calls + reads, told + reads * (100 + each / 2), replied + reads * 30
        seconds, measured = speed_of(replies, self._settings(root), "endpoint" if self.base_url else "local")
        price = (told * self.price[0] + replied * self.price[1]) / 1e6 if self.price else None
        each_s = seconds if measured or not self.base_url else seconds / self.parallel
        return Forecast(self.named, count, calls, round(told + replied), calls * each_s, measured, price)

    def _settings(self, root: Path) -> str:
        return f"{self._identity(root)} {_teacher.VERSION}"

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """Checked examples of origin `teacher`, refused candidates with their reason; rates in `context.notes`, pairs
        to look at in `context.review`.

        Raises ModelError when the teacher fails; what it wrote before is kept in the cache, so the next run goes on.
        DataError names a line of labels/pairs.jsonl that is no decision about a pair.
        """
        began = time.monotonic()
        decisions = Decisions.read(context.root)
        fit = [p for p in context.passages if len(p.text) >= self.min_chars and (
            not self.small or _kinds.focuses(p, self.wanted, 1, context.task.language, context.seed))]
        covered = {id for example in context.examples for id in example.origin.passages}
        chosen = spread(fit, self.max_passages, covered)
        teacher, reader = self._askers(context)
        judge = Judge(self, context, reader)
        judged, asked_of, weak = self._rounds(chosen, context, teacher, judge)
        yield from self._decide(judged, decisions, context, weak=weak, refused=(refused := []))
        for _, answer in decisions.rest(context.passages, context.task.language):
            if answer is not None:
                yield self._human(answer, context)
            else:
                context.notes["decisions_without_passage"] = context.notes.get("decisions_without_passage", 0) + 1
        self._review([*refused], context)
        self._note(context, judge, judged, teacher, reader, fit, asked_of, weak, time.monotonic() - began)

    def _askers(self, context: MakeContext) -> tuple[Asker, Asker | None]:
        """Teacher and reader; a model that is both is loaded once, and none before it is needed."""
        open_teacher = cache(lambda: self._open(context.root))
        tokens = min(64, self.max_new_tokens) if self.small else self.max_new_tokens
        teacher = Asker(open_teacher, self._settings(context.root), context.cache, tokens, self.temperature, self.top_p,
                        context.seed, self.batch, self.parallel if self.base_url else 0)
        if self.reading in ("off", "extract"):
            return teacher, None
        reader = replace(teacher, max_new_tokens=READER_TOKENS, temperature=0.0)
        if self.reading != "teacher":
            reader = replace(reader, open=lambda: local_chat(self.reading, context.root), parallel=0,
                             identity=f"reader {fingerprint(self.reading, context.root)}")
        return teacher, reader

    def _rounds(self, chosen: Sequence[Passage], context: MakeContext, teacher: Asker, judge: Judge
                ) -> tuple[list[Judged], set[str], bool]:
        """Ask and judge, `pilot` passages at a time, until all are asked, or the teacher proves too weak."""
        planned = [(passage, self.plan(passage, context)) for passage in chosen]
        prompts = [call.prompt for _, calls in planned for call in calls]
        known = teacher.known(prompts)
        if len(prompts) > known:
            told = self.forecast(len(chosen), sum(len(p.headed.split()) for p in chosen), replies=context.cache,
                                 root=context.root).text()
            context.progress.say(f"  {told}" + (f"; {known} replies are kept from before" if known else ""))
        judged: list[Judged] = []
        asked_of: set[str] = set()
        by_document: Counter[str] = Counter()
        with context.progress.track("ask the teacher", len(prompts), unit="calls") as bar:
            for start in range(0, len(planned), self.pilot):
                part = [(passage, calls) for passage, calls in planned[start:start + self.pilot]
                        if self.enough is None or by_document[passage.document] < self.enough]
                calls = [call for _, calls in part for call in calls]
                asked_of |= {passage.id for passage, _ in part}
                for call in calls:
                    for kind in call.kinds:
                        judge.count(kind)["asked"] += 1
                try:
                    replies = teacher.ask([call.prompt for call in calls], bar)
                    found = judge.judge([(call.passages, one) for call, reply in zip(calls, replies)
                                         for one in call.read(reply)])
                except ModelError as error:
                    raise ModelError(f"synthesize: {error}. What the teacher wrote for {teacher.kept} of "
                                     f"{len(prompts)} prompts is kept: run again to go on") from None
                judged += found
                by_document.update(one.passages[0].document for one in found if not one.reason)
                if self.weak == "review" and surely_below(judge.total("kept"), judge.total("asked"), self.min_yield):
                    return judged, asked_of, True
        return judged, asked_of, False

    def plan(self, passage: Passage, context: MakeContext) -> list[Call]:
        """What is asked about a passage."""
        language, seed = context.task.language, context.seed
        manner = Manner(language, self.tone.voice, () if self.small else tuple(self.tone.pick(context.examples, seed)))
        if self.small:
            return [Call((passage,), (focus.kind,), _teacher.sentence_prompt(passage, focus, manner), focus)
                    for focus in _kinds.focuses(passage, self.wanted, self.questions, language, seed)]
        kinds = _kinds.choose(passage, self.wanted, self.questions, language, seed)
        alone: tuple[Kind, ...] = tuple(kind for kind in kinds if kind not in _kinds.RARE)
        reword = int(digest(str(seed), passage.id, "reword"), 16) % 1000 < 1000 * self.reword
        calls = [Call((passage,), alone, _teacher.pairs_prompt(passage, alone, manner, reword=reword))] if alone else []
        if "comparison" in kinds and (other := _partner(passage, context)) is not None:
            calls.append(Call((passage, other), ("comparison",), _teacher.comparison_prompt(passage, other, manner)))
        if "unanswerable" in kinds:
            calls.append(Call((passage,), ("unanswerable",), _teacher.unanswerable_prompt(passage, manner)))
        return calls

    def _decide(self, judged: Sequence[Judged], decisions: Decisions, context: MakeContext, *, weak: bool,
                refused: list[tuple[Judged, str]]) -> Iterator[Example | Dropped]:
        """What people decided comes first, then the checks; `refused` gathers what a person should look at."""
        passing = [one for one in judged if not one.reason and one.id not in decisions.by_id]
        easy = self._too_easy(passing)
        for one in judged:
            told = decisions.about(one.id)
            reason, detail = one.reason, one.detail
            if told is not None and told.verdict != "reject":
                yield self._human(restored(told, one.candidate.question, one.candidate.answer, one.passages,
                                           context.task.language), context)
                continue
            if told is not None:
                reason, detail = "rejected", f"by {told.by or 'a person'} ({told.source})"
            elif weak and not reason:
                reason, detail = "weak-teacher", "passed the checks, but hardly anything else did: a person decides"
                refused.append((one, "the teacher is too weak to be trusted"))
            elif one.id in easy:
                reason, detail = "too-easy", f"more than {self.max_easy:.0%} of the kept questions are easy"
            elif one.unsure and self.review != "none":
                refused.append((one, f"{reason}: {detail}"))
            elif not reason and self.review == "all":
                refused.append((one, "passed all checks and is used"))
            source = one.passages[0]
            if reason:
                yield drop(source.id, self.kind, reason, f"{source.citation}: {detail}",
                           f"{one.candidate.question}\n{one.candidate.answer}")
            else:
                yield self._example(one, context)

    def _example(self, one: Judged, context: MakeContext) -> Example:
        given = one.candidate.kind != "unanswerable"
        answer = self.tone.put(one.candidate.answer, one.passages[0], one.evidence) if given else one.candidate.answer
        return chat_example(
            context, one.candidate.question, answer, step=self.kind, maker="teacher", passages=one.passages,
            evidence=one.evidence if given else "", tags=() if given else ("unanswerable",),
            groups={"question": one.candidate.kind, "difficulty": one.difficulty})

    def _human(self, one: Restored, context: MakeContext) -> Example:
        refusal = one.answer == context.task.refusal
        answer = one.answer if refusal else self.tone.put(one.answer, one.passages[0], one.evidence)
        context.notes["reviewed"] = context.notes.get("reviewed", 0) + 1
        return chat_example(context, one.question, answer, step=self.kind, maker="human" if one.edited else "teacher",
                            passages=one.passages, evidence="" if refusal else one.evidence,
                            tags=(*(("unanswerable",) if refusal else ()), REVIEWED))

    def _too_easy(self, passing: Sequence[Judged]) -> set[str]:
        easy = sorted((one for one in passing if one.difficulty == "easy"), key=lambda one: one.id)
        if self.max_easy == 1:
            return set()
        most = math.floor(self.max_easy * (len(passing) - len(easy)) / (1 - self.max_easy))
        return {one.id for one in easy[most:]}

    def _review(self, found: Sequence[tuple[Judged, str]], context: MakeContext) -> None:
        ranked = sorted(found, key=lambda pair: (-pair[0].confidence, pair[0].id))[:self.max_review]
        context.review.extend(item(one, why) for one, why in ranked)
        context.notes["for_review"] = len(ranked)
        if len(found) > len(ranked):
            context.notes["for_review_left_out"] = len(found) - len(ranked)

    def _note(self, context: MakeContext, judge: Judge, judged: Sequence[Judged], teacher: Asker, reader: Asker | None,
              fit: Sequence[Passage], asked_of: set[str], weak: bool, seconds: float) -> None:
        note(self, context, judge, judged, teacher=teacher, reader=reader, rows=coverage(fit, asked_of, Counter(
            one.passages[0].id for one in judged if not one.reason)), weak=weak, seconds=seconds)


def _partner(passage: Passage, context: MakeContext) -> Passage | None:
    """The nearest passage of another document in the same split; None where there is none near."""
    split = context.split_of(passage.id)
    hits = context.retriever(split).search([passage.headed], 8)[0]
    return next((hit.passage for hit in hits if hit.passage.document != passage.document), None)
