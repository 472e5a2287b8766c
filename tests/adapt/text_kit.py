"""Small random text networks of every family, in Hugging Face folders, and rows to train them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.adapt.base import Adapt, adapt
from luthier.store import Artifact, Store, write_json
from luthier.task import Task
from luthier.types import Example, Origin, Split, Tag, write_jsonl

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]


def tokenizer(*, cls: bool) -> Any:
    """Byte-level; `cls` puts <s> before and </s> after a text, as encoders have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={token: at for at, token in enumerate([*SPECIALS, *letters])}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    raw.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    if cls:
        raw.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>" if cls else None, bos_token="<s>",
                                   eos_token="</s>", unk_token="<unk>", model_max_length=128)


def config(family: str, *, vocab: int) -> Any:
    import transformers as t

    size = {"vocab_size": vocab, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
            "intermediate_size": 64, "max_position_embeddings": 130, "pad_token_id": 0}
    return {
        "bert": lambda: t.BertConfig(**size),
        "minilm": lambda: t.BertConfig(**{**size, "hidden_size": 24, "num_hidden_layers": 2}),
        "roberta": lambda: t.RobertaConfig(**{**size, "max_position_embeddings": 132}, type_vocab_size=1),
        "distilbert": lambda: t.DistilBertConfig(vocab_size=vocab, dim=32, n_layers=3, n_heads=2, hidden_dim=64,
                                                 max_position_embeddings=130, pad_token_id=0),
        "modernbert": lambda: t.ModernBertConfig(**size, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
                                                 global_attn_every_n_layers=2, local_attention=8),
        "electra": lambda: t.ElectraConfig(**size, embedding_size=16),
        "albert": lambda: t.AlbertConfig(**size, embedding_size=16),
        "gpt2": lambda: t.GPT2Config(vocab_size=vocab, n_embd=32, n_layer=3, n_head=2, n_positions=130),
        "llama": lambda: t.LlamaConfig(**size, num_key_value_heads=1, bos_token_id=1, eos_token_id=2),
    }[family]()


FAMILIES = ("bert", "minilm", "roberta", "distilbert", "modernbert", "electra", "albert", "gpt2", "llama")
DECODERS = ("gpt2", "llama")


def folder_of(family: str, folder: Path, *, dtype: str = "float32", seed: int = 0) -> Path:
    """A random network as AutoModel saves it, its pooler included where the family has one."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(seed)
    words = tokenizer(cls=family not in DECODERS)
    AutoModel.from_config(config(family, vocab=len(words)), dtype=getattr(torch, dtype)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def example(id: str, text: str, split: Split = "train", **more: Any) -> Example:
    return Example(id=id, input=text, target=more.pop("target", None), split=split, **more,
                   origin=Origin(maker="human", step="rows", where=f"data.csv:{id}"))


COLOURS = {"warm": ("red", "orange", "amber"), "cold": ("blue", "navy", "teal")}


def rows(kind: str = "classify", *, train: int = 16, validation: int = 6) -> list[Example]:
    """Texts of different lengths, no two alike."""
    found = []
    for at in range(train + validation):
        label = ("warm", "cold")[at % 2]
        word = COLOURS[label][at // 2 % 3]
        text = f"{'paint ' * (at % 4)}no {at} in {word}"
        more: dict[str, Any] = {"classify": {"labels": (label,)}, "embed": {"target": f"{word} is {label} {at}"},
                                "tag": {"spans": (Tag(start=len(text) - len(word), end=len(text), label=label),)}}[kind]
        found.append(example(f"e{at}", text, "train" if at < train else "validation", **more))
    return found


def prepared(store: Store, examples: list[Example], task: Task) -> Artifact:
    """A prepare artifact that holds these rows."""
    labels = sorted({label for e in examples for label in (e.labels or ())}
                    | {tag.label for e in examples for tag in e.spans or ()})

    def make(folder: Path) -> dict[str, Any]:
        write_jsonl(folder / "examples.jsonl", examples)
        write_json(folder / "labels.json", {"labels": labels, "multi_label": task.multi_label})
        return {"disjoint": "question"}

    return store.build("prepare", version=1, spec={"rows": [repr(e) for e in examples]}, inputs={}, make=make)


def adapted(model: Path | str, store: Store, root: Path, *, task: Task | None = None, **settings: Any) -> Artifact:
    return adapt(task or Task(type="classify"), Adapt(model=str(model), **settings), store=store, root=root)
