"""Request bodies of the OpenAI API, as far as they are honoured; everything else is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from luthier.serve.errors import ApiError, unsupported
from luthier.types import Message

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "echo": (False,), "suffix": ("",), "logprobs": (False, 0), "top_logprobs": (0,),
    "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},), "tools": ([],), "functions": ([],),
    "tool_choice": ("none", "auto"), "function_call": ("none", "auto"), "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},), "modalities": (["text"],), "audio": (), "prediction": (),
    "reasoning_effort": (), "verbosity": (), "web_search_options": (), "store": (False,), "top_k": (),
    "repetition_penalty": (1,), "guided_json": (),
}
"""Known parameters that this server cannot do, with the values that ask for nothing; null is always one."""

WHY = {
    "n": "one answer a request; send several requests, they are computed together",
    "best_of": "one answer a request", "tools": "the models served here call no tools",
    "functions": "the models served here call no functions", "response_format": "answers are plain text",
    "store": "this server keeps no conversations",
}

IGNORED = {"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"}
"""Bookkeeping for OpenAI's own service, without effect on an answer."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Part(_Body):
    model_config = ConfigDict(extra="ignore")  # parts of other types are refused by their type, not by their fields

    type: str
    text: str = ""


class Turn(_Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    name: str | None = None
    refusal: str | None = None

    def message(self, at: int) -> Message:
        """As the chat template knows it; `developer` is OpenAI's newer word for `system`."""
        content = self.content
        if not isinstance(content, str):
            other = next((part.type for part in content if part.type not in ("text", "refusal")), None)
            if other is not None:
                raise ApiError(400, f"messages.{at}.content: parts of type '{other}' are not supported; the models "
                               "served here read text", param=f"messages.{at}.content", code="unsupported_content")
            content = "\n".join(part.text for part in content)
        return Message(role="system" if self.role == "developer" else self.role, content=content)


class StreamOptions(_Body):
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None  # padding against traffic analysis: not built, so refused


Stop = Annotated[str, Field(min_length=1, max_length=200)]


class _Sampling(_Body):
    model: str
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(_Sampling):
    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    def conversation(self) -> list[Message]:
        messages = [turn.message(at) for at, turn in enumerate(self.messages)]
        if messages[-1].role != "user":
            raise ApiError(400, "The last message must be the user's.", param="messages", code="invalid_value")
        return messages


class CompletionRequest(_Sampling):
    prompt: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]

    def text(self) -> str:
        if isinstance(self.prompt, str):
            return self.prompt
        if len(self.prompt) != 1:
            raise unsupported("prompt", "one prompt a request; send several requests, they are computed together")
        return self.prompt[0]


class EmbeddingRequest(_Body):
    model: str
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(default=None, ge=1)

    def texts(self) -> list[str]:
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise ApiError(400, "input: one or more texts are needed, none of them empty; token ids are not accepted",
                           param="input", code="invalid_value")
        return [str(text) for text in texts]


def useful(data: Any) -> dict[str, Any]:
    """A body without the bookkeeping fields."""
    if not isinstance(data, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
    return {name: value for name, value in data.items() if name not in IGNORED}


def screen(data: Any) -> dict[str, Any]:
    """Take out what has no effect and refuse what cannot be done; the rest is for the strict model above."""
    kept: dict[str, Any] = {}
    for name, value in useful(data).items():
        if name in NEUTRAL:
            if value is not None and not any(value == neutral and type(value) in (type(neutral), float)
                                             for neutral in NEUTRAL[name]):
                raise unsupported(name, WHY.get(name, "leave it out"))
            continue
        kept[name] = value
    return kept
