"""Votes of a large model behind an address that the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from luthier.plugins import register
from luthier.prepare.weak import _asking
from luthier.prepare.weak.base import LABELERS, LabelerSpec, Source, Vote, WeakContext
from luthier.store import canonical
from luthier.types import Message, digest

_BATCH = 64


@register(LABELERS, "teacher")
class Teacher(LabelerSpec):
    """Ask a model at an OpenAI-compatible endpoint for the class of each row. The rows' texts are sent there. Answers
    are kept, so that a stopped run goes on; an answer that names no class is no vote."""

    base_url: str = Field(min_length=1)
    """Address of the endpoint, such as http://localhost:8000/v1. The texts are sent to it."""
    model: str = Field(min_length=1)
    """Name of the model at the endpoint."""
    api_key_env: str | None = None
    """Environment variable that holds the endpoint's key; null for an endpoint without one."""
    instruction: str = "Which of these classes does the text belong to?"
    """What the model is asked, before the list of classes and the text."""
    max_rows: int | None = Field(default=1000, ge=1)
    """Most rows that are sent, labelled ones first, the others chosen by a hash; null sends all."""
    max_chars: int = Field(default=8000, ge=20)
    """A longer text is cut to this many characters."""
    timeout_s: float = Field(default=120, gt=0)
    """Longest wait for one reply, in seconds."""
    parallel: int = Field(default=4, ge=1, le=64)
    """Requests at a time."""

    made_by: ClassVar = "teacher"

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {"teacher": f"{self.base_url.rstrip('/')} {self.model}", "asking": str(_asking.VERSION)}

    def vote(self, context: WeakContext) -> Sequence[Source]:
        """ModelError where the endpoint cannot be asked."""
        at = _asking.chosen(context.rows, self.max_rows, context.seed)
        prompts = [_asking.question(self.instruction, context.labels, context.descriptions, context.rows[one].text,
                                    max_chars=self.max_chars, none=True) for one in at]
        votes: list[Vote] = [()] * len(context.rows)
        for one, answer in zip(at, self._answers(prompts, context)):
            label = _asking.named(answer, context.labels)
            votes[one] = (label,) if label else ()
        return [Source(self.name or self.kind, votes)]

    def _answers(self, prompts: Sequence[tuple[Message, ...]], context: WeakContext) -> list[str]:
        cache = context.store.cache("teacher-labels")
        base = canonical(dict(self.inputs(context.root)))
        keys = [digest("teacher-label", base, prompt[0].content, length=40) for prompt in prompts]
        missing = [(key, prompt) for key, prompt in dict(zip(keys, prompts)).items() if cache.get(key) is None]
        if missing:
            from luthier.models.endpoint import EndpointChat

            chat = EndpointChat(self.base_url, self.model, self.api_key_env, timeout_s=self.timeout_s,
                                parallel=self.parallel)
            for begin in range(0, len(missing), _BATCH):
                batch = missing[begin : begin + _BATCH]
                answers = chat.complete([prompt for _, prompt in batch], max_new_tokens=32, progress=context.progress,
                                        what="ask the teacher")
                for (key, _), answer in zip(batch, answers):
                    cache.put(key, answer.text.encode("utf-8", "surrogatepass"))
        return [(cache.get(key) or b"").decode("utf-8", "surrogatepass") for key in keys]
