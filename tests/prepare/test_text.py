"""Law: sentences put together again are the text; comparison forms ignore case, spacing and punctuation only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.prepare.text import jaccard, letters, normalise, sentences, shingles


@given(st.text(alphabet=st.sampled_from("aB. !?\n\"'()1。é"), max_size=120))
def test_sentences_cover_the_text(text):
    assert "".join(sentences(text)) == text


@pytest.mark.parametrize(("text", "count"), [
    ("One is here. Two is there! Is three? Yes.", 4),
    ("Dr. Meyer (see Fig. 3) pays approx. 5 EUR. He left.", 2),
    ("Use e.g. Python 3.11 or later. Done.", 2),
    ("No end mark", 1),
    ("第一句。第二句。", 2),
    ("He said \"Stop.\" Then he left.", 2),
    ("", 0),
])
def test_counts(text, count):
    assert len(sentences(text)) == count


def test_normal_form():
    assert normalise("  The ＣＡＴ,\n sat!") == "the cat sat"
    assert normalise("A-1") != normalise("A-2")


@given(st.text(max_size=60))
def test_letters_are_the_normal_form_without_spaces(text):
    assert letters(text) == normalise(text).replace(" ", "").encode("utf-8", "surrogatepass")


def test_jaccard_and_shingles_by_hand():
    assert shingles(["a", "b", "c", "d"], 3) == {"a b c", "b c d"}
    assert shingles(["a"], 3) == {"a"} and shingles([], 3) == set()
    assert jaccard({"a", "b"}, {"b", "c"}) == pytest.approx(1 / 3) and jaccard(set(), set()) == 0
