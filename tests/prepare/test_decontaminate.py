"""Law: no row that is trained on repeats a benchmark's text; others stay; only the user's files are read."""

import csv
import json
import random

import pytest

from luthier.errors import DataError, UsageError
from luthier.prepare.decontaminate import benchmark_inputs, drop_benchmarks, find_benchmark, read_benchmark
from luthier.types import Example, Message, Origin


def text(seed, length=40):
    return " ".join(random.Random(seed).choices([f"word{n}" for n in range(2000)], k=length))


def chat(question, answer, split="train"):
    return Example(id=question[:20], input=(Message(role="user", content=question),), target=answer, split=split,
                   origin=Origin(maker="human", step="pairs", where="pairs.csv:2"))


def row(content, split="train", target=None):
    return Example(id=content[:20], input=content, target=target, split=split, labels=("a",),
                   origin=Origin(maker="human", step="table", where="data.csv:2"))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    questions = [text(n) for n in range(30)] + ["Which planet of the solar system has the most moons?"]
    (folder / "quiz.jsonl").write_text("".join(
        json.dumps({"question": question, "choices": {"text": [text(900 + n, 9), "no"]}, "answer": "A"}) + "\n"
        for n, question in enumerate(questions)))
    with (folder / "sheet.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "label"], [text(50), "yes"], [text(51), "no"]])
    (tmp_path / "lines.txt").write_text(f"{text(60)}\n\n{text(61)}\n")
    return tmp_path


def test_every_format_is_read_and_answers_of_a_word_are_not(root):
    assert len(read_benchmark("quiz", root).texts) == 62
    assert read_benchmark("benchmarks/sheet.csv", root).texts == (text(50), text(51))
    assert read_benchmark("lines", root).places == ("lines.txt:1", "lines.txt:3")
    assert len(read_benchmark("benchmarks", root).texts) == 64


def test_rows_that_repeat_a_benchmark_go_and_say_which(root):
    tokens = text(2).split()
    edited = " ".join([*tokens[:20], "other", *tokens[21:]])
    rows = [chat(text(1), "The answer."), chat("What is this?", f"Somebody asked: {text(3)} So it was."),
            chat(edited, "x"), chat("which planet of the SOLAR system has the most moons", "Saturn"),
            chat(f"Tell me: {text(910, 9)}?", "no"), row(text(50)), row(text(61).upper()),
            chat("Which planet is the closest to the sun in the solar system?", "Mercury"), chat(text(300), text(301)),
            row(text(302)), chat(text(1), "The answer.", split="test")]
    dropped = []
    kept = drop_benchmarks(rows, ["quiz", "sheet", "lines.txt"], root, dropped)
    assert kept == rows[7:]
    assert {one.reason for one in dropped} == {"benchmark"} and len(dropped) == 7
    assert "of quiz (quiz.jsonl:2)" in next(one.detail for one in dropped if one.item == text(1)[:20])


def test_one_that_is_missing_is_an_error_that_says_where_it_was_looked_for(root, monkeypatch):
    with pytest.raises(UsageError, match=r"no 'mmlu'; looked for .*benchmarks/mmlu"):
        find_benchmark("mmlu", root)
    monkeypatch.setenv("LUTHIER_BENCHMARKS", str(root / "shared"))
    (root / "shared").mkdir()
    (root / "shared" / "mmlu.txt").write_text("yes\n")
    with pytest.raises(DataError, match="no text of 5 words"):
        read_benchmark("mmlu", root)
    before = benchmark_inputs(["mmlu"], root)
    (root / "shared" / "mmlu.txt").write_text("a question that is long enough\n")
    assert benchmark_inputs(["mmlu"], root) != before
