"""Law: the card counts what was made and dropped, warns when it must, shows hostile text as text and needs no net."""

import json
import re
from dataclasses import replace

import pytest

from luthier.prepare.base import Prepare
from luthier.prepare.card import card_data, render, write_card
from luthier.prepare.split import Splits
from luthier.types import Document, Dropped, Example, Message, Origin, Passage, Span


def passages(count):
    return [Passage(id=f"p{n}", document="d", path="a.md", title="A", heading=(), text=f"Fact {n} is <b>bold</b>.",
                    spans=(n, n + 1)) for n in range(count)]


def example(n, maker="rule", split="train", question=None, step="section"):
    return Example(id=f"e{n}", input=(Message(role="user", content=question or f"Is matter {n * 7} settled by {n}?"),),
                   target=f"Fact {n} is <b>bold</b>.", split=split,
                   origin=Origin(maker=maker, step=step, documents=("d",), passages=(f"p{n}",), where="a.md, line 1",
                                 evidence=f"Fact {n}"))


def card(examples, *, dropped=(), count=10, by="document", notes=None, documents=1):
    found = passages(count)
    papers = [Document(id="d" if not n else f"d{n}", path="a.md" if not n else f"b{n}.md", sha256="0", media="m",
                       reader="r", title="A", spans=(Span(text="x"),)) for n in range(documents)]
    splits = Splits(by=by, of_passage={p.id: "train" for p in found}, of_document={}, of_new=lambda name: "train")
    summary = {"documents": documents, "passages": count, "examples": len(examples), "dropped": len(dropped),
               "disjoint": by, "language": "en", "test_hash": "",
               **{name: sum(e.split == name for e in examples) for name in ("train", "validation", "test")}}
    return card_data(summary, documents=papers, passages=found, examples=examples, dropped=list(dropped),
                     splits=splits, notes=notes or {}, spec=Prepare(makers=()))


def test_counts_add_up():
    drops = [Dropped(item="d#1", step="clean", reason="page-furniture"), Dropped(item="q", step="dedupe", reason="x"),
             Dropped(item="e", step="section", reason="too-long"), Dropped(item="f", step="faq", reason="no-answer")]
    data = card([example(0), example(1, split="test"), example(2, maker="human", step="pairs")], dropped=drops,
                notes={"section": {"asked": 12, "rate": 0.25}, "faq": {}})
    makers = {row["maker"]: row for row in data["makers"]}
    assert makers["section"]["kept"] == 2 and makers["section"]["test"] == 1
    assert makers["section"]["dropped"] == {"too-long": 1} and makers["section"]["notes"]["asked"] == 12
    assert makers["faq"]["kept"] == 0 and makers["faq"]["dropped"] == {"no-answer": 1}
    assert makers["pairs"]["train"] == 1
    assert {row["origin"]: row["count"] for row in data["origins"]} == {"human": 1, "rule": 2}
    steps = {row["step"]: row for row in data["steps"]}
    assert steps["clean"]["kept"] == 1 and steps["chunk"]["kept"] == 11 and steps["dedupe"]["kept"] == 10
    (row,) = data["documents"]
    assert (row["passages"], row["covered"], row["examples"]) == (10, 3, 3)
    for histogram in data["lengths"].values():
        assert sum(one["count"] for one in histogram["bins"]) == histogram["n"]


@pytest.mark.parametrize(("examples", "options", "said"), [
    ([example(0, split="test")], {}, "only 1 examples"),
    ([example(0)], {"by": "passage"}, "split is by passage"),
    ([example(0)], {}, "Only 1 of 10 passages"),
    ([example(0)], {}, "No question was written by a person"),
    ([example(n % 10, question=f"What does the rule {n} say?") for n in range(30)], {}, "begin with “what does the”"),
    ([example(n, maker="teacher") for n in range(5)], {}, "100% of the examples were written by a model"),
    ([example(0)], {"documents": 2}, "Everything comes from 2 documents"),
    ([example(0)], {"dropped": [Dropped(item="x", step="section", reason="leak-runs")]}, "repeat validation or test"),
])
def test_warns(examples, options, said):
    assert any(said in warning for warning in card(examples, **options)["warnings"])


def test_good_data_has_no_warning():
    people = [replace(example(n % 40, maker="human", question=f"{start} matter {n} in hall {n * 3}?"), id=f"e{n}",
                      split="test" if n % 4 == 0 else "train")
              for n in range(200) for start in [["Who runs", "When starts", "Where is", "Why has"][n % 4]]]
    assert card(people, count=40, documents=25)["warnings"] == []


def test_the_page_shows_text_as_text_and_loads_nothing():
    hostile = example(1, question="<script>alert(1)</script> & who?")
    page = render(card([example(0), hostile], dropped=[Dropped(item="x", step="clean", reason="r", text="<i>t</i>")]))
    assert "<script" not in page and "&lt;script&gt;" in page and "<b>bold</b>" not in page and "<i>t</i>" not in page
    assert "<mark>Fact 0</mark> is &lt;b&gt;" in page
    assert not re.search(r"(?:src|href)\s*=|https?://|@import|url\(", page)
    assert re.search(r"prefers-color-scheme: dark", page)


def test_files(tmp_path):
    data = card([example(0)])
    splits = Splits(by="document", of_passage={f"p{n}": "train" for n in range(10)}, of_document={},
                    of_new=lambda name: "train")
    write_card(tmp_path, data["summary"], documents=[], passages=passages(10), examples=[example(0)], dropped=[],
               splits=splits, notes={}, spec=Prepare(makers=()))
    assert json.loads((tmp_path / "card.json").read_text("utf-8"))["summary"] == data["summary"]
    assert (tmp_path / "card.html").read_text("utf-8").startswith("<!doctype html>")
