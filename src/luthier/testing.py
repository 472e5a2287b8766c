"""The conformance kit that every method passes, and tiny real models for tests. Published for plug-in authors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

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
    bare = [name for name in cls.model_fields if not cls.field_help().get(name)]
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


def tiny_encoder(folder: Path, *, layers: int = 2, hidden: int = 32, dropout: float = 0.1, max_length: int = 128,
                 seed: int = 0) -> Path:
    """Write a small random BERT with a byte-level tokenizer ([CLS] text [SEP], one token a byte), in Hugging Face
    format: the text model of a `classify`, `tag` or `embed` test that runs in seconds."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    specials = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*specials, *alphabet])}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]",
                                                       special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
                                        mask_token="[MASK]", unk_token="[UNK]", model_max_length=max_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(BertConfig(
            vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
            intermediate_size=2 * hidden, max_position_embeddings=max_length, hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout, initializer_range=0.2, pad_token_id=0))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


GROUPS = ("embeddings", "layer.000", "layer.001", "layer.002", "head")
"""Layer groups on which plans are checked."""


def check_plan(plan: Any) -> None:
    """A registered plan: its phases name only groups that exist, with factors of at least 0, every phase trains
    something, `ends` is a pure function, and the same holds for a network of one group."""
    from luthier.train.plans import PLANS

    check_spec(PLANS, plan)
    for groups in (GROUPS, GROUPS[-2:], GROUPS[-1:]):
        phases = plan.phases(groups)
        assert phases >= 1, f"{plan.kind} must have a phase"
        for phase in range(phases):
            factors = plan.factors(groups, phase)
            unknown = set(factors) - set(groups)
            assert not unknown, f"{plan.kind}: phase {phase} names unknown groups: {', '.join(unknown)}"
            assert all(factor >= 0 for factor in factors.values()), f"{plan.kind}: phase {phase} has a negative factor"
            assert any(factors.values()), f"{plan.kind}: phase {phase} trains nothing"
            assert plan.factors(groups, phase) == factors, f"{plan.kind}.factors must be a pure function"
        for phase in range(phases - 1):
            told = [plan.ends(phase, epochs=1e6, misses=10**6), plan.ends(phase, epochs=1e6, misses=10**6)]
            assert told == [True, True], f"{plan.kind}: phase {phase} never ends, so the next one never begins"
            assert not plan.ends(phase, epochs=0.0, misses=0), f"{plan.kind}: phase {phase} ends before it begins"


def check_loss(loss: Any) -> None:
    """A registered loss: finite with finite gradients at logits of ±30; twice the weight is twice the loss; rows of
    weight 0 count nothing; soft labels that are certain equal class numbers; its value is a sum over rows."""
    import numpy as np
    import torch

    from luthier.train.losses import LOSSES

    check_spec(LOSSES, loss)
    counts = np.array([5, 3, 2])
    generator = torch.Generator().manual_seed(0)
    for several in (False, True):
        bound = loss.bind(counts, multi_label=several)
        logits = 3 * torch.randn(6, 3, generator=generator)
        logits[0] = torch.tensor([30.0, -30.0, 0.0])
        logits.requires_grad_(True)
        numbers = torch.tensor([1, 0, 2, 1, 0, 2])
        hot = torch.nn.functional.one_hot(numbers, 3).float()
        targets, weights = hot if several else numbers, torch.rand(6, generator=generator) + 0.1
        whole = bound(logits, targets, weights)
        (gradient,) = torch.autograd.grad(whole, logits)
        assert whole.isfinite() and gradient.isfinite().all(), f"{loss.kind} or its gradient is not a number"
        with torch.no_grad():
            rows = sum(bound(logits[at:at + 1], targets[at:at + 1], weights[at:at + 1]) for at in range(6))
            torch.testing.assert_close(rows, whole.detach(), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(bound(logits, targets, 2 * weights), 2 * whole, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(bound(logits, hot, weights), whole, rtol=1e-5, atol=1e-5)
            assert float(bound(logits, targets, 0 * weights)) == 0.0


def check_strategy(strategy: Any) -> None:
    """A registered strategy: as every spec, and it has `run(fit, job)`."""
    import inspect

    from luthier.train.seams import STRATEGIES

    check_spec(STRATEGIES, strategy)
    names = [*inspect.signature(strategy.run).parameters]
    assert names[:2] == ["fit", "job"], f"{strategy.kind}.run must take (fit, job), not ({', '.join(names)})"
