"""The engine seam: what the server asks of whatever runs the model.

`transformers` is the reference. Faster engines (OpenVINO GenAI, llama.cpp) dock here: one file with a spec marked
`@register(ENGINES, "name")` whose `open()` returns an `Engine`. A release is tested as it stands, so an engine that
computes otherwise (quantised, another number format) must be evaluated as a model of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from luthier.plugins import Seam
from luthier.types import Message

ENGINES = Seam("engine", package="luthier.serve.engines")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A model that an engine shall hold."""

    folder: Path
    """Hugging Face format."""
    template: str | None
    """Chat template it was tested with; None for a model that continues plain text."""
    stop_ids: tuple[int, ...]
    dtype: str
    """Number format that the release was tested in: float32 or bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one request is decoded."""

    max_new_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float
    seed: int
    stop: tuple[str, ...] = ()
    """Generation ends before the first of these in the text."""
    timeout_s: float
    """Seconds from submission, waiting included, after which the request fails."""


@dataclass(frozen=True)
class Piece:
    """A step of an answer."""

    text: str
    """New text; may be empty while a character or a possible stop string is incomplete."""
    num_tokens: int
    """Tokens generated so far, the stop token included."""
    finish: Literal["stop", "length"] | None = None
    """Set on the last piece."""


class TimedOut(Exception):
    """The request's time is up; its place in the batch is free again."""


class EngineFailed(Exception):
    """The engine broke on this request's batch (out of memory, say); it goes on with the next ones."""


class Engine(Protocol):
    """Holds models by name and answers many requests at once. All methods but `load` are called in the event loop."""

    def load(self, models: Mapping[str, Weights]) -> None:
        """Bring the models into memory; blocks. ModelError when one cannot be loaded."""

    def encode(self, name: str, prompt: Sequence[Message] | str) -> list[int]:
        """Token ids of a conversation (in the model's template) or of plain text. ModelError when refused."""
        ...

    def context_length(self, name: str) -> int | None:
        """Tokens of prompt and answer that the model can hold; None where it does not say."""
        ...

    def stream(self, name: str, prompt: Sequence[int], settings: Settings) -> AsyncIterator[Piece]:
        """The answer as it is made; TimedOut or EngineFailed at any time. How many may wait is the caller's affair.

        Closing the iterator cancels: the request leaves the batch before the next token.
        """
        ...

    @property
    def max_running(self) -> int:
        """Requests that are answered at the same time; more than these wait."""
        ...

    @property
    def num_running(self) -> int:
        """Requests in the batch now."""
        ...

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a place in the batch."""
        ...

    def close(self) -> None:
        """Stop and free the models; requests still open fail with EngineFailed."""


class EngineSpec(Protocol):
    """An engine's settings, as written in `serve.engine`."""

    def open(self) -> Engine:
        """An engine with no model loaded yet."""
        ...
