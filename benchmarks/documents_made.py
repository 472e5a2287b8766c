"""Documents with known words, order and cells, made of real prose: what documents.py reads."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import data_folder, read_rows

Table = list[list[str]]


@dataclass
class Case:
    """One file with its truth."""

    name: str
    group: str
    words: list[str]
    tables: list[Table] = field(default_factory=list)
    pages: int = 1
    bad: frozenset[int] = frozenset()
    """Pages that must be flagged."""
    letters: str = ""
    """Letters and digits in order, where they are compared as well."""


def tokens(text: str) -> list[str]:
    return re.findall(r"\w+", text.replace("\u00ad", "").lower())


def prose(seed: int, sentences: int) -> str:
    """Sentences of real answers, different for every seed."""
    chance = random.Random(seed)
    return " ".join(chance.choice(SENTENCES) for _ in range(sentences))


SENTENCES: list[str] = []


def load_sentences() -> None:
    rows = read_rows(data_folder() / "medquad" / "train.jsonl")
    for row in rows[:1_500]:
        text = " ".join(str(row.get("answer") or row.get("target") or "").split())
        for sentence in re.split(r"(?<=[.])\s+(?=[A-Z])", text):
            if 40 < len(sentence) < 220 and re.fullmatch(r"[A-Za-z0-9 ,.;:()'%-]+", sentence):
                SENTENCES.append(sentence)
    SENTENCES[:] = list(dict.fromkeys(SENTENCES))


def cells(seed: int, rows: int, columns: int) -> Table:
    chance = random.Random(seed)
    names = [w.capitalize() for w in dict.fromkeys(tokens(prose(seed, 6))) if w.isalpha() and len(w) > 3]
    body = [[f"{names[(r * 3) % len(names)]} {seed}-{r}",
             *(str(chance.choice((chance.randrange(9_999), f"{chance.random():.2f}", f"{chance.randrange(99)} mg")))
               for _ in range(columns - 1))] for r in range(rows)]
    return [names[5 : 5 + columns], *body]


# --------------------------------------------------------------------------------------------------- made files


def make_pdfs(folder: Path) -> list[Case]:
    from reportlab.lib import colors
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import (
        BaseDocTemplate,
        Frame,
        ListFlowable,
        ListItem,
        PageBreak,
        PageTemplate,
        Paragraph,
        Spacer,
    )
    from reportlab.platypus import Table as Grid

    style = getSampleStyleSheet()
    wide, high = A4

    def build(name: str, story: list[Any], columns: int = 1, header: str = "", turn: int = 0) -> int:
        column = (wide - 100 - 24 * (columns - 1)) / columns
        frames = [Frame(50 + i * (column + 24), 60, column, high - 130, id=str(i)) for i in range(columns)]

        def margins(canvas: Any, document: Any) -> None:
            if turn:
                canvas.setPageRotation(turn)
            if header:
                canvas.setFont("Helvetica", 9)
                canvas.drawString(50, high - 35, header)
                canvas.drawCentredString(wide / 2, 25, f"Page {document.page}")

        document = BaseDocTemplate(str(folder / name), pagesize=A4)
        document.addPageTemplates([PageTemplate(frames=frames, onPage=margins)])
        document.build(story)
        return document.page

    def text(seed: int, sections: int, per: int) -> tuple[list[Any], list[str]]:
        story: list[Any] = []
        said: list[str] = []
        for at in range(sections):
            head = f"{at + 1}. " + " ".join(prose(seed * 100 + at, 1).split()[:5]).rstrip(",.;:")
            body = [prose(seed * 1_000 + at * 10 + i, 4) for i in range(per)]
            story += [Paragraph(head, style["Heading2"]), *(Paragraph(one, style["BodyText"]) for one in body)]
            said += [head, *body]
        return story, tokens(" ".join(said))

    cases = []
    for number in range(2):
        story, words = text(number + 1, 12, 4)
        pages = build(f"one-{number}.pdf", story, header="Patient handbook, third edition")
        cases.append(Case(f"one-{number}.pdf", "pdf one column", words, pages=pages))
    for number in range(3):
        story, words = text(number + 11, 14, 4)
        pages = build(f"two-{number}.pdf", story, columns=2, header="Annals of practice" if number else "")
        cases.append(Case(f"two-{number}.pdf", "pdf two columns", words, pages=pages))
    story, words = text(31, 6, 4)
    cases.append(Case("turned.pdf", "pdf turned pages", words, pages=build("turned.pdf", story, turn=90)))

    story, said = [], []
    for at in range(8):  # lists, notes, a superscript mark
        items = [prose(5_000 + at * 10 + i, 1) for i in range(5)]
        body, note = prose(6_000 + at, 5), prose(7_000 + at, 1)
        story += [Paragraph(f"Chapter {at + 1}", style["Heading1"]), Paragraph(body, style["BodyText"]),
                  ListFlowable([ListItem(Paragraph(item, style["BodyText"])) for item in items], bulletType="1"),
                  Spacer(1, 12), Paragraph(f"Note: {note}", style["Italic"]), PageBreak()]
        said += [f"Chapter {at + 1}", body, *(f"{i} {item}" for i, item in enumerate(items, 1)), "Note", note]
    pages = build("lists.pdf", story, header="Handbook")
    cases.append(Case("lists.pdf", "pdf lists and notes", tokens(" ".join(said)), pages=pages))
    cases += [_cut_words(folder), _ligatures(folder)]

    for ruled in (True, False):
        story, said, tables = [], [], []
        for at in range(10):
            grid = cells(at * 2 + ruled, 6 + at % 5, 3 + at % 3)
            drawn = Grid(grid, repeatRows=1)
            drawn.setStyle([("GRID", (0, 0), (-1, -1), 0.5, colors.black)] if ruled else
                           [("FONT", (0, 0), (-1, 0), "Helvetica-Bold"), ("ALIGN", (1, 0), (-1, -1), "RIGHT")])
            before, after = prose(8_000 + at, 3), prose(9_000 + at, 3)
            story += [Paragraph(before, style["BodyText"]), Spacer(1, 8), drawn, Spacer(1, 8),
                      Paragraph(after, style["BodyText"])]
            said += [before, *(cell for row in grid for cell in row), after]
            tables.append(grid)
        name = f"tables-{'ruled' if ruled else 'open'}.pdf"
        cases.append(Case(name, "pdf ruled tables" if ruled else "pdf open tables", tokens(" ".join(said)), tables,
                          build(name, story)))
    return cases


def _cut_words(folder: Path) -> Case:
    """Justified lines whose last word is cut with a hyphen, as a typesetter does it."""
    from reportlab.pdfgen.canvas import Canvas

    words = tokens(prose(77, 60))
    canvas = Canvas(str(folder / "hyphens.pdf"))
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) + 1 <= 70:
            line = f"{line} {word}".strip()
        elif len(word) >= 8 and 72 - len(line) > 6:
            at = min(len(word) - 3, 70 - len(line))
            lines.append(f"{line} {word[:at]}-" if at >= 3 else line)
            line = word[at:] if at >= 3 else word
        else:
            lines.append(line)
            line = word
    lines.append(line)
    for start in range(0, len(lines), 45):
        for at, one in enumerate(lines[start : start + 45]):
            canvas.drawString(72, 760 - 15 * at, one)
        canvas.showPage()
    canvas.save()
    return Case("hyphens.pdf", "pdf cut words", words, pages=-(-len(lines) // 45))


def _ligatures(folder: Path) -> Case:
    """Text set with the characters ﬁ, ﬂ and ﬀ where a font that has them is installed; else plain."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.pdfgen.canvas import Canvas

    fonts = [*Path("/usr/share/fonts").rglob("DejaVuSans.ttf"), *Path(sys.prefix).rglob("DejaVuSans.ttf")]
    canvas = Canvas(str(folder / "ligatures.pdf"))
    body = prose(78, 40)
    shown = body
    if fonts:
        pdfmetrics.registerFont(TTFont("Liga", str(fonts[0])))
        shown = body.replace("ffi", "\ufb03").replace("ff", "\ufb00").replace("fi", "\ufb01").replace("fl", "\ufb02")
    words, line, lines = shown.split(), "", []
    for word in words:
        if len(line) + len(word) > 80:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    lines.append(line)
    for start in range(0, len(lines), 45):
        canvas.setFont("Liga" if fonts else "Helvetica", 10)
        for at, one in enumerate(lines[start : start + 45]):
            canvas.drawString(60, 780 - 15 * at, one)
        canvas.showPage()
    canvas.save()
    return Case("ligatures.pdf", "pdf ligatures", tokens(body), pages=-(-len(lines) // 45))


def make_bad(folder: Path) -> Case:
    """Good and bad pages in turn."""
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(folder / "bad.pdf"))
    bad, number = set(), 0

    def page(lines: Sequence[str], wrong: bool = False) -> None:
        nonlocal number
        number += 1
        if wrong:
            bad.add(number)
        for at, one in enumerate(lines):
            canvas.drawString(72, 760 - 15 * at, one)
        canvas.showPage()

    chance = random.Random(5)
    for at in range(8):
        good = [" ".join(prose(at * 50 + i, 2).split()[:12]) for i in range(20)]
        page(good)
        page([line.replace(" ", "") for line in good], True)  # a layer that lost its spaces
        shuffled = ["".join(chance.choice("bcdfghjklmnpqrstvwxz") if c.isalpha() else c for c in line) for line in good]
        page(shuffled, True)  # a font whose map to letters is wrong
        page(["".join(chr(0xE000 + ord(c) % 90) if c.isalpha() else c for c in line) if at % 2 else  # boxes
              "".join(f"(cid:{ord(c)})" for c in line[:30]) for line in good], True)
    canvas.save()
    return Case("bad.pdf", "pdf bad pages", [], pages=number, bad=frozenset(bad))


def make_docx(folder: Path) -> Case:
    import docx

    out = docx.Document()
    out.sections[0].header.paragraphs[0].text = "Handbook"
    said, tables = [], []
    for at in range(10):
        head, body = f"Part {at + 1}", [prose(20_000 + at * 10 + i, 4) for i in range(3)]
        items, grid = [prose(21_000 + at * 10 + i, 1) for i in range(4)], cells(300 + at, 7, 4)
        out.add_heading(head, 1)
        for one in body:
            out.add_paragraph(one)
        for one in items:
            out.add_paragraph(one, style="List Bullet")
        table = out.add_table(len(grid), len(grid[0]))
        for r, row in enumerate(grid):
            for c, cell in enumerate(row):
                table.cell(r, c).text = cell
        said += [head, *body, *items, *(cell for row in grid for cell in row)]
        tables.append(grid)
    out.save(str(folder / "handbook.docx"))
    return Case("handbook.docx", "docx", tokens(" ".join(said)), tables, 10)


def make_html(folder: Path) -> Case:
    parts, said, tables = [], [], []
    for at in range(10):
        head, body = f"Part {at + 1}", [prose(30_000 + at * 10 + i, 4) for i in range(3)]
        items, grid = [prose(31_000 + at * 10 + i, 1) for i in range(4)], cells(400 + at, 7, 4)
        rows = "".join("<tr>" + "".join(f"<t{'hd'[r > 0]}>{cell}</t{'hd'[r > 0]}>" for cell in row) + "</tr>"
                       for r, row in enumerate(grid))
        parts.append(f"<h2>{head}</h2>" + "".join(f"<p>{one}</p>" for one in body)
                     + "<ul>" + "".join(f"<li>{one}</li>" for one in items) + f"</ul><table>{rows}</table>")
        said += [head, *body, *items, *(cell for row in grid for cell in row)]
        tables.append(grid)
    menu = "<nav><ul>" + "".join(f"<li><a href='{i}'>Menu entry {i}</a></li>" for i in range(30)) + "</ul></nav>"
    (folder / "handbook.html").write_text(
        f"<html><head><title>Handbook</title><style>p {{}}</style></head><body>{menu}<main>{''.join(parts)}</main>"
        "<footer>Imprint and cookies</footer></body></html>", "utf-8")
    return Case("handbook.html", "html", tokens(" ".join(said)), tables, 10)
