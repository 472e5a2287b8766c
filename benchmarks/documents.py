"""Text fidelity, tables and speed on born-digital documents: Luthier's readers, PDFium alone, MarkItDown, Kreuzberg.

    python -m venv peers && peers/bin/pip install 'markitdown[pdf,docx]' kreuzberg
    python benchmarks/documents.py --peers peers/bin/python     # writes results/documents.json

Two sources of truth. Files made here from real prose (MedQuAD answers) with known words, order and cells: one and two
columns, headings, lists, running headers, footnotes, words cut at line ends, ligatures, turned pages, ruled and unruled
tables; the same as DOCX and HTML with navigation; and pages that are bad on purpose (glued words, a font without
letters, text of pictures, hidden text). And real manuals on this machine (/usr/share/doc), whose truth is what PDFium
reads, less running headers and tables of contents (found by a rule of this script's own). Measures:

- recall: longest common subsequence of words with the truth, by its length (so order counts); extra: share of the
  output that is not in it (running headers count there);
- tables: F1 over pairs of neighbouring cells (adjacency relations, Göbel et al., ICDAR 2013), exact text;
- pages per CPU-second of one process, after one small file to warm up;
- bad pages: how many of those that are bad are flagged, and how many of the others.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import data_folder, machine, read_rows, save

MANUALS = ("bzip2/manual.pdf.gz", "nettle-dev/nettle.pdf.gz", "fontconfig/fontconfig-user.pdf.gz",
           "zlib1g-dev/crc-doc.1.0.pdf.gz", "libtasn1-doc/libtasn1.pdf", "shared-mime-info/shared-mime-info-spec.pdf")
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


# ------------------------------------------------------------------------------------------------------ systems


def read_ours(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Luthier's readers in this process, so that CPU time is theirs alone."""
    import hashlib

    from luthier.ingest._read import Limits, _judged, choose
    from luthier.ingest.base import READERS, Source

    readers = [cls() for cls in READERS.kinds().values()]
    limits = Limits(max_pages=None, max_unpacked_mb=1_000, min_words=1, bad_pages="keep")
    found = {}
    for path in [files[0], *files]:
        began = time.process_time()
        data = path.read_bytes()
        source = Source(path=path, name=path.name, sha256=hashlib.sha256(data).hexdigest(), head=data[:16_384])
        documents = [_judged(document, limits) for document in choose(source, readers).read(source)]
        found[path.name] = {
            "cpu_s": time.process_time() - began, "text": "\n\n".join(document.text for document in documents),
            "tables": [span.text for document in documents for span in document.spans if span.kind == "table"],
            "flagged": sorted({w["page"] for document in documents for w in document.meta.get("page_warnings", ())}
                              | {page for d in documents for page in d.meta.get("pages_without_text", ())})}
    return found


def _joined(pages: Sequence[str]) -> str:
    """Pages as one text, words put together again that a line end cut with a hyphen."""
    return re.sub(r"-\s*\n\s*", "", "\n".join(pages))


def without_running(pages: Sequence[str]) -> str:
    """A manual's own text: no first or last line that returns on three pages (numbers apart), no line of a table of
    contents (dot leaders), whose words stand again where they belong."""
    split = [[line for line in page.split("\n") if line.strip()] for page in pages]
    shape = lambda line: re.sub(r"\d+|\b[ivxlc]+\b", "#", line.lower().strip())  # noqa: E731
    seen = Counter(one for lines in split for one in {shape(line) for line in (*lines[:2], *lines[-2:])})
    kept = []
    for lines in split:
        edge = {0, 1, len(lines) - 1, len(lines) - 2}
        kept.append("\n".join(line for at, line in enumerate(lines) if not (
            (at in edge and (seen[shape(line)] >= 3 or shape(line).strip("# -") in ("", "chapter"))) or re.search(
                r"(?:\. ?){4,}", line))))
    return _joined(kept)


def read_pdfium(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    import pypdfium2

    found = {}
    for path in [files[0], *files]:
        began = time.process_time()
        with pypdfium2.PdfDocument(path) as opened:
            texts = [page.get_textpage().get_text_bounded().replace("\ufffe", "-").replace("\x02", "-")
                     .replace("\r\n", "\n") for page in opened]
        joined = _joined(texts)
        found[path.name] = {"cpu_s": time.process_time() - began, "text": joined, "tables": [], "pages": texts}
    return found


PEER = '''
import json, sys, time
name, files = sys.argv[1], sys.argv[2:]
if name == "markitdown":
    from markitdown import MarkItDown
    reader = MarkItDown()
    read = lambda path: (reader.convert(path).text_content, [])
else:
    import kreuzberg
    config = kreuzberg.ExtractionConfig(output_format="markdown", use_cache=False)
    def read(path):
        result = kreuzberg.extract_file_sync(path, config=config)
        return result.content, [table.markdown for table in result.tables]
found = {}
for path in [files[0], *files]:
    began = time.process_time()
    try:
        text, tables = read(path)
        error = ""
    except Exception as wrong:
        text, tables, error = "", [], f"{type(wrong).__name__}: {wrong}"[:300]
    spent = time.process_time() - began
    found[path.rpartition("/")[2]] = {"cpu_s": spent, "text": text, "tables": tables, "error": error}
print("\\x1e" + json.dumps(found))
'''


def read_peer(python: Path, name: str, files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    done = subprocess.run([str(python), "-c", PEER, name, *map(str, files)], capture_output=True, text=True,
                          env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "RAYON_NUM_THREADS": "1"})
    if "\x1e" not in done.stdout:
        raise SystemExit(f"{name} failed: {done.stderr[-800:]}")
    return json.loads(done.stdout.rpartition("\x1e")[2])


# ------------------------------------------------------------------------------------------------------ measures


def in_order(truth: Sequence[str], found: Sequence[str]) -> int:
    """Length of the longest common subsequence, with one bit for each word of the truth (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for at, word in enumerate(truth):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(truth)) - 1
    row = full
    for word in found:
        here = row & places.get(word, 0)
        row = ((row + here) | (row - here)) & full
    return len(truth) - row.bit_count()


def markdown_tables(text: str) -> list[Table]:
    """Tables drawn with pipes."""
    found: list[Table] = []
    rows: Table = []
    for line in [*text.split("\n"), ""]:
        if line.strip().startswith("|") and line.count("|") >= 3:
            row = [cell.replace("\\|", "|").strip(" *") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            if not all(re.fullmatch(r":?-+:?|", cell) for cell in row):
                rows.append([" ".join(cell.replace("<br>", " ").split()) for cell in row])
        elif rows:
            found.append(rows)
            rows = []
    return found


def relations(tables: Sequence[Table]) -> Counter[tuple[str, str, str]]:
    """Neighbouring cells with text: to the right and below, blank cells skipped."""
    found: Counter[tuple[str, str, str]] = Counter()
    for table in tables:
        width = max(map(len, table), default=0)
        grid = [[*row, *[""] * (width - len(row))] for row in table]
        for way, lines in (("right", grid), ("below", [list(column) for column in zip(*grid)])):
            for line in lines:
                filled = [cell for cell in line if cell]
                found.update((way, a, b) for a, b in pairwise(filled))
    return found


def score(case: Case, result: dict[str, Any]) -> dict[str, Any]:
    found = tokens(result["text"])
    common = in_order(case.words, found)
    row: dict[str, Any] = {"recall": common / max(len(case.words), 1), "extra": 1 - common / max(len(found), 1),
                           "pages_per_cpu_s": case.pages / max(result["cpu_s"], 1e-6)}
    if case.tables:
        tables = markdown_tables(result["text"]) or [t for one in result["tables"] for t in markdown_tables(one)]
        true, got = relations(case.tables), relations(tables)
        both = sum((true & got).values())
        row["table_f1"] = 2 * both / max(sum(true.values()) + sum(got.values()), 1)
    if result.get("error"):
        row["error"] = result["error"]
    return row


def manuals(folder: Path) -> list[Case]:
    found = []
    for name in MANUALS:
        path = Path("/usr/share/doc") / name
        if path.is_file():
            target = folder / f"manual-{path.name.removesuffix('.gz')}"
            target.write_bytes(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
            found.append(Case(target.name, "pdf real manuals", []))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of an environment with markitdown and kreuzberg")
    arguments = parser.parse_args()
    load_sentences()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cases = [*make_pdfs(folder), make_docx(folder), make_html(folder), make_bad(folder), *manuals(folder)]
        files = [folder / case.name for case in cases]
        pdfs = [path for path in files if path.suffix == ".pdf"]
        results = {"luthier": read_ours(files), "pdfium": read_pdfium(pdfs)}
        if arguments.peers:
            for name in ("markitdown", "kreuzberg"):
                results[name] = read_peer(arguments.peers, name, files)
        for case in cases:
            if case.group == "pdf real manuals":
                case.words = tokens(without_running(results["pdfium"][case.name]["pages"]))
                case.pages = len(results["pdfium"][case.name]["pages"])
    rows = [{"file": case.name, "group": case.group, "system": system, "pages": case.pages,
             **score(case, found[case.name])}
            for case in cases if not case.bad for system, found in results.items() if case.name in found]
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        groups.setdefault(row["group"], {}).setdefault(row["system"], {})
    for group, systems in groups.items():
        for system in systems:
            mine = [row for row in rows if row["group"] == group and row["system"] == system]
            systems[system] = {key: sum(row[key] for row in mine) / len(mine) for key in ("recall", "extra", "table_f1")
                               if all(key in row for row in mine)}
            systems[system]["pages_per_cpu_s"] = sum(row["pages"] for row in mine) / sum(
                row["pages"] / row["pages_per_cpu_s"] for row in mine)
    (bad,) = (case for case in cases if case.bad)
    flagged = set(results["luthier"][bad.name]["flagged"])
    result = {"groups": groups, "bad_pages": {"bad": len(bad.bad), "flagged": len(bad.bad & flagged),
                                              "missed": sorted(bad.bad - flagged), "pages": bad.pages,
                                              "flagged_others": sorted(flagged - bad.bad)},
              "files": rows, "machine": machine()}
    save("documents", result)
    for group, systems in groups.items():
        print(group)
        for system, row in systems.items():
            print(f"  {system:12}" + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    print("bad pages", json.dumps(result["bad_pages"]))


if __name__ == "__main__":
    main()
