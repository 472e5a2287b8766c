"""LocalChat: text in, text out, the same as transformers' own generation, and repeatable."""

import json

import pytest
import torch

from luthier.errors import LuthierError, ModelError
from luthier.models.generate import LocalChat, compute_dtype, encode_prompt, load_module, stop_tokens
from luthier.testing import tiny_chat_model
from luthier.types import Message

TEXTS = ["Hi", "What is a luthier?", "Name three woods that are used for violin backs, please.", "", "ñandú 🎻", "Hi"]


def ask(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def chat(folder):
    module, tokenizer = load_module(folder, dtype="float32", device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.35)
    return LocalChat(module, tokenizer, name="tiny")


def one_at_a_time(chat: LocalChat, text: str, limit: int) -> tuple[list[int], str]:
    ids = torch.tensor([encode_prompt(chat.tokenizer, ask(text))])
    out = chat.module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False,
                               eos_token_id=list(chat.stop_ids), pad_token_id=0)[0, ids.shape[1]:].tolist()
    return out, chat.tokenizer.decode(out, skip_special_tokens=True)


def test_greedy_answers_equal_transformers_generate_in_the_order_asked(chat):
    answers = chat.complete([ask(text) for text in TEXTS], max_new_tokens=18)
    expected = [one_at_a_time(chat, text, 18) for text in TEXTS]
    assert [(list(answer.tokens), answer.text) for answer in answers] == expected
    assert len({answer.text for answer in answers}) >= 4
    assert [answer.num_prompt_tokens for answer in answers] == [
        len(encode_prompt(chat.tokenizer, ask(text))) for text in TEXTS]
    assert all(answer.num_tokens == len(answer.tokens) and answer.seconds > 0 for answer in answers)


def test_stop_tokens_end_the_answer_and_are_not_in_its_text(chat):
    tokens, _ = one_at_a_time(chat, TEXTS[2], 18)
    stopper = tokens[6]
    stopping = LocalChat(chat.module, chat.tokenizer, (stopper,))
    answer = stopping.complete([ask(TEXTS[2])], max_new_tokens=18)[0]
    at = tokens.index(stopper)
    assert answer.finish == "stop" and list(answer.tokens) == tokens[: at + 1]
    assert answer.text == chat.tokenizer.decode(tokens[:at], skip_special_tokens=True)
    cut = chat.complete([ask(TEXTS[2])], max_new_tokens=4)[0]
    assert cut.finish == "length" and cut.num_tokens == 4


def test_the_same_call_gives_the_same_answers_and_another_seed_others(chat):
    asked = [ask(text) for text in TEXTS]
    first = chat.complete(asked, max_new_tokens=12, temperature=1.0, seed=3)
    again = chat.complete(asked, max_new_tokens=12, temperature=1.0, seed=3)
    other = chat.complete(asked, max_new_tokens=12, temperature=1.0, seed=4)
    assert [answer.tokens for answer in first] == [answer.tokens for answer in again]
    assert [answer.tokens for answer in first] != [answer.tokens for answer in other]
    assert first[0].tokens != first[-1].tokens  # the same prompt twice: each place draws its own answer


def test_the_batch_size_changes_no_answer(folder, chat):
    asked = [ask(text * 3) for text in TEXTS]
    wide = chat.complete(asked, max_new_tokens=15)
    narrow = LocalChat(chat.module, chat.tokenizer, max_rows=2, max_cache_tokens=100).complete(asked, max_new_tokens=15)
    assert [answer.tokens for answer in wide] == [answer.tokens for answer in narrow]


def test_generation_inside_training_leaves_the_mode_and_the_weights_as_they_were(chat):
    chat.module.train()
    chat.module.lm_head.eval()
    before = {name: value.clone() for name, value in chat.module.state_dict().items()}
    chat.complete([ask("Hi")], max_new_tokens=2)
    assert chat.module.training and chat.module.model.training and not chat.module.lm_head.training
    assert all(torch.equal(value, before[name]) for name, value in chat.module.state_dict().items())
    chat.module.eval()


def test_another_dtype_makes_a_copy(chat):
    half = LocalChat(chat.module, chat.tokenizer, dtype="bfloat16")
    assert next(half.module.parameters()).dtype == torch.bfloat16
    assert next(chat.module.parameters()).dtype == torch.float32
    assert LocalChat(chat.module, chat.tokenizer, dtype="float32").module is chat.module
    ids = torch.tensor([encode_prompt(chat.tokenizer, ask("Hi"))])
    full, short = (torch.log_softmax(one.module(ids).logits[0, -1].float(), -1) for one in (chat, half))
    assert torch.cosine_similarity(full, short, dim=0) > 0.99


def test_load_opens_a_folder_and_stops_where_its_config_says(folder):
    chat = LocalChat.load(folder, dtype="float32")
    assert chat.name == "tiny" and chat.stop_ids == stop_tokens(chat.module, chat.tokenizer)
    assert chat.tokenizer.convert_tokens_to_ids("<|im_end|>") in chat.stop_ids
    assert chat.complete([], max_new_tokens=3) == []


@pytest.mark.parametrize(("damage", "said"), [
    ("config", "cannot be loaded"), ("template", "no chat template"), ("long", "1100 tokens|11[0-9][0-9] tokens"),
])
def test_an_unfit_model_or_prompt_is_one_sentence(tmp_path, damage, said):
    broken = tiny_chat_model(tmp_path / "m", template=damage != "template")
    if damage == "config":
        config = json.loads((broken / "config.json").read_text())
        (broken / "config.json").write_text(json.dumps({**config, "model_type": "nonsense", "architectures": ["No"]}))
    with pytest.raises(ModelError, match=said) as error:
        LocalChat.load(broken).complete([ask("x" * 1100 if damage == "long" else "x")], max_new_tokens=3)
    assert "\n" not in str(error.value)


def test_unknown_dtype_is_named():
    with pytest.raises(ModelError, match=r"float16.*choose one of"):
        compute_dtype("float16")


@pytest.mark.slow
def test_the_starter_batched_in_float32_answers_letter_by_letter_as_alone():
    try:
        chat = LocalChat.load("starter:chat", dtype="float32")
    except LuthierError as error:
        pytest.skip(f"the starter model is not installed: {error}")
    texts = ["What is the capital of France?", "Write one sentence about violins.", "2+2=?",
             "Explain gravity to a child in simple words."]
    answers = chat.complete([ask(text) for text in texts], max_new_tokens=24)
    assert [answer.text for answer in answers] == [one_at_a_time(chat, text, 24)[1] for text in texts]
    assert "Paris" in answers[0].text
