"""The checks in their order, made of every candidate, and what they come to by kind of question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from luthier.prepare.makers import _readers
from luthier.prepare.makers._checks import Repeats, Verdict, form, grounded
from luthier.prepare.makers._kinds import Kind
from luthier.prepare.makers._readers import Difficulty
from luthier.prepare.makers._replies import Candidate, tidy_answer
from luthier.prepare.makers._teacher import reader_prompt
from luthier.prepare.makers._text import support
from luthier.types import Passage, digest

if TYPE_CHECKING:
    from luthier.index.base import Hit
    from luthier.prepare.base import MakeContext
    from luthier.prepare.makers._calls import Asker
    from luthier.prepare.makers.synthesize import Synthesize

UNSURE = frozenset({"not-retrieved", "wrong-kind", "no-span", "incomplete-list", "wrong-order",
                    "one-sided", "reader-fails", "known-without", "may-be-answered"})
"""Reasons that a person may overrule: the pair is well formed, new and made of the passage's words, and one check more
speaks against it. An `off-topic` question is hardly ever right (of 36 by the starter none was)."""
CHECKS = ("asked", "parsed", "well_formed", "new", "supported", "quoted", "retrieved", "with_passage",
          "without_passage", "kept", "unsure")
"""Columns of the yield table. `with_passage`, `without_passage`: how the reader fared with those that got so far."""


@dataclass(frozen=True)
class Judged:
    """A candidate after all checks."""

    candidate: Candidate
    passages: tuple[Passage, ...]
    id: str
    """Stands for passages, question and answer; the same in every run."""
    reason: str
    """Empty when every check is passed."""
    detail: str
    evidence: str
    confidence: float
    """0 to 1: mean of how much of the answer its span holds, and of 1 / rank of its passage."""
    difficulty: Difficulty
    supported: bool
    """The passages hold the answer's words and numbers."""

    @property
    def text(self) -> str:
        return f"Q: {self.candidate.question}\nA: {self.candidate.answer}"

    @property
    def unsure(self) -> bool:
        return self.reason in UNSURE and (self.supported or self.candidate.kind == "unanswerable")


def pair_id(passages: Sequence[Passage], question: str, answer: str) -> str:
    return digest("pair", *(passage.id for passage in passages), question, answer)


@dataclass
class Judge:
    """Judges candidates round by round; remembers what was asked."""

    spec: Synthesize
    context: MakeContext
    reader: Asker | None = None
    """The chat model that reads; None with the reader `extract` or `off`."""
    counts: dict[Kind, Counter[str]] = field(default_factory=dict)
    agreed: int = 0
    _repeats: Any = field(default=None, repr=False)

    def judge(self, found: Sequence[tuple[tuple[Passage, ...], Candidate]]) -> list[Judged]:
        """Every cheap check is made of every candidate, so that the rates do not depend on their order; the reader
        reads only what passed them all."""
        if not found:
            return []
        language, retriever, spec = self.context.task.language, self.context.retriever(), self.spec
        refusal = self.context.task.refusal
        found = [(passages, one if one.focus else replace(one, answer=(
            refusal if one.kind == "unanswerable" else tidy_answer(one.answer)))) for passages, one in found]
        questions = [one.question for _, one in found]
        hits = retriever.search(questions, 2 * spec.top_k)
        encode = retriever.encoder.encode if retriever.spec.mode != "keywords" else None
        asked = encode(questions) if encode else None
        if self._repeats is None:
            known = [example.question for example in self.context.examples]
            self._repeats = Repeats(known, near=spec.near, semantic=spec.semantic, vectors=encode(known) if (
                encode and known and spec.semantic is not None) else None)
        answers = encode([one.answer for _, one in found]) if encode and spec.small else None
        judged = []
        for at, (passages, one) in enumerate(found):
            cosine = float(asked[at] @ answers[at]) if asked is not None and answers is not None else None
            vector = asked[at] if asked is not None and spec.semantic is not None else None
            judged.append(self._one(passages, one, hits[at], vector, cosine, language))
        return self._read(judged, hits, language)

    def _one(self, passages: tuple[Passage, ...], one: Candidate, hits: Sequence[Hit], vector: Any,
             cosine: float | None, language: str) -> Judged:
        spec, count = self.spec, self.count(one.kind)
        whole = "\n".join(passage.headed for passage in passages)
        ranks = {hit.passage.id: hit.rank for hit in hits}
        places = [ranks.get(passage.id) for passage in passages]
        rank = None if None in places else max(place or 0 for place in places)
        if one.kind == "unanswerable":
            verdict = self._unanswered(passages, one, hits, language)
            retrieved = True
        else:
            verdict = grounded(one, passages, language, min_support=spec.min_support,
                               min_question=spec.min_question_support)
            retrieved = rank is not None and rank <= spec.top_k * len(passages)
        reason, detail = form(one, language, whole)
        again, like = self._repeats.find(one.question, passages[0].id, vector)
        for name, holds in (("parsed", True), ("well_formed", not reason), ("new", not again), ("retrieved", retrieved),
                            ("supported", verdict.supported), ("quoted", verdict.quoted)):
            count[name] += holds
        if not reason:
            reason, detail = again, like
        if not reason:
            reason, detail = verdict.reason, verdict.detail
        if not reason and not retrieved:
            reason, detail = "not-retrieved", f"its own passage is not among the first {spec.top_k} hits"
        if not reason and cosine is not None and cosine < spec.min_relevance:
            reason, detail = "off-topic", f"cosine {cosine:.2f} between question and answer"
        if not reason:
            self._repeats.add(one.question, passages[0].id, vector)
        hold = verdict.supported or verdict.reason in ("no-span", "one-sided")
        return Judged(
            candidate=one, passages=passages, id=pair_id(passages, one.question, one.answer), reason=reason,
            detail=detail, evidence=verdict.evidence, supported=hold,
            confidence=round((verdict.share + (1 / rank if rank else 0)) / 2, 3),
            difficulty=_readers.difficulty(rank, one.question, whole, language))

    def _unanswered(self, passages: tuple[Passage, ...], one: Candidate, hits: Sequence[Hit], language: str) -> Verdict:
        """A question of the passage's topic that no sentence among the hits seems to answer."""
        about = support(one.question, passages[0].headed, language)
        if about < 0.4:
            return Verdict("foreign", f"{about:.0%} of the question's words stand in the passage", False, "", about)
        other = _readers.answered_by(one.question, [passages[0], *(hit.passage for hit in hits)], language)
        if other is not None:
            return Verdict("may-be-answered", f"a sentence of {other.citation} holds its words", False, "", about)
        return Verdict("", "", True, "", about)

    def _read(self, judged: list[Judged], hits: Sequence[Sequence[Hit]], language: str) -> list[Judged]:
        """With the passage the reader must come to the answer, without it not."""
        name = self.spec.reading
        passed = [at for at, one in enumerate(judged) if not one.reason] if name != "off" else []
        if name == "extract":
            for at in passed:
                one = judged[at]
                if one.candidate.kind in ("unanswerable", "comparison", "list", "procedure"):
                    continue  # a rule that picks two sentences cannot read these
                said = _readers.extract(one.candidate.question, one.passages[0], language)
                right = _readers.agrees(said, one.candidate.question, one.candidate.answer, language)
                self._reading(judged, at, right, None)
        elif passed:
            assert self.reader is not None
            shown = [[hit.passage for hit in hits[at][:3]] if judged[at].candidate.kind == "unanswerable"
                     else judged[at].passages for at in passed]
            closed = [at for at in passed if judged[at].candidate.kind != "unanswerable"]
            told = self.reader.ask([reader_prompt(judged[at].candidate.question, seen, language)
                                    for at, seen in zip(passed, shown)]
                                   + [reader_prompt(judged[at].candidate.question, (), language) for at in closed])
            alone = {at: reply.text for at, reply in zip(closed, told[len(passed):])}
            for at, reply in zip(passed, told):
                one = judged[at].candidate
                if one.kind == "unanswerable":
                    self._reading(judged, at, _readers.refuses(reply.text), None)
                else:
                    self._reading(judged, at, _readers.agrees(reply.text, one.question, one.answer, language),
                                  _readers.agrees(alone[at], one.question, one.answer, language))
        for one in judged:
            count = self.count(one.candidate.kind)
            count["kept"] += not one.reason
            count["unsure"] += one.unsure
        return judged

    def _reading(self, judged: list[Judged], at: int, right: bool, without: bool | None) -> None:
        one = judged[at]
        count = self.count(one.candidate.kind)
        count["reader"] += 1
        count["with_passage"] += right
        count["without_passage"] += bool(without)
        if not right and one.candidate.kind == "unanswerable":
            judged[at] = replace(one, reason="may-be-answered", detail="a reader with the first three hits answers it")
        elif not right:
            judged[at] = replace(one, reason="reader-fails", detail="a reader with the passage says something else")
        elif without:
            judged[at] = replace(one, reason="known-without", detail="a reader without the passage knows it")

    def count(self, kind: str) -> Counter[str]:
        return self.counts.setdefault(kind, Counter())  # type: ignore[arg-type]

    def total(self, name: str) -> int:
        return sum(count[name] for count in self.counts.values())

    def table(self) -> dict[str, Any]:
        """The yield by kind of question, as rows for the card."""
        counts = {**dict(sorted(self.counts.items())), "all": sum(self.counts.values(), Counter())}
        rows = [[kind, *(count[name] for name in CHECKS), count["kept"] / max(1, count["asked"])]
                for kind, count in counts.items() if kind != "all" or len(self.counts) > 1]
        return {"title": "Yield by kind of question", "columns": ["kind", *CHECKS, "yield"], "rows": rows}
