"""Text backbones: any transformers encoder (BERT, RoBERTa, DistilBERT, ModernBERT) or decoder (GPT-2, Llama)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luthier.adapt.backbones.base import Backbone, Processor, Row
from luthier.errors import DataError, ModelError, need
from luthier.types import Example

FAMILY = "transformers-text"
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


class TextProcessor(Processor):
    """A fast tokenizer that cuts at `max_length` tokens, and pads on the right."""

    def __init__(self, tokenizer: Any, *, max_length: int):
        self.tokenizer, self.max_length = tokenizer, max_length
        if tokenizer.pad_token_id is None:  # GPT-2 and Llama: pads carry no attention and no loss, so any token will do
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        tokenizer.padding_side = tokenizer.truncation_side = "right"

    def but(self, *, max_length: int) -> TextProcessor:
        """The same tokenizer with another limit, never above this one's."""
        return TextProcessor(self.tokenizer, max_length=min(max_length, self.max_length))

    def read(self, example: Example) -> Row:
        return self.read_many([example])[0]

    def read_many(self, examples: Sequence[Example]) -> list[Row]:
        """Tokenise all at once, which is some ten times faster than one by one."""
        if not examples:
            return []
        texts = [text_of(example) for example in examples]
        found = self.encode(texts)
        return [Row(example.id, tuple(ids), len(ids)) for example, ids in zip(examples, found)]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with special tokens, cut at the limit."""
        return self.tokenizer(list(texts), truncation=True, max_length=self.max_length,
                              return_attention_mask=False, return_token_type_ids=False, verbose=False)["input_ids"]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of the whole texts, before cutting."""
        found = self.tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, verbose=False)
        return [len(ids) for ids in found["input_ids"]]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """First and one past the last character of every token that `encode` gives; (0, 0) for special tokens."""
        found = self.tokenizer(text, truncation=True, max_length=self.max_length, return_offsets_mapping=True,
                               verbose=False)
        return [(int(a), int(b)) for a, b in found["offset_mapping"]]

    def batch(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        return padded(rows, self.tokenizer.pad_token_id)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)


def padded(rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """int64 `input_ids` [rows, longest], and `attention_mask` where any row is shorter."""
    width = max(row.size for row in rows)
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    lengths = np.array([row.size for row in rows])
    for at, row in enumerate(rows):
        ids[at, : row.size] = row.data
    inputs = {"input_ids": torch.from_numpy(ids)}
    if int(lengths.min()) < width:  # without pads the mask is left out: attention is then a third faster
        inputs["attention_mask"] = torch.from_numpy((np.arange(width) < lengths[:, None]).astype(np.int64))
    return inputs


def text_of(example: Example) -> str:
    if not isinstance(example.input, str):
        raise DataError(f"example {example.id} ({example.origin.where}) is a conversation, and this task reads texts")
    return example.input


class TextBackbone(Backbone):
    """Hidden states of the last layer, [rows, tokens, width]."""

    reads = "text"
    family = FAMILY
    processor: TextProcessor  # type: ignore[assignment]

    def __init__(self, model: Any, processor: TextProcessor):
        super().__init__()
        if getattr(model, "pooler", None) is not None:  # made for another task, and the head pools
            model.pooler = None
        self.model = model
        self.processor = processor  # type: ignore[assignment]
        self.width = int(model.config.hidden_size)
        self.causal = bool(getattr(model.config, "is_decoder", False)) or _causal(model)
        self.added: tuple[str, ...] = ()
        """Words that became tokens of their own."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        extra = {"use_cache": False} if self.causal else {}
        return self.model(input_ids=inputs["input_ids"], attention_mask=inputs.get("attention_mask"), **extra)[0]

    def groups(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        names = [name for name, _ in self.named_parameters()]
        layered = [int(layer[1]) for name in names if (layer := _LAYER.search(name))]
        top = max(layered, default=0)
        for name in names:
            layer = _LAYER.search(name)
            low = any(word in name for word in ("embed", "wte", "wpe"))
            # what stands above the layers (a final norm) moves with the uppermost
            key = f"layer.{int(layer[1]):03d}" if layer else "embeddings" if low else f"layer.{top:03d}"
            found.setdefault(key, []).append(name)
        return {key: found[key] for key in sorted(found, key=lambda key: (key != "embeddings", key))}

    def describe(self) -> dict[str, Any]:
        return {"config": json.loads(self.model.config.to_json_string(use_diff=False)),
                "max_length": self.processor.max_length, "added": list(self.added)}


def _causal(model: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    encoders = ("bert", "roberta", "xlm-roberta", "electra", "camembert", "ernie", "xlm", "roformer", "rembert")
    kind = model.config.model_type
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in encoders and not kind.endswith("bert")


def limit_of(folder: Path, tokenizer: Any) -> int:
    """The longest input in tokens: what the model was made for, else what its positions allow."""
    limits = [int(tokenizer.model_max_length)] if 0 < tokenizer.model_max_length < 1 << 30 else []
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("config.json", "max_position_embeddings")):
        file = folder / name
        value = json.loads(file.read_text("utf-8")).get(key) if file.is_file() else None
        if isinstance(value, int) and 0 < value < 1 << 30:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            # RoBERTa counts positions from padding_idx + 1
            shift = 2 if key == "max_position_embeddings" and config.get("model_type") in (
                "roberta", "xlm-roberta", "camembert") else 0
            limits.append(value - shift)
    return min(limits, default=512)


def open_text_backbone(folder: Path, *, source: str, dtype: str = "float32", pretrained: bool = True,
                       max_length: int | None = None, seed: int = 0) -> TextBackbone:
    """The network in a Hugging Face folder; `pretrained=False` keeps its architecture and draws the weights.

    Raises ModelError with one sentence for a folder that holds no text network.
    """
    transformers = need("transformers", extra="train")
    transformers.utils.logging.disable_progress_bar()
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise ModelError(f"model '{source}': {folder} has no tokenizer, so it cannot read text; name a text model "
                         "under adapt.model, such as starter:encoder")
    kind = getattr(torch, dtype)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if pretrained:
            model = transformers.AutoModel.from_pretrained(folder, dtype=kind, local_files_only=True)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
                model = transformers.AutoModel.from_config(config, dtype=kind)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model '{source}' in {folder} cannot be loaded: {reason}") from None
    if not tokenizer.is_fast:
        raise ModelError(f"model '{source}' has only a slow tokenizer; save it with tokenizers' tokenizer.json")
    most = limit_of(folder, tokenizer)
    processor = TextProcessor(tokenizer, max_length=min(most, max_length or most))
    return TextBackbone(model.eval(), processor)


def restore_text_backbone(folder: Path, facts: dict[str, Any], *, dtype: str = "float32") -> TextBackbone:
    """The architecture that `save` described, weights not filled in."""
    transformers = need("transformers", extra="train")
    config = dict(facts["config"])
    kind = config.pop("model_type")
    config.pop("transformers_version", None)
    config.pop("architectures", None)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **config),
                                               dtype=getattr(torch, dtype))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    found = TextBackbone(model.eval(), TextProcessor(tokenizer, max_length=int(facts["max_length"])))
    found.added = tuple(facts.get("added", ()))
    return found


