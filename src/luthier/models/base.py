"""What every stage means by "something that answers prompts": the starter here, or an endpoint elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from luthier.progress import Progress, Silent
from luthier.types import Message


@dataclass(frozen=True)
class Completion:
    """One answer."""

    text: str
    """Decoded without the stop token and other special tokens; not stripped of white space."""
    num_prompt_tokens: int
    """Tokens of the prompt with its chat template; 0 where an endpoint does not say."""
    num_tokens: int
    """Tokens generated, the stop token included; 0 where an endpoint does not say."""
    finish: Literal["stop", "length"]
    """`stop`: the model ended its turn; `length`: it was cut at the limit."""
    seconds: float
    """From the start of work on this prompt to its last token; prompts that share a batch share the time."""
    tokens: tuple[int, ...] = ()
    """The generated token ids, the stop token included; empty for an endpoint."""


class Chat(Protocol):
    """Anything that answers prompts: `LocalChat`, `EndpointChat`, or a fake in a test."""

    name: str
    """The model's name, for people and for lineage."""

    def complete(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, temperature: float = 0.0,
                 top_p: float = 1.0, seed: int = 0, progress: Progress = Silent(),
                 what: str = "generate") -> list[Completion]:
        """Answer every prompt, in order.

        `temperature` 0 is greedy. Prompt i samples with seed + i, so an answer depends on its place in the list but
        not on what else is in the batch. Raises ModelError with one sentence.
        """
        ...
