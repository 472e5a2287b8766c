"""Questions that the documents do not answer; the right answer is the task's refusal.

Three sources: questions of other topics (`foreign`), questions about a code or number that looks like the documents'
own but does not exist (`no_such`), and a document asked about what only another one treats (`elsewhere`). Each is
checked against the corpus, because the test set asks with retrieval over all documents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.prepare.base import MAKERS
from luthier.prepare.makers._examples import Places, chat_example, chat_input, drop
from luthier.prepare.makers._foreign import QUESTIONS
from luthier.prepare.makers._phrases import phrases
from luthier.prepare.makers._sections import Section, sections
from luthier.prepare.makers._text import content, key, support
from luthier.prepare.makers._wording import Wording
from luthier.prepare.makers._words import word_set
from luthier.prepare.makers.section import is_asked
from luthier.spec import Spec
from luthier.types import Document, Dropped, Example, Message, Origin, Split, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

Source = Literal["foreign", "no_such", "elsewhere"]


@register(MAKERS, "unanswerable")
class Unanswerable(Spec):
    """Add questions whose right answer is that the documents do not say."""

    share: float = Field(default=0.05, ge=0, le=1)
    """Unanswerable questions for each answerable one, in every split (train, validation and test)."""
    sources: tuple[Source, ...] = Field(default=("foreign", "no_such", "elsewhere"), min_length=1)
    """`foreign`: other topics; `no_such`: codes that do not exist; `elsewhere`: asks a document for what only another
    one treats."""
    max_support: float = Field(default=0.5, ge=0, le=1)
    """A foreign question is dropped when a passage holds more than this share of its content words."""

    per_document: ClassVar[bool] = False
    uses_retriever: ClassVar[bool] = True
    VERSION: ClassVar[int] = 1

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """Examples tagged `unanswerable` whose target is `task.refusal`; sources take turns until the share is reached.

        `foreign` questions belong to no passage: `prepare` splits them by their words, in the project's shares.
        """
        wanted: dict[Split, int] = {"train": 0, "validation": 0, "test": 0}
        for example in context.examples:
            if not isinstance(example.input, str) and not {"unanswerable", "grounded"} & set(example.tags):
                wanted[example.split] += 1
        goal = {split: round(self.share * count) for split, count in wanted.items()}
        if not any(goal.values()):
            return
        part = 1 / len(self.sources)
        made: dict[str, int] = dict.fromkeys(self.sources, 0)
        if "foreign" in self.sources:
            for found in self._foreign(context, max(1, round(part * sum(goal.values())))):
                made["foreign"] += isinstance(found, Example)
                yield found
        for name, source in (("no_such", self._no_such), ("elsewhere", self._elsewhere)):
            if name not in self.sources:
                continue
            left = {split: max(1, round(part * count)) if count else 0 for split, count in goal.items()}
            for split, example in source(context):
                if left[split] > 0:
                    left[split] -= 1
                    made[name] += 1
                    yield example
        context.notes.update(made)

    def _foreign(self, context: MakeContext, count: int) -> Iterator[Example | Dropped]:
        language = context.task.language
        bank = sorted(QUESTIONS.get(language, ()), key=lambda question: digest(str(context.seed), question))
        if not bank:
            context.notes["foreign_language"] = f"no foreign questions in '{language}'"
            return
        hits = context.retriever().search(bank, 3)
        for question, found in zip(bank, hits):
            if count == 0:
                return
            held = max((support(question, hit.passage.headed, language) for hit in found), default=0.0)
            if held > self.max_support:
                yield drop(
                    question,
                    self.kind,
                    "may-be-answered",
                    f"{held:.0%} of its words stand in {found[0].passage.citation}",
                    question,
                )
                continue
            count -= 1
            yield Example(id=digest("example", self.kind, question), input=chat_input(question, context.task.system),
                          target=context.task.refusal, tags=("unanswerable",),
                          origin=Origin(maker="rule", step=self.kind, where="question of another topic"))

    def _no_such(self, context: MakeContext) -> Iterator[tuple[Split, Example]]:
        """Earlier questions with their code changed to one that stands nowhere in the corpus."""
        corpus = "\n".join(passage.headed for passage in context.passages).casefold()
        by_id = {passage.id: passage for passage in context.passages}
        for example in _ranked(context.examples, context.seed):
            passage = by_id.get(example.origin.passages[0]) if example.origin.passages else None
            codes = _CODE.findall(example.question)
            if passage is None or "unanswerable" in example.tags or "grounded" in example.tags or len(codes) != 1:
                continue
            if sum(turn.role == "user" for turn in example.input if isinstance(turn, Message)) != 1:
                continue
            other = _other_code(codes[0], lambda code: code.casefold() in corpus, f"{context.seed} {example.id}")
            if other is None:
                continue
            question = example.question.replace(codes[0], other)
            yield example.split, chat_example(context, question, context.task.refusal, step=self.kind, maker="rule",
                                              passages=[passage], evidence="", tags=("unanswerable",))

    def _elsewhere(self, context: MakeContext) -> Iterator[tuple[Split, Example]]:
        """A document asked about a heading of another document of which it says nothing."""
        words, language, places = phrases(context.task.language), context.task.language, Places(context)
        if words is None:
            context.notes["elsewhere_language"] = f"no wording for '{language}'"
            return
        texts = {
            document.id: set(content(f"{document.title} {document.text}", language)) for document in context.documents
        }
        homes: dict[str, dict[Split, str]] = {}
        for passage in context.passages:
            homes.setdefault(passage.document, {}).setdefault(context.split_of(passage.id), passage.id)
        by_id = {passage.id: passage for passage in context.passages}
        topics = [(document, section) for document in context.documents for section in sections(document)
                  if is_asked(section) and _is_topic(section.heading, language)
                  and key(section.heading) not in (key(document.title), key(Wording(document, language).title))]
        for document, section in sorted(topics, key=lambda t: digest(str(context.seed), t[0].path, t[1].heading)):
            found = places.find(document, section.start, section.end, section.text()[:400])
            if not found:
                continue
            split = context.split_of(found[0].id)
            asked = self._other(document, section, split, context, texts, homes)
            if asked is None:
                continue
            wording = Wording(asked, language)
            question = words.about(Wording(document, language).heading(section.heading), wording.named, "", 0)
            yield (
                split,
                chat_example(
                    context,
                    question,
                    context.task.refusal,
                    step=self.kind,
                    maker="rule",
                    evidence="",
                    passages=[by_id[homes[asked.id][split]]],
                    tags=("unanswerable",),
                ),
            )

    @staticmethod
    def _other(document: Document, section: Section, split: Split, context: MakeContext, texts: Mapping[str, set[str]],
               homes: Mapping[str, Mapping[Split, str]]) -> Document | None:
        """A document with passages in the split that has not one content word of the heading."""
        topic = set(content(section.heading, context.task.language))
        fit = [other for other in context.documents
               if other.id != document.id and split in homes.get(other.id, {}) and not topic & texts[other.id]]
        return min(fit, key=lambda other: digest(str(context.seed), other.path, section.heading), default=None)

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {}


_NO_TOPIC = word_set(
    "every each how what when who where which why whose if before after during while from until since not no yes a an "
    "the my your our jede jeder jedes wie was wann wer wo warum wenn bevor nach vor während")


def _is_topic(heading: str, language: str) -> bool:
    """Whether a heading names a thing that any document could treat: no clause, no lone word, no sentence."""
    found = heading.split()
    return (found[0].lower() not in _NO_TOPIC and 2 <= len(found) <= 6 and len(set(content(heading, language))) >= 2
            and not re.search(r"[:;?!.,\"]|\d", heading))


_CODE = re.compile(r"\b(?:[A-Z]{1,5}[-\s]?\d{2,6}[A-Z]?|[A-Z]{2,5}-\d{1,6})\b")


def _other_code(code: str, exists: Callable[[str], bool], salt: str) -> str | None:
    """The same pattern with other digits, not in the corpus: SP-1010 → SP-7362."""
    width = len(re.findall(r"\d", code))
    for attempt in range(50):
        digits = iter(str(int(digest(salt, code, str(attempt)), 16) % 10**width).zfill(width))
        other = re.sub(r"\d", lambda _: next(digits), code)  # noqa: B023  # used at once
        if other != code and not re.search(r"(?<!\d)0", other) and not exists(other):
            return other
    return None


def _ranked(examples: Sequence[Example], seed: int) -> list[Example]:
    return sorted(examples, key=lambda example: digest(str(seed), example.id))
