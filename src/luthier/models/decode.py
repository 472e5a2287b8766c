"""Iteration-level batching over any Hugging Face causal LM: rows join and leave the running batch between tokens.

The scheduling is Orca's (Yu et al. 2022). We differ in the cache: one buffer a layer, rows aligned at their newest
token (padding on the left), instead of pages; a CPU gains nothing from pages and the model's own attention code runs
unchanged. Prompts are prefilled unpadded (equal lengths together, long ones in pieces) and then merged, so that
padding never takes part in a prefill. Offline generation (`LocalChat`) and the server drive the same `Batcher`.

Letters: B rows, T columns of the cache, V vocabulary, H key/value heads, D head size.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

SPARE = 64  # columns allocated ahead, so that a decode step writes in place instead of copying the whole cache


@dataclass(eq=False)
class Generation:
    """One sequence to generate, and what has become of it. Mutable; owned by the batcher between `add` and its end."""

    prompt: Sequence[int]
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    """Generation ends after one of these; it is the last of `tokens`."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    tokens: list[int] = field(default_factory=list)
    finish: Literal["stop", "length", "cancelled"] | None = None
    _random: torch.Generator | None = None

    def pick(self, logits_V: torch.Tensor) -> int:
        """Greedy, or a draw from the generation's own random stream: independent of the rest of the batch."""
        if self.temperature <= 0:
            return int(logits_V.argmax())
        if self._random is None:
            self._random = torch.Generator().manual_seed(self.seed & 0x7FFF_FFFF_FFFF_FFFF)
        return sample(logits_V, self.temperature, self.top_p, self._random)


def sample(logits_V: torch.Tensor, temperature: float, top_p: float, random: torch.Generator) -> int:
    """Draw from softmax(logits / temperature), cut to the smallest set of tokens whose mass reaches `top_p`."""
    scores_V = logits_V.float().cpu() / max(temperature, 1e-5)
    if top_p >= 1.0:
        return int(torch.multinomial(scores_V.softmax(-1), 1, generator=random))
    probs_V, order_V = scores_V.softmax(-1).sort(descending=True)
    before_V = probs_V.cumsum(-1) - probs_V  # mass of the better tokens; the best one always stays
    kept = int((before_V < top_p).sum().clamp(min=1))
    return int(order_V[torch.multinomial(probs_V[:kept], 1, generator=random)])


class RowLayer(DynamicLayer):
    """Keys and values of one layer in buffers with room to grow; `keys` and `values` are views of the used part."""

    keys: torch.Tensor
    values: torch.Tensor

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._key_room, self._value_room = (part.new_zeros((*part.shape[:2], 0, part.shape[3]))
                                                for part in (key_states, value_states))
            self._used = 0
        used, end = self._used, self._used + key_states.shape[-2]
        if end > self._key_room.shape[-2]:
            self._key_room = _wider(self._key_room, used, end + SPARE)
            self._value_room = _wider(self._value_room, used, end + SPARE)
        self._key_room[:, :, used:end] = key_states
        self._value_room[:, :, used:end] = value_states
        self.keys, self.values, self._used = self._key_room[:, :, :end], self._value_room[:, :, :end], end
        return self.keys, self.values

    def hold(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        """Take over whole buffers of which the first `used` columns are filled."""
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._key_room, self._value_room, self._used = keys, values, used
        self.keys, self.values = keys[:, :, :used], values[:, :, :used]


def _wider(room: torch.Tensor, used: int, columns: int) -> torch.Tensor:
    wider = room.new_zeros((*room.shape[:2], columns, room.shape[3]))
    wider[:, :, :used] = room[:, :, :used]
    return wider


def can_batch(module: Any) -> bool:
    """Whether the model keeps plain key/value caches; recurrent and hybrid models decode one row at a time."""
    layers = DynamicCache(config=module.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


class Rows:
    """Sequences that share one cache: the running batch, or a prompt that is being prefilled."""

    def __init__(self, module: Any, *, plain: bool):
        """`plain` models get the growing cache; others their own kind of cache, for a single row."""
        self.module, self.plain = module, plain
        self.device = next(module.parameters()).device
        self.members: list[Generation] = []
        self.pads: list[int] = []
        self.columns = 0
        self.cache: Cache = Cache(layer_class_to_replicate=RowLayer) if plain else DynamicCache(config=module.config)
        accepted = inspect.signature(_inner(module).forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._takes_keep = "logits_to_keep" in accepted
        self._cache_name = "past_key_values" if "past_key_values" in accepted else "cache_params"  # Mamba's word

    @property
    def row_layers(self) -> list[RowLayer]:
        return cast(list[RowLayer], self.cache.layers)

    @torch.inference_mode()
    def feed(self, tokens_BT: Sequence[Sequence[int]]) -> torch.Tensor:
        """Run the next tokens of every row (as many for each); returns the last position's logits, [B, V] float32."""
        ids_BT = torch.tensor(tokens_BT, device=self.device)
        rows, more = ids_BT.shape
        pads = self.pads or [0] * rows
        extra: dict[str, Any] = {}
        if any(pads):
            pads_B1 = torch.tensor(pads, device=self.device)[:, None]
            columns_T = torch.arange(self.columns + more, device=self.device)[None]
            extra["attention_mask"] = (columns_T >= pads_B1).long()
            positions_BT = columns_T[:, self.columns :] - pads_B1
        else:
            positions_BT = torch.arange(self.columns, self.columns + more, device=self.device)[None].expand(rows, -1)
        if self._takes_positions:
            extra["position_ids"] = positions_BT
        if self._takes_keep:
            extra["logits_to_keep"] = 1
        extra[self._cache_name] = self.cache
        output = self.module(input_ids=ids_BT, use_cache=True, **extra)
        self.columns += more
        return output.logits[:, -1].float()

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Drop every row that is not named, and the columns that then hold only padding."""
        if len(rows) == len(self.members):
            return
        self.members = [self.members[row] for row in rows]
        pads = [self.pads[row] for row in rows]
        first = min(pads, default=0)
        self.pads = [pad - first for pad in pads]
        self.columns = self.columns - first if rows else 0
        if not self.plain or not rows:
            self.cache = Cache(layer_class_to_replicate=RowLayer) if self.plain else DynamicCache(
                config=self.module.config)
            return
        index = torch.tensor(rows, device=self.device)
        for layer in self.row_layers:
            if layer.is_initialized:  # a layer that shares another's keys and values holds none itself
                keys, values = (_take(part, index, first) for part in (layer.keys, layer.values))
                layer.hold(keys, values, self.columns)

    @torch.inference_mode()
    def merge(self, others: Sequence[Rows]) -> None:
        """Take over the rows of `others`, aligned at their newest token."""
        parts = [part for part in (self, *others) if part.members]
        if not self.plain and len(parts) > 1:
            raise ValueError("rows of a model with recurrent state cannot share a cache")
        columns = max(part.columns for part in parts)
        if len(parts) == 1:
            self.cache = parts[0].cache
        else:
            merged = Cache(layer_class_to_replicate=RowLayer)
            for same in zip(*(part.row_layers for part in parts), strict=True):
                layer = RowLayer()
                merged.layers.append(layer)
                if same[0].is_initialized:
                    layer.hold(_stack([one.keys for one in same], columns),
                               _stack([one.values for one in same], columns), columns)
            self.cache = merged
        self.pads = [pad + columns - part.columns for part in parts for pad in part.pads]
        self.members = [member for part in parts for member in part.members]
        self.columns = columns


def _take(part: torch.Tensor, index: torch.Tensor, first: int) -> torch.Tensor:
    """The named rows without their first columns, in a buffer with room to grow."""
    kept = part[index, :, first:]
    room = kept.new_zeros((kept.shape[0], kept.shape[1], kept.shape[2] + SPARE, kept.shape[3]))
    room[:, :, : kept.shape[2]] = kept
    return room


def _stack(parts: Sequence[torch.Tensor], columns: int) -> torch.Tensor:
    """Buffers of several batches under each other, aligned on the right at `columns`."""
    rows = sum(part.shape[0] for part in parts)
    room = parts[0].new_zeros((rows, parts[0].shape[1], columns + SPARE, parts[0].shape[3]))
    row = 0
    for part in parts:
        room[row : row + part.shape[0], :, columns - part.shape[2] : columns] = part
        row += part.shape[0]
    return room


def _inner(module: torch.nn.Module) -> torch.nn.Module:
    """The transformers model under a PEFT wrapper, whose own forward takes anything."""
    unwrap: Any = getattr(module, "get_base_model", None)
    return unwrap() if unwrap is not None else module


class Batcher:
    """Runs generations together, first come, first served; `tick` makes one token for every running one."""

    def __init__(self, module: Any, *, max_rows: int = 16, max_cache_tokens: int = 65_536,
                 prefill_tokens: int = 8_192):
        """`max_cache_tokens` bounds rows × columns of the shared cache (a generation larger than that runs alone);
        `prefill_tokens` bounds the prompt tokens that one tick works through, hence how long a long prompt may hold
        up the others."""
        self.module = module
        self.plain = can_batch(module)
        self.max_rows = max_rows if self.plain else 1
        self.max_cache_tokens, self.prefill_tokens = max_cache_tokens, prefill_tokens
        self.waiting: deque[Generation] = deque()
        self.running = Rows(module, plain=self.plain)
        self._filling: Rows | None = None
        self._filled = 0

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.running.members or self._filling)

    @property
    def num_running(self) -> int:
        return len(self.running.members) + (len(self._filling.members) if self._filling else 0)

    def add(self, generation: Generation) -> None:
        self.waiting.append(generation)

    def cancel(self, generation: Generation) -> None:
        """It leaves the batch before the next token."""
        generation.finish = generation.finish or "cancelled"

    def tick(self) -> list[Generation]:
        """Admit and prefill within the budget, then decode one step; returns the generations that got tokens.

        One that ended (`finish` is set) has left the batch when this returns. A newcomer gets its first token from
        the prefill and its second from the decode step of the same tick.
        """
        self._leave()
        changed = self._admit()
        self._leave()
        members = self.running.members
        if members:
            self._append(members, self.running.feed([[member.tokens[-1]] for member in members]))
            changed += [member for member in members if member not in changed]
            self._leave()
        return changed

    def _append(self, members: Sequence[Generation], logits_BV: torch.Tensor) -> None:
        best_B = logits_BV.argmax(-1).tolist()
        for row, member in enumerate(members):
            token = best_B[row] if member.temperature <= 0 else member.pick(logits_BV[row])
            member.tokens.append(token)
            if token in member.stop_ids:
                member.finish = "stop"
            elif len(member.tokens) >= member.max_new_tokens:
                member.finish = "length"

    def _leave(self) -> None:
        self.running.keep([row for row, member in enumerate(self.running.members) if member.finish is None])
        while self.waiting and self.waiting[0].finish is not None:
            self.waiting.popleft()

    def _fits(self, more: int, generation: Generation, others: Sequence[Generation]) -> bool:
        rows = len(others) + more
        longest = max(len(one.prompt) + one.max_new_tokens for one in (*others, generation))
        return not others or (rows <= self.max_rows and rows * longest <= self.max_cache_tokens)

    def _admit(self) -> list[Generation]:
        budget, ready = self.prefill_tokens, []
        grown: list[Generation] = []
        while budget > 0:
            if self._filling is None and not self._start([*self.running.members, *grown]):
                break
            filling = self._filling
            assert filling is not None
            if all(member.finish is not None for member in filling.members):  # cancelled meanwhile
                self._filling = None
                continue
            prompts = [member.prompt for member in filling.members]
            piece = len(prompts[0]) - self._filled
            if self.plain:  # recurrent kernels take a prompt only whole
                piece = max(1, min(piece, budget // len(prompts)))
            logits_BV = filling.feed([prompt[self._filled : self._filled + piece] for prompt in prompts])
            self._filled += piece
            budget -= piece * len(prompts)
            if self._filled == len(prompts[0]):
                self._append(filling.members, logits_BV)
                grown += filling.members
                ready.append(filling)
                self._filling = None
        if ready:
            self.running.merge(ready)
        return grown

    def _start(self, others: Sequence[Generation]) -> bool:
        """Take the first waiting generation, and those behind it with a prompt of the same length, if they fit."""
        group: list[Generation] = []
        while self.waiting:
            first = self.waiting[0]
            if first.finish is not None:
                self.waiting.popleft()
                continue
            if group and len(first.prompt) != len(group[0].prompt):
                break
            if not self._fits(1, first, [*others, *group]):
                break
            group.append(self.waiting.popleft())
        if not group:
            return False
        self._filling, self._filled = Rows(self.module, plain=self.plain), 0
        self._filling.members, self._filling.pads = group, [0] * len(group)
        return True
