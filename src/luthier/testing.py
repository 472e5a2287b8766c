"""The conformance kit that every method passes, and tiny real models for tests. Published for plug-in authors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import yaml

from luthier.plugins import Seam
from luthier.spec import Spec

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def check_spec(seam: Seam, spec: Spec) -> None:
    """Registered, frozen, documented, equal after a round trip through YAML and pickle, refuses unknown fields."""
    cls = type(spec)
    assert seam.kinds().get(spec.kind) is cls, f"{cls.__name__} is not registered at the {seam.name} seam"
    assert cls.model_config.get("frozen"), f"{cls.__name__} must be frozen"
    assert (cls.__doc__ or "").strip(), f"{cls.__name__} needs a docstring"
    bare = [name for name, field in cls.model_fields.items() if not field.description]
    assert not bare, f"{cls.__name__}: fields without a docstring: {', '.join(bare)}"
    again = seam.parse(yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(spec.dump())))))
    assert again == spec, f"{cls.__name__} changes in a round trip: {again!r} != {spec!r}"
    assert pickle.loads(pickle.dumps(spec)) == spec
    try:
        seam.parse({"kind": spec.kind, "no_such_field": 1})
    except ValueError:
        return
    raise AssertionError(f"{cls.__name__} accepts unknown fields")


def tiny_chat_model(folder: Path, *, layers: int = 2, hidden: int = 64, seed: int = 0, template: bool = True,
                    family: str = "llama") -> Path:
    """Write a small random causal LM with a byte-level tokenizer and a chat template, in Hugging Face format.

    `family` is `llama` or `gpt2`; `template=False` leaves the chat template out (a base model).
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedModel,
        PreTrainedTokenizerFast,
    )

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {token: i for i, token in enumerate([*specials, *alphabet])}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    stop = "<|im_end|>" if template else "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=stop, pad_token="<|endoftext|>",
                                        additional_special_tokens=specials, model_max_length=1024)
    if template:
        tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    size = len(tokenizer)
    shared = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    model: PreTrainedModel
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=hidden, n_layer=layers, n_head=4, n_positions=1024,
                                           **shared))
    else:
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=size, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
            **shared))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
