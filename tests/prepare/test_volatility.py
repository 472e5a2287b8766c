"""Laws of volatility: who is volatile and why; nothing that is trained depends on a volatile document; a changed
volatile fact is found by search at once, and the trained run stays as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "flow"))
from corpus import write_corpus  # pyright: ignore[reportMissingImports]

from luthier.errors import DataError, SpecError
from luthier.index.base import Index, index, open_index
from luthier.ingest.base import ingest
from luthier.prepare.base import Prepare, learned, prepare, read_dropped, read_examples, read_passages
from luthier.prepare.volatility import Volatility, changes_of, density, judge
from luthier.store import Content, Store
from luthier.task import Task
from luthier.types import Document, Span

WORDS = Index(mode="keywords")
PRICES = """---
volatility: volatile
---
# Prices of the canteen

## What does the lunch menu cost?

The lunch menu of the canteen costs {price} euros this week, soup and bread included.

## Who sets the prices of the canteen?

Ms Abara sets the prices of the canteen every Monday, after she has called the market in the morning.
"""


class World:
    """A company's folder with one volatile document about prices."""

    def __init__(self, root: Path):
        self.root, self.store = root, Store(root / "store")
        write_corpus(root / "documents")
        self.price(9)

    def price(self, price: int) -> None:
        (self.root / "documents" / "prices.md").write_text(PRICES.format(price=price), encoding="utf-8")

    def prepared(self, **changes):
        documents = ingest([self.root / "documents"], store=self.store)
        return prepare(documents, Task(), Prepare(**changes), store=self.store, root=self.root, index=WORDS)

    def answer(self, prepared) -> str:
        """The passage that search finds first for the price of the lunch."""
        found = index(prepared, WORDS, store=self.store, root=self.root)
        return open_index(found.path, root=self.root).search(["What does the lunch menu cost?"], 1)[0][0].passage.text


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def document(text: str = "Plain words about nothing.", path: str = "a.md", **meta) -> Document:
    return Document(id=path, path=path, sha256="0" * 64, media="m", reader="r", title="A", spans=(Span(text=text),),
                    meta=meta)


def test_a_document_s_own_word_comes_first_then_patterns_then_the_estimate():
    spec = Volatility(patterns={"*.md": "volatile", "b*": "stable"}, estimate=True)
    dated = "On 3 May 2026 it cost $40, on 4 June 2026 it cost $50, call +49 30 1234567."
    goes = {name: judge([one], spec, {"c.txt": 3})[one.path] for name, one in {
        "own": document(path="a.md", volatility="stable"), "pattern": document(path="a.md"),
        "last pattern": document(path="b.md"), "odd": document(path="a.md", volatility="weekly"),
        "dense": document(dated, path="d.txt"), "changed": document(path="c.txt"), "plain": document(path="e.txt"),
    }.items()}
    assert {name: going.volatile for name, going in goes.items()} == {
        "own": False, "pattern": True, "last pattern": False, "odd": True, "dense": True, "changed": True,
        "plain": False}
    assert goes["changed"].why == "looks volatile: changed 3 times"
    assert "per 100 words" in goes["dense"].why and "neither stable nor volatile" in goes["odd"].why
    off = judge([document(dated, path="d.txt")], Volatility(), {})["d.txt"]
    assert not off.volatile and off.looks  # told on the card, not acted on


def test_density_counts_dates_prices_and_phone_numbers():
    text = "Opened 2026-05-03 and 3.5.2026 and May 3rd, in 2019. It costs $4.50, 20 EUR or 3 euros. Call 030 / 123456."
    assert density(text) == pytest.approx(100 * 8 / len(text.split()))
    assert density("Chapter 12 has 340 pages and 5 figures.") == 0 and density("") == 0


def test_changes_are_versions_seen_up_to_the_artifact(world):
    first = ingest([world.root / "documents"], store=world.store)
    assert changes_of(first, world.store) == {}
    for price in (10, 11):
        world.price(price)
        last = ingest([world.root / "documents"], store=world.store)
    assert changes_of(last, world.store) == {"prices.md": 2}
    assert changes_of(first, world.store) == {}  # what came later does not change what an earlier one says


def test_an_estimate_takes_a_document_that_keeps_changing_out_of_training(world):
    spec = Volatility(estimate=True, density=1000)
    file = world.root / "documents" / "room-amber.md"
    for number in range(3):
        file.write_text(file.read_text() + f"\nNote {number}: the window is open again.\n")
        made = world.prepared(volatility=spec)
        trained = {path for example in read_examples(made) if example.split != "test"
                   for path in example.origin.where.split(",")[:1]}
        assert ("room-amber.md" in str(trained)) == (number < 2)


def test_volatile_documents_are_searched_and_tested_but_not_trained(world):
    made = world.prepared()
    paths = {passage.id: passage.path for passage in read_passages(made)}
    assert "prices.md" in paths.values() and made.summary["volatile"] == 1
    for example in read_examples(made):
        touched = {paths.get(id) for id in example.origin.passages}
        assert ("prices.md" in touched) == ("volatile" in example.tags)
        assert example.split == "test" or "prices.md" not in touched
    every = world.prepared(split={"by": "passage", "validation": 0.1, "test": 0.6})
    asked = [example for example in read_examples(every) if "volatile" in example.tags]
    assert asked and all(example.split == "test" for example in asked)
    card = json.loads((made.path / "card.json").read_text())
    mine = next(row for row in card["volatility"] if row["path"] == "prices.md")
    assert mine["goes"] == "index only" and mine["why"] == "declared volatile by the document"
    assert len(card["volatility"]) == made.summary["documents"]
    assert "declared volatile by the document" in (made.path / "card.html").read_text()


def test_the_stable_rows_are_those_of_a_folder_without_the_volatile_document(world):
    """Independence, the whole of it: take the document away and what is trained and validated is the same."""
    with_it = world.prepared()
    (world.root / "documents" / "prices.md").unlink()
    without = world.prepared()
    rows = [[example for example in read_examples(made) if "volatile" not in example.tags]
            for made in (with_it, without)]
    assert rows[0] == rows[1] and len(rows[0]) > 20
    assert learned(with_it).digest == learned(without).digest and with_it.id != without.id


def test_a_changed_volatile_fact_is_found_at_once_and_training_is_a_cache_hit(world):
    """The price changes: search answers with the new one, and the run of before is found again."""
    from luthier.adapt.base import Adapt, adapt
    from luthier.testing import tiny_chat_model
    from luthier.train.base import Train, train

    tiny_chat_model(world.root / "tiny")
    model = adapt(Task(), Adapt(model="./tiny", dtype="float32"), store=world.store, root=world.root)
    spec = Train(max_steps=1, verify_resume=False, max_truncated_share=1, packing="none")
    before = world.prepared()
    run = train(model, before, spec, store=world.store, root=world.root)
    assert "costs 9 euros" in world.answer(before)
    world.price(12)
    after = world.prepared()
    assert after.id != before.id and "costs 12 euros" in world.answer(after)
    again = train(model, after, spec, store=world.store, root=world.root)
    assert not again.fresh and again.id == run.id and run.inputs["data"] == f"prepare/{before.id}"
    room = world.root / "documents" / "room-birch.md"
    room.write_text(room.read_text().replace("Screens", "Large screens"))
    changed = world.prepared()
    key = {made.id: world.store.key("train", version=1, spec=spec, inputs={"data": learned(made)})
           for made in (before, after, changed)}
    assert key[before.id] == key[after.id] != key[changed.id]  # a stable document changes what is trained


def test_an_input_that_counts_by_content_names_the_artifact_and_keys_by_its_digest(tmp_path):
    store = Store(tmp_path)
    one, two = (store.build("a", version=1, spec={}, inputs={"x": x}, make=lambda folder: {}) for x in "12")
    made = [store.build("b", version=1, spec={}, inputs={"in": Content(one, digest)}, make=lambda folder: {})
            for digest in ("same", "other")]
    found = store.build("b", version=1, spec={}, inputs={"in": Content(two, "same")}, make=lambda folder: {})
    assert found.id == made[0].id != made[1].id and not found.fresh
    assert found.inputs == {"in": f"a/{one.id}"}


def test_only_volatile_documents_leave_nothing_to_train(world):
    with pytest.raises(DataError, match="every document is volatile"):
        world.prepared(volatility=Volatility(patterns={"*": "volatile"}), makers=("faq", "section"))


def test_a_refusal_that_a_volatile_document_answers_is_no_test_question(world):
    made = world.prepared(split={"by": "passage", "validation": 0.0, "test": 0.5},
                          makers=("faq", "section", {"kind": "unanswerable", "share": 1.0}))
    refusals = [e for e in read_examples(made, "test") if "unanswerable" in e.tags]
    assert refusals
    (world.root / "documents" / "prices.md").write_text(
        "---\nvolatility: volatile\n---\n# Questions of the day\n\n" + "\n\n".join(
            f"## {e.question}\n\nThe answer to “{e.question}” is on the board." for e in refusals[:2]))
    again = world.prepared(split={"by": "passage", "validation": 0.0, "test": 0.5},
                           makers=("faq", "section", {"kind": "unanswerable", "share": 1.0}))
    gone = {drop.item for drop in read_dropped(again) if drop.reason == "may-be-answered"}
    assert {e.id for e in refusals[:2]} <= gone
    assert learned(again).digest != ""


def test_labelled_tasks_refuse_the_section(tmp_path):
    with pytest.raises(SpecError, match=r"prepare\.volatility is for documents"):
        (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "b"}\n')
        prepare(None, Task(type="classify"), Prepare(volatility=Volatility(estimate=True),
                                                     makers=({"kind": "rows", "path": "rows.jsonl"},)),  # type: ignore[arg-type]
                store=Store(tmp_path / "store"), root=tmp_path)
