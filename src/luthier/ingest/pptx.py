"""PowerPoint presentations (PPTX): each slide's title, texts, tables, charts and notes; page is the slide's number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from luthier.ingest._blocks import clean_lines, list_item, table
from luthier.ingest._office import check_archive, dangers, properties, tell_damage
from luthier.ingest.base import NO, READERS, SURE, Source
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span

EMU_PER_POINT = 12700
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"


@register(READERS, "pptx")
class PptxReader(Spec):
    """Presentations, slide by slide."""

    notes: bool = True
    """Also read the speaker's notes."""
    hidden_slides: bool = False
    """Also read slides that are hidden in the show."""

    version: ClassVar[int] = 2

    def accepts(self, source: Source) -> int:
        return SURE if "ppt/presentation.xml" in source.members else NO

    def read(self, source: Source) -> Iterator[Document]:
        check_archive(source)
        with tell_damage():
            from pptx import Presentation

            opened = Presentation(str(source.path))
            meta = properties(opened.core_properties) | dangers(source)
            slides = list(opened.slides)
            spans: list[Span] = []
            hidden = []
            for number, slide in enumerate(slides[:source.max_pages], 1):
                if slide.element.get("show") == "0" and not self.hidden_slides:
                    hidden.append(number)
                else:
                    spans += self._slide(slide, number)
        meta |= {"pages": len(slides), "hidden_slides": hidden,
                 "pages_skipped": max(len(slides) - (source.max_pages or len(slides)), 0) or None}
        title = meta.pop("title", "")
        yield source.document(
            reader="pptx", media="application/vnd.openxmlformats-officedocument.presentationml.presentation",
            spans=spans, title=title, meta=meta)

    def _slide(self, slide: Any, number: int) -> Iterator[Span]:
        title = slide.shapes.title
        if title is not None and clean_lines(title.text_frame.text):
            yield Span(text=clean_lines(title.text_frame.text).replace("\n", " "), kind="heading", level=1,
                       page=number, box=_box(title))
        shapes = [shape for shape in _flat(slide.shapes) if title is None or shape.shape_id != title.shape_id]
        # Rows of about 1/3 inch, then from left to right: shapes are stored in the order they were drawn.
        shapes.sort(key=lambda shape: ((shape.top or 0) // 300_000, shape.left or 0))
        for shape in shapes:
            yield from self._shape(shape, number)
        if self.notes and slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            text = clean_lines(slide.notes_slide.notes_text_frame.text)
            if text:
                yield Span(text=f"Notes: {text}", page=number)

    def _shape(self, shape: Any, number: int) -> Iterator[Span]:
        box = _box(shape)
        if getattr(shape, "has_table", False) and shape.has_table:
            text = table([[cell.text for cell in row.cells] for row in shape.table.rows])
            if text:
                yield Span(text=text, kind="table", page=number, box=box)
        elif getattr(shape, "has_chart", False) and shape.has_chart:
            yield from _chart(shape.chart, number, box)
        elif shape.has_text_frame:
            yield from _frame(shape, number, box)
        else:
            text = "\n".join(_drawing(shape))
            if text:
                yield Span(text=text, kind="list", page=number, box=box)


def _flat(shapes: Any) -> Iterator[Any]:
    for shape in shapes:
        if shape.shape_type is not None and int(shape.shape_type) == 6:  # a group
            yield from _flat(shape.shapes)
        elif not (shape.is_placeholder and int(shape.placeholder_format.type or 0) in (13, 15, 16)):
            yield shape  # all but slide number, footer and date


def _box(shape: Any) -> tuple[float, float, float, float] | None:
    if shape.left is None or shape.top is None or shape.width is None or shape.height is None:
        return None
    left, top = shape.left / EMU_PER_POINT, shape.top / EMU_PER_POINT
    return (round(left, 1), round(top, 1), round(left + shape.width / EMU_PER_POINT, 1),
            round(top + shape.height / EMU_PER_POINT, 1))


def _frame(shape: Any, number: int, box: Any) -> Iterator[Span]:
    """A body placeholder is a bulleted list; a free text box holds paragraphs unless it says bullets."""
    listed = shape.is_placeholder and int(shape.placeholder_format.type or 0) in (2, 7)  # body, object
    paragraphs = [(clean_lines(p.text), p.level, _bullet(p, listed)) for p in shape.text_frame.paragraphs]
    paragraphs = [entry for entry in paragraphs if entry[0]]
    if len(paragraphs) == 1 and shape.is_placeholder:
        yield Span(text=paragraphs[0][0], page=number, box=box)
        return
    items: list[str] = []
    for text, level, bullet in paragraphs:
        if bullet:
            items.append(list_item(text, level))
            continue
        if items:
            yield Span(text="\n".join(items), kind="list", page=number, box=box)
            items = []
        yield Span(text=text, page=number, box=box)
    if items:
        yield Span(text="\n".join(items), kind="list", page=number, box=box)


def _bullet(paragraph: Any, default: bool) -> bool:
    about = paragraph._p.find(A + "pPr")
    if about is None:
        return default
    if about.find(A + "buNone") is not None:
        return False
    return default or about.find(A + "buChar") is not None or about.find(A + "buAutoNum") is not None


def _chart(chart: Any, number: int, box: Any) -> Iterator[Span]:
    if chart.has_title and chart.chart_title.has_text_frame:
        yield Span(text=clean_lines(chart.chart_title.text_frame.text), kind="caption", page=number, box=box)
    plots = list(chart.plots)
    if not plots:
        return
    labels = [str(label) for label in plots[0].categories]
    series = [one for plot in plots for one in plot.series]
    rows = [["", *(str(one.name) for one in series)]]
    rows += [[label, *(_number(list(one.values), i) for one in series)] for i, label in enumerate(labels)]
    text = table(rows) if labels else ""
    if text:
        yield Span(text=text, kind="table", page=number, box=box)


def _number(values: list[Any], index: int) -> str:
    value = values[index] if index < len(values) else None
    return "" if value is None else f"{value:g}"


def _drawing(shape: Any) -> Iterator[str]:
    """Texts of SmartArt, which live in a part of their own."""
    for element in shape._element.iter():
        id = element.get("{http://schemas.openxmlformats.org/officeDocument/2006/relationships}dm")
        if id and id in shape.part.rels and not shape.part.rels[id].is_external:
            import lxml.etree as etree

            parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
            root = etree.fromstring(shape.part.rels[id].target_part.blob, parser)
            for paragraph in root.iter(A + "p"):
                text = clean_lines("".join(run.text or "" for run in paragraph.iter(A + "t")))
                if text:
                    yield list_item(text)
