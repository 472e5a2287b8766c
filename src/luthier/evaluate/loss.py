"""Token loss of given texts under a model: what answer loss, retention and choice questions are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from luthier.progress import Progress, Silent

BATCH_TOKENS = 2048
"""Most tokens (padding included) in one forward pass: the logits of 2048 tokens of a 49,152-word vocabulary take
400 MB in float32, and larger batches are no faster on a CPU."""


class Loss(NamedTuple):
    """Summed loss of the tokens that were asked for."""

    sum: float
    """Nats."""
    tokens: int


class Row(NamedTuple):
    """A tokenised text and which of its tokens are scored (`mask[i]` belongs to `ids[i]`; the first never counts)."""

    ids: Sequence[int]
    mask: Sequence[int | bool]


def last_run(mask: Sequence[int | bool]) -> list[bool]:
    """Only the last unbroken run of a loss mask: the final answer, where earlier assistant turns are masked in too."""
    kept = [False] * len(mask)
    end = next((i for i in range(len(mask) - 1, -1, -1) if mask[i]), -1)
    while end >= 0 and mask[end]:
        kept[end] = True
        end -= 1
    return kept


def token_losses(module: Any, rows: Sequence[Row], *, progress: Progress = Silent(),
                 what: str = "loss") -> list[Loss]:
    """Loss of every row, in order. Rows that the model's context cannot hold lose their first tokens (prompt side).

    Rows of similar length share a pass, padded on the right without an attention mask: a causal model's real tokens
    never see what follows them. Logits are computed where some row of the batch is scored, in float32.
    """
    import inspect

    import torch

    from luthier.models.generate import context_length

    room = context_length(module)
    cut = [Row(row.ids[-room:], row.mask[-room:]) if room and len(row.ids) > room else row for row in rows]
    order = sorted(range(len(cut)), key=lambda i: -len(cut[i].ids))
    losses: list[Loss] = [Loss(0.0, 0)] * len(cut)
    selects = "logits_to_keep" in inspect.signature(_inner(module).forward).parameters
    training = module.training
    module.eval()
    device = next(module.parameters()).device
    try:
        with torch.inference_mode(), progress.track(what, len(cut), unit="texts") as bar:
            at = 0
            while at < len(order):
                longest = max(len(cut[order[at]].ids), 1)
                batch = order[at : at + max(1, BATCH_TOKENS // longest)]
                at += len(batch)
                for i, loss in zip(batch, _batch(module, [cut[i] for i in batch], selects, device), strict=True):
                    losses[i] = loss
                bar.advance(len(batch))
    finally:
        module.train(training)
    return losses


def _inner(module: Any) -> Any:
    """The transformers model inside a PEFT wrapper, whose own forward takes anything."""
    return module.get_base_model() if hasattr(module, "get_base_model") else module


def _batch(module: Any, rows: Sequence[Row], selects: bool, device: Any) -> list[Loss]:
    import torch

    longest = max(len(row.ids) for row in rows)
    ids_BT = torch.zeros((len(rows), longest), dtype=torch.long)
    scored_BT = torch.zeros((len(rows), longest), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row.ids)] = torch.as_tensor(list(row.ids))
        scored_BT[i, : len(row.ids)] = torch.as_tensor([bool(one) for one in row.mask])
    scored_BT[:, 0] = False
    where = scored_BT.any(0).nonzero().flatten()  # token positions that some row scores; predicted one step before
    if not len(where):
        return [Loss(0.0, 0) for _ in rows]
    keep = (where - 1).to(device)
    options = {"logits_to_keep": keep} if selects else {}
    logits = module(input_ids=ids_BT.to(device), use_cache=False, **options).logits
    logits_BKV = logits if selects else logits[:, keep]
    target_BK = ids_BT[:, where].to(device)
    picked_BK = torch.stack([  # row by row: the float32 copy of the logits is the largest tensor here
        row.float().log_softmax(-1).gather(-1, target[:, None])[:, 0]
        for row, target in zip(logits_BKV, target_BK, strict=True)
    ])
    mask_BK = scored_BT[:, where].to(device)
    sums = -(picked_BK.double() * mask_BK).sum(-1)
    return [Loss(float(total), int(count)) for total, count in zip(sums, mask_BK.sum(-1), strict=True)]
