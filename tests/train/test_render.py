"""Law: exactly the assistant's tokens, closing token included, carry loss; anything else is refused."""

from __future__ import annotations

import pytest
from train_kit import chat, opened

from luthier.errors import ContractError, DataError
from luthier.testing import CHAT_TEMPLATE
from luthier.train.render import render
from luthier.types import Message


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("render"))


def split_text(model, found):
    on = model.tokenizer.decode([i for i, loss in zip(found.ids, found.loss) if loss])
    off = model.tokenizer.decode([i for i, loss in zip(found.ids, found.loss) if not loss])
    return on, off


def test_one_turn_equals_the_templates_own_text(model):
    example = chat(3, answer="Oak.")
    found = render(model.tokenizer, example, stop_id=model.stop_ids[0])
    messages = [{"role": "user", "content": example.question}, {"role": "assistant", "content": "Oak."}]
    whole = model.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert list(found.ids) == whole[: len(found.ids)] and len(whole) - len(found.ids) == 1  # the last line feed
    assert split_text(model, found)[0] == "Oak.<|im_end|>"


def test_every_assistant_turn_carries_loss_and_nothing_else(model):
    example = chat(1, answer="third").__class__(**{
        **chat(1, answer="third").__dict__,
        "input": (Message(role="system", content="be brief"), Message(role="user", content="a"),
                  Message(role="assistant", content="first"), Message(role="user", content="b"),
                  Message(role="assistant", content="second"), Message(role="user", content="c"))})
    found = render(model.tokenizer, example, stop_id=model.stop_ids[0])
    on, off = split_text(model, found)
    assert on == "first<|im_end|>second<|im_end|>third<|im_end|>" and found.turns == 3
    assert "be brief" in off and "assistant" in off and "first" not in off


def test_the_tasks_system_message_leads_only_where_there_is_none(model):
    own = chat(1, input=(Message(role="system", content="mine"), Message(role="user", content="q")))
    assert "theirs" not in split_text(model, render(model.tokenizer, own, stop_id=2, system="theirs"))[1]
    assert "theirs" in split_text(model, render(model.tokenizer, chat(1), stop_id=2, system="theirs"))[1]


def test_text_carries_loss_everywhere_but_at_the_first_token(model):
    found = render(model.tokenizer, chat(1, input="Once upon", target=None), stop_id=2)
    assert found.loss == (False, *[True] * (len(found.ids) - 1))
    assert found.ids[-1] == model.tokenizer.eos_token_id and found.turns == 0


def test_text_with_a_target_learns_the_target_only(model):
    found = render(model.tokenizer, chat(1, input="two plus two ", target="four"), stop_id=2)
    assert split_text(model, found) == ("four<|im_end|>", "two plus two ")


def test_a_conversation_without_an_answer_is_an_error(model):
    with pytest.raises(DataError, match="without an answer"):
        render(model.tokenizer, chat(1, target=None), stop_id=2)


@pytest.fixture()
def with_template(model):
    before = model.tokenizer.chat_template

    def change(text):
        model.tokenizer.chat_template = text
        return model.tokenizer

    yield change
    model.tokenizer.chat_template = before


def test_a_template_without_a_stop_token_is_refused(with_template):
    tokenizer = with_template("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
                              "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")
    with pytest.raises(ContractError, match=r"point 2 \(stop token\).*does not close"):
        render(tokenizer, chat(1), stop_id=2)


def test_a_stop_token_inside_an_answer_is_refused(model):
    with pytest.raises(ContractError, match=r"point 2 .*inside the answer"):
        render(model.tokenizer, chat(1, answer="yes<|im_end|>no"), stop_id=model.stop_ids[0])


def test_a_template_that_rewrites_earlier_turns_is_refused(with_template):
    tokenizer = with_template("{{ messages | length }}" + CHAT_TEMPLATE)
    with pytest.raises(ContractError, match=r"point 3 \(template\).*rewrites"):
        render(tokenizer, chat(1), stop_id=2)


def test_a_role_that_the_template_refuses_is_an_error(with_template):
    tokenizer = with_template("{% for m in messages %}{% if m['role'] == 'system' %}"
                              "{{ raise_exception('no system role') }}{% endif %}{% endfor %}" + CHAT_TEMPLATE)
    example = chat(1, input=(Message(role="system", content="x"), Message(role="user", content="q")))
    with pytest.raises(ContractError, match=r"point 3 .*no system role"):
        render(tokenizer, example, stop_id=2)


def test_cutting_keeps_the_beginning(model):
    found = render(model.tokenizer, chat(1), stop_id=2)
    assert found.cut(10).ids == found.ids[:10] and found.cut(10_000) is found
