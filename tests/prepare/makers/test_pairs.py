"""The user's own pairs: every usual format read, every bad row told with its file and line, nothing lost silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from luthier.errors import DataError
from luthier.prepare.base import OWN_SPLIT, TOGETHER
from luthier.prepare.makers.pairs import Pairs
from luthier.task import Task

MEDQUAD = Path(__file__).parents[3].parent / "shared" / "data" / "medquad"

CHAT = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who repairs printers?"},
                     {"role": "assistant", "content": "The help desk."}]}
SHAREGPT = {
    "conversations": [{"from": "human", "value": "Who repairs printers?"}, {"from": "gpt", "value": "The help desk."}]
}
ALPACA = {"instruction": "Translate to German.", "input": "printer", "output": "Drucker"}


@pytest.fixture
def read(context, run, tmp_path):
    """Write a file and read it as pairs; returns (examples, drops, notes)."""
    def go(name: str, content: str | bytes | list, *, task: Task | None = None, **spec):
        file = tmp_path / name
        if isinstance(content, list):
            content = "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in content)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        found = context(task=task)
        examples, dropped = run(Pairs(path=name, **spec), found)
        return examples, dropped, found.notes

    return go


def turns(example):
    return [(message.role, message.content) for message in example.input]


def test_openai_chat(read):
    more = {"messages": [{"role": "user", "content": [{"type": "text", "text": "And toner?"}]},
                         {"role": "assistant", "content": "The office."}, {"role": "user", "content": "When?"},
                         {"role": "assistant", "content": "On Mondays."}]}
    examples, dropped, notes = read("chat.jsonl", [CHAT, more])
    assert not dropped and notes["format"] == "openai"
    assert turns(examples[0]) == [("system", "Be brief."), ("user", "Who repairs printers?")]
    assert examples[0].target == "The help desk." and examples[0].origin.where == "chat.jsonl:1"
    assert turns(examples[1]) == [("user", "And toner?"), ("assistant", "The office."), ("user", "When?")]
    assert examples[1].target == "On Mondays." and examples[1].origin.maker == "human"


def test_sharegpt(read):
    examples, _, notes = read("chat.json", json.dumps([SHAREGPT, {**SHAREGPT, "system": "Be kind.", "conversations": [
        {"from": "user", "value": "Hi?"}, {"from": "chatgpt", "value": "Hello."}]}], indent=2))
    assert notes["format"] == "sharegpt"
    assert turns(examples[0]) == [("user", "Who repairs printers?")] and examples[0].target == "The help desk."
    assert turns(examples[1]) == [("system", "Be kind."), ("user", "Hi?")] and examples[1].target == "Hello."
    assert examples[1].origin.where == "chat.json:14"


def test_alpaca_with_and_without_input_and_with_history(read):
    examples, _, notes = read(
        "a.jsonl",
        [
            ALPACA,
            {**ALPACA, "instruction": "Say hello.", "input": ""},
            {**ALPACA, "instruction": "Again.", "input": "", "history": [["Hi?", "Hello."]]},
        ],
    )
    assert notes["format"] == "alpaca"
    assert [turns(e)[-1][1] for e in examples] == ["Translate to German.\n\nprinter", "Say hello.", "Again."]
    assert turns(examples[2])[:2] == [("user", "Hi?"), ("assistant", "Hello.")]


@pytest.mark.parametrize(("question", "answer"), [
    ("question", "answer"), ("Prompt", "Completion"), ("input", "output"), ("Frage", "Antwort"), ("user", "assistant"),
    ("instruction", "response"), ("This was asked", "That was told"),
])
def test_columns_are_found_by_their_usual_names_or_because_there_are_two(read, question, answer):
    examples, _, notes = read("p.jsonl", [{question: "Who repairs printers?", answer: "The help desk."}])
    assert examples[0].question == "Who repairs printers?" and examples[0].target == "The help desk."
    assert notes["format"]


@pytest.mark.parametrize(("name", "sign"), [("p.csv", ","), ("p.csv", ";"), ("p.tsv", "\t"), ("p.csv", "|")])
def test_csv_and_tsv_with_quotes_and_line_breaks(read, name, sign):
    text = (
        sign.join(["id", "question", "answer"])
        + "\r\n"
        + sign.join(["1", f'"Who repairs{sign} if at all{sign} printers?"', '"The ""help"" desk.\r\nEvery day."'])
        + "\r\n"
        + sign.join(["2", "Who orders toner?", "The office."])
        + "\r\n"
    )
    examples, dropped, _ = read(name, text)
    assert not dropped
    assert examples[0].question == f"Who repairs{sign} if at all{sign} printers?"
    assert examples[0].target == 'The "help" desk.\nEvery day.'
    assert [e.origin.where for e in examples] == [f"{name}:2", f"{name}:4"]


def test_a_csv_without_a_header_loses_no_row(read):
    examples, _, notes = read("p.csv", "Who repairs printers?,The help desk.\nWho orders toner?,The office.\n")
    assert [e.origin.where for e in examples] == ["p.csv:1", "p.csv:2"] and "none" in notes["header"]["p.csv"]


@pytest.mark.parametrize(
    ("encode", "named"),
    [
        (lambda t: b"\xef\xbb\xbf" + t.encode(), None),
        (lambda t: t.encode("utf-16"), "utf-16"),
        (lambda t: t.encode("cp1252"), "cp1252"),
        (lambda t: t.replace("\n", "\r\n").encode(), None),
    ],
)
def test_marks_line_ends_and_old_encodings(read, encode, named):
    rows = "question,answer\nWer räumt die Küche auf?,Das Küchenteam räumt täglich die Küche für alle Gäste auf.\n" \
           "Wo hängen die Schlüssel?,Die Schlüssel hängen über der Tür im Büro.\n"
    examples, dropped, notes = read("p.csv", encode(rows))
    assert not dropped and examples[0].question == "Wer räumt die Küche auf?" and len(examples) == 2
    assert notes.get("encoding", {}).get("p.csv") == named


BAD = [
    ('{"question": "Who?", "answer": ', "bad-json"),
    ('["Who?", "Me."]', "not-an-object"),
    ('{"question": "Who?"}', "missing-column"),
    ('{"question": "", "answer": "Me."}', "empty-question"),
    ('{"question": "Who?", "answer": null}', "empty-answer"),
    ('{"question": "Who?", "answer": {"text": "Me."}}', "not-text"),
    ('{"question": "Who?", "answer": "Me.", "split": "holdout"}', "bad-split"),
    (json.dumps({"question": "Who?", "answer": "x" * 300}), "too-long"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_bad_row_is_dropped_with_its_line_and_the_rest_is_read(read, row, reason):
    good = {"question": "Who repairs printers?", "answer": "The help desk."}
    examples, dropped, notes = read("p.jsonl", [good, "", row, {**good, "question": "Who else?"}], max_chars=200)
    assert len(examples) == 2 and examples[1].origin.where == "p.jsonl:4"
    assert [(d.item, d.reason) for d in dropped] == [("p.jsonl:3", reason)] and dropped[0].detail
    assert notes["rows"] == 3 and notes["kept"] == 2 and notes["dropped"] == 1


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ([("user", "Hi?")], "no-answer"),
        ([("assistant", "Hi.")], "role-order"),
        ([("user", "Hi?"), ("user", "Hm?"), ("assistant", "Yes.")], "role-order"),
        ([("user", "Hi?"), ("narrator", "He smiles.")], "unknown-role"),
        ([("user", "Hi?"), ("tool", "{}")], "tool-calls"),
        ([("user", "Hi?"), ("assistant", "  ")], "empty-answer"),
        ([("user", "Hi?"), ("assistant", None)], "not-text"),
        ([("user", "Hi?"), ("system", "Late."), ("assistant", "Yes.")], "role-order"),
    ],
)
def test_bad_conversations(read, turn, reason):
    row = {"messages": [{"role": role, "content": content} for role, content in turn]}
    examples, dropped, _ = read("c.jsonl", [CHAT, row])
    assert len(examples) == 1 and [(d.item, d.reason) for d in dropped] == [("c.jsonl:2", reason)]


def test_answers_that_must_not_be_learned_are_refused(read):
    row = {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yo.", "weight": 0},
                        {"role": "user", "content": "Again?"}, {"role": "assistant", "content": "Hello."}]}
    assert [d.reason for d in read("c.jsonl", [CHAT, row])[1]] == ["zero-weight"]


def test_csv_rows_with_too_many_cells_name_their_line(read):
    examples, dropped, _ = read("p.csv", "question,answer\nWho?,Me, myself and I\nWhy?,Because.,,\n")
    assert [e.question for e in examples] == ["Why?"]
    assert [(d.item, d.reason) for d in dropped] == [("p.csv:2", "wrong-number-of-cells")]


def test_strict_stops_with_the_first_bad_rows(read):
    rows = [{"question": "Who repairs printers?", "answer": "The help desk."}, "{", {"question": "Why?"}]
    with pytest.raises(DataError, match=r"2 of 3 rows of p\.jsonl are bad") as caught:
        read("p.jsonl", rows, strict=True)
    assert "p.jsonl:2: bad-json" in str(caught.value) and "p.jsonl:3: missing-column" in str(caught.value)


def test_equal_rows_are_dropped_and_contradictions_counted(read):
    row = {"question": "Who repairs printers?", "answer": "The help desk."}
    examples, dropped, notes = read("p.jsonl", [row, row, {**row, "answer": "Nobody."}])
    assert len(examples) == 2 and [(d.item, d.reason) for d in dropped] == [("p.jsonl:2", "duplicate")]
    assert notes["same_question_other_answer"] == 1


def test_named_columns_win_over_guessed_ones(read):
    rows = [{"question": "A title", "ask": "Who repairs printers?", "tell": "The help desk.", "answer": "x"}]
    examples, _, _ = read("p.jsonl", rows, question="ask", answer="tell")
    assert examples[0].question == "Who repairs printers?" and examples[0].target == "The help desk."
    with pytest.raises(DataError, match=r"no column 'asked'.*it has: question, ask, tell, answer"):
        read("p.jsonl", rows, question="asked", answer="tell")


def test_an_override_of_the_format_is_obeyed(read):
    row = {"instruction": "Say hello.", "input": "now", "output": "Hello."}
    assert read("p.jsonl", [row])[0][0].question == "Say hello.\n\nnow"
    assert (
        read("p.jsonl", [row], format="columns", question="instruction", answer="output")[0][0].question == "Say hello."
    )
    with pytest.raises(ValidationError, match="list of turns instead"):
        Pairs(path="p", format="openai", question="q")


def test_the_files_split_is_honoured_and_tagged(read):
    rows = [
        {"question": f"Who {n}?", "answer": "Me.", "split": split}
        for n, split in enumerate(["train", "dev", "TEST", ""])
    ]
    examples, _, _ = read("p.jsonl", rows)
    assert [e.split for e in examples[:3]] == ["train", "validation", "test"]
    assert [OWN_SPLIT in e.tags for e in examples] == [True, True, True, False]
    examples, _, _ = read("p.jsonl", rows, split="test")
    assert {e.split for e in examples} == {"test"} and all(OWN_SPLIT in e.tags for e in examples)


def test_groups_travel_to_the_split_and_empty_ones_are_dropped(read):
    rows = [{"question": "Who?", "answer": "Me.", "doc": "a.xml"}, {"question": "Why?", "answer": "So.", "doc": ""}]
    examples, dropped, _ = read("p.jsonl", rows, group_by="doc")
    assert examples[0].groups == {TOGETHER: "doc=a.xml"} and [d.reason for d in dropped] == ["no-group"]


def test_pairs_of_one_group_share_a_split(read):
    from luthier.prepare.base import Prepare
    from luthier.prepare.build import _assign
    from luthier.prepare.split import SplitBy

    rows = [{"question": f"Who keeps key {n} of house {n % 12}?", "answer": f"Warden {n}.", "house": n % 12}
            for n in range(120)]
    spec = Prepare(makers=(), split=SplitBy(test=0.3, validation=0.2))
    for group_by in ("house", None):
        examples, _, _ = read("p.jsonl", rows, group_by=group_by)
        given = list(_assign(examples, spec, SplitBy().assign([], seed=0), []))
        houses = [{e.split for e in given if f"house {house}?" in e.question} for house in range(12)]
        assert {e.split for e in given} == {"train", "validation", "test"}
        assert all(len(splits) == 1 for splits in houses) is (group_by == "house")


def test_the_tasks_system_message_is_added_unless_the_row_has_its_own(read):
    examples, _, _ = read("c.jsonl", [CHAT, {"messages": CHAT["messages"][1:]}], task=Task(system="You serve Acme."))
    assert [turns(e)[0][1] for e in examples] == ["Be brief.", "You serve Acme."]


@pytest.mark.parametrize(("content", "message"), [
    ('[{"question": "Who?", "answer": "Me."},\n {"question": }]', r"p\.json:2: not valid JSON"),
    ('[{"question": "Who?", "answer": "Me."},\n', "cut off"),
    ("", "is empty"), ("a\0b", "zero bytes"), ('[{"a": "x", "b": "y", "c": "z"}]', r"cannot tell.*fields: a, b, c"),
    ('[{"question": "", "answer": ""}]', "none of the 1 rows.*p.json:1"),
])
def test_a_file_that_cannot_be_used_is_one_clear_sentence(read, content, message):
    with pytest.raises(DataError, match=message):
        read("p.json", content)


def test_a_missing_file_and_a_strange_one_are_told_before_any_work(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder at nowhere.csv"):
        Pairs(path="nowhere.csv").inputs(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds none of"):
        Pairs(path="empty").inputs(tmp_path)


def test_json_objects_that_hold_the_rows(read):
    row = {"question": "Who repairs printers?", "answer": "The help desk."}
    assert read("p.json", json.dumps({"version": 1, "data": [row]}))[0][0].target == "The help desk."
    assert read("p.json", json.dumps(row))[0][0].target == "The help desk."
    assert read("q.json", [row, {**row, "question": "Who else?"}])[0][1].origin.where == "q.json:2"


def test_a_folder_is_read_file_by_file_and_a_change_of_any_changes_the_inputs(context, run, tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "a.csv").write_text("question,answer\nWho?,Ann.\n")
    (folder / "test.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    spec = Pairs(path="pairs")
    examples, _ = run(spec, context())
    assert [(e.origin.where, e.split) for e in examples] == [("pairs/a.csv:2", "train"), ("pairs/test.jsonl:1", "test")]
    before = spec.inputs(tmp_path)
    (folder / "a.csv").write_text("question,answer\nWho?,Bob.\n")
    assert set(before) == {"a.csv", "test.jsonl"} and spec.inputs(tmp_path) != before


def test_hugging_face_folders_and_parquet(context, run, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"question": ["Who?", "Why?"], "answer": ["Ann.", "So."]}
    parts = datasets.DatasetDict(train=datasets.Dataset.from_dict(rows), test=datasets.Dataset.from_dict(
        {"question": ["When?"], "answer": ["Now."]}))
    parts.save_to_disk(str(tmp_path / "saved"))
    examples, _ = run(Pairs(path="saved"), context())
    assert [(e.question, e.split, e.origin.where) for e in examples] == [
        ("Who?", "train", "saved/train, row 1"),
        ("Why?", "train", "saved/train, row 2"),
        ("When?", "test", "saved/test, row 1"),
    ]
    assert Pairs(path="saved").inputs(tmp_path)
    (tmp_path / "hub" / "data").mkdir(parents=True)
    parts["train"].to_parquet(str(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"))
    examples, _ = run(Pairs(path="hub"), context())
    assert [(e.target, e.split) for e in examples] == [("Ann.", "train"), ("So.", "train")]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"broken\.parquet is no readable Parquet file"):
        run(Pairs(path="broken.parquet"), context())


@pytest.mark.skipif(not MEDQUAD.is_dir(), reason="shared/data/medquad is not on this machine")
def test_medquad_loads_with_its_groups_and_its_own_test_file(context, run):
    found = context(root=MEDQUAD)
    train, dropped = run(Pairs(path="train.jsonl", group_by="focus"), found)
    test, _ = run(Pairs(path="test.jsonl", split="test"), context(root=MEDQUAD))
    assert len(train) + len(dropped) == 2200 and len(train) > 2150 and len(test) >= 295
    assert train[0].question == "What is (are) Miller-Dieker syndrome ?"
    assert train[0].groups == {TOGETHER: "focus=Miller-Dieker syndrome"} and {e.split for e in test} == {"test"}
