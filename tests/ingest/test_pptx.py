"""PPTX: slides in order with titles as headings, bullets by depth, tables, charts, notes; page is the slide."""

import pptx
import pytest
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches


@pytest.fixture
def talk(tmp_path):
    p = pptx.Presentation()
    p.core_properties.title = "Sales"
    first = p.slides.add_slide(p.slide_layouts[1])
    first.shapes.title.text = "Results"
    frame = first.placeholders[1].text_frame
    frame.text = "Revenue grew"
    for text, level in (("by ten per cent", 1), ("Costs fell", 0)):
        paragraph = frame.add_paragraph()
        paragraph.text, paragraph.level = text, level
    first.notes_slide.notes_text_frame.text = "Mention the new site."
    second = p.slides.add_slide(p.slide_layouts[5])
    second.shapes.title.text = "Regions"
    low = second.shapes.add_textbox(Inches(1), Inches(6), Inches(3), Inches(0.5))
    low.text_frame.text = "Drawn first, stands below."
    cells = second.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    for r, row in enumerate((("Region", "Sales"), ("North", "12"))):
        for c, text in enumerate(row):
            cells.cell(r, c).text = text
    data = CategoryChartData()
    data.categories = ["2024", "2025"]
    data.add_series("Units", (3, 4.5))
    second.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(4), Inches(4), Inches(1.5), data)
    hidden = p.slides.add_slide(p.slide_layouts[5])
    hidden.shapes.title.text = "Secret"
    hidden.element.set("show", "0")
    p.save(tmp_path / "talk.pptx")
    return tmp_path / "talk.pptx"


def test_slides(talk, read):
    document = read(talk)
    assert [(s.page, s.kind, s.text) for s in document.spans] == [
        (1, "heading", "Results"), (1, "list", "- Revenue grew\n  - by ten per cent\n- Costs fell"),
        (1, "paragraph", "Notes: Mention the new site."),
        (2, "heading", "Regions"), (2, "table", "| Region | Sales |\n|---|---|\n| North | 12 |"),
        (2, "table", "|  | Units |\n|---|---|\n| 2024 | 3 |\n| 2025 | 4.5 |"),
        (2, "paragraph", "Drawn first, stands below.")]
    assert document.title == "Sales" and document.meta["pages"] == 3 and document.meta["hidden_slides"] == [3]
    x0, top, _, _ = document.spans[-1].box
    assert (x0, top) == (72, 432)


def test_options(talk, read):
    assert "Secret" in read(talk, hidden_slides=True).text
    assert "Notes:" not in read(talk, notes=False).text
    cut = read(talk, max_pages=1)
    assert {s.page for s in cut.spans} == {1} and cut.meta["pages_skipped"] == 2
