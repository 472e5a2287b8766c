"""Votes of a chat model on this machine that is told the names of the classes and nothing else.

The model's likelihood of every name as the answer is compared, so that it cannot answer beside the point. A model
prefers some names whatever the text says; what it says of texts without content is divided out (contextual calibration,
Zhao et al. 2021, "Calibrate Before Use").
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from luthier.plugins import register
from luthier.prepare.weak import _asking
from luthier.prepare.weak.base import LABELERS, LabelerSpec, Source, Vote, WeakContext, readable
from luthier.store import canonical
from luthier.types import digest

CONTENT_FREE = ("N/A", "[MASK]", "...")
"""Texts that say nothing, whose answers show what the model prefers anyway."""


@register(LABELERS, "zero_shot")
class ZeroShotLabeler(LabelerSpec):
    """Ask a chat model on this machine: the likelihood of each label's name as the answer, after calibration. Time
    grows with rows × labels; small models are weak at it, and the label model will find that out."""

    model: str = "starter:chat"
    """Chat model source: `starter:chat`, a folder, a GGUF file or `hub:owner/name`."""
    instruction: str = "Which of these classes does the text belong to?"
    """What the model is asked, before the list of classes and the text."""
    calibrated: bool = True
    """Divide out what the model answers to texts without content."""
    min_probability: float = Field(default=0.0, ge=0, le=1)
    """Below this probability of the likeliest class it says nothing."""
    max_rows: int | None = Field(default=None, ge=1)
    """Most rows that it is asked about, labelled ones first, the others chosen by a hash; null asks about all."""
    max_chars: int = Field(default=2000, ge=20)
    """A longer text is cut to this many characters."""

    made_by: ClassVar = "teacher"

    def inputs(self, root: Path) -> Mapping[str, str]:
        from luthier.models.sources import resolve

        return {"model": resolve(self.model, root=root).fingerprint, "asking": str(_asking.VERSION)}

    def vote(self, context: WeakContext) -> Sequence[Source]:
        at = _asking.chosen(context.rows, self.max_rows, context.seed)
        chances = self.chances([context.rows[one].text for one in at], context)
        votes: list[Vote] = [()] * len(context.rows)
        for one, row in zip(at, chances):
            top = int(row.argmax())
            if row[top] >= self.min_probability:
                votes[one] = (context.labels[top],)
        return [Source(self.name or self.kind, votes)]

    def chances(self, texts: Sequence[str], context: WeakContext) -> np.ndarray:
        """float64 [texts, labels]: calibrated probabilities."""
        free = len(CONTENT_FREE) if self.calibrated else 0
        log = self._scores([*CONTENT_FREE[:free], *texts], context)
        chances = _softmax(log)
        return calibrate(chances[free:], chances[:free]) if free else chances

    def _scores(self, texts: Sequence[str], context: WeakContext) -> np.ndarray:
        """Mean log probability of each label's tokens as the answer, remembered by all that it depends on."""
        cache = context.store.cache("zero-shot")
        asked = [_asking.question(self.instruction, context.labels, context.descriptions, text,
                                  max_chars=self.max_chars) for text in texts]
        base = canonical([dict(self.inputs(context.root)), list(context.labels)])
        keys = [digest("zero-shot", base, prompt[0].content, length=40) for prompt in asked]
        found: dict[str, list[float]] = {}
        for key in dict.fromkeys(keys):
            kept = cache.get(key)
            if kept is not None:
                found[key] = json.loads(kept)
        missing = {key: prompt for key, prompt in zip(keys, asked) if key not in found}
        if missing:
            from luthier.models.generate import LocalChat, encode_prompt

            chat: Any = LocalChat.load(self.model, root=context.root)
            endings = [chat.tokenizer(readable(label), add_special_tokens=False)["input_ids"]
                       for label in context.labels]
            prompts = [encode_prompt(chat.tokenizer, prompt) for prompt in missing.values()]
            with context.progress.track("zero-shot", len(missing), unit="rows") as bar:
                for key, score in zip(missing, scores(chat.module, prompts, endings)):
                    found[key] = [float(value) for value in score]
                    cache.put(key, json.dumps(found[key]).encode())
                    bar.advance(1)
        return np.array([found[key] for key in keys])


def calibrate(chances: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Probabilities with what texts without content get divided out: with W = diag(p_cf)⁻¹ and b = 0 of Zhao et al."""
    found = chances / np.maximum(empty.mean(0), 1e-9)
    return found / found.sum(1, keepdims=True)


def _softmax(log: np.ndarray) -> np.ndarray:
    found = np.exp(log - log.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


def scores(module: Any, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> Any:
    """Yield float [endings] for each prompt: the mean log probability of every ending's tokens after it.

    What all prompts begin with is computed once. All endings stand behind the prompt in one pass, and a mask keeps them
    from seeing each other; a model that does not heed such a mask (looked at on the first prompt) is asked ending by
    ending.
    """
    import copy

    import torch

    shared = len(prompts[0]) - 1
    for prompt in prompts:
        shared = min(shared, len(prompt) - 1, next((at for at, (one, other) in enumerate(zip(prompt, prompts[0]))
                                                    if one != other), len(prompt) - 1))
    device = next(module.parameters()).device
    module.eval()
    with torch.inference_mode():
        kept = None
        if shared:
            ids = torch.tensor([list(prompts[0][:shared])], device=device)
            kept = module(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        heeds = None
        for prompt in prompts:
            found = None
            if heeds is not False and kept is not None:
                found = _together(module, copy.deepcopy(kept), shared, prompt, endings)
                if heeds is None:
                    heeds = bool(np.abs(found - _apart(module, prompt, endings)).max() < 0.15)  # bfloat16 rounds
            yield found if heeds and found is not None else _apart(module, prompt, endings)


def _together(module: Any, cache: Any, shared: int, prompt: Sequence[int], endings: Sequence[Sequence[int]]
              ) -> np.ndarray:
    import torch

    own = list(prompt[shared:])
    ids, positions, of = [*own], [*range(shared, len(prompt))], [-1] * len(own)
    begins = []
    for number, ending in enumerate(endings):
        begins.append(len(ids))
        ids += ending[:-1]
        positions += range(len(prompt), len(prompt) + len(ending) - 1)
        of += [number] * (len(ending) - 1)
    device = next(module.parameters()).device
    group = torch.tensor(of, device=device)
    place = torch.arange(len(ids), device=device)
    sees = (place[None, :] <= place[:, None]) & ((group[None, :] == -1) | (group[None, :] == group[:, None]))
    mask = torch.cat([torch.ones(len(ids), shared, dtype=torch.bool, device=device), sees], 1)
    dtype = next(module.parameters()).dtype
    bias = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill(~mask, torch.finfo(dtype).min)
    logits = module(input_ids=torch.tensor([ids], device=device), past_key_values=cache, use_cache=True,
                    position_ids=torch.tensor([positions], device=device), attention_mask=bias[None, None],
                    logits_to_keep=len(ids) - len(own) + 1).logits[0].float().log_softmax(-1)
    offset = len(own) - 1
    found = []
    for begin, ending in zip(begins, endings):
        total = float(logits[0, ending[0]])
        total += sum(float(logits[begin - offset + at, token]) for at, token in enumerate(ending[1:]))
        found.append(total / len(ending))
    return np.array(found)


def _apart(module: Any, prompt: Sequence[int], endings: Sequence[Sequence[int]]) -> np.ndarray:
    import torch

    device = next(module.parameters()).device
    found = []
    for ending in endings:
        ids = torch.tensor([[*prompt, *ending[:-1]]], device=device)
        logits = module(input_ids=ids, use_cache=False, logits_to_keep=len(ending)).logits[0].float().log_softmax(-1)
        found.append(sum(float(logits[at, token]) for at, token in enumerate(ending)) / len(ending))
    return np.array(found)
