"""New words become tokens that begin as the mean of their pieces, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from text_kit import COLOURS, adapted, example, folder_of, prepared, rows

from luthier.adapt.labelled import load_label_model, open_label_model, save_label_model
from luthier.adapt.vocabulary import Vocabulary, extend, pieces
from luthier.errors import ModelError
from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train, open_tuned_labels, train

LABELS = tuple(COLOURS)
WORDS = ("orange", "amber")
NEW = "we paint in amber, orange and Amber!"
OLD = "nothing new, ambers included"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def pair(model, store, root, **vocabulary):
    """The model as it is, and with more words."""
    return (open_label_model(adapted(model, store, root), LABELS),
            open_label_model(adapted(model, store, root, vocabulary=Vocabulary(**vocabulary)), LABELS,
                             texts=[str(row.input) for row in rows()]))


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "gpt2", "llama"])
def test_a_new_token_is_exactly_the_mean_of_its_pieces(family, store, tmp_path):
    plain, more = pair(folder_of(family, tmp_path / "model"), store, tmp_path, add=WORDS)
    before, after = (model.module.backbone.model.get_input_embeddings().weight for model in (plain, more))
    assert len(after) == len(before) + 2
    for word in WORDS:
        ids = pieces(plain.processor.tokenizer, word)
        assert len(ids) > 4
        new = more.processor.tokenizer.convert_tokens_to_ids(word)
        assert torch.equal(after[new], before[ids].mean(0))
    assert torch.equal(after[: len(before)], before)


def test_texts_get_shorter_and_those_without_new_words_stay_bit_for_bit(store, tmp_path):
    plain, more = pair(folder_of("roberta", tmp_path / "model"), store, tmp_path, add=WORDS)
    old, new = ([model.rows([example("a", text)])[0] for text in (OLD, NEW)] for model in (plain, more))
    assert old[0].data == new[0].data and new[1].size == old[1].size - 6 - 5  # each with the space before it
    with torch.inference_mode():
        said = [model.module(model.processor.batch([row])) for model, row in ((plain, old[0]), (more, new[0]))]
    assert torch.equal(*said)


def test_offsets_still_tell_where_a_word_stands(store, tmp_path):
    _, more = pair(folder_of("roberta", tmp_path / "model"), store, tmp_path, add=WORDS)
    places = {NEW[a:b].strip() for a, b in more.processor.offsets(NEW)}
    assert {"amber", "orange"} <= places


def test_extended_models_train_and_come_back_with_their_words(store, tmp_path):
    artifact = adapted(folder_of("bert", tmp_path / "model"), store, tmp_path, vocabulary=Vocabulary(add=WORDS))
    data = prepared(store, rows(validation=0), Task(type="classify"))
    run = train(artifact, data, Train(epochs=1, learning_rate=1e-2), store=store, root=tmp_path)
    fresh, tuned = open_label_model(artifact, LABELS), open_tuned_labels(run)
    at = tuned.processor.tokenizer.convert_tokens_to_ids("amber")
    assert tuned.processor.encode([NEW])[0].count(at) == 1
    weights = [model.module.backbone.model.get_input_embeddings().weight[at] for model in (fresh, tuned)]
    assert not torch.equal(*weights)
    save_label_model(tuned, tmp_path / "again")
    assert load_label_model(tmp_path / "again").module.backbone.added == WORDS


def test_auto_takes_the_commonest_words_in_many_pieces(store, tmp_path):
    _, more = pair(folder_of("bert", tmp_path / "model"), store, tmp_path, auto=2, min_pieces=6, min_count=2)
    assert more.module.backbone.added == ("paint", "orange")  # six pieces with the space before; blue: five
    assert Vocabulary(auto=9, min_pieces=2, min_count=100).words(more.processor.tokenizer, ["amber"] * 99) == ()


def test_the_fingerprint_of_cached_features_knows_the_words(store, tmp_path):
    plain, more = pair(folder_of("bert", tmp_path / "model"), store, tmp_path, add=WORDS)
    assert plain.fingerprint != more.fingerprint


def test_a_files_words_are_part_of_the_artifact(store, tmp_path):
    model, file = folder_of("bert", tmp_path / "model"), tmp_path / "words.txt"
    file.write_text("amber\n\norange\n")
    first = adapted(model, store, tmp_path, vocabulary=Vocabulary(file="words.txt"))
    assert open_label_model(first, LABELS).module.backbone.added == ("amber", "orange")
    file.write_text("amber\n")
    assert adapted(model, store, tmp_path, vocabulary=Vocabulary(file="words.txt")).id != first.id
    file.write_text("amber\ntwo words\n")
    with pytest.raises(ModelError, match="line 2 holds more than one word"):
        adapted(model, store, tmp_path, vocabulary=Vocabulary(file="words.txt"))


def test_what_cannot_be_honoured_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match="adds nothing"):
        Vocabulary()
    with pytest.raises(ValueError, match="one word without spaces"):
        Vocabulary(add=("two words",))
    for task in ("assistant", "image"):
        with pytest.raises(ModelError, match=r"adapt\.vocabulary is for"):
            adapted("starter:chat", store, tmp_path, task=Task(type=task), vocabulary=Vocabulary(add=("a",)))


def test_a_word_that_is_one_token_already_is_left_alone(store, tmp_path):
    model = open_label_model(adapted(folder_of("bert", tmp_path / "model"), store, tmp_path), LABELS)
    extend(model.module.backbone, ("amber",))
    assert Vocabulary(add=("amber", "teal")).words(model.processor.tokenizer, []) == ("teal",)
