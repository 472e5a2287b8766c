"""Word vectors from Word2Vec and GloVe files as features, and as a model of their own."""

from __future__ import annotations

import gzip
import struct
from typing import Any

import numpy as np
import pytest
import torch
from text_kit import COLOURS, adapted, example, prepared, rows

from luthier.adapt.backbones.word_vectors import read_vectors
from luthier.adapt.labelled import load_label_model, open_label_model, save_label_model
from luthier.adapt.network import texts_of
from luthier.adapt.predict import features, logits
from luthier.errors import ModelError
from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train, open_tuned_labels, train
from luthier.train.plans.head import HeadOnly

LABELS = tuple(COLOURS)
WORDS = ["the", "paint", "no", "in", "red", "orange", "amber", "blue", "navy", "teal", "Größe", "rare"]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    found = rng.normal(size=(len(WORDS), 8)).astype(np.float32).round(3)
    found[4:7, 0] += 3  # warm colours are alike
    return found


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def text_file(path, table, *, header):
    lines = [f"{len(WORDS)} {table.shape[1]}"] if header else []
    lines += [f"{word} {' '.join(map(str, vector))}" for word, vector in zip(WORDS, table)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def binary_file(path, table, *, end=b"\n"):
    with path.open("wb") as file:
        file.write(f"{len(WORDS)} {table.shape[1]}\n".encode())
        for word, vector in zip(WORDS, table):
            file.write(word.encode() + b" " + struct.pack(f"<{len(vector)}f", *vector) + end)
    return path


def test_every_format_gives_the_same_words_and_numbers(table, tmp_path):
    files = [text_file(tmp_path / "w2v.txt", table, header=True),
             text_file(tmp_path / "glove.txt", table, header=False),
             binary_file(tmp_path / "w2v.bin", table), binary_file(tmp_path / "other.bin", table, end=b"")]
    packed = tmp_path / "glove.txt.gz"
    packed.write_bytes(gzip.compress(files[1].read_bytes()))
    for file in [*files, packed]:
        words, vectors = read_vectors(file)
        assert words == WORDS
        np.testing.assert_allclose(vectors, table, rtol=1e-6)


def test_gensim_writes_what_we_read(table, tmp_path):
    models = pytest.importorskip("gensim.models")
    vectors = models.KeyedVectors(table.shape[1])
    vectors.add_vectors(WORDS, table)
    for binary in (False, True):
        vectors.save_word2vec_format(str(tmp_path / "file"), binary=binary)
        words, found = read_vectors(tmp_path / "file")
        assert words == WORDS
        np.testing.assert_allclose(found, table, rtol=1e-6)


def test_only_the_commonest_words_and_those_of_the_texts_are_kept(table, tmp_path):
    words, _ = read_vectors(text_file(tmp_path / "glove.txt", table, header=False), most=2, wanted={"rare"})
    assert words == ["the", "paint", "rare"]


@pytest.mark.parametrize(("content", "told"), [
    (b"", "line 1: neither"), (b"3 4\nthe 1 2 3 x\n", "line 2: not a word and 4 numbers"),
    (b"the 1 2 3\npaint 1 2\n", "line 2: not a word and 3 numbers"), (b"the 1 2 nan\n", "vector of 'the'.*not finite"),
    (b"2 4\nthe " + b"\x00\x01\xff\x80" * 3, "ends inside word 1 of 2")])
def test_a_broken_file_says_where(content, told, tmp_path):
    file = tmp_path / "vectors"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=told):
        read_vectors(file)


def test_features_are_the_mean_of_the_known_words(table, store, tmp_path):
    text_file(tmp_path / "glove.txt", table, header=False)
    model = open_label_model(adapted("vectors:glove.txt", store, tmp_path), LABELS)
    read = model.rows([example("a", "The blue, teal größe"), example("b", "unheard"), example("c", "")], targets=False)
    found = features(model, read)
    np.testing.assert_allclose(found[0], table[[0, 7, 9]].mean(0), atol=1e-6)  # a comma and größe have no vector
    assert not found[1:].any()


def test_tfidf_weights_are_scikit_learns(table, store, tmp_path):
    from sklearn.feature_extraction.text import TfidfVectorizer

    text_file(tmp_path / "glove.txt", table, header=False)
    texts = texts_of(rows())
    model = open_label_model(adapted("vectors:glove.txt@tfidf", store, tmp_path), LABELS, texts=texts)
    sklearn = TfidfVectorizer(token_pattern=r"(?u)\w+", norm=None).fit(texts)  # type: ignore[arg-type]
    weights = {word: sklearn.idf_[at] for word, at in sklearn.vocabulary_.items() if word in WORDS}
    (found,) = features(model, model.rows([example("a", "paint no 3 in amber")], targets=False))
    picked = ["paint", "no", "in", "amber"]
    wanted = np.average(table[[WORDS.index(w) for w in picked]], axis=0, weights=[weights[w] for w in picked])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_unknown_words_are_counted_and_a_file_for_other_texts_is_refused(table, store, tmp_path):
    text_file(tmp_path / "glove.txt", table, header=False)
    artifact = adapted("vectors:glove.txt", store, tmp_path)
    model = open_label_model(artifact, LABELS, texts=["the zebra the zebra yak"])
    assert model.module.backbone.counted == {"train_words": 5, "without_vector": 3, "such_as": ["zebra", "yak"]}
    with pytest.raises(ModelError, match=r"only 0% of the train texts' words.*zebra"):
        open_label_model(artifact, LABELS, texts=["zebra yak"])


@pytest.mark.parametrize("plan", ["head", "all"])
def test_vectors_train_and_come_back(plan, table, store, tmp_path):
    text_file(tmp_path / "glove.txt", table, header=True)
    artifact = adapted("vectors:glove.txt@tfidf", store, tmp_path)
    data = prepared(store, rows(train=40, validation=20), Task(type="classify"))
    spec: dict[str, Any] = {"plan": HeadOnly()} if plan == "head" else {"learning_rate": 1e-2}
    run = train(artifact, data, Train(epochs=10, patience=0, **spec), store=store, root=tmp_path)
    tuned = open_tuned_labels(run)
    assert run.summary["validation"]["value"] > 0.9
    read = tuned.rows(rows())
    save_label_model(tuned, tmp_path / "kept")
    np.testing.assert_array_equal(logits(load_label_model(tmp_path / "kept"), read), logits(tuned, read))
    _, started = read_vectors(tmp_path / "glove.txt")
    moved = not torch.equal(tuned.module.backbone.table.weight[1:], torch.from_numpy(started))
    assert moved == (plan == "all")


def test_a_padded_text_says_what_it_says_alone(table, store, tmp_path):
    text_file(tmp_path / "glove.txt", table, header=True)
    model = open_label_model(adapted("vectors:glove.txt", store, tmp_path), LABELS)
    read = model.rows([example("a", "red"), example("b", "the unknown paint in navy")], targets=False)
    with torch.inference_mode():
        together = model.module(model.processor.batch(read))
        alone = torch.cat([model.module(model.processor.batch([row])) for row in read])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(("source", "task", "told"), [
    ("vectors:none.txt", "classify", "no file of word vectors"),
    ("vectors:glove.txt@bm25", "classify", "'@tfidf' only"),
    ("vectors:glove.txt", "image", "word vectors are for"), ("vectors:glove.txt", "assistant", "word vectors are for")])
def test_what_cannot_be_is_refused(source, task, told, table, store, tmp_path):
    text_file(tmp_path / "glove.txt", table, header=True)
    with pytest.raises(ModelError, match=told):
        adapted(source, store, tmp_path, task=Task(type=task))
