"""Round trip: what is exported and read back as the user's own data says the same, in the same split.

`datasets` and `pandas` read what claims to be theirs; the COCO file is checked by what its format promises.
"""

from __future__ import annotations

import csv
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from luthier.errors import DataError, SpecError, UsageError
from luthier.index.rag import Rag
from luthier.prepare.base import MAKERS, TOGETHER, MakeContext, no_split
from luthier.prepare.export import MARK, export, parse_format
from luthier.prepare.formats.base import FORMATS, OUTSIDE
from luthier.prepare.labels import OUT_OF_SCOPE
from luthier.progress import Silent
from luthier.spec import parse
from luthier.store import Store
from luthier.task import Task
from luthier.testing import check_spec
from luthier.types import Dropped, Example, Message, Origin, Passage, Tag, digest, write_jsonl

SPLITS = ("train", "train", "validation", "test")
ODD = ["plain", 'quotes " and, commas;\ttabs', "two\nlines", "Grüße, 你好, 😀", "=1+1", "[1, 2]", "a\u2028b", "'"]


def stored(root: Path, task: Task, examples, passages=(), dropped=(), labels=()):
    """An artifact of `prepare` that holds these rows."""
    def make(folder):
        write_jsonl(folder / "examples.jsonl", examples)
        write_jsonl(folder / "passages.jsonl", passages)
        write_jsonl(folder / "dropped.jsonl", dropped)
        if task.labelled:
            (folder / "labels.json").write_text(json.dumps({"labels": list(labels), "multi_label": task.multi_label}))
        return {"examples": len(examples), "dropped": len(dropped), "passages": len(passages)}

    return Store(root / "store").build("prepare", version=1, spec={}, inputs={
        "task": task.dump(), "rows": digest(*map(repr, [*examples, *passages, *dropped]))}, make=make)


def one(at: int, task: str, **fields) -> Example:
    made = {"input": "", "target": None, "split": SPLITS[at % 4], **fields}
    origin = Origin(maker="rule" if task == "assistant" else "human", step="test", where=f"data.csv:{at}")
    return Example(id=f"{at:016x}", origin=origin, **made)


def chat(turns=True):
    rows = []
    for at, text in enumerate(ODD):
        before = [Message(role="system", content="Be brief.")] if at % 2 else []
        if turns and at % 3 == 0:
            before += [Message(role="user", content=f"Hello {at}"), Message(role="assistant", content=f"{text} yes")]
        rows.append(one(at, "assistant", input=(*before, Message(role="user", content=f"{text} {at}?")),
                        target=f"{text} is it"))
    return rows


def classify(several=False):
    rows = [one(at, "classify", input=f"{text} {at}", weight=1 + at / 4,
                labels=("b, c", "a")[: at % 3] if several else ("a" if at % 2 else "b, c",),
                groups={TOGETHER: f"customer={at // 2}", "language": "de" if at % 2 else ""})
            for at, text in enumerate(ODD)]
    rows.append(one(50, "classify", input="nobody knows", labels=None, split="train", tags=("unlabelled",),
                    groups={"language": "de"}))
    if not several:
        rows.append(one(51, "classify", input="weather", labels=(), split="test", tags=(OUT_OF_SCOPE,),
                        groups={"language": "de"}))
    return rows


def tagged():
    texts = [("Anna lives in New York .", ((0, 4, "PER"), (14, 22, "LOC"))), ("Nothing here", ()),
             ("( Bonn ) , ( Bonn )", ((2, 6, "LOC"), (13, 17, "LOC"))), ("EU EU", ((0, 2, "ORG"), (3, 5, "ORG")))]
    rows = [one(at, "tag", input=text, spans=tuple(Tag(start=a, end=b, label=label) for a, b, label in spans))
            for at, (text, spans) in enumerate(texts)]
    return [*rows, one(9, "tag", input="not yet labelled", split="train", tags=("unlabelled",))]


def embed():
    rows = [one(at, "embed", input=f"{text} {at}", target=f"match {text} {at}", negatives=(text, "no")[: at % 3])
            for at, text in enumerate(ODD)]
    return [*rows, one(60, "embed", input="alone", split="train", tags=("unlabelled",))]


def images(root: Path):
    from PIL import Image

    (root / "pics").mkdir()
    rows = []
    for at in range(8):
        file = f"pics/ü {at}.{'png' if at % 2 else 'jpg'}"
        Image.new("RGB", (10 + at, 8), (at * 20, 90, 10)).save(root / file)
        rows.append(one(at, "image", image=file, labels=None if at == 7 else ("cat" if at % 3 else "big dog",),
                        split="train" if at == 7 else SPLITS[at % 4], tags=("unlabelled",) if at == 7 else ()))
    return rows


def read(root: Path, reader, task: Task) -> list[Example]:
    maker = parse(MAKERS.get(reader["kind"]), {key: value for key, value in reader.items() if key != "kind"})
    context = MakeContext(documents=(), passages=(), task=task, split_of=no_split, seed=0, root=root,
                          cache=Store(root / "store").cache("prepare"), progress=Silent(), rag=Rag())
    found = list(maker.make(context))  # type: ignore[attr-defined]
    assert not [item for item in found if isinstance(item, Dropped)]
    return found  # type: ignore[return-value]


def said(example: Example, root: Path):
    """What an example teaches, in a form that does not depend on where it was read from."""
    return (example.input, example.target, example.labels, example.spans, example.negatives, example.split,
            example.weight, OUT_OF_SCOPE in example.tags, (root / example.image).read_bytes() if example.image else b"",
            example.groups.get("language", "de"))


CASES = {
    "assistant": (Task(), chat, ()),
    "classify": (Task(type="classify"), classify, ("a", "b, c")),
    "multi": (Task(type="classify", multi_label=True), lambda: classify(several=True), ("a", "b, c")),
    "tag": (Task(type="tag"), tagged, ("LOC", "ORG", "PER")),
    "embed": (Task(type="embed"), embed, ()),
}
FILES = {"chat": "x.jsonl", "alpaca": "x.json", "sharegpt": "x.json.gz", "jsonl": "x.jsonl.gz", "csv": "x.csv",
         "parquet": "x.parquet", "hf": "x", "conll": "x", "image_folder": "x", "coco": "x"}


@pytest.mark.parametrize(("kind", "case"), [
    *(("chat alpaca sharegpt jsonl csv parquet hf".split()[at], "assistant") for at in range(7)),
    *((kind, case) for case in ("classify", "multi", "embed") for kind in ("jsonl", "csv", "parquet", "hf")),
    *((kind, "tag") for kind in ("jsonl", "csv", "parquet", "hf", "conll"))])
def test_export_then_import_says_the_same(kind, case, tmp_path):
    if kind in ("parquet", "hf"):
        pytest.importorskip("datasets", reason="needs the extra `datasets`")
    task, make, labels = CASES[case]
    rows = make()
    artifact = stored(tmp_path, task, rows, labels=labels)
    done = export(artifact, tmp_path / FILES[kind], parse_format(kind), root=tmp_path)
    assert done.rows == len(rows) and not done.left_out and sum(done.splits.values()) == len(rows)
    back = read(tmp_path, done.reader, task)
    want = sorted(rows, key=lambda row: row.split) if kind in ("hf", "conll") else rows
    have = sorted(back, key=lambda row: row.split) if kind in ("hf", "conll") else back
    if kind == "conll":
        want = [replace(row, weight=1.0) for row in want]
    assert [said(row, tmp_path) for row in have] == [said(row, tmp_path) for row in want]
    if case == "classify":  # rows that belong together still do
        pairs = {row.input: row.groups[TOGETHER] for row in back}
        for first, second in zip(rows[:8:2], rows[1:8:2], strict=True):
            assert pairs[first.input] == pairs[second.input]
        assert len(set(pairs.values())) == 4 + 2


@pytest.mark.parametrize("kind", ["image_folder", "coco", "jsonl", "csv", "parquet", "hf"])
def test_images_come_back_with_their_bytes_class_and_split(kind, tmp_path):
    pytest.importorskip("PIL", reason="needs the extra `images`")
    if kind in ("parquet", "hf"):
        pytest.importorskip("datasets", reason="needs the extra `datasets`")
    rows, task = images(tmp_path), Task(type="image")
    artifact = stored(tmp_path, task, rows, labels=("big dog", "cat"))
    name = "out.parquet" if kind == "parquet" else "out"
    done = export(artifact, tmp_path / name, parse_format(kind), root=tmp_path)
    back = read(tmp_path, done.reader, task)
    assert sorted(map(repr, (said(row, tmp_path) for row in back))) == sorted(
        map(repr, (said(row, tmp_path) for row in rows)))


def test_datasets_reads_class_names_splits_and_lineage(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the extra `datasets`")
    artifact = stored(tmp_path, Task(type="classify"), classify(), labels=("a", "b, c"))
    export(artifact, tmp_path / "hf", parse_format("hf"), root=tmp_path)
    loaded = datasets.load_from_disk(str(tmp_path / "hf"))
    assert set(loaded) == {"train", "validation", "test"}
    assert loaded["train"].features["label"].names == ["a", "b, c", OUTSIDE]
    assert loaded["train"][0]["label"] == 1 and loaded["train"][0]["origin"] == "data.csv:0"
    artifact = stored(tmp_path, Task(), chat())
    export(artifact, tmp_path / "x.parquet", parse_format("parquet", {"row_group": 3}), root=tmp_path)
    table = pytest.importorskip("pyarrow.parquet").ParquetFile(tmp_path / "x.parquet")
    assert table.metadata.num_row_groups == 3
    first = table.read_row_group(0).to_pylist()[0]
    assert first["messages"][-1] == {"role": "assistant", "content": "plain is it"} and first["step"] == "test"


def test_coco_holds_what_the_format_promises(tmp_path):
    pil = pytest.importorskip("PIL.Image", reason="needs the extra `images`")
    rows = images(tmp_path)
    export(stored(tmp_path, Task(type="image"), rows, labels=("big dog", "cat")), tmp_path / "c", parse_format("coco"),
           root=tmp_path)
    total = 0
    for file in sorted((tmp_path / "c/annotations").glob("*.json")):
        data = json.loads(file.read_text("utf-8"))
        ids = [image["id"] for image in data["images"]]
        names = {one["id"]: one["name"] for one in data["categories"]}
        assert len(set(ids)) == len(ids) and names == {1: "big dog", 2: "cat"}
        for image in data["images"]:
            total += 1
            with pil.open(tmp_path / "c/images" / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"])
            assert image["luthier"]["split"] == file.stem
        assert len({one["id"] for one in data["annotations"]}) == len(data["annotations"])
        for found in data["annotations"]:
            image = data["images"][ids.index(found["image_id"])]
            assert found["category_id"] in names and found["bbox"] == [0, 0, image["width"], image["height"]]
            assert found["area"] == image["width"] * image["height"]
    assert total == 8


def test_conll_says_how_many_texts_lose_their_spacing(tmp_path):
    rows = [one(0, "tag", input="Anna, (Bonn)", spans=(
        Tag(start=0, end=4, label="PER"), Tag(start=7, end=11, label="LOC")))]
    artifact = stored(tmp_path, Task(type="tag"), rows, labels=("LOC", "PER"))
    done = export(artifact, tmp_path / "c", parse_format("conll", {"scheme": "bioes"}), root=tmp_path)
    assert "white space of 1 texts" in done.lost[0]
    lines = (tmp_path / "c/train.conll").read_text("utf-8").splitlines()
    assert json.loads(lines[0][2:])["origin"] == "data.csv:0"
    assert lines[1:] == ["Anna\tS-PER", ",\tO", "(\tO", "Bonn\tS-LOC", ")\tO", ""]
    [back] = read(tmp_path, done.reader, Task(type="tag"))
    assert back.input == "Anna , ( Bonn )" and [str(back.input)[tag.start:tag.end] for tag in back.spans or ()] == [
        "Anna", "Bonn"]


def test_lineage_names_documents_and_pages(tmp_path):
    passage = Passage(id="p" * 16, document="d" * 16, path="a/b.pdf", title="T", heading=("H",), text="text",
                      spans=(0, 1), page=7)
    row = Example(id="e" * 16, input=(Message(role="user", content="Q?"),), target="A", origin=Origin(
        maker="rule", step="faq", documents=("d" * 16,), passages=("p" * 16,), where="a/b.pdf, page 7", evidence="A"))
    drop = Dropped(item="x", step="dedupe", reason="exact-duplicate", detail="a/b.pdf, page 8", text="zero \0 byte")
    artifact = stored(tmp_path, Task(), [row], [passage], [drop])
    export(artifact, tmp_path / "x.csv", parse_format("csv"), root=tmp_path)
    [found] = csv.DictReader((tmp_path / "x.csv").open(encoding="utf-8", newline=""))
    assert (found["question"], found["answer"], found["split"], found["step"], found["page"]) == (
        "Q?", "A", "train", "faq", "7")
    assert json.loads(found["documents"]) == ["a/b.pdf"] and found["origin"] == "a/b.pdf, page 7"
    done = export(artifact, tmp_path / "p.jsonl", parse_format("jsonl"), root=tmp_path, what="passages")
    assert json.loads((tmp_path / "p.jsonl").read_text())["page"] == 7 and not done.reader
    export(artifact, tmp_path / "d.csv", parse_format("csv", {"excel": True}), root=tmp_path, what="dropped")
    text = (tmp_path / "d.csv").read_text("utf-8")
    assert text.startswith("\ufeffitem,step,reason") and "zero \ufffd byte" in text


def test_text_without_answers_is_left_out_of_conversations_and_counted(tmp_path):
    rows = [*chat(), one(70, "assistant", input="domain text")]
    artifact = stored(tmp_path, Task(type="completion"), rows)
    done = export(artifact, tmp_path / "x.jsonl", parse_format("chat"), root=tmp_path)
    assert done.rows == 8 and done.left_out == {"text without an answer": 1}
    done = export(artifact, tmp_path / "x.csv", parse_format("csv"), root=tmp_path)
    assert done.rows == 9
    only = stored(tmp_path, Task(type="completion"), rows[-1:])
    with pytest.raises(DataError, match="no examples to write as 'chat'; 1 × text without"):
        export(only, tmp_path / "y.jsonl", parse_format("chat"), root=tmp_path)
    assert not (tmp_path / "y.jsonl").exists()


def test_what_does_not_fit_is_refused_with_what_does(tmp_path):
    artifact = stored(tmp_path, Task(), chat())
    for kind, what, said in (("conll", "examples", "formats for it: alpaca, chat, csv, hf, jsonl, parquet, sharegpt"),
                             ("chat", "dropped", "formats for it: csv, hf, jsonl, parquet")):
        with pytest.raises(SpecError, match=said):
            export(artifact, tmp_path / "x", parse_format(kind), root=tmp_path, what=what)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"end the name with one of \.csv, \.tsv"):
        export(artifact, tmp_path / "x.xlsx", parse_format("csv"), root=tmp_path)
    with pytest.raises(UsageError, match="did you mean 'parquet'"):
        parse_format("parket")
    with pytest.raises(SpecError, match="did you mean 'excel'"):
        parse_format("csv", {"exel": True})


def test_nothing_of_the_users_is_replaced_and_a_failure_leaves_nothing(tmp_path):
    artifact, chosen = stored(tmp_path, Task(type="tag"), tagged(), labels=("LOC", "ORG", "PER")), parse_format("conll")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    with pytest.raises(UsageError, match="no export made"):
        export(artifact, tmp_path / "mine", chosen, root=tmp_path, overwrite=True)
    export(artifact, tmp_path / "c", chosen, root=tmp_path)
    with pytest.raises(UsageError, match="--overwrite"):
        export(artifact, tmp_path / "c", chosen, root=tmp_path)
    done = export(artifact, tmp_path / "c", chosen, root=tmp_path, split="test", overwrite=True)
    assert done.rows == 1 and sorted(file.name for file in (tmp_path / "c").iterdir()) == [MARK, "test.conll"]
    pytest.importorskip("PIL", reason="needs the extra `images`")
    rows = images(tmp_path)
    gone = stored(tmp_path, Task(type="image"), rows, labels=("big dog", "cat"))
    (tmp_path / rows[5].image).unlink()
    with pytest.raises(DataError, match="no longer there"):
        export(gone, tmp_path / "i", parse_format("image_folder"), root=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "mine", "pics", "store"]


def test_a_class_that_cannot_be_a_folder_is_refused(tmp_path):
    pytest.importorskip("PIL", reason="needs the extra `images`")
    artifact = stored(tmp_path, Task(type="image"), images(tmp_path), labels=("../cat", "big dog"))
    with pytest.raises(DataError, match=r"'\.\./cat' cannot be the name of a folder"):
        export(artifact, tmp_path / "i", parse_format("image_folder"), root=tmp_path)


@pytest.mark.parametrize("kind", sorted(FORMATS.kinds()))
def test_formats_conform(kind):
    check_spec(FORMATS, parse_format(kind))  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(parse_format(kind))) == parse_format(kind)


def test_a_format_of_the_users_own_is_one_file(tmp_path):
    (tmp_path / "my_lines.py").write_text(
        "from luthier.prepare.formats.base import FileFormat, open_text\n"
        "class Lines(FileFormat):\n"
        "    suffixes = ('.txt',)\n"
        "    def write(self, path, content):\n"
        "        with open_text(path) as file:\n"
        "            return sum(bool(file.write(one.question + '\\n')) for one in content.examples())\n"
        "    def reader(self, content):\n        return {}\n", encoding="utf-8")
    chosen = parse_format("my_lines:Lines", local=tmp_path)
    done = export(stored(tmp_path, Task(), chat(turns=False)), tmp_path / "x.txt", chosen, root=tmp_path, split="test")
    assert (tmp_path / "x.txt").read_text("utf-8").splitlines()[0] == "Grüße, 你好, 😀 3?" and done.rows == 2
