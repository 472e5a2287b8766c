"""Law: chunking loses nothing, repeats nothing, keeps to its limit and to the document's structure."""

import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.index.tokens import estimate_tokens
from luthier.prepare.chunk import Chunk
from luthier.prepare.steps import Kept, StepContext
from luthier.task import Task
from luthier.types import Document, Dropped, Span, digest

CTX = StepContext(task=Task())


def document(*spans, title="Handbook", path="handbook.md"):
    return Document(id=digest(path), path=path, sha256="0", media="text/markdown", reader="markdown", title=title,
                    spans=spans)


def chunk(doc, **fields):
    return [found.item for found in Chunk(**fields).apply([doc], CTX) if isinstance(found, Kept)]


def words(text):
    return re.findall(r"\w+", text)


def heading(text, level):
    return Span(text=text, kind="heading", level=level)


def prose(sentences, name="fact"):
    return " ".join(f"The {name} number {at} says something of its own about matter {at}." for at in range(sentences))


def table(rows, columns=3):
    line = lambda cells: "| " + " | ".join(cells) + " |"  # noqa: E731
    return "\n".join([line([f"Column{c}" for c in range(columns)]), line(["---"] * columns),
                      *(line([f"row{r}cell{c}" for c in range(columns)]) for r in range(rows))])


WORD = st.text(alphabet="abcdefgh", min_size=1, max_size=30)
SENTENCE = st.lists(WORD, min_size=1, max_size=25).map(lambda ws: " ".join(ws).capitalize() + ".")
PARAGRAPH = st.lists(SENTENCE, min_size=1, max_size=8).map(" ".join)
SPANS = st.lists(st.one_of(
    PARAGRAPH.map(lambda text: Span(text=text)),
    st.lists(PARAGRAPH, min_size=1, max_size=5).map(lambda ps: Span(text="\n".join(f"- {p}" for p in ps), kind="list")),
    st.tuples(WORD, st.integers(1, 5)).map(lambda pair: heading(*pair)),
    st.tuples(st.integers(1, 30), st.integers(1, 4)).map(lambda pair: Span(text=table(*pair), kind="table")),
    st.text(alphabet="xyz", min_size=200, max_size=900).map(lambda text: Span(text=text, kind="code")),
    st.just(Span(text="")),
), max_size=8)


@settings(max_examples=60, deadline=None)
@given(SPANS, st.sampled_from([32, 60, 220]), st.sampled_from([1, 3, 6]))
def test_every_word_stands_in_one_passage_and_none_is_over_the_limit(spans, limit, levels):
    doc = document(*spans)
    passages = chunk(doc, max_tokens=limit, heading_levels=levels)
    for passage in passages:
        assert estimate_tokens(passage.text) <= limit
        if estimate_tokens(" > ".join(dict.fromkeys((passage.title, *passage.heading)))) <= limit // 2:
            assert estimate_tokens(passage.headed) <= limit
    want = Counter(word for span in spans if span.kind not in ("heading", "table") for word in words(span.text))
    got = Counter()
    for passage in passages:
        body = "\n".join(line for line in passage.text.splitlines() if not line.startswith(("|", "#")))
        got.update(words(body))
    longest = limit // 2  # a word over the budget may be cut in two
    fits = {word for word in want if estimate_tokens(word) < longest - 12}
    assert {w: n for w, n in got.items() if w in fits} == {w: n for w, n in want.items() if w in fits}
    assert sum(map(len, got.elements())) == sum(map(len, want.elements()))
    cells = Counter(re.findall(r"row\d+cell\d+", " ".join(span.text for span in spans)))
    assert Counter(re.findall(r"row\d+cell\d+", " ".join(p.text for p in passages))) == cells
    shown = " ".join(part for p in passages for part in (*p.heading, p.text))
    assert all(span.text in shown for span in spans if span.kind == "heading")


@settings(max_examples=40, deadline=None)
@given(SPANS)
def test_span_ranges_cover_the_document_in_order(spans):
    passages = chunk(document(*spans), max_tokens=60)
    covered = [at for passage in passages for at in range(*passage.spans)]
    assert set(covered) == {at for at, span in enumerate(spans) if span.text.strip()} | {
        at for p in passages for at in range(*p.spans)}
    assert covered == sorted(covered)
    for before, after in pairwise(passages):  # only a span that had to be cut lies in two passages
        assert after.spans[0] >= before.spans[1] - 1
    assert len({passage.id for passage in passages}) == len(passages)


def test_headings_of_the_top_levels_are_walls():
    doc = document(heading("Leave", 1), Span(text="Twenty days."), heading("Sick leave", 2), Span(text="Call in."),
                   heading("Detail", 4), Span(text="By nine."), heading("Travel", 1), Span(text="By train."))
    found = chunk(doc)
    assert [(p.heading, p.text) for p in found] == [
        (("Leave",), "Twenty days."),
        (("Leave", "Sick leave"), "Call in.\n\n#### Detail\n\nBy nine."),
        (("Travel",), "By train."),
    ]
    assert [p.spans for p in found] == [(0, 2), (2, 6), (6, 8)]
    assert len(chunk(doc, heading_levels=0)) == 1


def test_a_heading_above_a_heading_is_only_a_path_and_a_lonely_one_is_text():
    found = chunk(document(heading("Safety", 1), heading("Gloves", 2), Span(text="Wear them."),
                           heading("Contact: 555-0100", 2)))
    assert [(p.heading, p.text) for p in found] == [
        (("Safety", "Gloves"), "Wear them.\n\n## Contact: 555-0100")]


def test_a_long_table_repeats_its_header_and_a_short_one_stays_whole():
    long, short = table(60), table(5)
    found = chunk(document(heading("Prices", 1), Span(text="See below."), Span(text=long, kind="table")))
    assert len(found) > 2
    header = "\n".join(long.splitlines()[:2])
    assert all(header in passage.text and passage.text.count("Column0") == 1 for passage in found)
    assert chunk(document(Span(text=short, kind="table")))[0].text == short


def test_pieces_of_a_section_are_about_equally_long():
    sizes = [estimate_tokens(p.text) for p in chunk(document(heading("A", 1), Span(text=prose(17))))]
    assert len(sizes) > 1 and min(sizes) > 0.6 * max(sizes)


def test_prose_is_cut_between_sentences():
    found = chunk(document(Span(text=prose(60))))
    assert len(found) > 3 and all(p.text.endswith(".") and p.text.startswith("The") for p in found)


def test_overlap_repeats_the_sentences_before():
    doc = document(Span(text=prose(40)))
    plain, repeated = chunk(doc, max_tokens=120), chunk(doc, max_tokens=120, overlap=30)
    assert len(repeated) > len(plain)
    for before, after in pairwise(repeated):
        shared = next(n for n in range(len(after.text), 0, -1) if before.text.endswith(after.text[:n]))
        assert 0 < estimate_tokens(after.text[:shared]) <= 30 and after.text[:shared].endswith(".")
        assert estimate_tokens(after.headed) <= 120
    assert not any(after.text.split(". ")[0] in before.text for before, after in pairwise(plain))


def test_page_and_line_are_those_of_the_first_words():
    doc = document(heading("A", 1), Span(text=prose(30), page=3, line=10), Span(text="Later.", page=4, line=50))
    assert [(p.page, p.line) for p in chunk(doc)][:2] == [(3, 10), (3, 10)]


def test_ids_do_not_depend_on_other_parts_of_the_document():
    one = document(heading("A", 1), Span(text="Alpha text."), heading("B", 1), Span(text="Beta text."))
    other = document(heading("New", 1), Span(text="Something new."), *one.spans)
    assert [p.id for p in chunk(one)] == [p.id for p in chunk(other)][1:]


def test_the_same_words_twice_are_two_passages():
    found = chunk(document(heading("A", 1), Span(text="Same."), heading("A", 1), Span(text="Same.")))
    assert len(found) == 2 and found[0].id != found[1].id


def test_a_document_without_text_is_dropped_with_a_reason():
    found = list(Chunk().apply([document(Span(text="  "))], CTX))
    assert [(type(f), f.reason) for f in found] == [(Dropped, "no-text")]


def test_an_overlap_beyond_half_is_refused():
    with pytest.raises(ValueError, match="at most half"):
        Chunk(max_tokens=100, overlap=60)


@pytest.mark.parametrize("length", [13, 250, 251, 277, 280, 499])
@pytest.mark.parametrize("limit", [32, 60])
def test_a_word_longer_than_a_passage_is_cut_within_the_limit(length, limit):
    """Found by hypothesis: halves of a word count less apart than together."""
    found = chunk(document(heading("a", 1), Span(text="x" * length)), max_tokens=limit, heading_levels=1)
    assert "".join(passage.text for passage in found).replace("\n", "") == "x" * length
    assert all(estimate_tokens(passage.headed) <= limit for passage in found)
