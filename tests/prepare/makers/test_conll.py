"""CoNLL files: every tag scheme gives the same pieces, and they lie where the words are."""

from __future__ import annotations

import pytest

from luthier.prepare.base import MAKERS
from luthier.prepare.makers._tags import chunks
from luthier.prepare.makers.conll import Conll
from luthier.task import Task
from luthier.testing import check_spec


@pytest.fixture
def read(context, run, tmp_path):
    def go(files, path="data", **fields):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
        return run(Conll(path=path, **fields), context(task=Task(type="tag")))

    return go


def test_spec_conforms():
    check_spec(MAKERS, Conll(path="train.conll"))


@pytest.mark.parametrize("tags", [
    "I-PER I-PER O I-ORG B-ORG I-ORG O",  # IOB1: B only between two equal neighbours
    "B-PER I-PER O B-ORG B-ORG I-ORG O",  # IOB2
    "B-PER E-PER O S-ORG B-ORG E-ORG O",  # BIOES
    "B-PER L-PER O U-ORG B-ORG L-ORG O",  # BILOU
])
def test_every_scheme_gives_the_same_pieces(tags):
    assert chunks(tags.split()) == [(0, 2, "PER"), (3, 4, "ORG"), (4, 6, "ORG")]


@pytest.mark.parametrize("seed", range(5))
def test_pieces_agree_with_seqeval(seed):
    import random

    entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    draw = random.Random(seed)
    for _ in range(200):
        tags = [draw.choice(["O", "B-A", "I-A", "B-B", "I-B", "E-A", "S-B"]) for _ in range(draw.randrange(1, 9))]
        assert chunks(tags) == [(start, end + 1, label) for label, start, end in entities(tags)]


def test_sentences_documents_and_positions(read):
    text = ("-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\nGerman JJ I-NP B-MISC\n"
            "call NN I-NP I-MISC\n\n\nPeter NNP I-NP B-PER\n\n-DOCSTART- -X- O O\n\nLondon NNP I-NP B-LOC\n")
    examples, dropped = read({"data/train.conll": text})
    assert [(e.input, e.origin.where) for e in examples] == [
        ("EU rejects German call", "data/train.conll:3"), ("Peter", "data/train.conll:9"),
        ("London", "data/train.conll:13")]
    assert [(examples[0].input[t.start:t.end], t.label) for t in examples[0].spans] == [("EU", "ORG"),
                                                                                        ("German call", "MISC")]
    groups = [e.groups["together"] for e in examples]
    assert groups[0] == groups[1] != groups[2] and not dropped


def test_files_named_after_splits_keep_them_and_words_alone_are_unlabelled(read):
    examples, dropped = read({"data/train.txt": "a\tO\nb\tB-X\n\nc d\tO\ne\n", "data/eng.testa": "a O\n",
                              "data/test.txt": "z B-X\n", "data/more.bio": "no\ntags\n"})
    assert {(e.input, e.split) for e in examples} == {("a b", "train"), ("a", "validation"), ("z", "test"),
                                                      ("no tags", "train")}
    assert [e.tags for e in examples if e.input == "no tags"] == [("unlabelled",)]
    assert [(d.item, d.reason) for d in dropped] == [("data/train.txt:4", "wrong-number-of-columns")]


def test_other_columns_can_be_named(read):
    examples, _ = read({"data/train.conllu": "# sent 1\n1\tAnn\tB-PER\tx\n2\tran\tO\tx\n"}, word_column=1, tag_column=2)
    assert examples[0].input == "Ann ran" and examples[0].spans[0].label == "PER"


def test_a_single_file_named_after_a_split_belongs_to_it(read):
    words = "a B-X\nb O\n\nc O\n"
    assert {e.split for e in read({"eng.testa": words}, "eng.testa")[0]} == {"validation"}
    (one, _), _ = read({"words.conll": words}, "words.conll")
    assert one.split == "train" and "own-split" not in one.tags
