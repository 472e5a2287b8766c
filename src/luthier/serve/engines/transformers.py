"""The reference engine: transformers models in this process, requests joining and leaving the batch between tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.plugins import register
from luthier.serve.engines.base import ENGINES, Engine
from luthier.spec import Spec


@register(ENGINES, "transformers")
class Transformers(Spec):
    """Any Hugging Face causal LM, with continuous batching on one worker thread."""

    dtype: Literal["release", "float32", "bfloat16"] = "release"
    """Number format that the models compute in; `release` is the one that the release was tested in. bfloat16 is
    about twice as fast where the processor has it, and a few answers will differ from the tested ones."""
    threads: int | None = Field(default=None, ge=1)
    """Processor threads of the model; null leaves it to torch (all cores)."""
    max_running: int = Field(default=8, ge=1)
    """Requests decoded together; each costs memory for its cache."""
    max_cache_tokens: int = Field(default=32_768, ge=256)
    """Bound on running requests × longest of them (prompt and answer, in tokens): the memory of the cache."""
    prefill_tokens: int = Field(default=256, ge=16)
    """Prompt tokens worked through between two tokens of the running answers: smaller keeps streams smooth while a
    long prompt comes in, larger answers that prompt sooner."""

    def open(self) -> Engine:
        """An engine with nothing loaded yet."""
        from luthier.serve.engines._transformers import TransformersEngine

        return TransformersEngine(self)
