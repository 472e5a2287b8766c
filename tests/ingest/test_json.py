"""JSON: names become headings, records rows; JSON Lines keep their line numbers and tell of broken lines."""

import json

import pytest

from luthier.ingest.base import Refused


def test_objects(tmp_path, read):
    data = {"name": "Shop", "open": True, "none": None, "tags": ["a", "b"],
            "faq": [{"question": "Who?", "answer": "We."}, {"question": "Where?", "answer": "Here."}],
            "address": {"city": "Ghent", "geo": {"lat": 51.05}}}
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert [(s.kind, s.level, s.text) for s in read(tmp_path / "a.json").spans] == [
        ("row", 0, "name: Shop\nopen: yes\ntags: a; b"), ("heading", 1, "faq"),
        ("row", 0, "question: Who?\nanswer: We."), ("row", 0, "question: Where?\nanswer: Here."),
        ("heading", 1, "address"), ("row", 0, "city: Ghent"), ("heading", 2, "geo"), ("row", 0, "lat: 51.05")]


def test_half_characters_and_nuls_do_not_reach_the_document(tmp_path, read):
    (tmp_path / "a.json").write_text('{"a\\u0000": "x\\ud800y\\u0000z", "b": "\\ud83d\\ude00"}')
    (span,) = read(tmp_path / "a.json").spans
    assert span.text == "a: x?yz\nb: 😀"


def test_lines(tmp_path, read):
    (tmp_path / "a.jsonl").write_text('{"a": 1, "b": {"c": "x"}}\n\n{"a": 2}\n{"a": \n')
    document = read(tmp_path / "a.jsonl")
    assert [(s.line, s.text) for s in document.spans] == [(1, "a: 1\nb.c: x"), (3, "a: 2")]
    assert document.meta["bad_lines"] == [4] and document.meta["num_bad_lines"] == 1


@pytest.mark.parametrize("text", ["{", "[1, 2", '{"a": 1} x', "[" * 100_000, '{"a":\n"b"\n'])
def test_broken_files_are_refused(tmp_path, read, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(Refused) as refused:
        read(tmp_path / "a.json")
    assert refused.value.reason == "corrupt"
