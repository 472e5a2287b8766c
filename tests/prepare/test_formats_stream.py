"""Rows are read as they come: the same rows whatever the size of the pieces, in bounded memory, also from gzip."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc

import pytest

from luthier.errors import DataError
from luthier.prepare.makers import _json, _stream
from luthier.prepare.makers._rows import BadRow, Row, files_of, read_rows


def rows_of(path, name="f"):
    return [(row.where, row.data) if isinstance(row, Row) else (row.where, row.reason)
            for row in read_rows(path, name, {})]


def values(number, seed=0):
    chance = random.Random(seed)
    return [{"text": "ä\"]},{\n" * chance.randint(0, 9) + str(at), "label": chance.choice(["a", "b"]),
             "deep": [[{"x": [at, None, 1.5e3]}]]} for at in range(number)]


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_gives_the_same_rows_and_lines_whatever_the_pieces(chunk, indent, tmp_path, monkeypatch):
    data = values(40)
    file = tmp_path / "a.json"
    file.write_text("\n \n" + json.dumps(data, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    want = rows_of(file)
    assert [row for _, row in want] == data
    text = file.read_text("utf-8").split("\n")
    assert all(text[int(where.partition(":")[2]) - 1].lstrip(" [").startswith("{") for where, _ in want)
    monkeypatch.setattr(_json, "CHUNK", chunk)
    assert rows_of(file) == want


@pytest.mark.parametrize("chunk", [3, 1 << 20])
@pytest.mark.parametrize(("text", "said"), [
    ('[{"a": 1},\n{"a": 2}', r"f:2: the JSON array is not closed"),
    ('[{"a": 1},\n\n{"a": x}]', r"f:3: not valid JSON \(Expecting value on line 3"),
    ('[{"a": 1},\n{"a": "1\n"}]', r"f:2: not valid JSON \(Invalid control character at on line 2"),
])
def test_a_broken_array_is_told_with_its_line(chunk, text, said, tmp_path, monkeypatch):
    monkeypatch.setattr(_json, "CHUNK", chunk)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        rows_of(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv", "r.tsv", "r.json"])
def test_gzip_holds_what_the_plain_file_holds(name, tmp_path):
    text = {"r.jsonl": '{"q": "a\\nb", "a": "1"}\n\n{"q": "ü", "a": "2"}\n', "r.csv": 'q,a\n"a\nb",1\nü,2\n',
            "r.tsv": 'q\ta\n"a\nb"\t1\nü\t2\n', "r.json": '[{"q": "a\\nb", "a": "1"},\n{"q": "ü", "a": "2"}]'}[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode("utf-16")))
    assert rows_of(tmp_path / f"{name}.gz") == rows_of(tmp_path / name) != []
    assert [file.name for file in files_of(tmp_path, "f")] == [name, f"{name}.gz"]


def test_broken_archives_and_bombs_are_refused(tmp_path, monkeypatch):
    packed = gzip.compress(b'{"q": "a", "a": "b"}\n' * 100)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-20])
    (tmp_path / "no.jsonl.gz").write_bytes(b"plain text")
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b" " * 3_000_000))
    monkeypatch.setattr(_stream, "_BOMB_BYTES", 1 << 20)
    for name, said in (("cut", "cannot be unpacked"), ("no", "cannot be unpacked"), ("bomb", "archive bomb")):
        with pytest.raises(DataError, match=said):
            rows_of(tmp_path / f"{name}.jsonl.gz")


def test_an_endless_line_is_set_aside_and_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_stream, "MAX_LINE", 100)
    monkeypatch.setattr(_stream, "CHUNK", 16)
    (tmp_path / "r.jsonl").write_text('{"a": 1}\n{"a": "' + "x" * 5000 + '"}\n{"a": 3}\n', encoding="utf-8")
    assert rows_of(tmp_path / "r.jsonl") == [("f:1", {"a": 1}), ("f:2", "too-long"), ("f:3", {"a": 3})]


def test_a_deeply_nested_line_is_a_bad_row(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"a": 1}\n' + "[" * 200_000 + "\n{\"a\": 3}\n", encoding="utf-8")
    found = list(read_rows(tmp_path / "r.jsonl", "f", {}))
    assert isinstance(found[1], BadRow) and found[1].reason == "bad-json" and len(found) == 3


def test_an_old_encoding_late_in_a_large_file_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(_stream, "CHUNK", 1024)
    monkeypatch.setattr(_stream, "_WHOLE", 4096)
    lines = [json.dumps({"q": f"question {at}", "a": "answer"}) for at in range(2000)]
    file = tmp_path / "r.jsonl"
    file.write_bytes("\n".join([*lines, '{"q": "Größe, Länge, Straße?", "a": "süß"}']).encode("cp1252"))
    notes: dict = {}
    found = list(read_rows(file, "f", notes))
    assert notes["encoding"] == {"f": "cp1252"}
    assert found[-1].data == {"q": "Größe, Länge, Straße?", "a": "süß"}  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_memory_does_not_grow_with_the_file(kind, tmp_path):
    """12 MB of rows are read with less than 8 MB of Python objects at any time."""
    body = "word " * 4000
    lines = {"jsonl": lambda at: json.dumps({"q": f"{at} {body}", "a": body}) + "\n",
             "json": lambda at: ("[" if not at else ",") + json.dumps({"q": f"{at} {body}", "a": body}) + "\n",
             "csv": lambda at: f"{at} {body},{body}\n" if at else "q,a\n"}[kind]
    file = tmp_path / f"r.{kind}"
    with file.open("w", encoding="utf-8") as out:
        out.writelines(lines(at) for at in range(300))
        out.write("]" if kind == "json" else "")
    tracemalloc.start()
    count = sum(1 for _ in read_rows(file, "f", {}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 300 - (kind == "csv") and file.stat().st_size > 11_900_000
    assert peak < 8_000_000
