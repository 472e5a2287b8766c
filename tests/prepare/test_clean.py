"""Law: cleaning repairs what extraction broke, removes what pages repeat, and leaves everything else alone."""

import pytest

from luthier.prepare.clean import Clean
from luthier.prepare.steps import Kept, StepContext
from luthier.task import Task
from luthier.types import Document, Dropped, Span

CTX = StepContext(task=Task())


def document(*spans):
    return Document(id="d1", path="a.pdf", sha256="0", media="application/pdf", reader="pdf", title="T", spans=spans)


def clean(doc, **fields):
    found = list(Clean(**fields).apply([doc], CTX))
    kept = [f.item for f in found if isinstance(f, Kept)]
    return (kept[0] if kept else None), [f for f in found if isinstance(f, Dropped)]


def text_of(text, kind="paragraph", **fields):
    doc, _ = clean(document(Span(text=text, kind=kind)), min_words=1, **fields)
    return doc.spans[0].text


@pytest.mark.parametrize(("broken", "whole"), [
    ("The cafÃ© is open.", "The café is open."),
    ("the manage-\nment board", "the management board"),
    ("a soft\u00adly hyphened word", "a softly hyphened word"),
    ("e\ufb03cient \x00 text", "efficient text"),
    ("many    blanks\n\n\n\nand lines ", "many blanks\n\nand lines"),
    ("state-of-the-art text", "state-of-the-art text"),
    ("from A-\nB to C", "from A-\nB to C"),
    ("“Quoted” text stays", "“Quoted” text stays"),
])
def test_repairs(broken, whole):
    assert text_of(broken) == whole


def test_a_hyphen_that_the_document_writes_elsewhere_stays():
    assert text_of("It is well-\nknown. A well-known fact.") == "It is well-known. A well-known fact."


def test_code_keeps_its_indentation():
    code = "def f():\n    return 1  # two   blanks"
    assert text_of(code, kind="code") == code


def test_switches():
    assert text_of("the manage-\nment", hyphenation=False) == "the manage-\nment"
    assert text_of("The cafÃ©", encoding=False) == "The cafÃ©"


def pages(count):
    for page in range(1, count + 1):
        yield Span(text=f"Larkspur Ltd – Handbook – revision {page % 2}", page=page)
        yield Span(text=f"Page {page} has its own text about matter {page} and says it once.", page=page)
        yield Span(text="All work is checked twice.", page=page)
        yield Span(text=f"Another sentence only on page number {page * 7}.", page=page)
        yield Span(text=f"- {page} -", page=page)


def test_headers_and_page_numbers_go_and_span_numbers_stay():
    doc = document(*pages(6))
    found, dropped = clean(doc)
    assert len(found.spans) == len(doc.spans)
    assert {d.reason for d in dropped} == {"page-furniture"} and len(dropped) == 12
    kept = [span.text for span in found.spans if span.text]
    assert not any("Larkspur" in text or text.startswith("-") for text in kept)
    assert sum("checked twice" in text for text in kept) == 6  # repeated, but in the middle of the page
    for at, span in enumerate(found.spans):
        assert span.text in ("", doc.spans[at].text)


def test_two_pages_are_too_few_to_judge_and_tables_are_never_furniture():
    assert not clean(document(*pages(2)))[1]
    spans = [span for page in range(1, 6) for span in (Span(text="| a |\n|---|\n| 1 |", kind="table", page=page),
                                                       Span(text=f"Words of page {page}: many of them.", page=page))]
    found, _ = clean(document(*spans))
    assert sum(span.kind == "table" and bool(span.text) for span in found.spans) == 5


def test_furniture_can_be_kept():
    found, dropped = clean(document(*pages(6)), page_furniture=False)
    assert not dropped and found.spans[0].text.startswith("Larkspur")


def test_a_document_with_hardly_a_word_is_dropped():
    found, dropped = clean(document(Span(text="Page 1")))
    assert found is None and [d.reason for d in dropped] == ["too-short"]
