"""Token losses equal the model's own, whatever the batch; the probe of general skills sees damage."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from luthier.adapt.base import open_base
from luthier.errors import DataError
from luthier.evaluate import loss as loss_module
from luthier.evaluate.loss import Row, last_run, token_losses
from luthier.evaluate.retention import DATA, Retention, choose, load_choices, load_instructions, retention
from luthier.evaluate.systems import Opened, Subject, chat_example
from luthier.store import Cache
from luthier.task import Task


def test_last_run_is_the_final_answer() -> None:
    assert last_run([0, 1, 1, 0, 0, 1, 1, 0]) == [False] * 5 + [True, True, False]
    assert last_run([0, 0]) == [False, False]
    assert last_run([True, True]) == [True, True]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_losses_equal_transformers_own_loss_in_any_batch(tmp_path: Path, family: str, monkeypatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from luthier.testing import tiny_chat_model

    module = AutoModelForCausalLM.from_pretrained(tiny_chat_model(tmp_path / "m", family=family)).eval()
    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in (5, 60, 17, 90, 33, 2):
        ids = torch.randint(3, 250, (length,), generator=generator).tolist()
        rows.append(Row(ids, [i >= length // 2 for i in range(length)]))
    monkeypatch.setattr(loss_module, "BATCH_TOKENS", 200)
    found = token_losses(module, rows)
    for row, one in zip(rows, found):
        labels = torch.tensor([[i if m else -100 for i, m in zip(row.ids, row.mask)]])
        own = module(input_ids=torch.tensor([row.ids]), labels=labels).loss.item()
        scored = sum(bool(m) for m in row.mask[1:])
        assert one.tokens == scored
        assert one.sum / one.tokens == pytest.approx(own, rel=1e-5)


def test_a_row_longer_than_the_context_keeps_its_answer(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from luthier.testing import tiny_chat_model

    module = AutoModelForCausalLM.from_pretrained(tiny_chat_model(tmp_path / "m")).eval()
    long = Row([5] * 1500, [i >= 1490 for i in range(1500)])
    assert token_losses(module, [long])[0].tokens == 10
    assert token_losses(module, [Row([5, 6], [1, 0])])[0].tokens == 0


def opened(folder: Path, noise: float = 0.0) -> Opened:
    import torch

    from luthier.adapt.base import Adapt, adapt
    from luthier.store import Store
    from luthier.testing import tiny_chat_model

    if not (folder / "model").is_dir():
        tiny_chat_model(folder / "model")
        _teach(folder / "model")
    artifact = adapt(Task(), Adapt(model="model", dtype="float32"), store=Store(folder / "store"), root=folder)
    model = open_base(artifact)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.module.parameters():
        parameter.data += noise * torch.randn(parameter.shape, generator=generator)
    return Opened(model)


def _teach(folder: Path) -> None:
    """A few steps of plain language modelling on the probe's own answers, so that there is a skill to lose."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    text = " ".join(row["response"] for row in load_instructions(Retention(), Path(".")))[:6000]
    ids = torch.tensor(tokenizer(text)["input_ids"][:6000]).view(30, -1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(12):
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)


def test_damage_to_the_weights_raises_the_general_token_loss_and_no_change_does_not(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    options = {"system": None, "root": tmp_path, "samples": 500, "seed": 0}
    base = Subject("base", lambda: opened(tmp_path), cache)
    same = retention(base, Subject("same", lambda: opened(tmp_path), cache), Retention(), **options)
    assert same["token_loss"]["relative_rise"] == same["token_loss"]["low"] == same["token_loss"]["high"] == 0.0
    assert same["choice"]["difference"]["value"] == 0.0
    hurt = retention(base, Subject("hurt", lambda: opened(tmp_path, 0.05), cache), Retention(), **options)
    rise = hurt["token_loss"]
    assert rise["low"] > 0.02 and rise["low"] < rise["relative_rise"] < rise["high"] and rise["n"] >= 100
    assert rise["tuned"] / rise["base"] - 1 == pytest.approx(rise["relative_rise"], abs=1e-4)
    worse = retention(base, Subject("worse", lambda: opened(tmp_path, 0.1), cache), Retention(), **options)
    assert worse["token_loss"]["relative_rise"] > rise["relative_rise"]


def test_choice_scoring_divides_by_length_and_leaves_the_stop_token_out(tmp_path: Path) -> None:
    import torch

    subject = Subject("s", lambda: opened(tmp_path), Cache(tmp_path / "cache"))
    question = {"question": "The sky is", "choices": ["blue.", "a kind of large cheese."], "answer": 0}
    right = choose(subject, [question], None, "s")
    scores = []
    for choice in question["choices"]:
        one = subject.opened
        prompt = one.tokenizer.apply_chat_template([{"role": "user", "content": "The sky is"}], tokenize=False,
                                                   add_generation_prompt=True)
        start = len(one.tokenizer(prompt)["input_ids"])
        ids = one.tokenizer(prompt + choice)["input_ids"]
        with torch.no_grad():
            logs = one.module(torch.tensor([ids])).logits[0].log_softmax(-1)
        scores.append(sum(logs[i - 1, ids[i]].item() for i in range(start, len(ids))) / len(choice.encode()))
    assert right == [scores[0] > scores[1]]
    measured = subject.losses([chat_example("The sky is", choice, system=None) for choice in question["choices"]],
                              what="", without_stop=True)
    assert [-m.sum / len(c.encode()) for m, c in zip(measured, question["choices"])] == pytest.approx(scores, rel=1e-4)


def test_the_shipped_probes_are_large_varied_and_not_in_the_replay_set() -> None:
    rows = load_instructions(Retention(), Path("."))
    assert len(rows) >= 100 and len({row["topic"] for row in rows}) >= 8
    choices = load_choices(Retention(), Path("."))
    assert len(choices) >= 40 and {len(row["choices"]) for row in choices} == {2, 4}
    first = sum(row["answer"] == 0 for row in choices) / len(choices)
    assert first < 0.65, "always taking the first choice must not pay"
    replay = DATA.parents[1] / "train" / "data" / "general.jsonl"
    if not replay.is_file():
        pytest.skip("the replay set is not there")
    trained = [json.loads(line)["instruction"] for line in replay.read_text("utf-8").splitlines() if line.strip()]

    def bag(text: str) -> set[str]:
        return set(re.findall(r"\w+", text.lower()))

    close = [(row["instruction"], other) for row in rows for other in trained
             if len(bag(row["instruction"]) & bag(other)) / len(bag(row["instruction"]) | bag(other)) > 0.6]
    assert not close, close


@pytest.mark.parametrize(("field", "line", "told"), [
    ("instructions", '{"instruction": "x"}', "bad.jsonl:2: a row needs the texts"),
    ("instructions", "{oops", "bad.jsonl:2: not valid JSON"),
    ("choices", '{"question": "x", "choices": ["a"], "answer": 0}', "at least two texts"),
    ("choices", '{"question": "x", "choices": ["a", "b"], "answer": 2}', "0 to 1"),
])
def test_a_bad_row_of_the_users_own_file_is_named(tmp_path: Path, field: str, line: str, told: str) -> None:
    good = '{"instruction": "a", "response": "b", "question": "c", "choices": ["a", "b"], "answer": 1}'
    (tmp_path / "bad.jsonl").write_text(good + "\n" + line + "\n")
    load = load_instructions if field == "instructions" else load_choices
    with pytest.raises(DataError, match=told):
        load(Retention(**{field: "bad.jsonl"}), tmp_path)


def test_a_probe_can_be_the_users_own_or_none(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"instruction": "a", "response": "b"}\n')
    assert load_instructions(Retention(instructions="own.jsonl"), tmp_path)[0]["response"] == "b"
    assert load_choices(Retention(choices="none"), tmp_path) == []
    with pytest.raises(DataError, match="no file at"):
        load_instructions(Retention(instructions="gone.jsonl"), tmp_path)


def test_choice_questions_are_read_as_piqa_writes_them(tmp_path: Path) -> None:
    row = {"goal": "To dry shoes", "sol1": "fill them with water.", "sol2": "stuff them with newspaper.", "label": 1}
    (tmp_path / "piqa.jsonl").write_text(json.dumps(row) + "\n")
    assert load_choices(Retention(choices="piqa.jsonl"), tmp_path) == [
        {"question": "To dry shoes", "choices": ["fill them with water.", "stuff them with newspaper."], "answer": 1}]
    (tmp_path / "piqa.jsonl").write_text(json.dumps({**row, "label": 2}) + "\n")
    with pytest.raises(DataError, match=r"piqa\.jsonl:1: .*0 to 1"):
        load_choices(Retention(choices="piqa.jsonl"), tmp_path)
