"""Text to unit vectors with any transformers encoder in a local folder.

Follows the folder's own sentence-transformers files where it has them (pooling, largest length). Texts are sorted by
length and batched by tokens, so little is computed on padding; vectors are kept per text in the store's cache.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from luthier.errors import ModelError, need
from luthier.models.sources import SourceFiles, resolve
from luthier.progress import Progress, Silent
from luthier.store import Cache
from luthier.types import digest

Pooling = Literal["auto", "mean", "cls"]
Dtype = Literal["auto", "float32", "bfloat16"]

_BATCH_TOKENS = 4096
_WINDOW = 8192  # texts tokenised at a time, so that a large corpus is never in memory as tokens


class Encoder:
    """An encoder model. The weights load at the first text that is not in the cache."""

    def __init__(self, source: str = "starter:encoder", *, root: Path | None = None, pooling: Pooling = "auto",
                 max_tokens: int | None = None, dtype: Dtype = "auto", cache: Cache | None = None):
        """`max_tokens` caps the length, special tokens included; None takes the model's own limit."""
        self.files: SourceFiles = resolve(source, purpose="encoder", root=root)
        self.pooling = _pooling(self.files.folder) if pooling == "auto" else pooling
        self.max_tokens = min(max_tokens or 1 << 30, _limit(self.files.folder))
        self.dtype = ("bfloat16" if _bf16_pays() else "float32") if dtype == "auto" else dtype
        self.cache = cache
        self.num_truncated = 0
        """Texts longer than the limit among those computed by this object (cached ones are not counted again)."""
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        """What the vectors depend on: weights, tokenizer, pooling, length, precision."""
        return digest(self.files.fingerprint, self.pooling, str(self.max_tokens), self.dtype)

    def encode(self, texts: Sequence[str], *, prefix: str = "", progress: Progress = Silent(),
               what: str = "embed") -> np.ndarray:
        """Unit vectors, float32 [n, d], in the order of the texts. `prefix` is put before each (E5's `query: `).

        An empty list gives [0, d]. Texts beyond the limit are cut at its last token and counted.
        """
        texts = [prefix + text for text in texts]
        keys = [digest(self.identity, text, length=40) for text in texts]
        found: dict[str, np.ndarray] = {}
        if self.cache is not None:
            for key in dict.fromkeys(keys):
                stored = self.cache.get(key)
                if stored is not None:
                    found[key] = np.frombuffer(stored, dtype=np.float32)
        missing = {key: text for key, text in zip(keys, texts) if key not in found}
        if missing:
            with progress.track(what, len(missing), unit="texts") as bar:
                names, wanted = list(missing), list(missing.values())
                for begin in range(0, len(wanted), _WINDOW):
                    self._compute(names[begin : begin + _WINDOW], wanted[begin : begin + _WINDOW], found, bar)
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return np.stack([found[key] for key in keys])

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(json.loads((self.files.folder / "config.json").read_text("utf-8"))["hidden_size"])

    def _compute(self, keys: list[str], texts: list[str], found: dict[str, np.ndarray], bar: Any) -> None:
        import torch

        model, tokenizer = self._load()
        tokens = tokenizer(texts, truncation=False, padding=False, return_attention_mask=False, verbose=False)
        rows: list[list[int]] = tokens["input_ids"]
        for at, row in enumerate(rows):
            if len(row) > self.max_tokens:
                self.num_truncated += 1
                rows[at] = tokenizer(texts[at], truncation=True, max_length=self.max_tokens)["input_ids"]
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        pad = tokenizer.pad_token_id or 0
        for batch in _batches(order, rows):
            width = max(1, len(rows[batch[-1]]))
            ids = torch.full((len(batch), width), pad, dtype=torch.long)
            mask = torch.zeros((len(batch), width), dtype=torch.long)
            for row, at in enumerate(batch):
                ids[row, : len(rows[at])] = torch.tensor(rows[at], dtype=torch.long)
                mask[row, : len(rows[at])] = 1
            with torch.inference_mode():
                # A batch of one length needs no mask: attention then takes its fastest path.
                hidden = model(input_ids=ids, attention_mask=None if bool(mask.all()) else mask).last_hidden_state
                pooled = hidden[:, 0].float() if self.pooling == "cls" else _mean(hidden.float(), mask)
                unit = torch.nn.functional.normalize(pooled, dim=-1).numpy()
            for row, at in enumerate(batch):
                found[keys[at]] = unit[row].copy()
                if self.cache is not None:
                    self.cache.put(keys[at], found[keys[at]].tobytes())
            bar.advance(len(batch))

    def _load(self) -> tuple[Any, Any]:
        with self._lock:
            if self._loaded is None:
                torch = need("torch", extra="index")
                transformers = need("transformers", extra="index")
                transformers.utils.logging.disable_progress_bar()
                folder = self.files.folder
                try:
                    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
                    model = transformers.AutoModel.from_pretrained(folder, dtype=getattr(torch, self.dtype))
                except (OSError, ValueError, KeyError) as error:
                    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                    raise ModelError(f"encoder '{self.files.source}' in {folder} cannot be loaded: {reason}") from None
                self._loaded = (model.eval(), tokenizer)
            return self._loaded


def _batches(order: Sequence[int], rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Cut a length-sorted order into batches of about `_BATCH_TOKENS` tokens and of nearly one length each."""
    batches: list[list[int]] = []
    for at in order:
        last = batches[-1] if batches else None
        size = len(rows[at])
        if last is None or (len(last) + 1) * size > _BATCH_TOKENS or size > 1.15 * len(rows[last[0]]) + 2:
            batches.append([at])
        else:
            last.append(at)
    return batches


def _mean(hidden: Any, mask: Any) -> Any:
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def _pooling(folder: Path) -> Literal["mean", "cls"]:
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return "mean"
    told = json.loads(file.read_text("utf-8"))
    if told.get("pooling_mode_mean_tokens") or told.get("pooling_mode") == "mean":
        return "mean"
    if told.get("pooling_mode_cls_token") or told.get("pooling_mode") == "cls":
        return "cls"
    raise ModelError(f"encoder in {folder}: its pooling ({file.name}) is neither mean nor cls; "
                     "choose one with 'pooling' in the index section")


def _limit(folder: Path) -> int:
    """The longest input in tokens: what the model was made for, else what its positions allow."""
    limits = []
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("config.json", "max_position_embeddings"),
                      ("tokenizer_config.json", "model_max_length")):
        file = folder / name
        value = json.loads(file.read_text("utf-8")).get(key) if file.is_file() else None
        if isinstance(value, int | float) and 0 < value < 1 << 30:
            limits.append(int(value))
    return min(limits, default=512)


def _bf16_pays() -> bool:
    """Whether the processor multiplies bfloat16 natively (Linux tells in /proc/cpuinfo); emulation would be slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
