"""Law: what repeats held-out text is found, in whole or in half; what merely speaks of the same matter is not."""

import random

from luthier.index.rag import Rag
from luthier.prepare.leak import find_leaks, trained_texts
from luthier.types import Example, Message, Origin, Passage


def text(seed, length=80):
    return " ".join(random.Random(seed).choices([f"word{n}" for n in range(2000)], k=length))


def chat(question, answer, tags=(), system=None):
    turns = ((Message(role="system", content=system),) if system else ()) + (Message(role="user", content=question),)
    return Example(id="x", input=turns, target=answer, origin=Origin(maker="rule", step="t"), tags=tags)


def test_copies_halves_and_quotes_inside_longer_texts_are_leaks():
    held = [text(1), text(2), text(3, 200)]
    half = " ".join(text(3, 200).split()[:120])
    tested = [text(1), f"{text(50, 100)} {text(2)} {text(51, 100)}", half, text(4)]
    found = {leak.item: (leak.held, leak.reason) for leak in find_leaks(tested, held)}
    assert found == {0: (0, "leak-runs"), 1: (1, "leak-runs"), 2: (2, "leak-runs")}


def test_a_shared_sentence_of_boilerplate_is_no_leak():
    boiler = text(9, 20)
    assert find_leaks([f"{text(10)} {boiler}"], [f"{text(11)} {boiler}"]) == []


def test_short_texts_leak_when_nearly_all_words_are_the_same():
    held = ["How many days of paid vacation do I have? Twenty days."]
    assert [leak.reason for leak in find_leaks(["How many days of paid vacation do I have?\nTWENTY days!"], held)] == [
        "leak-near"]
    assert find_leaks(["How many days of sick leave may I take? Ten days.", "Twenty days.", ""], held) == []


def test_random_texts_never_leak():
    assert find_leaks([text(n) for n in range(100)], [text(n) for n in range(200, 300)]) == []


def test_passages_in_a_prompt_are_trained_text_but_refusals_are_not():
    passage = Passage(id="p", document="d", path="p.md", title="", heading=(), text=text(7), spans=(0, 1))
    prompt = Rag().messages("Why?", [passage])[0].content
    grounded = chat(prompt, "Because.", tags=("grounded",))
    assert any(text(7) in part for part in trained_texts(grounded))
    assert trained_texts(grounded)[0] == "Why?\nBecause."
    assert find_leaks(trained_texts(grounded), [text(7)])
    assert "find" not in trained_texts(chat("Who?", "I could not find this.", tags=("unanswerable",)))[0]
    assert trained_texts(chat("Who?", "She.", system="Be kind.")) == ["Who?\nShe."]


def test_the_law_holds_for_raw_text_and_for_classes():
    """Completion learns whole texts; classes are judged by `label_build.drop_leaks`."""
    from luthier.prepare.label_split import drop_leaks

    raw = Example(id="r", input=text(7, 200), target=None, origin=Origin(maker="document", step="text"))
    assert [leak.held for leak in find_leaks(trained_texts(raw), [text(8), text(7, 200)])] == [1]
    rows = [Example(id=f"{split}{seed}", input=said, target=None, labels=("a",), split=split,
                    origin=Origin(maker="human", step="table", where="data.csv:2"))
            for split, seed, said in (("test", 1, text(20, 40)), ("train", 2, text(20, 40).upper()),
                                      ("train", 3, text(20, 40) + " more"), ("train", 4, text(21, 40)))]
    dropped = []
    assert [one.id for one in drop_leaks(rows, dropped)] == ["test1", "train4"]
    assert all(one.reason.startswith("leak-") for one in dropped) and len(dropped) == 2
