"""Law: prepare is deterministic and incremental, splits before it makes, and refuses to go on without train or test."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from luthier.errors import DataError
from luthier.index.base import Index
from luthier.prepare.base import (
    OWN_SPLIT,
    MakeContext,
    Prepare,
    prepare,
    read_dropped,
    read_examples,
    read_passages,
)
from luthier.prepare.split import SplitBy
from luthier.spec import Spec
from luthier.store import Store
from luthier.task import Task
from luthier.types import Document, Dropped, Example, Message, Origin, Span, digest, encode, write_jsonl

CALLS: list[str] = []


class Ask(Spec):
    """One question about each passage, made document by document."""

    prefix: str = "What does"
    """First words."""
    kind: ClassVar[str] = "ask"
    per_document: ClassVar[bool] = True
    uses_retriever: ClassVar[bool] = False
    VERSION: ClassVar[int] = 1

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        CALLS.append(context.documents[0].path)
        context.notes["passages"] = len(context.passages)
        for passage in context.passages:
            yield Example(id="", input=(Message(role="user", content=f"{self.prefix} {passage.heading[-1]} say?"),),
                          target=passage.text, origin=Origin(maker="rule", step="ask", documents=(passage.document,),
                                                             passages=(passage.id,), where=passage.citation))

    def inputs(self, root: Path) -> dict[str, str]:
        return {}


class Own(Spec):
    """The user's pairs, some with a split of their own."""

    file: str = "pairs.txt"
    """Read for its hash."""
    kind: ClassVar[str] = "own"
    per_document: ClassVar[bool] = False
    uses_retriever: ClassVar[bool] = False
    VERSION: ClassVar[int] = 1

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        for line in (context.root / self.file).read_text("utf-8").splitlines():
            split, question = line.split("|")
            yield Example(id="", input=(Message(role="user", content=question),), target=f"Answer to: {question}",
                          split=split or "train", tags=(OWN_SPLIT,) if split else (),
                          origin=Origin(maker="human", step="own", where=self.file))

    def inputs(self, root: Path) -> dict[str, str]:
        return {"file": digest((root / self.file).read_text("utf-8"))}


class Search(Spec):
    """Asks the retriever, to see what it holds."""

    kind: ClassVar[str] = "search"
    per_document: ClassVar[bool] = False
    uses_retriever: ClassVar[bool] = True
    VERSION: ClassVar[int] = 1

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        inside = {hit.passage.id for hit in context.retriever("train").search(["section matter"], 1000)[0]}
        want = {p.id for p in context.passages if context.split_of(p.id) == "train"}
        assert inside == want, "a retriever over train holds the train passages only"
        assert len(context.retriever().search(["section matter"], 1000)[0]) == len(context.passages)
        context.notes["earlier"] = len(context.examples)
        yield from ()

    def inputs(self, root: Path) -> dict[str, str]:
        return {}


def document(name, sections=5, text=None):
    spans = [Span(text=f"Handbook {name}", kind="heading", level=1)]
    for at in range(sections):
        spans.append(Span(text=f"Section {at} of {name}", kind="heading", level=2))
        mark = digest(name, str(at))
        told = f"Section matter {mark} of {name} is settled by rule {mark[::-1]} in case {at}."
        spans.append(Span(text=text or told))
    sha = digest(name, *(span.text for span in spans), length=64)
    return Document(id=sha[:16], path=f"{name}.md", sha256=sha, media="text/markdown", reader="markdown",
                    title=f"Handbook {name}", spans=tuple(spans))


def ingested(store, documents):
    def make(folder):
        write_jsonl(folder / "documents.jsonl", documents)
        return {"documents": len(documents)}

    return store.build("ingest", version=1, spec={}, inputs={"d": digest(*map(encode, documents))}, make=make)


SPEC = Prepare(makers=(Ask(),))


def run(root, documents, spec=SPEC, **more):
    store = Store(root / "store")
    return prepare(ingested(store, documents), Task(), spec, store=store, root=root, **more)


FOLDER = [document(f"doc{n}") for n in range(8)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepare")
    return root, run(root, FOLDER)


def test_every_passage_led_to_an_example_in_its_own_split(made):
    _, artifact = made
    passages, examples = read_passages(artifact), read_examples(artifact)
    told = json.loads((artifact.path / "splits.json").read_text("utf-8"))
    assert len(passages) == len(examples) == 40
    assert all(example.split == told["passages"][example.origin.passages[0]] for example in examples)
    assert {split: len(read_examples(artifact, split)) for split in ("train", "validation", "test")} == {
        split: artifact.summary[split] for split in ("train", "validation", "test")}
    assert artifact.summary["disjoint"] == "passage" and artifact.summary["language"] == "en"
    assert len({example.id for example in examples}) == 40 and all(example.id for example in examples)


def test_the_same_call_gives_the_same_bytes_elsewhere(made, tmp_path):
    _, artifact = made
    again = run(tmp_path, FOLDER[::-1])
    for name in ("passages.jsonl", "examples.jsonl", "dropped.jsonl", "splits.json", "card.json", "card.html"):
        assert (again.path / name).read_bytes() == (artifact.path / name).read_bytes(), name


def test_a_second_call_is_a_hit_without_heavy_imports(tmp_path):
    code = (
        "import sys; from pathlib import Path; from luthier.prepare.base import MAKERS, Prepare, prepare; "
        "from luthier.store import Store; from luthier.task import Task; root = Path(sys.argv[1]); "
        "store = Store(root / 'store'); documents = store.find('ingest', sys.argv[2]); "
        "spec = Prepare(makers=(MAKERS.get('faq')(), MAKERS.get('section')())); "
        "made = prepare(documents, Task(), spec, store=store, root=root); "
        "heavy = ('torch', 'transformers', 'bm25s', 'rensa', 'numpy', 'ftfy', 'jinja2'); "
        "print(made.id, made.fresh, [name for name in heavy if name in sys.modules and not made.fresh])"
    )
    documents = ingested(Store(tmp_path / "store"), FOLDER)
    command = [sys.executable, "-c", code, str(tmp_path), documents.id]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(maxsplit=2)
                     for _ in range(2))
    assert first[1] == "True" and second == [first[0], "False", "[]\n"]


def test_the_second_call_finds_the_first(made):
    root, artifact = made
    CALLS.clear()
    again = run(root, FOLDER)
    assert not again.fresh and again.id == artifact.id and CALLS == []


def test_one_changed_document_remakes_only_its_own(made):
    root, artifact = made
    changed = [*FOLDER[:3], document("doc3", sections=6), *FOLDER[4:]]
    CALLS.clear()
    again = run(root, changed)
    assert again.fresh and CALLS == ["doc3.md"]
    before = {e.id: e.split for e in read_examples(artifact) if e.origin.where.split(",")[0] != "doc3.md"}
    after = {e.id: e.split for e in read_examples(again)}
    assert before.items() <= after.items()


def test_a_changed_maker_remakes_all(made):
    root, _ = made
    CALLS.clear()
    run(root, FOLDER, SPEC.but(makers=(Ask(prefix="How does"),)))
    assert len(CALLS) == 8


def test_by_document_no_document_is_on_two_sides(tmp_path):
    artifact = run(tmp_path, [document(f"d{n}", 3) for n in range(24)])
    assert artifact.summary["disjoint"] == "document"
    sides = {}
    for example in read_examples(artifact):
        sides.setdefault(example.origin.documents[0], set()).add(example.split)
    assert all(len(side) == 1 for side in sides.values()) and set().union(*sides.values()) >= {"train", "test"}


def test_own_pairs_keep_their_split_or_are_split_by_question(tmp_path):
    lines = ["test|Which exam is this?", "train|Which train is this?"]
    lines += [f"|Does rule {n} of the house say anything about matter {digest(str(n))}?" for n in range(200)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines), "utf-8")
    artifact = run(tmp_path, FOLDER, Prepare(makers=(Own(),)))
    found = {e.question: e.split for e in read_examples(artifact)}
    assert found["Which exam is this?"] == "test" and found["Which train is this?"] == "train"
    assert artifact.summary["test"] == pytest.approx(30, abs=14)
    (tmp_path / "pairs.txt").write_text("\n".join(lines[:-1]), "utf-8")
    fewer = run(tmp_path, FOLDER, Prepare(makers=(Own(),)))
    assert fewer.id != artifact.id  # the pairs' file is part of what the artifact is made from
    assert {e.question: e.split for e in read_examples(fewer)}.items() <= found.items()


def test_a_searching_maker_sees_only_the_split_it_asks_for_and_the_earlier_examples(tmp_path):
    words = Index(mode="keywords")
    artifact = run(tmp_path, FOLDER, Prepare(makers=(Ask(), Search())), index=words)
    card = json.loads((artifact.path / "card.json").read_text("utf-8"))
    notes = {row["maker"]: row["notes"] for row in card["makers"]}
    assert notes == {"ask": {"passages": 40}, "search": {"earlier": 40}}
    again = run(tmp_path, FOLDER, Prepare(makers=(Ask(), Search())), index=words.but(k1=1.2))
    assert again.id != artifact.id


def test_search_must_be_declared(tmp_path):
    class Sneaky(Search):
        """Searches without saying so."""

        uses_retriever: ClassVar[bool] = False

    with pytest.raises(TypeError, match="uses_retriever"):
        run(tmp_path, FOLDER, Prepare(makers=(Sneaky(),)))


def test_an_example_across_splits_is_dropped(tmp_path):
    class Across(Ask):
        """Quotes all passages."""

        per_document: ClassVar[bool] = False

        def make(self, context):
            yield from Ask.make(self, context)
            passages = context.passages
            yield Example(id="", input=(Message(role="user", content="What is said?"),), target="All of it.",
                          origin=Origin(maker="rule", step="ask", passages=tuple(p.id for p in passages)))
            yield Example(id="", input=(Message(role="user", content="Who?"),), target="Nobody.",
                          origin=Origin(maker="rule", step="ask", passages=("no-such",)))

    artifact = run(tmp_path, FOLDER, Prepare(makers=(Across(),)))
    assert {"spans-splits", "unknown-passage"} <= {drop.reason for drop in read_dropped(artifact)}


@pytest.mark.parametrize(("documents", "spec", "match"), [
    ([], SPEC, "no readable documents"),
    ([document("a", 2, text="Same words.")], SPEC.but(clean={"min_words": 500}), "no text was left"),
    (FOLDER, Prepare(makers=()), "no examples could be made from 40 passages"),
    ([document("a", 4)], SPEC.but(split=SplitBy(by="document")), "no test examples"),
    (FOLDER, SPEC.but(split=SplitBy(test=0)), "no test examples"),
])
def test_nothing_to_learn_or_to_test_is_one_sentence(tmp_path, documents, spec, match):
    with pytest.raises(DataError, match=match):
        run(tmp_path, documents, spec)
    assert not list((tmp_path / "store" / "prepare").glob("*/DONE"))


def test_the_cap_is_honoured(tmp_path):
    artifact = run(tmp_path, FOLDER, SPEC.but(max_examples_per_document=3))
    assert len(read_examples(artifact)) == 24
    assert sum(drop.reason == "over-document-cap" for drop in read_dropped(artifact)) == 16


def test_the_seed_moves_the_split(made, tmp_path):
    _, artifact = made
    other = run(tmp_path, FOLDER, SPEC.but(seed=1))
    assert {e.id for e in read_examples(other, "test")} != {e.id for e in read_examples(artifact, "test")}


def test_the_default_makers_are_registered():
    assert [maker.kind for maker in Prepare().makers] == [
        "faq", "table", "definition", "section", "unanswerable", "ground"]
