"""From a conversation and a model id to a prompt with numbered passages, in the same words that were evaluated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier.errors import UsageError
from luthier.index.base import Retriever
from luthier.release.folder import ReleaseRecord
from luthier.release.gate import TUNED, System
from luthier.types import Message, Passage

_CITED = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What goes to the model, and the passages that stand in it."""

    messages: tuple[Message, ...]
    passages: tuple[Passage, ...] = ()
    """Number [i + 1] in the prompt is the i-th."""

    def citations(self, answer: str) -> list[dict[str, Any]]:
        """The passages as the API tells them; `cited`: whether the answer names the number."""
        named = {int(number) for group in _CITED.findall(answer) for number in group.split(",")}
        return [{"n": n, "path": passage.path, "title": passage.title, "page": passage.page, "line": passage.line,
                 "heading": list(passage.heading), "passage": passage.id, "document": passage.document,
                 "text": passage.text, "cited": n in named}
                for n, passage in enumerate(self.passages, start=1)]


class Assistant:
    """A release's systems by model id: `name` is the verdict's choice, `name:tuned-retrieval` asks for one system."""

    def __init__(self, record: ReleaseRecord, retriever: Retriever | None, *, offered: Sequence[System] | None = None):
        """`offered` limits what can be asked for; None offers every system of the release."""
        missing = [system for system in offered or () if system not in record.systems]
        if missing:
            raise UsageError(f"serve.systems: release {record.label} has no {', '.join(missing)}; "
                             f"it offers {', '.join(record.systems)}")
        self.record, self.retriever = record, retriever
        systems: list[System] = [system for system in record.systems if offered is None or system in offered]
        default: System = record.choice if record.choice in systems else systems[0]
        self.models: dict[str, System] = {record.name: default}
        for system in systems:
            self.models[f"{record.name}:{system.replace('_', '-')}"] = system

    @property
    def default(self) -> str:
        return self.record.name

    @staticmethod
    def weights(system: System) -> str:
        """Which weights a system runs on: `base` or `tuned`."""
        return "tuned" if system in TUNED else "base"

    @staticmethod
    def retrieves(system: System) -> bool:
        return "retrieval" in system

    def prompt(self, system: System, conversation: Sequence[Message]) -> Prompt:
        """The task's system message leads unless the conversation brings its own; the last question is asked over
        what retrieval finds for it, earlier turns stay in front."""
        task = self.record.task
        messages = tuple(conversation)
        if task.system and messages[0].role != "system":
            messages = (Message(role="system", content=task.system), *messages)
        if not self.retrieves(system):
            return Prompt(messages=messages)
        assert self.retriever is not None
        rag = self.record.rag
        question = messages[-1].content
        hits = self.retriever.search([question], rag.top_k)[0]
        passages = tuple(rag.fit([hit.passage for hit in hits]))
        lead, history = (messages[:1], messages[1:-1]) if messages[0].role == "system" else ((), messages[:-1])
        asked = rag.messages(question, passages, lead[0].content if lead else None, refusal=task.refusal)
        return Prompt(messages=(*asked[:-1], *history, asked[-1]), passages=passages)
