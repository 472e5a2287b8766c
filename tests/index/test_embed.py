"""Law: vectors equal a plain transformers forward with mean pooling, whatever the batch, and are computed once."""

import numpy as np
import pytest

from luthier.errors import ModelError
from luthier.index.embed import Encoder
from luthier.store import Cache

TEXTS = ["Short.", "How many vacation days do I have in my first year?", "", "word " * 400,
         "The printer on the second floor is out of paper again, and nobody knows where the spare paper is kept.",
         "Kündigungsfrist: drei Monate 🙂"]


@pytest.fixture(scope="module")
def reference():
    """One text at a time through transformers, in float32: no batching, no padding, no mask."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from luthier.models.sources import resolve

    folder = resolve("starter:encoder", purpose="encoder").folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in TEXTS:
        with torch.inference_mode():
            tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            mean = model(**tokens).last_hidden_state.mean(1)[0].numpy()
        rows.append(mean / np.linalg.norm(mean))
    return np.stack(rows)


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.99999), ("bfloat16", 0.999)])
def test_equals_transformers(reference, dtype, least):
    encoder = Encoder(dtype=dtype)
    found = encoder.encode(TEXTS)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), encoder.dimension)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert (found * reference).sum(1).min() > least
    assert encoder.num_truncated == 1 and encoder.max_tokens == 256


class Counting(Encoder):
    computed: list

    def _compute(self, keys, texts, found, bar):
        self.computed = [*getattr(self, "computed", []), *texts]
        super()._compute(keys, texts, found, bar)


def test_cached_texts_are_not_computed_again(tmp_path):
    cache = Cache(tmp_path)
    first = Counting(dtype="float32", cache=cache)
    vectors = first.encode(["one", "two", "one"])
    assert first.computed == ["one", "two"]
    again = Counting(dtype="float32", cache=cache)
    assert np.array_equal(again.encode(["two", "three", "one"])[[2, 0, 2]], vectors)
    assert again.computed == ["three"]
    other = Counting(dtype="float32", cache=cache, max_tokens=16)  # another length gives other vectors
    other.encode(["one"])
    assert other.computed == ["one"]


def test_prefix_and_length_change_the_vector():
    encoder = Encoder(dtype="float32")
    assert np.array_equal(encoder.encode(["a cat"], prefix="query: "), encoder.encode(["query: a cat"]))
    text = "alpha beta gamma delta epsilon zeta eta theta"
    assert not np.allclose(Encoder(dtype="float32", max_tokens=8).encode([text]), encoder.encode([text]), atol=1e-3)
    assert encoder.encode([]).shape == (0, 384)


def test_cls_pooling_takes_the_first_token():
    import torch

    encoder = Encoder(dtype="float32", pooling="cls")
    found = encoder.encode(["a cat sat", "x"])
    model, tokenizer = encoder._load()
    with torch.inference_mode():
        want = model(**tokenizer("a cat sat", return_tensors="pt")).last_hidden_state[0, 0].numpy()
    assert found[0] == pytest.approx(want / np.linalg.norm(want), abs=1e-4)


def test_a_folder_that_is_no_encoder_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        Encoder("./nothing", root=tmp_path)
