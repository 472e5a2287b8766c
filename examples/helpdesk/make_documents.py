"""Makes the PDF, DOCX, PPTX and XLSX files of this example out of the Markdown texts in `sources/`.

The plain files (HTML, Markdown, text, CSV, e-mail) are written by hand in `documents/`; this script adds the office
formats, a damaged PDF and a duplicate. Running it again gives the same bytes, so the committed files can be checked:

    python examples/helpdesk/make_documents.py            # writes into examples/helpdesk/documents
    python examples/helpdesk/make_documents.py FOLDER     # writes elsewhere, to compare
"""

from __future__ import annotations

import datetime
import hashlib
import re
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
WHEN = datetime.datetime(2026, 3, 2, 9, 0, 0)
AUTHOR = "Tarnvik Cycles"


@dataclass(frozen=True)
class Block:
    kind: str
    """heading, paragraph, bullets, steps or table."""
    text: str = ""
    level: int = 0
    rows: tuple[tuple[str, ...], ...] = ()
    """Cells of a table (header first), or one-cell rows of a list."""


def parse(text: str) -> tuple[dict[str, str], list[Block]]:
    """Front matter and blocks of the small Markdown that `sources/` uses."""
    _, front, body = text.split("---\n", 2)
    meta = dict(line.split(": ", 1) for line in front.strip().splitlines())
    return meta, [_block(part.strip()) for part in body.split("\n\n") if part.strip()]


def _block(part: str) -> Block:
    lines = part.splitlines()
    if heading := re.match(r"(#+) (.*)", part):
        return Block("heading", heading[2], len(heading[1]))
    if part.startswith("|"):
        cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
        return Block("table", rows=(cells[0], *cells[2:]))  # the second line only separates
    if part.startswith("- "):
        return Block("bullets", rows=tuple((line[2:],) for line in lines))
    if part.startswith("1. "):
        return Block("steps", rows=tuple((line.split(". ", 1)[1],) for line in lines))
    return Block("paragraph", " ".join(lines))


def make_pdf(path: Path, meta: dict[str, str], blocks: list[Block]) -> None:
    """A4 with running footer; `columns: 2` gives a magazine page."""
    from reportlab.lib import colors
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
    from reportlab.lib.units import mm
    from reportlab.platypus import BaseDocTemplate, Frame, KeepTogether, PageTemplate, Paragraph, Spacer, Table

    wide, high = A4
    columns = int(meta["columns"])
    margin, gap = 20 * mm, 8 * mm
    each = (wide - 2 * margin - (columns - 1) * gap) / columns
    sheet = getSampleStyleSheet()
    size = 10 if columns == 1 else 9
    body = ParagraphStyle("body", parent=sheet["BodyText"], fontSize=size, leading=1.35 * size, spaceAfter=5)
    item = ParagraphStyle("item", parent=body, leftIndent=14, bulletIndent=2, spaceAfter=2)
    cell = ParagraphStyle("cell", parent=body, fontSize=size - 1, leading=1.25 * size, spaceAfter=0)
    head = ParagraphStyle("head", parent=cell, fontName="Helvetica-Bold")
    sizes = {1: 18, 2: 13.5, 3: 11}
    titles = {level: ParagraphStyle(f"h{level}", parent=body, fontName="Helvetica-Bold", fontSize=points,
                                    leading=1.25 * points, spaceBefore=9, spaceAfter=4, keepWithNext=1)
              for level, points in sizes.items()}

    def footer(canvas, document) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(margin, 11 * mm, f"{AUTHOR} · {meta['title']}")
        canvas.drawRightString(wide - margin, 11 * mm, f"Page {document.page}")

    story = []
    for at, block in enumerate(blocks):
        if block.kind == "heading":
            long = at + 1 < len(blocks) and len(blocks[at + 1].rows) > 12  # such a table starts here and breaks over
            story.append(Paragraph(block.text, ParagraphStyle("alone", titles[block.level], keepWithNext=0) if long
                                   else titles[block.level]))
        elif block.kind == "paragraph":
            story.append(Paragraph(block.text, body))
        elif block.kind in ("bullets", "steps"):
            for number, (text,) in enumerate(block.rows, 1):
                story.append(Paragraph(text, item, bulletText="•" if block.kind == "bullets" else f"{number}."))
            story.append(Spacer(1, 4))
        else:
            rows = [[Paragraph(text, cell if line else head) for text in row] for line, row in enumerate(block.rows)]
            table = Table(rows, repeatRows=1, colWidths=_widths(block.rows, each))
            table.setStyle([("GRID", (0, 0), (-1, -1), 0.5, colors.grey), ("VALIGN", (0, 0), (-1, -1), "TOP"),
                            ("BACKGROUND", (0, 0), (-1, 0), colors.whitesmoke)])
            story.append(table if len(rows) > 12 else KeepTogether([table]))
            story.append(Spacer(1, 6))
    frames = [Frame(margin + at * (each + gap), 18 * mm, each, high - 36 * mm, 0, 0, 0, 0) for at in range(columns)]
    document = BaseDocTemplate(str(path), pagesize=A4, invariant=1, title=meta["title"], author=AUTHOR,
                               subject=meta["subject"])
    document.addPageTemplates(PageTemplate(frames=frames, onPage=footer))
    document.build(story)


def _widths(rows: tuple[tuple[str, ...], ...], total: float) -> list[float]:
    """Column widths that follow the amount of text, none narrower than a word."""
    columns = [[row[at] for row in rows] for at in range(len(rows[0]))]
    weights = [max(sum(min(len(text), 60) for text in column) / len(column),
                   1.6 * max(len(word) for text in column for word in text.split())) for column in columns]
    return [total * weight / sum(weights) for weight in weights]


def make_docx(path: Path, meta: dict[str, str], blocks: list[Block]) -> None:
    import docx

    document = docx.Document()
    _describe(document.core_properties, meta)
    for block in blocks:
        if block.kind == "heading":
            document.add_heading(block.text, block.level)
        elif block.kind == "paragraph":
            document.add_paragraph(block.text)
        elif block.kind == "bullets":
            for (text,) in block.rows:
                document.add_paragraph(text, style="List Bullet")
        elif block.kind == "steps":
            number = _restart(document)
            for (text,) in block.rows:
                properties = document.add_paragraph(text, style="List Number")._p.get_or_add_pPr().get_or_add_numPr()
                properties.get_or_add_numId().val = number
        else:
            table = document.add_table(rows=len(block.rows), cols=len(block.rows[0]), style="Table Grid")
            for at, row in enumerate(block.rows):
                for column, text in enumerate(row):
                    table.cell(at, column).text = text
                    if at == 0:
                        table.cell(at, column).paragraphs[0].runs[0].bold = True
    document.save(str(path))
    _freeze(path)


def _restart(document) -> int:
    """A new list that counts from 1: Word would continue the numbers of the list before."""
    style = document.styles["List Number"].element.pPr.numPr.numId.val
    numbering = document.part.numbering_part.element
    new = numbering.add_num(numbering.num_having_numId(style).abstractNumId.val)
    new.add_lvlOverride(ilvl=0).add_startOverride(1)
    return new.numId


def make_pptx(path: Path, meta: dict[str, str], blocks: list[Block]) -> None:
    """One slide per heading; bullets as bullets, tables as tables."""
    import pptx
    from pptx.util import Inches

    deck = pptx.Presentation()
    _describe(deck.core_properties, meta)
    slide = None
    for block in blocks:
        if block.kind == "heading":
            slide = deck.slides.add_slide(deck.slide_layouts[{1: 0, 2: 1}[block.level]])
            slide.shapes.title.text = block.text
        elif block.kind == "table":
            slide.placeholders[1].element.getparent().remove(slide.placeholders[1].element)
            size = len(block.rows), len(block.rows[0])
            table = slide.shapes.add_table(*size, Inches(0.6), Inches(1.8), Inches(8.8), Inches(0.5 * size[0])).table
            for at, row in enumerate(block.rows):
                for column, text in enumerate(row):
                    table.cell(at, column).text = text
        else:
            frame = slide.placeholders[1].text_frame
            lines = [block.text] if block.kind == "paragraph" else [text for (text,) in block.rows]
            frame.text = lines[0]
            for line in lines[1:]:
                frame.add_paragraph().text = line
    deck.save(str(path))
    _freeze(path)


def make_xlsx(path: Path, meta: dict[str, str], blocks: list[Block]) -> None:
    """One sheet per heading and table; numbers as numbers."""
    import openpyxl
    from openpyxl.styles import Font

    book = openpyxl.Workbook()
    book.remove(book.active)
    book.properties.title, book.properties.creator, book.properties.subject = meta["title"], AUTHOR, meta["subject"]
    book.properties.created = WHEN
    sheet = None
    for block in blocks:
        if block.kind == "heading":
            sheet = book.create_sheet(block.text)
            continue
        for row in block.rows:
            sheet.append([float(text) if re.fullmatch(r"\d+\.\d+", text) else int(text) if text.isdigit() else text
                          for text in row])
        for number in range(1, len(block.rows[0]) + 1):
            sheet.cell(1, number).font = Font(bold=True)
            longest = max(len(row[number - 1]) for row in block.rows)
            sheet.column_dimensions[openpyxl.utils.get_column_letter(number)].width = longest + 3
    book.save(path)
    _freeze(path)


def _describe(properties, meta: dict[str, str]) -> None:
    properties.title, properties.subject, properties.author = meta["title"], meta["subject"], AUTHOR
    properties.last_modified_by, properties.revision = AUTHOR, 1
    properties.created = properties.modified = WHEN


def _freeze(path: Path) -> None:
    """Rewrite an office file with fixed times, which the libraries take from the clock."""
    stamp = WHEN.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    with zipfile.ZipFile(path) as old:
        members = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members:
            if name == "docProps/core.xml":
                data = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>" + stamp, data)
            info = zipfile.ZipInfo(name, date_time=WHEN.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, data)


def damage(source: Path, path: Path) -> None:
    """A PDF as a broken disk leaves it: the head is there, the rest is noise, and the cross references are gone."""
    noise = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(300))
    path.write_bytes(source.read_bytes()[:64] + noise)


MAKERS = {".pdf": make_pdf, ".docx": make_docx, ".pptx": make_pptx, ".xlsx": make_xlsx}


def make(folder: Path) -> list[Path]:
    """Write every made file under `folder`; returns their paths."""
    made = []
    for source in sorted((HERE / "sources").glob("*.md")):
        meta, blocks = parse(source.read_text("utf-8"))
        path = folder / meta["to"]
        path.parent.mkdir(parents=True, exist_ok=True)
        MAKERS[path.suffix](path, meta, blocks)
        made.append(path)
    archive = folder / "archive"
    archive.mkdir(parents=True, exist_ok=True)
    damage(folder / "manuals/owners-manual.pdf", archive / "owners-manual-2024-damaged.pdf")
    shutil.copyfile(folder / "policies/warranty-terms.docx", folder / "policies/warranty-terms_copy.docx")
    return [*made, archive / "owners-manual-2024-damaged.pdf", folder / "policies/warranty-terms_copy.docx"]


if __name__ == "__main__":
    for path in make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "documents"):
        print(path)
