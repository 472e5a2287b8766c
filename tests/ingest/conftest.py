"""Real files, written by the libraries that people use, and a way to read one of them in this process."""

import hashlib
import re
from pathlib import Path

import pytest

from luthier.ingest._read import choose
from luthier.ingest.base import READERS, Source


@pytest.fixture
def read():
    """read(path, **options of the reader) -> the file's one document, by the reader that its bytes choose."""

    def read_one(path: Path, *, max_pages=None, max_unpacked_mb=1000.0, **options):
        data = path.read_bytes()
        source = Source(path=path, name=path.name, sha256=hashlib.sha256(data).hexdigest(), head=data[:16384],
                        max_pages=max_pages, max_unpacked_mb=max_unpacked_mb)
        reader = choose(source, [cls() for cls in READERS.kinds().values()])
        (document,) = list(type(reader)(**options).read(source))
        return document

    return read_one


@pytest.fixture
def shape():
    """shape(document) -> [(kind, level, text)] for short comparisons."""
    return lambda document: [(span.kind, span.level, span.text) for span in document.spans]


def words(text):
    return re.findall(r"\w+", text.lower())


@pytest.fixture
def recall():
    """recall(found, truth): share of the truth's words found in order (longest common subsequence)."""

    def ordered(found: str, truth: str) -> float:
        a, b = words(truth), words(found)
        row = [0] * (len(b) + 1)
        for x in a:
            before = 0
            for j, y in enumerate(b, 1):
                before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
        return row[-1] / len(a)

    return ordered


PROSE = (
    "The technician opens the inlet valve slowly and waits until the gauge reads less than two bar. ",
    "Before the cover plate is removed, the supply must be locked and a warning sign fixed to the switch. ",
    "Worn seals are replaced every six months, or after five hundred hours of operation, whichever comes first. ",
    "If the pump vibrates, check the coupling, the alignment of the motor and the tension of the belt. ",
    "Customers outside the European Union pay customs duty, which the carrier collects on delivery. ",
    "The warranty ends when parts are used that the manufacturer has not approved in writing. ",
)


@pytest.fixture
def prose():
    """prose(seed, sentences) -> a paragraph; paragraphs with different seeds differ."""
    return lambda seed, sentences=3: "".join(
        f"{PROSE[(seed + i) % 6][:-2]} (case {seed}-{i}). " for i in range(sentences)).strip()


@pytest.fixture
def make_pdf():
    """make_pdf(path, story, columns=1, header=None, **document properties): a PDF by reportlab."""

    def make(path, story, *, columns=1, header=None, encrypt=None, **about):
        from reportlab.lib.pagesizes import A4
        from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate

        width, height = A4
        column = (width - 100 - 24 * (columns - 1)) / columns
        frames = [Frame(50 + i * (column + 24), 60, column, height - 130, id=str(i)) for i in range(columns)]

        def margins(canvas, document):
            if header:
                canvas.setFont("Helvetica", 9)
                canvas.drawString(50, height - 35, header)
                canvas.drawCentredString(width / 2, 25, f"Page {document.page}")

        document = BaseDocTemplate(str(path), pagesize=A4, encrypt=encrypt, **about)
        document.addPageTemplates([PageTemplate(frames=frames, onPage=margins)])
        document.build(story)
        return path

    return make


@pytest.fixture
def flow():
    """Short names for reportlab's building blocks: flow("h1", text), flow("p", text), flow("table", rows), …"""
    from reportlab.lib import colors
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import ListFlowable, ListItem, PageBreak, Paragraph, Preformatted, Table

    styles = getSampleStyleSheet()
    named = {"title": "Title", "h1": "Heading1", "h2": "Heading2", "h3": "Heading3", "p": "BodyText"}

    def build(kind, content=None):
        if kind in named:
            return Paragraph(content, styles[named[kind]])
        if kind == "list":
            return ListFlowable([ListItem(Paragraph(item, styles["BodyText"])) for item in content],
                                bulletType="bullet")
        if kind == "code":
            return Preformatted(content, styles["Code"])
        if kind == "break":
            return PageBreak()
        table = Table(content, repeatRows=1)
        if kind == "table":
            table.setStyle([("GRID", (0, 0), (-1, -1), 0.5, colors.black)])
        return table

    return build
