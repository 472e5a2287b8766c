"""The official openai client against a real server: what it asks for is what it gets."""

import base64
import json

import httpx
import numpy as np
import openai
import pytest

from luthier.index.base import open_index
from luthier.release.folder import read_release
from luthier.types import Message

QUESTION = "What does error code E-07 of the battery mean?"


def ask(client, model="desk", **options):
    options = {"max_tokens": 12, "messages": [{"role": "user", "content": QUESTION}], **options}
    return client.chat.completions.create(model=model, **options)


def rag_messages(release, root):
    record = read_release(release)
    hits = open_index(release / "index", root=root).search([QUESTION], record.rag.top_k)[0]
    passages = record.rag.fit([hit.passage for hit in hits])
    return record.rag.messages(QUESTION, passages, record.task.system, refusal=record.task.refusal), passages


def test_a_bare_system_answers_as_the_model_does_under_the_task_s_system_message(client, reference):
    for system, weights in (("base", "base"), ("tuned", "tuned")):
        reply = ask(client, f"desk:{system}")
        expected = reference(weights, (Message(role="system", content="You are the help desk."),
                                       Message(role="user", content=QUESTION)), 12)
        choice = reply.choices[0]
        assert choice.message.content == expected.text and choice.message.role == "assistant"
        assert choice.finish_reason == expected.finish and reply.model == f"desk:{system}"
        assert reply.usage.prompt_tokens == expected.num_prompt_tokens
        assert reply.usage.completion_tokens == expected.num_tokens
        assert reply.usage.total_tokens == expected.num_prompt_tokens + expected.num_tokens
        assert choice.message.citations == []


def test_a_system_message_of_the_request_takes_the_place_of_the_task_s(client, reference):
    for role in ("system", "developer"):
        reply = ask(client, "desk:base", messages=[{"role": role, "content": "Be brief."},
                                                   {"role": "user", "content": [{"type": "text", "text": "Hi"}]}])
        expected = reference("base", (Message(role="system", content="Be brief."),
                                      Message(role="user", content="Hi")), 12)
        assert reply.choices[0].message.content == expected.text


def test_retrieval_asks_over_the_passages_and_cites_them(client, reference, release, live):
    messages, passages = rag_messages(release, live.root)
    for system, weights in (("retrieval", "base"), ("tuned-retrieval", "tuned")):
        reply = ask(client, f"desk:{system}")
        assert reply.choices[0].message.content == reference(weights, messages, 12).text
        found = reply.choices[0].message.citations
        assert [citation["n"] for citation in found] == [*range(1, len(passages) + 1)]
        assert [(c["passage"], c["path"], c["page"], c["text"]) for c in found] == [
            (p.id, p.path, p.page, p.text) for p in passages]
        assert reply.luthier == {"release": "desk", "version": 1, "model": system.replace("-", "_")}
    assert found[0]["path"] == "battery.md"
    default = ask(client, "desk")
    assert default.luthier["model"] == "tuned_retrieval"
    assert default.choices[0].message.content == reply.choices[0].message.content


def test_earlier_turns_stand_before_the_question_over_passages(client, reference, release, live):
    messages, _ = rag_messages(release, live.root)
    history = [Message(role="user", content="Hello"), Message(role="assistant", content="Hello!")]
    reply = ask(client, "desk:retrieval", messages=[
        *({"role": turn.role, "content": turn.content} for turn in history), {"role": "user", "content": QUESTION}])
    expected = reference("base", (messages[0], *history, messages[-1]), 12)
    assert reply.choices[0].message.content == expected.text


def test_a_stream_says_the_same_as_a_whole_answer_and_ends_with_its_citations(client):
    whole = ask(client, max_tokens=40)
    chunks = list(ask(client, max_tokens=40, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    last = [chunk for chunk in chunks if chunk.choices][-1]
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices[0].delta.citations == whole.choices[0].message.citations
    assert last.luthier == whole.luthier
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1 and len(chunks) > 5
    without = list(ask(client, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in without)


def test_the_stream_is_server_sent_events(live, key):
    body = {"model": "desk:base", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "stream": True}
    reply = httpx.post(f"{live.url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})
    assert reply.headers["content-type"].startswith("text/event-stream")
    blocks = reply.text.split("\n\n")
    assert blocks[-1] == "" and blocks[-2] == "data: [DONE]"
    events = [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
    assert all(event["object"] == "chat.completion.chunk" for event in events)


def test_stop_strings_cut_the_answer_before_them_in_both_ways(client):
    text = ask(client, "desk:tuned", max_tokens=60).choices[0].message.content
    stop = text[9:12]
    expected = text[: text.index(stop)]
    cut = ask(client, "desk:tuned", max_tokens=60, stop=[stop, "never there"])
    assert cut.choices[0].message.content == expected and cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens < 60
    chunks = ask(client, "desk:tuned", max_tokens=60, stop=stop, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected


def test_seed_temperature_and_top_p_are_honoured(client):
    def draw(**options):
        return ask(client, "desk:tuned", **options).choices[0].message.content

    greedy = draw()
    assert draw(temperature=0) == greedy
    assert draw(temperature=1.5, seed=1) == draw(temperature=1.5, seed=1)
    assert len({draw(temperature=1.5, seed=seed) for seed in range(4)}) == 4
    assert len({draw(temperature=1.5) for _ in range(3)}) == 3
    assert draw(temperature=1.5, top_p=1e-6, seed=3) == greedy


def test_both_names_of_the_token_limit_work(client):
    assert ask(client, max_tokens=2).usage.completion_tokens == 2
    reply = client.chat.completions.create(model="desk", max_completion_tokens=3,
                                           messages=[{"role": "user", "content": "x"}])
    assert reply.usage.completion_tokens == 3 and reply.choices[0].finish_reason == "length"


def test_models_are_listed_with_the_release_s_choice_first(client):
    cards = client.models.list().data
    assert [card.id for card in cards] == ["desk", "desk:base", "desk:retrieval", "desk:tuned", "desk:tuned-retrieval",
                                           "desk:embedding"]
    assert cards[0].luthier["default"] and cards[0].luthier["model"] == "tuned_retrieval"
    assert cards[0].created == 1795168800 and cards[0].owned_by == "luthier"
    assert client.models.retrieve("desk:base").id == "desk:base"
    with pytest.raises(openai.NotFoundError, match="desk:tuned-retrieval"):
        client.models.retrieve("nothing")


def test_embeddings_equal_the_index_s_encoder_as_floats_and_base64(client, live, key):
    texts = ["warm the battery", "Invoices"]
    expected = live.service.retriever.encoder.encode(texts)
    reply = client.embeddings.create(model="desk:embedding", input=texts)  # the client asks for base64
    assert np.allclose([row.embedding for row in reply.data], expected, atol=1e-6)
    assert [row.index for row in reply.data] == [0, 1]
    plain = client.embeddings.create(model="desk:embedding", input=texts[0], encoding_format="float")
    assert np.allclose(plain.data[0].embedding, expected[0], atol=1e-6)
    raw = httpx.post(f"{live.url}/v1/embeddings", headers={"Authorization": f"Bearer {key}"},
                     json={"model": "desk:embedding", "input": texts, "encoding_format": "base64"}).json()
    assert np.allclose(np.frombuffer(base64.b64decode(raw["data"][1]["embedding"]), "<f4"), expected[1], atol=1e-6)
    tokens = sum(len(text.replace(" ", "")) + 2 for text in texts)  # characters, [CLS] and [SEP]
    assert raw["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_completions_continue_plain_text(client, live):
    chat = live.service.engine._held["tuned"]
    ids = chat.tokenizer("The battery")["input_ids"]
    reply = client.completions.create(model="desk:tuned", prompt="The battery", max_tokens=8)
    import torch

    out = chat.module.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False,
                               attention_mask=torch.ones(1, len(ids), dtype=torch.long), pad_token_id=0,
                               eos_token_id=sorted(chat.stop_ids))[0, len(ids):].tolist()
    assert reply.choices[0].text == chat.decode(out) and reply.usage.prompt_tokens == len(ids)
    pieces = client.completions.create(model="desk", prompt=["The battery"], max_tokens=8, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == reply.choices[0].text
    with pytest.raises(openai.BadRequestError, match="chat/completions"):
        client.completions.create(model="desk:retrieval", prompt="x")


@pytest.mark.parametrize(("options", "param", "said"), [
    ({"n": 2}, "n", "one answer a request"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "call no tools"),
    ({"response_format": {"type": "json_object"}}, "response_format", "plain text"),
    ({"presence_penalty": 0.5}, "presence_penalty", "not supported"),
    ({"logprobs": True}, "logprobs", "not supported"),
    ({"temperature": 3}, "temperature", "less than or equal to 2"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 201}, "max_tokens", "at most 200"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "Input should be"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "must be the user's"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     "messages.0.content", "image_url"),
    ({"extra_body": {"no_such_thing": 1}}, "no_such_thing", "Unrecognized"),
    ({"messages": [{"role": "user", "content": "word " * 1000}]}, "messages", "at most 900"),
])
def test_what_cannot_be_done_is_refused_by_name(client, options, param, said):
    with pytest.raises(openai.BadRequestError, match=said) as error:
        ask(client, "desk:base", **options)
    assert set(error.value.body) == {"message", "type", "param", "code"}
    assert error.value.body["type"] == "invalid_request_error"
    assert error.value.body["param"] == param


def test_a_prompt_over_the_limit_is_told_with_numbers(client):
    with pytest.raises(openai.BadRequestError, match=r"has \d{4} tokens .* at most 900") as error:
        ask(client, "desk:base", messages=[{"role": "user", "content": "x" * 1200}])
    assert error.value.code == "context_length_exceeded"


def test_parameters_that_ask_for_nothing_are_let_through(client):
    reply = ask(client, n=1, presence_penalty=0, frequency_penalty=0.0, logprobs=False, user="me", tools=[],
                response_format={"type": "text"}, logit_bias={}, store=False, metadata={"a": "b"})
    assert reply.choices[0].message.content


def test_an_unknown_model_is_404_and_names_those_there_are(client):
    with pytest.raises(openai.NotFoundError, match="desk, desk:base, desk:retrieval") as error:
        ask(client, "gpt-4")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="desk:embedding"):
        client.embeddings.create(model="text-embedding-3-small", input="x")


@pytest.mark.parametrize(("options", "said"), [
    ({"input": []}, "one or more texts"), ({"input": ""}, "one or more texts"), ({"input": [1, 2]}, "token ids"),
    ({"input": "x", "dimensions": 8}, "vectors have 32"), ({"input": ["x"] * 257}, "at most 256"),
    ({"input": "word " * 60}, r"242 tokens; the encoder reads at most 128"),
])
def test_embeddings_that_cannot_be_made_are_refused(client, options, said):
    with pytest.raises(openai.BadRequestError, match=said):
        client.embeddings.create(model="desk:embedding", **options)


def test_padding_against_traffic_analysis_is_refused_not_ignored():
    from pydantic import ValidationError

    from luthier.serve.schema import StreamOptions

    assert StreamOptions(include_obfuscation=False).include_usage is False
    with pytest.raises(ValidationError, match="include_obfuscation"):
        StreamOptions.model_validate({"include_obfuscation": True})
