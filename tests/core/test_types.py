"""Records survive a round trip through one line of JSON."""

import json

from luthier.types import (
    Document,
    Example,
    Message,
    Origin,
    Passage,
    Span,
    decode_document,
    decode_example,
    decode_passage,
    encode,
    read_jsonl,
    write_jsonl,
)


def test_documents_passages_and_examples_round_trip(tmp_path):
    document = Document(id="d", path="a/b.pdf", sha256="0" * 64, media="application/pdf", reader="pdf", title="T",
                        spans=(Span(text="Ü\u2028x", page=2, box=(0.0, 1.0, 2.0, 3.0)),), meta={"a": [1]})
    passage = Passage(id="p", document="d", path="a/b.pdf", title="T", heading=("H",), text="x", spans=(0, 1), page=2)
    example = Example(id="e", input=(Message(role="user", content="q"),), target="a", tags=("grounded",),
                      origin=Origin(maker="rule", step="section", documents=("d",), passages=("p",)))
    text = Example(id="t", input="domain text", target=None, origin=Origin(maker="document", step="text"))
    assert decode_document(json.loads(encode(document))) == document
    assert decode_passage(json.loads(encode(passage))) == passage
    assert decode_example(json.loads(encode(example))) == example
    assert decode_example(json.loads(encode(text))) == text
    assert write_jsonl(tmp_path / "x", [document, document]) == 2
    assert [decode_document(row) for row in read_jsonl(tmp_path / "x")] == [document, document]


def test_citation_names_page_or_line():
    base = {"id": "p", "document": "d", "path": "a.pdf", "title": "A", "heading": ("A", "B"), "text": "x",
            "spans": (0, 1)}
    assert Passage(**base, page=3).citation == "a.pdf, page 3"
    assert Passage(**base, line=9).citation == "a.pdf, line 9"
    assert Passage(**base).citation == "a.pdf"
    assert Passage(**base).headed == "A > B\nx"
