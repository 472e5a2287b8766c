"""Law: held-out examples share no document, passage or nearly equal text with train; honest neighbours pass."""

from __future__ import annotations

from train_kit import chat

from luthier.index.rag import Rag
from luthier.train.leak import check_leak, near_copies
from luthier.types import Message, Origin, Passage

LONG = "The pump must be primed with clean water before the first start, or its seal runs dry and fails in a minute."


def test_near_copies_are_found_whatever_case_and_punctuation():
    train = [chat(1, answer=LONG), chat(2, answer="Something else entirely, about the colour of the paint on the lid.")]
    held = [chat(3, split="test", answer=LONG.upper().replace(",", " ;"), input=train[0].input), chat(4, split="test")]
    assert near_copies(train, held) == [("e3", "e1")]


def test_a_question_on_the_same_topic_is_no_copy():
    train = [chat(1, answer=LONG)]
    held = [chat(2, split="test", answer="Prime the pump with clean water first; a dry seal fails fast.")]
    assert check_leak(train, held).state == "kept"


def test_the_same_refusal_to_another_question_is_no_copy():
    refusal = "I could not find this in the documents."
    train = [chat(1, answer=refusal, tags=("unanswerable",),
                  input=(Message(role="user", content="Who sells it here?"),))]
    held = [chat(2, answer=refusal, tags=("unanswerable",), split="test",
                 input=(Message(role="user", content="When was the tower in the north painted?"),))]
    assert check_leak(train, held).state == "kept"


def test_passages_in_a_prompt_are_compared_by_id_not_by_text():
    passage = Passage(id="p1", document="d", path="a.md", title="Pump", heading=(), text=LONG * 3, spans=(0, 1))
    asked = [chat(n, input=Rag().messages(question, [passage]), origin=Origin(maker="document", step="x"))
             for n, question in ((1, "What fails without water?"), (2, "How long is the warranty on steel parts?"))]
    assert near_copies(asked[:1], asked[1:]) == []


def test_documents_may_be_shared_only_where_the_split_is_by_passage():
    def part(n, passage, split):
        return chat(n, split=split, origin=Origin(maker="document", step="x", documents=("d",), passages=(passage,)))

    rows = [part(1, "p1", "train")], [part(2, "p2", "test")]
    assert check_leak(*rows, disjoint="document").state == "violated"
    assert check_leak(*rows, disjoint="passage").state == "kept"
    assert check_leak(rows[0], [part(3, "p1", "test")], disjoint="passage").state == "violated"
