"""Batched decoding equals one-at-a-time decoding, whatever joins and leaves the batch."""

import pytest
import torch

from luthier.models.decode import Batcher, Generation, Rows, can_batch, sample
from luthier.models.generate import load_module
from luthier.testing import tiny_chat_model


def sharpen(module: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Random weights large enough that the next token depends on the whole context (a fresh model repeats one)."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.35)
    return module


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def module(request, tmp_path_factory):
    folder = tiny_chat_model(tmp_path_factory.mktemp("tiny") / request.param, family=request.param)
    return sharpen(load_module(folder, dtype="float32", device="cpu")[0])


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 40, (count,), generator=random).tolist()
    return [torch.randint(3, 250, (length,), generator=random).tolist() for length in lengths]


def reference(module, prompt: list[int], limit: int, stop: frozenset[int] = frozenset()) -> list[int]:
    """transformers' own greedy generation, one prompt at a time."""
    ids = torch.tensor([prompt])
    out = module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False,
                          eos_token_id=sorted(stop) or None, pad_token_id=0)
    return out[0, len(prompt):].tolist()


def drain(batcher: Batcher) -> int:
    ticks = 0
    while batcher.busy:
        batcher.tick()
        ticks += 1
        assert ticks < 10_000
    return ticks


def test_batched_greedy_tokens_equal_transformers_generate_one_at_a_time(module):
    asked = [Generation(prompt=prompt, max_new_tokens=20) for prompt in prompts(12)]
    expected = [reference(module, list(one.prompt), 20) for one in asked]
    assert len({tuple(tokens) for tokens in expected}) > 6  # otherwise this test could not fail
    batcher = Batcher(module, max_rows=5, prefill_tokens=7)  # small numbers: rows join late and long prompts in pieces
    for one in asked:
        batcher.add(one)
    drain(batcher)
    assert [one.tokens for one in asked] == expected
    assert {one.finish for one in asked} == {"length"}


def test_stop_ids_end_a_row_alone_and_the_others_go_on(module):
    wanted = prompts(8, seed=3)
    stop = frozenset(range(3, 40))
    asked = [Generation(prompt=prompt, max_new_tokens=25, stop_ids=stop) for prompt in wanted]
    batcher = Batcher(module, max_rows=8)
    for one in asked:
        batcher.add(one)
    drain(batcher)
    assert [one.tokens for one in asked] == [reference(module, prompt, 25, stop) for prompt in wanted]
    assert any(one.finish == "stop" for one in asked)
    assert all((one.finish == "stop") == (one.tokens[-1] in stop) for one in asked)


def test_rows_joining_while_others_decode_change_nobodys_tokens(module):
    wanted = prompts(6, seed=5)
    expected = [reference(module, prompt, 16) for prompt in wanted]
    batcher = Batcher(module, max_rows=6)
    asked = [Generation(prompt=prompt, max_new_tokens=16) for prompt in wanted]
    for one in asked:  # a newcomer every third token
        batcher.add(one)
        for _ in range(3):
            batcher.tick()
    drain(batcher)
    assert [one.tokens for one in asked] == expected


def test_a_cancelled_row_frees_its_place_and_leaves_the_others_alone(module):
    wanted = prompts(3, seed=7)
    expected = [reference(module, prompt, 16) for prompt in wanted]
    asked = [Generation(prompt=prompt, max_new_tokens=16) for prompt in wanted]
    batcher = Batcher(module, max_rows=2)
    for one in asked:
        batcher.add(one)
    batcher.tick()
    assert asked[2].tokens == [] and batcher.num_running == 2
    batcher.cancel(asked[0])
    batcher.tick()
    assert asked[0].finish == "cancelled" and asked[2].tokens
    drain(batcher)
    assert [one.tokens for one in asked[1:]] == expected[1:]


def test_a_request_cancelled_while_it_waits_never_runs(module):
    first, second = (Generation(prompt=prompt, max_new_tokens=4) for prompt in prompts(2))
    batcher = Batcher(module, max_rows=1)
    batcher.add(first)
    batcher.add(second)
    batcher.cancel(second)
    drain(batcher)
    assert second.tokens == [] and len(first.tokens) == 4


def test_the_cache_bound_limits_rows_but_a_giant_still_runs_alone(module):
    asked = [Generation(prompt=[5] * 30, max_new_tokens=10) for _ in range(4)]
    batcher = Batcher(module, max_rows=8, max_cache_tokens=80)
    for one in asked:
        batcher.add(one)
    batcher.tick()
    assert batcher.num_running == 2  # two rows of 40 columns
    drain(batcher)
    giant = Generation(prompt=[5] * 90, max_new_tokens=3)
    batcher.add(giant)
    drain(batcher)
    assert len(giant.tokens) == 3


def test_sampling_is_the_same_alone_and_in_company(module):
    wanted = prompts(6, seed=9)

    def run(rows: int) -> list[list[int]]:
        asked = [Generation(prompt=prompt, max_new_tokens=12, temperature=0.8, top_p=0.9, seed=number)
                 for number, prompt in enumerate(wanted)]
        batcher = Batcher(module, max_rows=rows)
        for one in asked:
            batcher.add(one)
        drain(batcher)
        return [one.tokens for one in asked]

    assert run(1) == run(6)


def test_top_p_keeps_the_tokens_that_transformers_keeps():
    from transformers import TopPLogitsWarper

    random = torch.Generator().manual_seed(0)
    logits = torch.randn(40, generator=random) * 2
    drawn = {sample(logits, 0.7, 0.6, random) for _ in range(3000)}
    kept = TopPLogitsWarper(top_p=0.6)(torch.zeros(1, 1, dtype=torch.long), logits[None] / 0.7)[0].isfinite()
    assert drawn == set(kept.nonzero()[:, 0].tolist())


def test_sample_frequencies_follow_the_softmax():
    random = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0])
    drawn = torch.tensor([sample(logits, 1.0, 1.0, random) for _ in range(6000)]).bincount(minlength=3) / 6000
    assert torch.allclose(drawn, logits.softmax(-1), atol=0.02)
    assert {sample(logits, 1e-4, 1.0, random) for _ in range(50)} == {2}
    assert {sample(logits, 1.0, 0.0, random) for _ in range(50)} == {2}


def test_a_recurrent_model_decodes_one_row_at_a_time_with_its_own_cache():
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    mamba = sharpen(MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8,
                                                 pad_token_id=0, eos_token_id=0))).eval()
    assert not can_batch(mamba)
    wanted = [[5, 6, 7], [9, 8], [11, 12, 13, 14]]
    asked = [Generation(prompt=prompt, max_new_tokens=6) for prompt in wanted]
    batcher = Batcher(mamba, max_rows=4)
    for one in asked:
        batcher.add(one)
    drain(batcher)
    assert [one.tokens for one in asked] == [reference(mamba, prompt, 6) for prompt in wanted]


def test_a_sliding_window_model_batches_like_transformers_does():
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    small = MistralConfig(vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                          num_attention_heads=4, num_key_value_heads=2, sliding_window=8, pad_token_id=0)
    mistral = sharpen(MistralForCausalLM(small)).eval()
    asked = [Generation(prompt=prompt, max_new_tokens=12) for prompt in prompts(5)]
    batcher = Batcher(mistral, max_rows=3, prefill_tokens=9)
    for one in asked:
        batcher.add(one)
    drain(batcher)
    assert [one.tokens for one in asked] == [reference(mistral, list(one.prompt), 12) for one in asked]


def test_dropping_rows_gives_their_padding_back(module):
    rows = Rows(module, plain=True)
    long, short = (Generation(prompt=[7] * n, max_new_tokens=5) for n in (30, 4))
    parts = []
    for one in (long, short):
        part = Rows(module, plain=True)
        part.members, part.pads = [one], [0]
        part.feed([one.prompt])
        parts.append(part)
    rows.merge(parts)
    assert rows.columns == 30 and rows.pads == [0, 26]
    rows.keep([1])
    assert rows.columns == 4 and rows.pads == [0]


def test_a_model_under_lora_batches_with_its_adapter(module):
    from peft import LoraConfig, get_peft_model

    if module.config.model_type != "llama":
        pytest.skip("one family is enough")
    import copy

    tuned = get_peft_model(copy.deepcopy(module), LoraConfig(r=4, target_modules="all-linear",
                                                             init_lora_weights=False)).eval()
    wanted = prompts(5, seed=2)
    asked = [Generation(prompt=prompt, max_new_tokens=12) for prompt in wanted]
    batcher = Batcher(tuned, max_rows=3)
    for one in asked:
        batcher.add(one)
    drain(batcher)
    assert [one.tokens for one in asked] == [reference(tuned, prompt, 12) for prompt in wanted]
    assert [one.tokens for one in asked] != [reference(module, prompt, 12) for prompt in wanted]
