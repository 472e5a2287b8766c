"""Law: what stands on most pages of a site stays once; what a few pages share, and other formats, stay as they are."""

from luthier.prepare.boilerplate import Boilerplate
from luthier.prepare.steps import Kept, StepContext
from luthier.task import Task
from luthier.types import Document, Dropped, Span

CTX = StepContext(task=Task())


def page(number, *texts, media="text/html"):
    return Document(id=f"d{number}", path=f"{number}.html", sha256="0", media=media, reader="html", title="T",
                    spans=tuple(Span(text=text) for text in texts))


def run(pages, **fields):
    found = list(Boilerplate(**fields).apply(pages, CTX))
    return [f.item for f in found if isinstance(f, Kept)], [f for f in found if isinstance(f, Dropped)]


PAGES = [page(n, "Home | Products | Contact", f"Text of page {n}.", "Shared by two." if n < 2 else f"Own {n}.",
              "© Larkspur Ltd") for n in range(8)]


def test_menus_and_footers_stay_once_and_span_numbers_stay():
    kept, dropped = run(PAGES)
    assert len(kept) == 8 and all(len(d.spans) == 4 for d in kept)
    assert kept[0] == PAGES[0]
    assert [d.spans[1:3] for d in kept] == [p.spans[1:3] for p in PAGES]
    assert all(d.spans[0].text == d.spans[3].text == "" for d in kept[1:])
    assert len(dropped) == 14 and {d.reason for d in dropped} == {"on-most-pages"}


def test_few_pages_other_formats_and_an_empty_list_are_left_alone():
    assert run(PAGES[:4]) == (PAGES[:4], [])
    markdown = [page(n, "Same in all.", media="text/markdown") for n in range(9)]
    assert run(markdown) == (markdown, [])
    assert run(PAGES, media=()) == (PAGES, [])


def test_share_and_number_are_honoured():
    assert len(run(PAGES, min_documents=2, repeated_on=0.25)[1]) == 15  # also what two pages share
    assert run(PAGES, min_documents=9)[1] == []
