"""Law: BM25 scores follow the published formula, survive a save, and stemming and stop words follow the language."""

import math
from collections import Counter

import numpy as np
import pytest

from luthier.index.keywords import Keywords, tokenise

TEXTS = [
    "The printer on the second floor needs a new cartridge every month.",
    "Printers are ordered by the office manager; cartridges too.",
    "Vacation requests are answered within five days.",
    "The canteen is closed on public holidays and during vacation.",
    "",
]


def lucene_bm25(texts, query, k1=1.5, b=0.75):
    """Straight from the definition, in plain Python."""
    rows = [Counter(tokenise(text, "en")) for text in texts]
    sizes = [sum(row.values()) for row in rows]
    mean = sum(sizes) / len(sizes)
    scores = np.zeros(len(texts))
    for term in tokenise(query, "en"):
        df = sum(term in row for row in rows)
        if not df:
            continue
        idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
        for at, row in enumerate(rows):
            tf = row[term]
            scores[at] += idf * tf / (tf + k1 * (1 - b + b * sizes[at] / mean))
    return scores


@pytest.mark.parametrize("query", ["printer cartridges", "vacation days", "nothing of this kind", "the of and", ""])
def test_scores_equal_the_formula(query):
    found = Keywords.build(TEXTS).scores(query)
    assert found == pytest.approx(lucene_bm25(TEXTS, query), abs=1e-5)


def test_k1_and_b_are_honoured():
    for k1, b in ((0.5, 0.75), (1.5, 0.0)):
        found = Keywords.build(TEXTS, k1=k1, b=b).scores("printer cartridges")
        assert found == pytest.approx(lucene_bm25(TEXTS, "printer cartridges", k1, b), abs=1e-5)


def test_a_saved_index_scores_the_same(tmp_path):
    built = Keywords.build(TEXTS)
    built.save(tmp_path / "keywords")
    opened = Keywords.load(tmp_path / "keywords", size=len(TEXTS), language="en")
    for query in ("printer", "vacation within days", "zebra"):
        assert np.array_equal(built.scores(query), opened.scores(query))
    assert not list((tmp_path / "keywords").glob("*.pkl"))


def test_only_texts_that_share_a_word_are_hits_and_ties_keep_their_order():
    built = Keywords.build(["apple pie", "apple pie", "pear", "apple pie"])
    assert [at for at, _ in built.search("apple", 10)] == [0, 1, 3]
    assert built.search("plum", 10) == []


@pytest.mark.parametrize("texts", [["the of and", "..."], ["", ""]])
def test_texts_without_words_are_searched_without_error(texts, tmp_path):
    built = Keywords.build(texts)
    assert built.search("the", 3) == []
    built.save(tmp_path)
    assert Keywords.load(tmp_path, size=2, language="en").search("anything", 3) == []


def test_language_chooses_stemmer_and_stop_words():
    assert tokenise("Die Häuser der Nachbarn", "de") == tokenise("das Haus des Nachbarn", "de")
    assert tokenise("running the printers", "en") == ["run", "printer"]
    assert "the" in tokenise("the printers", "de")
    assert tokenise("printers", "xx") == ["printers"]  # a language without a stemmer: plain words


def test_chinese_is_found_by_parts_of_a_sentence():
    built = Keywords.build(["员工每年有二十天带薪年假。", "打印机在二楼。"], language="zh")
    assert [at for at, _ in built.search("带薪年假", 5)] == [0]
