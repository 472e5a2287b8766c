"""PDF: words in order, headings with levels, tables, lists, pages and boxes; what cannot be read says why."""

import pytest

from luthier.ingest.base import Refused

TABLE = [["Part", "Price", "Stock"], ["Valve A", "12.50", "4"], ["Seal ring", "0.80", "120"], ["Cover", "33.00", "2"]]
MARKDOWN = ("| Part | Price | Stock |\n|---|---|---|\n| Valve A | 12.50 | 4 |\n| Seal ring | 0.80 | 120 |\n"
            "| Cover | 33.00 | 2 |")


@pytest.fixture
def manual(tmp_path, make_pdf, flow, prose):
    """Two pages, one chapter each, and the words that a person reads on them in order."""
    story, truth = [flow("title", "Pump Handbook")], ["Pump Handbook"]
    for chapter in (1, 2):
        story += [flow("h1", f"{chapter}. Chapter about valves"), flow("p", prose(chapter)),
                  flow("h2", f"{chapter}.1 Spare parts"), flow("p", prose(chapter + 10)),
                  flow("list", ["Close the tap", f"Wait for {chapter} minutes before you go on with any other work on "
                                "the machine, because parts stay hot for some time"]),
                  flow("table", TABLE), flow("code", "pump --start\n  --speed 3"), flow("break")]
        truth += [f"{chapter}. Chapter about valves", prose(chapter), f"{chapter}.1 Spare parts", prose(chapter + 10),
                  "Close the tap", f"Wait for {chapter} minutes before you go on with any other work on the machine, "
                  "because parts stay hot for some time", *(cell for row in TABLE for cell in row),
                  "pump start speed 3"]
    path = make_pdf(tmp_path / "manual.pdf", story, header="ACME pumps", title="Pump Handbook", author="Ann Smith")
    return path, " ".join(truth)


def test_structure_pages_and_boxes(manual, read, recall):
    path, truth = manual
    document = read(path)
    assert recall(document.text, truth) == 1.0
    headings = [(span.text, span.level, span.page) for span in document.spans if span.kind == "heading"]
    assert headings == [
        ("Pump Handbook", 1, 1), ("1. Chapter about valves", 1, 1), ("1.1 Spare parts", 2, 1),
        ("2. Chapter about valves", 1, 2), ("2.1 Spare parts", 2, 2)]
    assert [span.text for span in document.spans if span.kind == "table"] == [MARKDOWN, MARKDOWN]
    lists = [span for span in document.spans if span.kind == "list"]
    assert lists[0].text.split("\n") == [
        "- Close the tap", "- Wait for 1 minutes before you go on with any other work on the machine, because parts "
        "stay hot for some time"]
    assert [span.text for span in document.spans if span.kind == "code"] == ["pump --start\n  --speed 3"] * 2
    for span in document.spans:
        x0, top, x1, bottom = span.box
        assert 45 <= x0 < x1 <= 560 and 60 <= top < bottom <= 790
    assert document.title == "Pump Handbook" and document.meta["author"] == "Ann Smith"
    assert document.meta["pages"] == 2 and "page_warnings" not in document.meta


def test_numbered_steps_are_one_list(tmp_path, read, make_pdf, flow, prose):
    steps = ["1. Open the lid of the housing and put it aside.", "2. Take the filter out.", "3. Close the lid."]
    document = read(make_pdf(tmp_path / "a.pdf", [flow("p", prose(1)), *(flow("p", step) for step in steps)]))
    assert [(s.kind, s.text) for s in document.spans[1:]] == [("list", "\n".join(steps))]


def test_headers_and_footers_that_repeat_are_left_out_and_noted(tmp_path, read, make_pdf, flow, prose):
    story = [part for page in range(4) for part in (flow("p", prose(page)), flow("break"))]
    path = make_pdf(tmp_path / "a.pdf", story, header="ACME internal")
    document = read(path)
    assert "ACME internal" not in document.text and "Page 2" not in document.text
    assert "ACME internal" in document.meta["running_text"]
    assert read(path, running_text=True).text.count("ACME internal") == 4


def test_two_columns_are_read_one_after_the_other(tmp_path, read, recall, make_pdf, flow, prose):
    paragraphs = [prose(seed, 4) for seed in range(14)]
    path = make_pdf(tmp_path / "two.pdf", [flow("p", text) for text in paragraphs], columns=2, header="Journal")
    document = read(path)
    assert recall(document.text, " ".join(paragraphs)) == 1.0
    assert "page_warnings" not in document.meta
    # A paragraph that a column break cut is one span again, so each is found whole.
    whole = [span.text for span in document.spans]
    assert sum(text in whole for text in paragraphs) >= 12


def test_a_sentence_cut_by_a_page_break_is_one_span_on_its_first_page(tmp_path, read, make_pdf, flow, prose):
    paragraphs = [prose(seed, 5).lower().replace("). ", ") and ") for seed in range(12)]
    document = read(make_pdf(tmp_path / "a.pdf", [flow("p", text) for text in paragraphs]))
    assert [span.text for span in document.spans] == paragraphs
    assert {span.page for span in document.spans} == {1, 2}


def test_a_table_goes_on_over_the_page_with_its_header_once(tmp_path, read, make_pdf, flow):
    rows = [["Number", "Item", "Price"], *([str(i), f"Article {i}", f"{i}.50"] for i in range(1, 71))]
    document = read(make_pdf(tmp_path / "a.pdf", [flow("table", rows)]))
    (span,) = document.spans
    assert span.kind == "table" and span.page == 1
    lines = span.text.split("\n")
    assert lines[0] == "| Number | Item | Price |" and len(lines) == 72 and lines[-1] == "| 70 | Article 70 | 70.50 |"


def test_a_table_without_rules_is_a_table(tmp_path, read, make_pdf, flow, prose):
    rows = [["Country", "Carrier", "Days"], ["Germany", "DHL", "2"], ["France", "Chronopost", "3"],
            ["Spain", "Correos", "5"], ["Italy", "Poste", "4"]]
    document = read(make_pdf(tmp_path / "a.pdf", [flow("p", prose(1)), flow("plain", rows), flow("p", prose(2))]))
    (span,) = [span for span in document.spans if span.kind == "table"]
    assert "| France | Chronopost | 3 |" in span.text and "| Country | Carrier | Days |" in span.text


def test_a_table_whose_columns_cannot_be_told_apart_is_read_row_by_row(read):
    from luthier.ingest._pdf_layout import Run
    from luthier.ingest.pdf import _keeps_runs

    def run(text, x0, x1, top):
        return Run(text, x0, top, x1, top + 10, 10, False, False)

    heads = [run("Zone", 40, 69, 0), run("Regions", 168, 215, 0), run("Bike", 325, 350, 0)]
    apart = [run("Zone 1", 36, 70, 20), run("Osterlund", 160, 230, 20), run("49 euros", 320, 360, 20)]
    glued = [run("Zone 1 Osterlund and the coast 49 euros", 36, 360, 20)]
    rows = [["Zone", "Regions", "Bike"], ["Zone 1", "Osterlund", "49 euros"]]
    assert _keeps_runs(rows, heads + apart)
    assert not _keeps_runs([["Zone", "Regions", "Bike"], ["Zone 1 Osterlund and the coast 49 euros", "", ""]],
                           heads + glued)
    assert not _keeps_runs([["Zone", "Regions", "Bike"], ["Zone 1 Oster", "lund", "49 euros"]], heads + apart[1:2])


def test_a_shaded_header_belongs_to_its_table_and_drawn_bullets_make_a_list(tmp_path, read):
    """As browsers print: rules only around the header's background, tight cells, bullets as drawn circles."""
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(tmp_path / "a.pdf"))
    canvas.drawString(40, 760, "Some prose stands above the table and is long enough to be a line of text.")
    for x, width in ((40, 80), (120, 80), (200, 60)):
        canvas.setFillGray(0.85)
        canvas.rect(x, 715, width, 20, stroke=0, fill=1)
    canvas.setFillGray(0)
    for i, row in enumerate((("Country", "Carrier", "Days"), ("Germany", "DHL", "2"), ("France", "Chronopost", "3"),
                             ("Spain", "Correos", "5"))):
        for x, cell in zip((44, 124, 204), row):
            canvas.drawString(x, 720 - 20 * i, cell)
    for i, item in enumerate(("First point of the list", "Second point of the list")):
        canvas.circle(50, 604 - 16 * i, 1.9, stroke=0, fill=1)
        canvas.drawString(60, 600 - 16 * i, item)
    canvas.save()
    document = read(tmp_path / "a.pdf")
    assert [(s.kind, s.text) for s in document.spans[1:]] == [
        ("table", "| Country | Carrier | Days |\n|---|---|---|\n| Germany | DHL | 2 |\n| France | Chronopost | 3 |\n"
                  "| Spain | Correos | 5 |"),
        ("list", "- First point of the list\n- Second point of the list")]


def test_hyphens_at_line_ends_are_closed_unless_the_text_has_them(tmp_path, read):
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(tmp_path / "a.pdf"))
    for i, line in enumerate(["We speak here of a long-term contract and of the mainte-",
                              "nance of the whole installation, which is a long-",
                              "term duty of the customer in all the countries named."]):
        canvas.drawString(72, 700 - 14 * i, line)
    canvas.save()
    (span,) = read(tmp_path / "a.pdf").spans
    assert "the maintenance of" in span.text and "a long-term duty" in span.text


def test_the_outline_gives_the_levels(tmp_path, read, make_pdf, flow, prose):
    from reportlab.platypus import Flowable

    class Mark(Flowable):
        def __init__(self, title, level):
            super().__init__()
            self.title, self.level = title, level

        def wrap(self, *available):
            return 0, 0

        def draw(self):
            self.canv.bookmarkPage(self.title)
            self.canv.addOutlineEntry(self.title, self.title, self.level)

    story = []
    for title, level in (("Ordering", 0), ("By telephone", 1), ("By letter", 1), ("Returns", 0)):
        story += [Mark(title, level), flow("h1", title), flow("p", prose(len(title)))]  # all in the same size
    document = read(make_pdf(tmp_path / "a.pdf", story))
    assert [(s.text, s.level) for s in document.spans if s.kind == "heading"] == [
        ("Ordering", 1), ("By telephone", 2), ("By letter", 2), ("Returns", 1)]


def picture(canvas):
    from PIL import Image
    from reportlab.lib.utils import ImageReader

    canvas.drawImage(ImageReader(Image.new("RGB", (80, 100), "grey")), 0, 0, 595, 842)


def test_pages_without_text_are_noted_and_a_scan_is_refused(tmp_path, read):
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(tmp_path / "mixed.pdf"))
    canvas.drawString(72, 700, "The first page holds a sentence that can be read.")
    canvas.showPage()
    picture(canvas)
    canvas.showPage()
    canvas.showPage()
    canvas.save()
    document = read(tmp_path / "mixed.pdf")
    assert document.meta["pages_without_text"] == [2] and document.meta["blank_pages"] == [3]
    scan = Canvas(str(tmp_path / "scan.pdf"))
    picture(scan)
    scan.save()
    with pytest.raises(Refused) as refused:
        read(tmp_path / "scan.pdf")
    assert refused.value.reason == "no-text-layer"


def test_encrypted_and_damaged_files_say_so(tmp_path, read, make_pdf, flow):
    locked = make_pdf(tmp_path / "locked.pdf", [flow("p", "secret")], encrypt="password")
    whole = make_pdf(tmp_path / "whole.pdf", [flow("p", "open " * 2000)]).read_bytes()
    (tmp_path / "cut.pdf").write_bytes(whole[:300])
    (tmp_path / "noise.pdf").write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 40)
    for path, reason in ((locked, "encrypted"), (tmp_path / "cut.pdf", "corrupt"), (tmp_path / "noise.pdf", "corrupt")):
        with pytest.raises(Refused) as refused:
            read(path)
        assert refused.value.reason == reason


def test_max_pages_reads_the_first_and_notes_the_rest(manual, read):
    document = read(manual[0], max_pages=1)
    assert {span.page for span in document.spans} == {1} and document.meta["pages_skipped"] == 1


def test_filled_form_fields_are_rows(tmp_path, read):
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(tmp_path / "form.pdf"))
    canvas.drawString(72, 700, "Please fill in this form and send it back to us.")
    canvas.acroForm.textfield(name="city", tooltip="City", value="Ghent", x=72, y=600)
    canvas.save()
    rows = [span for span in read(tmp_path / "form.pdf").spans if span.kind == "row"]
    assert [row.text for row in rows] == ["City: Ghent"]
    assert not [s for s in read(tmp_path / "form.pdf", form_fields=False).spans if s.kind == "row"]


def test_where_the_layout_loses_text_the_page_is_taken_as_pdfium_reads_it(manual, read, monkeypatch):
    from luthier.ingest import pdf

    layout = pdf._layout

    def losing(path, wanted, fields):
        for page in layout(path, wanted, fields):
            if page.page_num == 2:
                page.text_items = page.text_items[:3]
            yield page

    monkeypatch.setattr(pdf, "_layout", losing)
    document = read(manual[0])
    assert [w["warning"] for w in document.meta["page_warnings"]] == ["layout-lost-text"]
    assert "2.1 Spare parts" in document.text and [s.page for s in document.spans] == sorted(
        s.page for s in document.spans)


def test_an_uncertain_reading_order_is_flagged(manual, read, monkeypatch):
    from luthier.ingest import pdf

    lines_of = pdf.lines_of

    def shuffled(runs, tables):
        for run in runs:
            run.text = " ".join(sorted(run.text.split()))
        return lines_of(runs, tables)

    monkeypatch.setattr(pdf, "lines_of", shuffled)
    assert {w["warning"] for w in read(manual[0]).meta["page_warnings"]} == {"reading-order"}
