"""Causal attention for rows of real tokens: several examples in one row, none sees another, nothing is padded.

Registered with transformers as "luthier", so every model that follows its attention interface can use it; the
contract compares it with the model's own before training. On the CPU a batched matmul with grouped heads and a plain
softmax beats torch's flash attention 2.4 to 4.3 times in bfloat16 at 64 to 450 tokens (FACTS, section 8), and keys and
values are not repeated per query head.

Shapes: B rows, H query heads, K key heads, T tokens, D head size; G = H / K queries share a key head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

NAME = "luthier"
LONG = 1024
"""Above this length the T x T probabilities cost more memory than they save time: torch's own kernel is used."""

_lengths: list[Sequence[int] | None] = [None]


@contextlib.contextmanager
def rows_of(lengths: Sequence[int] | None) -> Iterator[None]:
    """Within it, a row of a batch of one holds examples of these lengths; None: each row is one example."""
    _lengths.append(lengths)  # a plain stack and not a context variable: recomputation runs on autograd's own threads
    try:
        yield
    finally:
        _lengths.pop()


def attend(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
           attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
           **kwargs: Any) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query BHTD, key and value BKTD; returns BTHD."""
    for word in ("sliding_window", "softcap", "s_aux"):
        if kwargs.get(word) is not None:
            raise NotImplementedError(f"the luthier attention has no {word}")
    if attention_mask is not None or query.shape[2] != key.shape[2]:
        raise NotImplementedError("the luthier attention takes whole unmasked sequences")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    lengths = _lengths[-1] or [query.shape[2]]
    if query.device.type != "cpu" or dropout > 0 or max(lengths) > LONG:
        return _library(query, key, value, lengths, scale, dropout), None
    return _Rows.apply(query, key, value, tuple(lengths), scale), None


def _library(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scale: float,
             dropout: float) -> torch.Tensor:
    parts = zip(query.split(list(lengths), 2), key.split(list(lengths), 2), value.split(list(lengths), 2))
    done = [F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, dropout_p=dropout,
                                           enable_gqa=q.shape[1] != k.shape[1]) for q, k, v in parts]
    return torch.cat(done, 2).transpose(1, 2)


_masks: dict[tuple[int, int, torch.dtype], torch.Tensor] = {}


def _mask(length: int, group: int, dtype: torch.dtype) -> torch.Tensor:
    """(G·T, T): zero where a query may look, minus infinity above the diagonal."""
    key = (length, group, dtype)
    if key not in _masks:
        if len(_masks) > 256:
            _masks.clear()
        full = torch.full((length, length), float("-inf"), dtype=dtype).triu_(1)
        _masks[key] = full.repeat(group, 1)
    return _masks[key]


class _Rows(torch.autograd.Function):
    """softmax(q k^T · scale + causal) v per example, keeping only the probabilities for the way back."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: tuple[int, ...],
                scale: float) -> torch.Tensor:
        rows, heads, tokens, size = q.shape
        keys = k.shape[1]
        group = heads // keys
        out = q.new_empty(rows, tokens, heads, size)
        kept = []
        start = 0
        for length in lengths:
            part = slice(start, start + length)
            queries = q[:, :, part].reshape(rows * keys, group * length, size)
            scores = torch.baddbmm(_mask(length, group, q.dtype), queries,
                                   k[:, :, part].reshape(rows * keys, length, size).transpose(1, 2), alpha=scale)
            weights = torch.softmax(scores, -1)
            seen = torch.bmm(weights, v[:, :, part].reshape(rows * keys, length, size))
            out[:, part] = seen.view(rows, heads, length, size).transpose(1, 2)
            kept.append(weights)
            start += length
        ctx.save_for_backward(q, k, v, *kept)
        ctx.lengths, ctx.scale = lengths, scale
        return out

    @staticmethod
    def backward(ctx: Any, d_out: torch.Tensor) -> Any:  # type: ignore[override]
        q, k, v, *kept = ctx.saved_tensors
        rows, heads, tokens, size = q.shape
        keys = k.shape[1]
        group = heads // keys
        # laid out like the projections (B, T, heads, D), so that the transpose back to a row costs no copy
        dq = q.new_empty(rows, tokens, heads, size).transpose(1, 2)
        dk = k.new_empty(rows, tokens, keys, size).transpose(1, 2)
        dv = v.new_empty(rows, tokens, keys, size).transpose(1, 2)
        start = 0
        for length, weights in zip(ctx.lengths, kept):
            part = slice(start, start + length)
            d_seen = d_out[:, part].transpose(1, 2).reshape(rows * keys, group * length, size)
            values = v[:, :, part].reshape(rows * keys, length, size)
            dv[:, :, part] = torch.bmm(weights.transpose(1, 2), d_seen).view(rows, keys, length, size)
            d_weights = torch.bmm(d_seen, values.transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(ctx.scale)
            queries = q[:, :, part].reshape(rows * keys, group * length, size)
            dq[:, :, part] = torch.bmm(d_scores, k[:, :, part].reshape(rows * keys, length, size)).view(
                rows, heads, length, size)
            dk[:, :, part] = torch.bmm(d_scores.transpose(1, 2), queries).view(rows, keys, length, size)
            start += length
        return dq, dk, dv, None, None


def register() -> None:
    """Make the name known to transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def fits(module: Any) -> bool:
    """Whether a transformers model is written so that this attention can stand in for its own."""
    config = module.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    return bool(getattr(module, "_supports_attention_backend", False)) and kinds == {"full_attention"} \
        and not windowed and not capped
