"""Laws of finding changes, of the frozen split and of the choice of past rows: content decides."""

from collections import Counter

import pytest

from luthier.prepare.base import OWN_SPLIT, Prepare, prepare, read_dropped, read_examples
from luthier.prepare.makers.rows import Rows
from luthier.project.updating import Updating
from luthier.store import Store
from luthier.task import Task
from luthier.types import Document, Example, Message, Origin, Span
from luthier.watch.changes import describe, document_changes, find_changes
from luthier.watch.data import FIRST, SINCE, batches, choose_past, count_past, update_rows, whole_data

TASK = Task(type="classify")


def row(text, label="a", where="data.csv:2", **more):
    return Example(id=f"{text}|{label}|{where}", input=text, target=None, labels=(label,),
                   origin=Origin(maker="human", step="rows", where=where), **more)


def chat(question, answer, *, document="", grounded=False, where="x.md, line 3", passages=("p1",)):
    prompt = f'Passages:\n"""[1] {document}"""\n\nQuestion: {question}' if grounded else question
    return Example(id=f"{question}|{answer}|{document}|{grounded}", input=(Message(role="user", content=prompt),),
                   target=answer, tags=("grounded",) if grounded else (),
                   origin=Origin(maker="rule", step="faq", where=where, documents=(document,) if document else (),
                                 passages=passages if document else ()))


def document(path, text):
    import hashlib

    sha = hashlib.sha256(text.encode()).hexdigest()
    return Document(id=sha[:16], path=path, sha256=sha, media="text/plain", reader="text", title=path,
                    spans=(Span(text=text),))


def test_a_row_is_found_again_in_another_file_on_another_line_in_other_letters(tmp_path):
    old = [row("pay my bill", where="a.csv:2"), row("my router is dead", where="a.csv:3")]
    new = [row("My router is DEAD!", where="b.csv:7"), row("Pay my bill.", where="b.csv:90")]
    changes = find_changes(old, new, root=tmp_path)
    assert changes.nothing and set(changes.status.values()) == {"kept"} and changes.sentence() == "nothing changed"


def test_new_relabelled_reworded_and_removed_rows(tmp_path):
    old = [row("pay my bill", "a", "a.csv:2"), row("my router is dead today", "b", "a.csv:3"),
           row("send me a card", "a", "a.csv:4"), row("old words entirely", "b", "a.csv:5")]
    new = [row("pay my bill", "b", "a.csv:2"), row("my router is dead again", "b", "a.csv:3"),
           row("a fresh question", "a", "a.csv:5")]
    changes = find_changes(old, new, root=tmp_path)
    assert changes.counts() == {"new": 1, "changed": 2, "removed": 2, "replaced": 0, "set_aside": 0, "kept": 0}
    assert {example.input for example in changes.removed} == {"send me a card", "old words entirely"}
    told = describe(changes, new)
    was = {one["text"]: (one["was"], one["is"]) for one in told["changed"]}
    assert was["pay my bill"] == ("'a'", "'b'")
    assert told["files"] == {"a.csv": {"changed": 2, "new": 1, "removed": 2}}


def test_unlabelled_rows_are_no_change(tmp_path):
    assert find_changes([row("x y")], [row("x y"), row("loose", tags=("unlabelled",))], root=tmp_path).nothing


def test_rows_follow_their_document_removed_replaced_or_moved(tmp_path):
    one, two, three = document("a.md", "one"), document("b.md", "two"), document("c.md", "three")
    old = [chat("q one", "x", document=one.id), chat("q two", "y", document=two.id),
           chat("q three", "z", document=three.id)]
    edited = document("b.md", "two, edited")
    moved = document("d.md", "three")
    new = [chat("q two", "y and more", document=edited.id), chat("q new", "n", document=edited.id),
           chat("q three", "z", document=moved.id)]
    changes = find_changes(old, new, old_documents=[one, two, three], new_documents=[edited, moved], root=tmp_path)
    assert changes.documents == {"new": (), "changed": ("b.md",), "removed": ("a.md",), "moved": ("c.md → d.md",)}
    assert changes.counts() == {"new": 1, "changed": 1, "removed": 1, "replaced": 0, "set_aside": 0, "kept": 1}
    fewer = find_changes(old, new[2:], old_documents=[one, two, three], new_documents=[edited, moved], root=tmp_path)
    assert [example.question for example in fewer.replaced] == ["q two"]  # its document is there, and gives it no more


def test_a_grounded_question_is_the_same_whatever_passages_stand_around_it(tmp_path):
    from luthier.index.rag import Rag
    from luthier.types import Passage

    def asked(text):
        passage = Passage(id=text, document="d", path="d.md", title="d", heading=(), text=text, spans=(0, 1))
        messages = tuple(Rag().messages("what grows?", [passage], None, refusal="no"))
        return Example(id=text, input=messages, target="ash", tags=("grounded",),
                       origin=Origin(maker="rule", step="ground", documents=("d",), passages=(text,)))

    assert find_changes([asked("one text")], [asked("another text")], root=tmp_path).nothing


def test_document_changes_need_other_bytes():
    same = document("a.md", "x")
    assert not any(document_changes([same], [same]).values())


def prepared(root, rows, header="text,label"):
    (root / "data.csv").write_text(header + "\n" + "".join(f"{line}\n" for line in rows))
    group = "customer" if "customer" in header else None
    maker = Rows(path="data.csv", group_by=group)
    return prepare(None, TASK, Prepare(makers=(maker,)), store=Store(root / "store"), root=root)


def changed(root, before, after):
    changes = find_changes(read_examples(before), read_examples(after), dropped=read_dropped(after), root=root)
    return changes, whole_data(after, before, changes, task=TASK, store=Store(root / "store"), root=root)


def lines(first, last, words=("ant", "bee")):
    return [f"{word} number {at},{word}" for at in range(first, last) for word in words]


@pytest.mark.parametrize("customers", [0, 9])
def test_every_known_row_keeps_its_split_while_the_data_grows_threefold(tmp_path, customers):
    def some(first, last):
        plain = lines(first, last)
        return [f"{line},C{hash_of(line) % customers}" for line in plain] if customers else plain

    def hash_of(line):
        return sum(map(ord, line)) * 7919

    header = "text,label,customer" if customers else "text,label"
    before = prepared(tmp_path, some(0, 20), header)
    for step, last in enumerate((40, 60), 1):
        after = prepared(tmp_path, some(0, last), header)
        _, whole = changed(tmp_path, before, after)
        old = {example.input: example.split for example in read_examples(before)}
        now = {example.input: example for example in read_examples(whole)}
        assert {text: now[text].split for text in old if text in now} == {text: split for text, split in old.items()
                                                                         if text in now}
        assert {text for text, split in old.items() if split == "test"} <= now.keys()
        assert batches(whole) == [FIRST, *(f"update {at}" for at in range(1, step + 1))]
        dates = Counter(example.groups[SINCE] for example in now.values())
        assert set(dates) == set(batches(whole)) and dates[FIRST] <= 40
        groups = {}
        for example in now.values():
            groups.setdefault(example.groups.get("together", example.input), set()).add(example.split)
        assert all(len(found) == 1 for found in groups.values())
        before = whole


def test_a_split_that_the_data_names_is_the_datas(tmp_path):
    before = prepared(tmp_path, [f"{line},{'test' if at % 4 == 0 else 'train'}" for at, line in
                                 enumerate(lines(0, 20))], "text,label,split")
    moved = [f"{line},{'test' if at % 4 == 1 else 'train'}" for at, line in enumerate(lines(0, 20))]
    _, whole = changed(tmp_path, before, prepared(tmp_path, moved, "text,label,split"))
    rows = read_examples(whole)
    assert all(OWN_SPLIT in example.tags for example in rows)
    assert {example.input for example in rows if example.split == "test"} == {
        line.split(",")[0] for at, line in enumerate(lines(0, 20)) if at % 4 == 1}


def test_update_rows_hold_what_is_new_and_past_rows_of_every_class(tmp_path):
    before = prepared(tmp_path, lines(0, 40))
    after = prepared(tmp_path, [*lines(0, 40), *lines(40, 60, ("ant",))])
    changes, whole = changed(tmp_path, before, after)
    spec = Updating(past=0.25, least_past=4)
    rows = update_rows(whole, spec, seed=0, store=Store(tmp_path / "store"))
    train = read_examples(rows, "train")
    new = [example for example in train if example.id in changes.of("new")]
    past = [example for example in train if example.id not in changes.of("new")]
    assert {example.id for example in new} == {e.id for e in read_examples(whole, "train")} & changes.of("new")
    assert len(past) == count_past(len(new), spec) == max(4, round(len(new) / 3))
    counts = Counter(example.labels for example in past)
    assert set(counts) == {("ant",), ("bee",)} and max(counts.values()) - min(counts.values()) <= 1
    for split in ("validation", "test"):
        assert read_examples(rows, split) == read_examples(whole, split)
    none = update_rows(whole, Updating(past=0), seed=0, store=Store(tmp_path / "store"))
    assert {e.id for e in read_examples(none, "train")} == {e.id for e in new}


def test_past_rows_are_the_same_ones_while_others_come():
    rows = [row(f"text {at}", "abc"[at % 3]) for at in range(90)]
    chosen = choose_past(rows, 30, seed=1)
    more = choose_past([*rows, *(row(f"later {at}", "abc"[at % 3]) for at in range(9))], 33, seed=1)
    assert len(chosen) == 30 and len({e.id for e in chosen} & {e.id for e in more}) >= 24
    assert choose_past(rows[:2], 30, seed=1) == rows[:2] and choose_past(rows, 0, seed=1) == []
    assert choose_past(rows, 1, seed=0) and {e.labels for e in choose_past(rows, 1, seed=0)} == {("a",), ("b",), ("c",)}
