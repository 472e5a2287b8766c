"""Laws of the privacy step: what is taken out is nowhere in the artifact, tags move along, decisions are honoured."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from luthier.errors import DataError, SpecError
from luthier.prepare.base import MakeContext, Prepare, prepare, read_dropped, read_examples, read_passages
from luthier.prepare.privacy.work import moved
from luthier.queues import Decided, decide, read_review
from luthier.spec import Spec, parse
from luthier.store import Store
from luthier.task import Task
from luthier.types import (
    Document,
    Dropped,
    Example,
    Message,
    Origin,
    Span,
    Tag,
    digest,
    encode,
    read_jsonl,
    write_jsonl,
)

SECRETS = ("Jane Miller", "Miller", "jane.miller@acme-tools.com", "+49 30 901820", "DE89 3704 0044 0532 0130 00",
           "hunter2!x")
PRIVATE = (f"Ask Ms {SECRETS[0]} first, phone {SECRETS[3]}, or write to {SECRETS[2]}. Later Miller answers by letter.",
           f"Refunds go to {SECRETS[4]} within a week. The shared password: {SECRETS[5]} opens the cabinet.")
UNSURE = "The form was signed by Wendeline Xavieri in the presence of nobody else at all."


class Ask(Spec):
    """One question about each passage."""

    kind: ClassVar[str] = "ask"
    per_document: ClassVar[bool] = True
    uses_retriever: ClassVar[bool] = False
    VERSION: ClassVar[int] = 1

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        for passage in context.passages:
            asked = f"What does {(passage.heading or ('it',))[-1]} say?"
            yield Example(id="", input=(Message(role="user", content=asked),),
                          target=passage.text, origin=Origin(maker="rule", step="ask", documents=(passage.document,),
                                                             passages=(passage.id,), where=passage.citation))

    def inputs(self, root: Path) -> dict[str, str]:
        return {}


def document(name, *texts):
    spans = [Span(text=f"Guide {name}", kind="heading", level=1, line=1)]
    for at, text in enumerate(texts):
        spans += [Span(text=f"Part {at} of {name}", kind="heading", level=2, line=3 * at + 3),
                  Span(text=text, line=3 * at + 4)]
    sha = digest(name, *(span.text for span in spans), length=64)
    return Document(id=sha[:16], path=f"{name}.md", sha256=sha, media="text/markdown", reader="markdown",
                    title=f"Guide {name}", spans=tuple(spans))


DOCUMENTS = [document(f"plain{at}", *(f"Matter {digest(str(at), str(part))} is settled by rule {part} of book {at}."
                                      for part in range(4))) for at in range(4)] + [
    document("people", *PRIVATE, UNSURE, f"Part {'x' * 5} is stored in hall nine since the spring."),
    document("again", f"In urgent cases reach Jane Miller at {SECRETS[3]} on any day of the year.")]


def run(root, mode, documents=DOCUMENTS, makers=None, **settings):
    store = Store(root / "store")
    inputs = {"d": digest(*map(encode, documents))}
    ingested = store.build("ingest", version=1, spec={}, inputs=inputs, make=lambda folder: {
        "documents": write_jsonl(folder / "documents.jsonl", documents)})
    spec = parse(Prepare, {"makers": makers or [], "privacy": {"mode": mode, **settings}}, local=root)
    return prepare(ingested, Task(), spec if makers else spec.but(makers=(Ask(),)), store=store, root=root)


def texts(artifact):
    rows = [passage.headed for passage in read_passages(artifact)]
    return "\n".join(rows + [example.question + (example.target or "") for example in read_examples(artifact)])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("privacy")


def test_a_report_changes_nothing_and_says_what_was_found(root):
    off, told = run(root, "off"), run(root, "report")
    for name in ("passages.jsonl", "examples.jsonl", "dropped.jsonl", "splits.json"):
        assert (off.path / name).read_bytes() == (told.path / name).read_bytes()
    assert not (off.path / "privacy.jsonl").exists() and not (root / ".luthier").exists()
    card = json.loads((told.path / "card.json").read_text("utf-8"))
    kinds = {row["kind"]: row["count"] for row in card["privacy"]["kinds"]}
    assert kinds == {"PERSON": 4, "PHONE": 2, "EMAIL": 1, "IBAN": 1, "SECRET": 1}
    assert told.summary["personal_data"] == 9 and any("left as they are" in warning for warning in card["warnings"])
    page = (told.path / "card.html").read_text("utf-8").partition("<h2>Personal data</h2>")[2].partition("<h2>")[0]
    assert "J•••r" in page and not any(secret in page for secret in SECRETS)


@pytest.mark.parametrize("mode", ["redact", "pseudonymise", "refuse"])
def test_what_is_taken_out_is_in_no_file_of_the_artifact(root, mode):
    artifact = run(root, mode)
    for file in artifact.path.iterdir():
        if file.name != "review.jsonl":  # asks a person about what is unsure, with its sentence
            held = file.read_text("utf-8")
            assert not [secret for secret in SECRETS if secret in held or secret.replace(" ", "") in held], file.name
    rows = list(read_jsonl(artifact.path / "privacy.jsonl"))
    assert {row["kind"] for row in rows} == {"PERSON", "PHONE", "EMAIL", "IBAN", "SECRET"}
    assert {row["where"] for row in rows} == {"people.md, line 4", "people.md, line 7", "people.md, line 10",
                                              "again.md, line 4"}
    assert all(len(row["hash"]) == 24 for row in rows)
    same = {row["hash"] for row in rows if row["kind"] == "PHONE"}
    assert len(same) == 1, "the same value has the same hash in every document"
    joined = texts(artifact)
    assert ("[PHONE]" in joined) == (mode != "pseudonymise") and "Matter" in joined
    if mode == "pseudonymise":
        people, again = (next(p.text for p in read_passages(artifact) if p.path == f"{name}.md") for name in
                         ("people", "again"))
        name = people.split("Ms ")[1].split(" first")[0]
        assert name in again and name.split()[1] + " answers" in people and "@example." in people
        assert again.split(" at ")[1].split(" on ")[0] in people


def test_the_same_data_gives_the_same_artifact_and_another_key_other_pseudonyms(root, tmp_path):
    first = run(root, "pseudonymise")
    assert run(root, "pseudonymise").id == first.id and not run(root, "pseudonymise").fresh
    (tmp_path / ".luthier").mkdir()
    (tmp_path / ".luthier" / "privacy.key").write_text((root / ".luthier" / "privacy.key").read_text())
    again = run(tmp_path, "pseudonymise")
    for name in ("passages.jsonl", "examples.jsonl", "privacy.jsonl", "card.html"):
        assert (again.path / name).read_bytes() == (first.path / name).read_bytes(), name
    (tmp_path / ".luthier" / "privacy.key").write_text("another secret key, long enough")
    other = run(tmp_path, "pseudonymise")
    assert other.id != first.id and texts(other) != texts(first)


def test_the_map_is_written_only_on_request_and_undoes_everything(root):
    artifact = run(root, "pseudonymise", DOCUMENTS[4:] + DOCUMENTS[:3], map_file="undo/map.jsonl")
    undo = list(read_jsonl(root / "undo" / "map.jsonl"))
    assert (root / "undo" / "map.jsonl").stat().st_mode & 0o777 == 0o600
    passage = next(p.text for p in read_passages(artifact) if p.path == "again.md")
    for row in sorted(undo, key=lambda row: -len(row["pseudonym"])):
        passage = passage.replace(row["pseudonym"], row["value"])
    assert "Jane Miller at +49 30 901820" in passage


def test_refuse_leaves_out_what_is_unsure_until_a_person_decides(tmp_path):
    refused = run(tmp_path, "refuse")
    gone = [drop for drop in read_dropped(refused) if drop.reason == "unresolved-privacy"]
    assert len(gone) == 1 and "people.md, line 10: PERSON W•••i" in gone[0].detail and "Wendeline" not in gone[0].text
    assert "presence of nobody" not in texts(refused) and "hall nine" in texts(refused)
    asked, = [item for item in read_review(refused.path) if item.queue == "privacy"]
    assert asked.proposal == "PERSON" and "Wendeline Xavieri in the presence" in asked.context
    assert "Wendeline" not in asked.text, "the text goes into labels/privacy.jsonl, which is made for git"
    with pytest.raises(DataError, match=r"1 hits are unsure(.|\n)*people.md, line 10: PERSON W•••i"):
        run(tmp_path, "refuse", strict=True)
    decide(tmp_path, "privacy", Decided(id=asked.id, verdict="accept"))
    accepted = run(tmp_path, "refuse", strict=True)
    assert "signed by [PERSON] in the presence" in texts(accepted) and accepted.id != refused.id
    decide(tmp_path, "privacy", Decided(id=asked.id, verdict="reject"))
    rejected = run(tmp_path, "refuse")
    assert "signed by Wendeline Xavieri in" in texts(rejected) and not read_review(rejected.path)
    everything = run(tmp_path, "refuse", sure=1)
    assert sum(drop.reason == "unresolved-privacy" for drop in read_dropped(everything)) == 3


def test_a_value_that_no_rule_saw_elsewhere_is_pointed_out(tmp_path):
    told = "Since the old days wendeline xavieri keeps the archive of the northern branch in order."
    hidden = document("hidden", told)
    artifact = run(tmp_path, "redact", [*DOCUMENTS, hidden])
    card = json.loads((artifact.path / "card.json").read_text("utf-8"))
    assert {row["where"] for row in card["privacy"]["left"]} == {"hidden.md, line 4"}
    assert any("still hold a value" in warning for warning in card["warnings"])


def test_pairs_of_the_users_are_cleaned_with_their_turns_and_groups(tmp_path):
    rows = [{"question": f"Where does order {digest(str(at))} go?",
             "answer": f"To jane.miller@acme-tools.com, lot {digest(str(at))}.",
             "customer": f"person{at}@mail-acme.com"} for at in range(40)]
    rows[0]["question"] += " Dear Wendeline Xavieri, thanks"
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    artifact = run(tmp_path, "redact", makers=[{"kind": "pairs", "path": "pairs.jsonl", "group_by": "customer"}])
    made = read_examples(artifact)
    assert len(made) == 40 and all((row.target or "").startswith("To [EMAIL], lot ") for row in made)
    groups = {value for row in made for value in row.groups.values()}
    assert len(groups) == 40 and not any("@" in group for group in groups), "groups stay apart without the address"
    assert not any("@" in line for line in (artifact.path / "splits.json").read_text().splitlines())
    places = [row["part"] for row in read_jsonl(artifact.path / "privacy.jsonl")]
    assert places.count("target") == 40 and places.count("group") == 40


def test_labelled_rows_are_cleaned_and_their_tags_move(tmp_path):
    lines = []
    for at in range(60):
        name = f"Thomas Schneider{'' if at % 2 else ' Jones'}".split()
        words = [("the", "O"), ("unit", "B-THING"), (f"X{at}", "I-THING"), ("went", "O"), ("to", "O"),
                 *((word, f"{'B' if not place else 'I'}-PER") for place, word in enumerate(name)), ("in", "O"),
                 ("Lima", "B-LOC")]
        lines += [f"{word} {tag}" for word, tag in words] + [""]
    (tmp_path / "tags.conll").write_text("\n".join(lines))
    store = Store(tmp_path / "store")
    spec = {"makers": [{"kind": "conll", "path": "tags.conll"}]}
    plain = prepare(None, Task.model_validate({"type": "tag"}), parse(Prepare, {**spec, "privacy": {"mode": "off"}}),
                    store=store, root=tmp_path)
    clean = prepare(None, Task.model_validate({"type": "tag"}), parse(Prepare, {**spec, "privacy": {"mode": "redact"}}),
                    store=store, root=tmp_path)
    before = {row.origin.where: row for row in read_examples(plain)}
    assert len(read_examples(clean)) == len(before) == 60
    for row in read_examples(clean):
        assert "Schneider" not in str(row.input) and "[PERSON]" in str(row.input)
        kept = {(str(row.input)[tag.start : tag.end], tag.label) for tag in row.spans or ()}
        old = {(str(before[row.origin.where].input)[tag.start : tag.end], tag.label)
               for tag in before[row.origin.where].spans or ()}
        assert {one for one in old if one[1] != "PER"} == {one for one in kept if one[1] != "PER"}
        assert [text for text, label in kept if label == "PER"] == ["[PERSON]"]


def test_tags_move_as_a_search_by_hand_would_move_them():
    draw = random.Random(7)
    for _ in range(300):
        cuts = sorted(draw.sample(range(41), 8))
        changes = [(cuts[0], cuts[1], draw.randint(0, 9)), (cuts[4], cuts[5], draw.randint(0, 9))]
        tags = (Tag(start=cuts[2], end=cuts[3], label="A"), Tag(start=cuts[6], end=cuts[7], label="B"))
        text = "".join(chr(200 + at) for at in range(41))
        new = text[: cuts[0]] + "-" * changes[0][2] + text[cuts[1] : cuts[4]] + "+" * changes[1][2] + text[cuts[5] :]
        assert [new[tag.start : tag.end] for tag in moved(tags, changes)] == [text[tag.start : tag.end] for tag in tags]
    assert moved((Tag(start=2, end=6, label="A"),), [(4, 8, 3)]) == (Tag(start=2, end=7, label="A"),)
    assert moved((Tag(start=5, end=9, label="A"),), [(4, 8, 3)]) == (Tag(start=4, end=8, label="A"),)
    assert moved((Tag(start=4, end=8, label="A"),), [(4, 8, 3)]) == (Tag(start=4, end=7, label="A"),)


def test_settings_that_cannot_hold_are_refused():
    for wrong, why in (({"strict": True}, "mode: refuse"), ({"map_file": "x"}, "mode: pseudonymise"),
                       ({"sure": 0.2}, "at least min_confidence"), ({"mode": "hide"}, "mode")):
        with pytest.raises(SpecError, match=why):
            parse(Prepare, {"privacy": wrong})
    assert parse(Prepare, {"privacy": {"mode": False}}).privacy.mode == "off"
