"""Law: repeats go and facts stay; the cap is even over makers; no held-out text is left in train."""

from dataclasses import replace

from luthier.index.rag import Rag
from luthier.prepare.admit import Admission, cap, drop_leaks
from luthier.prepare.split import Splits
from luthier.types import Example, Message, Origin, Passage

NOTHING = Splits(by="passage", of_passage={}, of_document={}, of_new=lambda name: "train")


def chat(question, answer="Yes, it is.", *, step="faq", split="train", tags=(), maker="rule", document="d", id=None):
    return Example(id=id or f"{question}|{answer}|{step}", input=(Message(role="user", content=question),),
                   target=answer, split=split, tags=tags,
                   origin=Origin(maker=maker, step=step, documents=(document,), where="a.md"))


def admitted(*examples):
    dropped = []
    admission = Admission(dropped)
    for example in examples:
        admission.add([example])
    return [e.question for e in admission.examples], [d.reason for d in dropped], dropped


def test_equal_questions_go_even_with_another_answer_and_that_is_told():
    kept, reasons, dropped = admitted(chat("What is the limit?", "Ten."), chat("what is the LIMIT", "Ten."),
                                      chat("What is the limit?", "Twenty."))
    assert kept == ["What is the limit?"] and reasons == ["duplicate-question"] * 2
    assert [d.detail.endswith("another answer") for d in dropped] == [False, True]


def test_the_held_out_one_of_two_repeats_stays():
    one, two = chat("Who pays rent?", split="train", id="train"), chat("Who pays rent?", split="test", id="test")
    three = chat("Who pays rent?", split="validation", id="validation")
    for order in ((one, two, three), (three, two, one), (two, one, three)):
        admission = Admission(dropped := [])
        for each in order:
            admission.add([each])
        assert [e.id for e in admission.examples] == ["test"] and len(dropped) == 2


def test_questions_that_differ_in_function_words_only_go():
    kept, reasons, _ = admitted(chat("What is the notice period?"), chat("What's my notice period?"))
    assert kept == ["What is the notice period?"] and reasons == ["near-duplicate-question"]


def test_templates_with_other_entities_stay():
    asked = ["What is the price of A-100?", "What is the price of A-200?", "Who is the CEO?", "Who is the CTO?",
             "How many days have managers?", "How many days have engineers?"]
    assert admitted(*map(chat, asked))[0] == asked


def test_one_question_may_be_asked_plain_grounded_and_refused():
    passages = [Passage(id=str(n), document="d", path="a.md", title="", heading=(), text=f"Text {n}.", spans=(0, 1))
                for n in range(2)]
    plain = chat("Who pays?")
    grounded = chat(Rag().messages("Who pays?", passages[:1])[0].content, tags=("grounded",))
    refused = chat(Rag().messages("Who pays?", passages[1:])[0].content, tags=("grounded", "unanswerable"))
    again = chat(Rag().messages("who pays", passages)[0].content, tags=("grounded",))
    kept, reasons, _ = admitted(plain, grounded, refused, again)
    assert len(kept) == 3 and reasons == ["duplicate-question"]


def test_two_questions_over_the_same_passages_are_no_repeat():
    passage = Passage(id="p", document="d", path="a.md", title="", heading=(), text="Long text. " * 50, spans=(0, 1))
    asked = [chat(Rag().messages(q, [passage])[0].content, tags=("grounded",)) for q in ("Who pays rent?", "Who eats?")]
    assert len(admitted(*asked)[0]) == 2


def test_the_same_last_turn_after_another_history_is_another_example():
    one = chat("And then?")
    other = replace(one, id="o", input=(Message(role="user", content="Hello"), Message(role="assistant", content="Hi"),
                                        *one.input))
    assert len(admitted(one, other)[0]) == 2


def test_cap_takes_makers_in_turn_and_spares_people():
    many = [chat(f"Question {n}?", step="section") for n in range(50)]
    few = [chat(f"Other {n}?", step="faq") for n in range(4)]
    own = [chat(f"Mine {n}?", step="pairs", maker="human") for n in range(30)]
    dropped = []
    kept = cap([*many, *few, *own], 10, 0, dropped)
    steps = [e.origin.step for e in kept]
    assert (steps.count("faq"), steps.count("section"), steps.count("pairs")) == (4, 6, 30)
    assert len(dropped) == 44 and {d.reason for d in dropped} == {"over-document-cap"}
    assert {e.id for e in cap([*own, *few, *many][::-1], 10, 0, [])} == {e.id for e in kept}


ANSWER = ("The pump must be serviced every six months by a trained person who signs the service book afterwards and "
          "hangs a green tag on the main valve so that everybody can see it from the door of the room.")


def test_train_loses_what_test_and_validation_hold():
    examples = [
        chat("How often is the pump serviced?", ANSWER, split="test", id="test"),
        chat("When must the pump get a service?", ANSWER, split="train", id="train-copy"),
        chat("When is the pump due?", ANSWER, split="validation", id="validation-copy"),
        chat("Who may drive?", "Those with a licence.", split="validation", id="validation"),
        chat("who may drive ?", "Those with a licence!", split="train", id="train-near"),
        chat("Where is the canteen?", "On the first floor.", split="train", id="train"),
    ]
    dropped = []
    assert [e.id for e in drop_leaks(examples, [], NOTHING, dropped)] == ["test", "validation", "train"]
    assert {d.item for d in dropped} == {"train-copy", "validation-copy", "train-near"}
    assert all(d.reason.startswith("leak-") for d in dropped)


def test_train_loses_what_quotes_a_test_passage():
    held = Passage(id="p", document="d", path="a.md", title="", heading=(), text=ANSWER, spans=(0, 1))
    splits = replace(NOTHING, of_passage={"p": "test"})
    quoting = Example(id="text", input=f"Intro. {ANSWER} Outro.", target=None,
                      origin=Origin(maker="document", step="t"))
    prompted = chat(Rag().messages("Who hangs what?", [held])[0].content, "A tag.", tags=("grounded",), id="prompt")
    assert drop_leaks([quoting, prompted], [held], splits, dropped := []) == []
    assert {d.item for d in dropped} == {"text", "prompt"}


def test_the_same_fact_on_another_page_leaks_however_short():
    """An abbreviation that every page spells out, asked once a page: the text is too short for shared runs."""
    def stands(page, *, split, maker="rule", target="NMRI stands for nuclear magnetic resonance imaging.", tags=()):
        return Example(id=f"{page}-{split}", input=(Message(role="user", content=f"What is NMRI in {page}?"),),
                       target=target, split=split, tags=tags,
                       origin=Origin(maker=maker, step="definition", documents=(page,), passages=(page,)))

    pages = [stands("a", split="test"), stands("b", split="train"),
             stands("c", split="train", target="NMRI stands for nuclear magnetic resonance imaging. [2]"),
             stands("d", split="train", target="NMRI is not explained in this leaflet.")]
    dropped = []
    assert [e.id for e in drop_leaks(pages, [], NOTHING, dropped)] == ["a-test", "d-train"]
    assert {d.reason for d in dropped} == {"leak-answer"}
    refusals = [stands("a", split="test", tags=("unanswerable",)), stands("b", split="train", tags=("unanswerable",))]
    yes = [stands("e", split="test", target="Yes, it is."), stands("f", split="train", target="Yes, it is.")]
    assert len(drop_leaks([*refusals, *yes], [], NOTHING, [])) == 4
