"""Law: pairs that are close in meaning are asked about, decided ones are honoured, and nothing goes by itself."""

import numpy as np
import pytest

from luthier.prepare.semantic import Semantic, close_pairs, pair_id
from luthier.progress import Silent
from luthier.queues import Decided, decide
from luthier.types import Passage

TEXTS = ["Staff get thirty days off every year.", "Each employee has an annual leave of thirty days.",
         "The pump runs at 30 bar.", "The pump runs at 40 bar."]
VECTORS = np.array([[1, 0, 0], [0.98, 0.199, 0], [0, 1, 0], [0, 0.999, 0.0447]], np.float32)


class Fake:
    def __init__(self, *_, **__):
        pass

    def encode(self, texts, **_):
        return VECTORS[[TEXTS.index(text) for text in texts]]


@pytest.fixture
def merge(monkeypatch, tmp_path):
    monkeypatch.setattr("luthier.index.embed.Encoder", Fake)
    rows = [Passage(id=str(n), document="d", path="a.md", title="", heading=(), text=text, spans=(n, n + 1))
            for n, text in enumerate(TEXTS)]

    def run(mode="report", **fields):
        dropped = []
        kept, asked = Semantic(mode=mode, **fields).merge(rows, root=tmp_path, cache=None, progress=Silent(),
                                                          dropped=dropped)
        return [one.id for one in kept], asked, dropped

    return run


def test_a_suspected_pair_is_asked_about_and_nothing_is_dropped(merge):
    kept, asked, dropped = merge()
    assert kept == ["0", "1", "2", "3"] and not dropped
    (item,) = asked  # the pumps differ in a number: other facts
    assert (item.queue, item.text, item.context, item.choices) == ("duplicates", TEXTS[0], TEXTS[1],
                                                                  ("same", "different"))
    assert merge("off") == (["0", "1", "2", "3"], [], []) and merge(threshold=0.99)[1] == []


def test_decisions_are_honoured(merge, tmp_path):
    id = pair_id(TEXTS[1], TEXTS[0])
    decide(tmp_path, "duplicates", Decided(id=id, verdict="reject", by="ann"))
    assert merge() == (["0", "1", "2", "3"], [], [])
    decide(tmp_path, "duplicates", Decided(id=id, verdict="accept", value="same", by="ann"))
    kept, asked, dropped = merge()
    assert kept == ["0", "2", "3"] and not asked
    assert dropped[0].reason == "same-meaning" and "ann decided" in dropped[0].detail


def test_close_pairs_are_all_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1500, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = np.argwhere(np.triu(vectors @ vectors.T >= 0.98, 1))
    assert [(a, b) for a, b, _ in close_pairs(vectors, 0.98)] == [tuple(row) for row in wanted.tolist()]
