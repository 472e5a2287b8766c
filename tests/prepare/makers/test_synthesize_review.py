"""Pairs that a person judges, teachers that are too weak, forecasts, and what a run keeps: laws of synthesis."""

from __future__ import annotations

import json
import re
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from synthesis_kit import LIST, ROOM, Teacher, about_hall, hall, halls, pair

from luthier.errors import DataError, ModelError
from luthier.index.rag import Rag
from luthier.prepare.makers._yield import surely_below, table_lines
from luthier.prepare.makers.synthesize import Synthesize
from luthier.queues import Decided, ReviewItem, decide

# review

def test_unsure_pairs_go_to_a_person_and_every_verdict_is_honoured(teach, context, doc):
    over = context(doc("# Office guide", ROOM, LIST, title="Office guide"))
    part = ("What must visitors bring?", "Visitors must bring a passport and the invitation letter.")
    teacher = Teacher({"boardroom": pair(*part)})
    examples, dropped, seen = teach(teacher, over)
    (one,) = seen.review
    assert isinstance(one, ReviewItem) and one.queue == "pairs" and "incomplete-list" in one.reason
    assert one.text == f"Q: {part[0]}\nA: {part[1]}" and "safety shoes" in one.context and not examples
    spec = Synthesize(style="pairs")
    before = spec.inputs(over.root)

    decide(over.root, "pairs", Decided(id=one.id, verdict="accept", by="ann", text=one.text, where=one.where))
    assert spec.inputs(over.root) != before
    (kept,), _, seen = teach(teacher, over)
    assert kept.target == part[1] and "reviewed" in kept.tags and kept.origin.maker == "teacher" and not seen.review

    whole = {"question": part[0], "answer": "Visitors bring a passport, the invitation letter and safety shoes."}
    decide(over.root, "pairs", Decided(id=one.id, verdict="edit", value=whole, text=one.text, where=one.where))
    (kept,), _, _ = teach(teacher, over)
    assert kept.target == whole["answer"] and kept.origin.maker == "human" and kept.origin.passages
    silent = teach(Teacher({}, "nothing"), replace(over, cache=type(over.cache)(over.root / "empty")))
    assert silent[0] == [kept]  # the teacher need not write it again

    decide(over.root, "pairs", Decided(id=one.id, verdict="reject", by="bob", text=one.text))
    examples, dropped, _ = teach(teacher, over)
    assert not examples and dropped[-1].reason == "rejected" and "bob" in dropped[-1].detail


def test_a_kept_pair_can_be_rejected_and_a_wrong_edit_is_named(teach, context, doc):
    over = context(doc("# Office guide", ROOM, title="Office guide"))
    teacher = Teacher({"boardroom": pair("How many people does the boardroom seat?", "The boardroom seats 12 people.")})
    examples, _, seen = teach(teacher, over, review="all")
    assert len(examples) == 1 and len(seen.review) == 1
    decide(over.root, "pairs", Decided(id=seen.review[0].id, verdict="edit", value=7, text=seen.review[0].text))
    with pytest.raises(DataError, match=r"labels/pairs\.jsonl:1: the value of an edited pair"):
        teach(teacher, over)
    decide(over.root, "pairs", Decided(id=seen.review[0].id, verdict="reject", text=seen.review[0].text))
    assert not teach(teacher, over)[0]


# weak teachers, cost

def test_a_teacher_that_is_surely_too_weak_is_stopped_and_trains_nothing(teach, context, doc):
    over = context(doc(*halls(40), title="Halls"))
    good = {"Hall 0 of": about_hall(0)}
    teacher = Teacher(good, pair("What is it?", "It is 99 pianos."))
    examples, dropped, seen = teach(teacher, over, pilot=10, top_k=40)
    assert not examples and len(teacher.prompts) < 40
    assert "too weak" in seen.notes["warning"] and "other makers carry on" in seen.notes["warning"]
    assert sum(drop.reason == "weak-teacher" for drop in dropped) == len(seen.review) <= 1
    kept, _, _ = teach(Teacher(good, pair("What is it?", "It is 99 pianos.")), over, pilot=10, top_k=40, weak="keep")
    assert len(kept) == 1


def test_surely_below_waits_for_enough_evidence():
    assert not surely_below(0, 4, 0.2) and surely_below(0, 24, 0.2)
    assert not surely_below(4, 32, 0.2) and surely_below(13, 120, 0.2) and not surely_below(0, 0, 0.2)


def test_the_forecast_grows_with_what_is_asked_and_learns_the_teachers_speed(teach, context, doc, monkeypatch):
    over = context(doc("# Office guide", ROOM, title="Office guide"))
    monkeypatch.setattr(Synthesize, "_identity", lambda self, root: "scripted 1")
    spec = Synthesize(style="pairs", teacher="./x", price=(1.0, 2.0), reader="off")
    one = spec.forecast(100, 9000, replies=over.cache, root=over.root)
    ten = spec.forecast(1000, 90000, replies=over.cache, root=over.root)
    assert ten.passages == 400 and ten.calls > one.calls >= 100 and not one.measured and one.price > 0
    assert spec.but(reader="teacher").forecast(100, 9000, replies=over.cache, root=over.root).calls > one.calls
    teach(Teacher({"boardroom": pair("How many people does the boardroom seat?", "It seats 12 people.")}), over)
    assert spec.forecast(100, 9000, replies=over.cache, root=over.root).measured
    assert re.search(r"asks \./x about 100 passages: up to \d+ calls, .* thousand tokens, \d+\.\d\d at", one.text())


def test_the_table_leaves_out_what_is_zero():
    table = {"columns": ["kind", "asked", "quoted", "yield"], "rows": [["fact", 4, 0, 0.5]]}
    assert table_lines(table) == ["kind  asked  yield", "fact      4    50%"]


def test_an_endpoints_replies_are_kept_one_by_one(run, context, doc):
    """The third request fails for good: the two before it are on disk, and the next run asks only for the rest."""
    seen: list[str] = []
    broken = {"on": True}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(body["messages"][-1]["content"])
            if broken["on"] and len(seen) > 2:
                self.send_error(401, "no")
                return
            said = about_hall(int(re.search(r"Hall (\d+) of", seen[-1])[1]))
            data = json.dumps({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        over = context(doc(*halls(4), title="Halls"))
        spec = Synthesize(base_url=f"http://127.0.0.1:{server.server_port}/v1", model="m", parallel=1, min_chars=20,
                          kinds=("fact",), questions=1, reader="off", semantic=None)
        with pytest.raises(ModelError, match="for 2 of 4 prompts is kept"):
            run(spec, over)
        broken["on"] = False
        seen.clear()
        examples, _ = run(spec, replace(over, notes={}))
        assert len(examples) == 4 and len(seen) == 2
    finally:
        server.shutdown()
        server.server_close()


def test_prepare_writes_tables_into_the_card_and_unsure_pairs_into_the_queue(tmp_path, monkeypatch):
    from luthier.index.base import Index
    from luthier.ingest.base import ingest
    from luthier.prepare.base import Prepare, prepare
    from luthier.queues import read_review
    from luthier.store import Store
    from luthier.task import Task

    folder = tmp_path / "documents"
    folder.mkdir()
    for n in range(6):
        (folder / f"hall{n}.md").write_text(f"# Hall {n}\n\n{hall(n)} It has a crane.\n")
    monkeypatch.setattr(Synthesize, "_identity", lambda self, root: "scripted 1")
    monkeypatch.setattr(Synthesize, "_open", lambda self, root: Teacher({
        f"Hall {n} of": about_hall(n) if n else pair("When was hall 0 built?", "Hall 0 of the north site has a crane.")
        for n in range(6)}))
    store = Store(tmp_path / "store")
    spec = Prepare.model_validate({"makers": [{
        "kind": "synthesize", "style": "pairs", "kinds": ["fact"], "reader": "off", "min_chars": 10, "questions": 1}]})
    made = prepare(ingest([folder], store=store), Task(), spec, store=store, root=tmp_path, rag=Rag(),
                   index=Index(mode="keywords"))
    assert [item.queue for item in read_review(made.path)] == ["pairs"]
    page = (made.path / "card.html").read_text()
    assert "Yield by kind of question" in page and "Coverage by document" in page and "hall3.md" in page


def test_check_says_what_will_be_asked_before_anything_is(tmp_path):
    from luthier.project.base import Project
    from luthier.project.check import check

    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "halls.md").write_text("\n\n".join(halls(30)))
    (tmp_path / "luthier.yaml").write_text(
        "name: halls\nindex: {mode: keywords}\nprepare:\n  makers:\n    - {kind: section}\n"
        "    - {kind: synthesize, base_url: 'http://127.0.0.1:9/v1', model: big, price: [1, 4]}\n")
    told = check(Project.open(tmp_path)).text()
    asked = re.search(r"Synthesize asks big at (\S+) about \d+ passages: up to \d+ calls, .*price", told)
    assert asked and asked[1] == "http://127.0.0.1:9/v1"
