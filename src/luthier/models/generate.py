"""Batched generation with a local model: the one way text comes out of a model in Luthier."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import ModelError, need
from luthier.models.base import Completion
from luthier.models.sources import SourceFiles, resolve
from luthier.progress import Progress, Silent
from luthier.types import Message

if TYPE_CHECKING:
    import torch

PACK_FROM = 128  # tokens to generate from which packing the weights (the time of a few decode steps) pays
DTYPES = ("auto", "float32", "bfloat16")


def compute_dtype(name: str) -> torch.dtype:
    """`float32`, `bfloat16`, or `auto`: bfloat16 where the processor or accelerator computes in it, else float32.

    On a CPU without such instructions bfloat16 is emulated and slower than float32.
    """
    torch = need("torch", extra="train")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
        return torch.bfloat16 if native else torch.float32
    if name not in DTYPES:
        raise ModelError(f"unknown dtype '{name}'; choose one of: {', '.join(DTYPES)}")
    return getattr(torch, name)


def stop_tokens(module: Any, tokenizer: Any) -> tuple[int, ...]:
    """The ids that end an answer: the tokenizer's end token and those of the model's own configuration, sorted."""
    found: set[int] = set()
    for holder in (tokenizer, getattr(module, "generation_config", None), getattr(module, "config", None)):
        ids = getattr(holder, "eos_token_id", None)
        found.update([] if ids is None else [ids] if isinstance(ids, int) else ids)
    return tuple(sorted(found))


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation in the model's own chat template, ready for the assistant's answer."""
    if not messages:
        raise ModelError("a prompt needs at least one message")
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError("this model has no chat template, so it cannot be asked questions; use an instruction-tuned "
                         "model, or let `adapt` give it a template")
    import jinja2

    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except (jinja2.TemplateError, ValueError) as error:
        raise ModelError(f"the model's chat template refuses this conversation: {error}") from None
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def decode_answer(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Text of generated tokens without special tokens, character for character (no guessing about spaces)."""
    return tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def context_length(module: Any) -> int | None:
    """Tokens of prompt and answer that the model can hold; None where its configuration does not say."""
    config = module.config.get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)


def load_module(folder: Path, *, dtype: torch.dtype | str = "auto", device: str | None = None) -> tuple[Any, Any]:
    """Model (eval mode) and tokenizer from a Hugging Face folder, quietly and without running its code."""
    torch = need("torch", extra="train")
    transformers = need("transformers", extra="train")
    transformers.utils.logging.disable_progress_bar()
    chosen = compute_dtype(dtype) if isinstance(dtype, str) else dtype
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        module = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=chosen, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the model in {folder} cannot be loaded: {reason}") from None
    return module.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), tokenizer


class LocalChat:
    """Answers prompts with a model in this process, many at a time.

    Prompts run longest first through a `Batcher`, so short answers make room at once. In float32 the answers are
    those of one-at-a-time greedy decoding as far as float arithmetic allows (sums of other shapes differ in the last
    bits, which can flip two equally likely tokens). The same call gives the same answers again.
    """

    def __init__(self, module: Any, tokenizer: Any, stop_ids: Iterable[int] | None = None, *,
                 dtype: torch.dtype | str | None = None, name: str = "", max_rows: int = 16,
                 max_cache_tokens: int = 65_536):
        """`dtype` None keeps the module's own; another one makes a converted copy and leaves the module alone."""
        wanted = compute_dtype(dtype) if isinstance(dtype, str) else dtype
        if wanted is not None and next(module.parameters()).dtype != wanted:
            import copy

            module = copy.deepcopy(module).to(wanted)
        self.module, self.tokenizer = module, tokenizer
        self.stop_ids = tuple(stop_ids) if stop_ids is not None else stop_tokens(module, tokenizer)
        self.name = name or getattr(module.config, "_name_or_path", "") or type(module).__name__
        self.max_rows, self.max_cache_tokens = max_rows, max_cache_tokens

    @classmethod
    def load(cls, source: str | SourceFiles | Path, *, root: Path | None = None,
             dtype: str = "auto", **options: Any) -> LocalChat:
        """Open a model source (`starter:chat`, a folder, a GGUF file, `hub:owner/name`)."""
        if isinstance(source, Path):
            source = str(source)
        files = source if isinstance(source, SourceFiles) else resolve(source, root=root)
        module, tokenizer = load_module(files.folder, dtype=dtype)
        return cls(module, tokenizer, name=files.name, **options)

    def complete(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, temperature: float = 0.0,
                 top_p: float = 1.0, seed: int = 0, progress: Progress = Silent(),
                 what: str = "generate") -> list[Completion]:
        """See `Chat.complete`. A prompt that leaves no room for an answer in the model's context is a ModelError."""
        return self.complete_tokens([encode_prompt(self.tokenizer, prompt) for prompt in prompts],
                                    max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed,
                                    progress=progress, what=what)

    def complete_tokens(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, temperature: float = 0.0,
                        top_p: float = 1.0, seed: int = 0, progress: Progress = Silent(),
                        what: str = "generate") -> list[Completion]:
        """The same for prompts that are token ids already (any text, with or without a chat template)."""
        from luthier.models.decode import Batcher, Generation
        from luthier.models.pack import packed

        if max_new_tokens < 1:
            raise ModelError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
        room = context_length(self.module)
        asked = []
        for number, prompt in enumerate(prompts):
            left = max_new_tokens if room is None else min(max_new_tokens, room - len(prompt))
            if not prompt or left < 1:
                raise ModelError(f"prompt {number + 1} of {len(prompts)} has {len(prompt)} tokens; "
                                 f"the model '{self.name}' takes 1 to {room - 1 if room else 'any number'}")
            asked.append(Generation(prompt=prompt, max_new_tokens=left, stop_ids=frozenset(self.stop_ids),
                                    temperature=temperature, top_p=top_p, seed=seed + number))
        batcher = Batcher(self.module, max_rows=self.max_rows, max_cache_tokens=self.max_cache_tokens)
        for generation in sorted(asked, key=lambda one: -len(one.prompt)):  # stable: equal lengths stay together
            batcher.add(generation)
        began: dict[int, float] = {}
        ended: dict[int, float] = {}
        worth = max_new_tokens * len(asked) >= PACK_FROM
        with (packed(self.module) if worth else contextlib.nullcontext(), _evaluating(self.module),
              progress.track(what, len(prompts), unit="answers") as bar):
            while batcher.busy:
                tick = time.monotonic()
                for generation in batcher.tick():
                    began.setdefault(id(generation), tick)
                    if generation.finish is not None:
                        ended[id(generation)] = time.monotonic()
                        bar.advance(1)
        return [self._completion(one, ended[id(one)] - began[id(one)]) for one in asked]

    def _completion(self, generation: Any, seconds: float) -> Completion:
        kept = generation.tokens[:-1] if generation.finish == "stop" else generation.tokens
        return Completion(text=decode_answer(self.tokenizer, kept),
                          num_prompt_tokens=len(generation.prompt), num_tokens=len(generation.tokens),
                          finish=generation.finish, seconds=seconds, tokens=tuple(generation.tokens))


class _evaluating:
    """Dropout off while generating; every submodule's mode is put back, so generation inside training is harmless."""

    def __init__(self, module: Any):
        self.module = module

    def __enter__(self) -> None:
        self.training = [part for part in self.module.modules() if part.training]
        self.module.eval()

    def __exit__(self, *error: Any) -> None:
        for part in self.training:
            part.training = True


