"""How questions and answers shall sound: the company's voice, its own pairs as models, a frame around the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field, field_validator

from luthier.spec import Spec
from luthier.types import Example, Message, Passage, digest

_FIELD = re.compile(r"\{(\w*)\}")
_FIELDS = ("answer", "source", "title", "heading", "quote")


class Tone(Spec):
    """How what the teacher writes shall sound."""

    voice: str = Field(default="", max_length=1000)
    """What the teacher is told about style, such as "Speak as we. At most two sentences. Formal address."."""
    shots: int = Field(default=3, ge=0, le=8)
    """Pairs of your own (maker `pairs`, named before `synthesize`; training rows only) shown as models of tone and
    length. They are picked by a hash; where there are none, none are shown."""
    frame: str = "{answer}"
    """What the finished answer looks like: text around `{answer}`, with `{source}` (file and page), `{title}`,
    `{heading}` and `{quote}` (the sentence that supports it). It is put on after the checks."""

    @field_validator("frame")
    @classmethod
    def _known(cls, frame: str) -> str:
        found = _FIELD.findall(frame)
        if "answer" not in found:
            raise ValueError("the frame must hold {answer}")
        if unknown := [name for name in found if name not in _FIELDS]:
            known = ", ".join(f"{{{name}}}" for name in _FIELDS)
            raise ValueError(f"unknown field {{{unknown[0]}}}; known: {known}")
        return frame

    def put(self, answer: str, passage: Passage, quote: str) -> str:
        """The answer in its frame. Braces in answers and quotes stay as they are."""
        fields = {"answer": answer, "source": passage.citation, "title": passage.title or passage.path,
                  "heading": passage.heading[-1] if passage.heading else passage.title, "quote": quote}
        return _FIELD.sub(lambda match: fields[match[1]], self.frame).strip()

    def pick(self, examples: Sequence[Example], seed: int) -> list[tuple[str, str]]:
        """The user's own pairs to show: plain training rows of one turn, short enough for a prompt."""
        own = [example for example in examples if example.origin.maker == "human" and example.split == "train"
               and isinstance(example.input, tuple) and example.target and len(example.target) <= 600
               and not {"grounded", "unanswerable"} & set(example.tags) and len(example.question) <= 300
               and sum(isinstance(turn, Message) and turn.role == "user" for turn in example.input) == 1]
        chosen = sorted(own, key=lambda example: digest(str(seed), "shot", example.id))[:self.shots]
        return [(example.question, example.target or "") for example in chosen]
