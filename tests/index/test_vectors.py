"""Law: exact search gives what sorting all cosines gives, ties in the order of the items, and survives a save."""

import numpy as np
import pytest

from luthier.errors import StoreError
from luthier.index.vectors import ExactVectors


def unit(rows, seed=0, columns=8):
    found = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 5, 40, 100])
def test_equals_full_sort(k):
    vectors, queries = unit(40), unit(7, seed=1)
    items, cosines = ExactVectors(vectors).search(queries, k)
    everything = queries @ vectors.T
    want = np.argsort(-everything, axis=1, kind="stable")[:, :k]
    assert np.array_equal(items, want)
    assert np.allclose(cosines, np.take_along_axis(everything, want, axis=1))


def test_ties_keep_the_items_order():
    vectors = np.repeat(unit(3), 4, axis=0)
    items, _ = ExactVectors(vectors).search(vectors[4:5], 3)
    assert items.tolist() == [[4, 5, 6]]


def test_saved_and_damaged(tmp_path):
    vectors = unit(5)
    path = tmp_path / "vectors.safetensors"
    ExactVectors(vectors).save(path)
    assert np.array_equal(ExactVectors.load(path).vectors, vectors)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StoreError, match="make it again"):
        ExactVectors.load(path)
