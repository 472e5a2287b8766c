"""Law: an index finds what was put in, the same after a reload, embeds only what is new, and says when it is unfit."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from luthier.errors import DataError, ModelError, StoreError
from luthier.index import embed
from luthier.index.base import Index, build_retriever, index, open_index
from luthier.store import Store
from luthier.types import Passage, write_jsonl

TOPICS = {
    "leave": "Every employee has twenty-eight days of paid vacation a year, and five more from the age of fifty.",
    "printer": "If the printer shows error E-52, open the rear door and remove the jammed paper.",
    "travel": "Train tickets are booked through the portal; first class needs the approval of the department head.",
    "security": "Passwords have at least fourteen characters and are never written down or shared.",
    "canteen": "The canteen serves lunch from 11:30 to 14:00; guests pay in cash.",
}


def passages(topics=TOPICS):
    return [Passage(id=f"id-{name}", document=name, path=f"{name}.md", title=name.title(), heading=("Rules",),
                    text=text, spans=(0, 1), line=3) for name, text in topics.items()]


def prepared(store, topics=TOPICS, language="en"):
    def make(folder):
        write_jsonl(folder / "passages.jsonl", passages(topics))
        return {"language": language}

    return store.build("prepare", version=1, spec={}, inputs={"topics": json.dumps(topics), "l": language}, make=make)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("index")
    store = Store(root)
    return root, store, index(prepared(store), Index(), store=store, root=root)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "keywords"])
@pytest.mark.parametrize(("query", "topic"), [
    ("error E-52", "printer"), ("When can I have lunch?", "canteen"), ("paid vacation for employees", "leave")])
def test_finds_the_passage(built, mode, query, topic):
    root, _, artifact = built
    hits = open_index(artifact.path, root=root).search([query], 3, mode=mode)[0]
    assert hits[0].passage.document == topic
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert all(a.score >= b.score for a, b in pairwise(hits))


def test_hybrid_is_the_fusion_of_the_two_rankings(built):
    root, _, artifact = built
    found = open_index(artifact.path, root=root)
    query = ["booking a train for the department"]
    scores: dict[str, float] = {}
    for mode in ("dense", "keywords"):
        for hit in found.search(query, 50, mode=mode)[0]:
            scores[hit.passage.id] = scores.get(hit.passage.id, 0) + 1 / (60 + hit.rank)
    hits = found.search(query, 5)[0]
    assert {hit.passage.id: hit.score for hit in hits} == pytest.approx(scores)
    dense = {hit.passage.id: hit.score for hit in found.search(query, 5, mode="dense")[0]}
    assert {hit.passage.id: hit.cosine for hit in hits} == pytest.approx(dense)


def test_a_copied_folder_searches_the_same_without_the_store(built, tmp_path):
    import shutil

    root, _, artifact = built
    shutil.copytree(artifact.path, tmp_path / "release" / "index")
    one = open_index(artifact.path, root=root).search(["password length"], 5)
    assert open_index(tmp_path / "release" / "index", root=tmp_path).search(["password length"], 5) == one


def test_a_second_index_is_a_no_op_without_heavy_imports(built):
    root, _, artifact = built
    code = (
        "import sys; from pathlib import Path; from luthier.index.base import Index, index; "
        "from luthier.store import Store; store = Store(sys.argv[1]); "
        "found = index(store.find('prepare', sys.argv[2]), Index(), store=store, root=Path(sys.argv[1])); "
        "assert not found.fresh; "
        "print([name for name in ('torch', 'transformers', 'bm25s', 'rensa', 'numpy') if name in sys.modules])"
    )
    id = artifact.inputs["passages"].split("/")[1]
    run = subprocess.run([sys.executable, "-c", code, str(root), id], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_changed_document_embeds_only_its_own_passages(built, monkeypatch):
    root, store, _ = built
    computed = []
    inner = embed.Encoder._compute
    monkeypatch.setattr(embed.Encoder, "_compute",
                        lambda self, keys, texts, *rest: (computed.extend(texts), inner(self, keys, texts, *rest)))
    changed = {**TOPICS, "canteen": "The canteen is closed until further notice."}
    again = index(prepared(store, changed), Index(), store=store, root=root)
    assert again.fresh and len(computed) == 1 and "closed until" in computed[0]


def test_the_language_comes_from_the_task_unless_the_spec_names_one(tmp_path):
    store = Store(tmp_path)
    data = prepared(store, {"a": "Die Häuser am Fluss"}, language="de")
    words = Index(mode="keywords")
    german = open_index(index(data, words, store=store, root=tmp_path).path, root=tmp_path)
    assert german.search(["Haus"], 1)[0]
    plain = index(data, words.but(language="en"), store=store, root=tmp_path)
    assert not open_index(plain.path, root=tmp_path).search(["Haus"], 1)[0]


def test_keywords_need_no_encoder_and_refuse_dense(tmp_path):
    found = build_retriever(passages(), Index(mode="keywords", encoder="./nothing"), language="en", cache=None,
                            root=tmp_path)
    assert found.search(["jammed paper"], 1)[0][0].passage.document == "printer"
    with pytest.raises(DataError, match="no vectors"):
        found.search(["x"], 1, mode="dense")


def test_nothing_to_search(tmp_path):
    for mode in ("keywords", "hybrid"):
        assert build_retriever([], Index(mode=mode), language="en", cache=None, root=tmp_path).search(["x"], 3) == [[]]
    store = Store(tmp_path)
    with pytest.raises(DataError, match="no passages"):
        index(prepared(store, {}), Index(), store=store, root=tmp_path)


def test_a_damaged_index_and_a_changed_encoder_are_one_sentence(built, tmp_path):
    import shutil

    root, _, artifact = built
    with pytest.raises(StoreError, match="luthier index"):
        open_index(tmp_path / "nothing", root=root)
    copy = Path(shutil.copytree(artifact.path, tmp_path / "copy"))
    lines = (copy / "passages.jsonl").read_text("utf-8").splitlines(keepends=True)
    (copy / "passages.jsonl").write_text("".join(lines[1:]), "utf-8")
    with pytest.raises(StoreError, match="damaged"):
        open_index(copy, root=root)
    (copy / "passages.jsonl").write_text("".join(lines), "utf-8")
    told = json.loads((copy / "index.json").read_text("utf-8"))
    (copy / "index.json").write_text(json.dumps({**told, "encoder": "another"}), "utf-8")
    opened = open_index(copy, root=root)
    assert opened.search(["vacation"], 1, mode="keywords")[0]  # words can still be searched
    with pytest.raises(ModelError, match="another version of the encoder"):
        opened.search(["vacation"], 1)
