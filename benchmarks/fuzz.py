"""Thousands of damaged files of every format through the real `ingest`: no crash of the run, no hang, none lost.

    python benchmarks/fuzz.py --files 2400 --seed 0          # writes results/fuzz.json

Small files of each format are made here and taken from examples/ and shared/data; each is damaged in one to three ways
(bytes flipped, blocks cut, swapped and repeated, two files spliced, numbers and length fields changed, markup and JSON
nested and torn, members of ZIP archives and streams of PDF files damaged and packed again). Each file must come out as
a document or be set aside with a reason: the counts sum to the number of files, or the script fails. Documents also go
through injection, clean and chunk, which must not fail on any. Text recognition is off: pictures are only named.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import resource
import struct
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import data_folder, machine, save

MAX_SEED_BYTES = 60_000
Chance = random.Random
PROSE = ("The technician opens the inlet valve slowly and waits until the gauge reads less than two bar. "
         "Worn seals are replaced every six months, or after five hundred hours, whichever comes first. ")


def seeds(data: Path | None) -> dict[str, bytes]:
    """Whole files by name."""
    made = {"a.txt": (PROSE * 5).encode(), 
            "b.md": f"# Pumps\n\n{PROSE}\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n".encode(),
            "c.csv": b"name,value,note\n" + b"".join(b"pump %d,%d,\"a, b\"\n" % (i, i * 7) for i in range(40)),
            "d.json": json.dumps({"pumps": [{"name": f"p{i}", "bar": i, "parts": ["a", "b"]} for i in range(20)],
                                  "note": PROSE}).encode(),
            "e.jsonl": b"".join(json.dumps({"q": f"What is {i}?", "a": PROSE}).encode() + b"\n" for i in range(8)),
            "f.xml": f"<?xml version='1.0'?><doc><title>Pumps</title><p>{PROSE}</p><list><item>a</item><item>b</item>"
                     f"</list><row n='1'/></doc>".encode(),
            "g.html": f"<html><head><title>Pumps</title></head><body><h1>Pumps</h1><p>{PROSE}</p><ul><li>a<li>b</ul>"
                      "<table><tr><th>a<th>b<tr><td colspan=2>1</table><details><summary>q</summary>w</details></body>"
                      "</html>".encode(),
            "h.eml": ("From: Anna <a@example.com>\nTo: b@example.com\nSubject: =?utf-8?q?Pumps_=C3=BC?=\nDate: Mon, 5 "
                      "Jan 2026 10:00:00 +0100\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n"
                      "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n"
                      f"{PROSE}="
                      "\n=C3=BC\n--x\nContent-Type: text/csv\nContent-Disposition: attachment; filename=t.csv\n"
                      "Content-Transfer-Encoding: base64\n\nYSxiCjEsMgo=\n--x--\n").encode(),
            "i.txt": "Größe und Stärke der Ventile, über alles.\n".encode("cp1252") * 20,
            "j.txt": PROSE.encode("utf-16"), "k.svg": b"<?xml version='1.0'?><svg xmlns='x'><text>a</text></svg>",
            "l.rtf": b"{\\rtf1 hello}", "m.png": b"\x89PNG\r\n\x1a\n" + bytes(200)}
    made |= _office() | _pdfs()
    for path in sorted((Path(__file__).resolve().parent.parent / "examples").rglob("documents/**/*")):
        if path.is_file() and 0 < path.stat().st_size <= MAX_SEED_BYTES:
            made[f"example-{path.name}"] = path.read_bytes()
    for name in ("medquad/train.jsonl", "clinc150/domains.json", "banking77/test.csv", "letters_1905/README.md",
                 "crows_pairs/crows_pairs_anonymized.csv"):
        if data is not None and (data / name).is_file():
            made["shared-" + name.replace("/", "-")] = (data / name).read_bytes()[:8_000]
    return made


def _office() -> dict[str, bytes]:
    import docx
    import openpyxl
    from pptx import Presentation

    def saved(one: Any) -> bytes:
        out = io.BytesIO()
        one.save(out)
        return out.getvalue()

    text = docx.Document()
    text.add_heading("Pumps", 1)
    text.add_paragraph(PROSE)
    text.add_paragraph("first", style="List Bullet")
    grid = text.add_table(2, 2)
    grid.cell(0, 0).text, grid.cell(1, 1).text = "name", "value"
    book = openpyxl.Workbook()
    for row in range(12):
        book.active.append([f"pump {row}", row, "=A1", 0.5])  # type: ignore[union-attr]
    show = Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "Pumps", PROSE  # type: ignore[union-attr]
    return {"n.docx": saved(text), "o.xlsx": saved(book), "p.pptx": saved(show)}


def _pdfs() -> dict[str, bytes]:
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.pdfgen.canvas import Canvas
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Table

    style = getSampleStyleSheet()
    out = io.BytesIO()
    table = Table([["name", "value"], ["pump", "3"], ["valve", "4"]])
    table.setStyle([("GRID", (0, 0), (-1, -1), 0.5, "black")])
    story = [Paragraph("Pumps", style["Heading1"]), Paragraph(PROSE * 4, style["Normal"]), table]
    SimpleDocTemplate(out, pagesize=A4).build([*story, Paragraph(PROSE, style["Normal"])])
    plain = io.BytesIO()
    canvas = Canvas(plain, pageCompression=0)
    canvas.bookmarkPage("a")
    canvas.addOutlineEntry("Pumps", "a")
    for page in range(3):
        canvas.drawString(72, 700, f"Page {page} speaks of pumps and of valves")
        canvas.acroForm.textfield(name=f"f{page}", value="filled", x=72, y=600)
        canvas.showPage()
    canvas.save()
    return {"q.pdf": out.getvalue(), "r.pdf": plain.getvalue()}


# ------------------------------------------------------------------------------------------------------- damages


def _flip(data: bytes, chance: Chance) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 3, 20, max(1, len(out) // 200)))):
        out[chance.randrange(len(out))] = chance.randrange(256)
    return bytes(out)


def _cut(data: bytes, chance: Chance) -> bytes:
    return data[: chance.randrange(1, len(data))]


def _delete(data: bytes, chance: Chance) -> bytes:
    a = chance.randrange(len(data))
    return data[:a] + data[a + chance.randrange(1, max(2, len(data) // 4)):]


def _swap(data: bytes, chance: Chance) -> bytes:
    a, b, c = sorted(chance.randrange(len(data)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _repeat(data: bytes, chance: Chance) -> bytes:
    a = chance.randrange(len(data))
    block = data[a: a + chance.choice((1, 10, 200))]
    return data[:a] + block * min(chance.choice((2, 50, 2_000)), 200_000 // max(1, len(block))) + data[a:]


def _insert(data: bytes, chance: Chance) -> bytes:
    a = chance.randrange(len(data))
    odd = (b"\x00" * 50, b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\x1a", "\u202e\u2028\u0085".encode(),
           b"%s%n" * 9, b"<" * 300, b"(" * 300, b"[" * 3_000, b"{\"a\":" * 3_000, b"> " * 500, b"\xf0\x9f\x92\xa9" * 30,
           chance.randbytes(300))
    return data[:a] + chance.choice(odd) + data[a:]


def _lengths(data: bytes, chance: Chance) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 4))):
        at = chance.randrange(max(1, len(out) - 4))
        out[at: at + 4] = struct.pack("<I", chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, len(out))))
    return bytes(out)


def _numbers(data: bytes, chance: Chance) -> bytes:
    found = list(re.finditer(rb"\d+", data))
    if not found:
        return _flip(data, chance)
    hit = chance.choice(found)
    new = chance.choice((b"0", b"-1", b"4294967296", b"999999999999", b"1e309", b"NaN", b"9" * 5_000, b"2147483647"))
    return data[: hit.start()] + new + data[hit.end():]


def _markup(data: bytes, chance: Chance) -> bytes:
    tags = list(re.finditer(rb"<[^<>]{1,200}>", data))
    if len(tags) < 2:
        return _json(data, chance)
    one, other = chance.choice(tags), chance.choice(tags)
    how = chance.randrange(6)
    if how == 0:  # nested deeply
        return data[: one.end()] + one.group() * chance.choice((50, 400, 3_000)) + data[one.end():]
    if how == 1:  # torn out
        return data[: one.start()] + data[one.end():]
    if how == 2:  # another tag
        return data[: one.start()] + other.group() + data[one.end():]
    if how == 3:
        return data[: one.end()] + b"&x;&#0;&#xD800;&lt;" + data[one.end():]
    if how == 4:
        return b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY x 'y'><!ENTITY z SYSTEM 'file:///etc/passwd'>]>" + data
    value = re.sub(rb"\"[^\"]*\"", b'"' + b"A" * chance.choice((0, 10, 60_000)) + b'"', one.group(), count=1)
    return data[: one.start()] + value + data[one.end():]


def _json(data: bytes, chance: Chance) -> bytes:
    marks = list(re.finditer(rb"[\[\]{}:,\"]", data))
    if not marks:
        return _swap(data, chance)
    at = chance.choice(marks).start()
    new = chance.choice((b"[" * 5_000, b"null", b"\\ud800", b"{\"a\":" * 900, b"\"", b",,", b"1e999", b"\\u0000", b"}"))
    return data[:at] + new + data[at + chance.randrange(2):]


def _zipped(data: bytes, chance: Chance) -> bytes:
    """Members of an archive damaged and packed again, left out, doubled or renamed; other files are flipped."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError, ValueError, EOFError, zlib.error):
        return _flip(data, chance)
    if not members:
        return data
    name = chance.choice(sorted(members))
    how = chance.randrange(8)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            if member == name and how == 0:
                continue
            if member == name and how == 1:
                member = chance.choice(("../../evil", "/etc/evil", "a\\b", "x" * 300, "word/document.xml"))
            if member == name and how > 1 and content:
                content = chance.choice((_markup, _markup, _numbers, _flip, _cut, _repeat))(content, chance)
            archive.writestr(member, content)
    return out.getvalue()


def _streams(data: bytes, chance: Chance) -> bytes:
    """A packed stream of a PDF unpacked, damaged and packed again; other files are treated as archives."""
    if not data.startswith(b"%PDF"):
        return _zipped(data, chance)
    found = list(re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL))
    if not found:
        return _numbers(data, chance)
    hit = chance.choice(found)
    raw = hit.group(1)
    try:
        inner = zlib.decompress(raw)
    except zlib.error:
        new = chance.choice((_flip, _repeat, _delete))(raw or b"x", chance)
    else:
        new = zlib.compress(chance.choice((_numbers, _flip, _repeat, _swap, _insert))(inner or b"x", chance))
    return data[: hit.start(1)] + new + data[hit.end(1):]


DAMAGES: tuple[Callable[[bytes, Chance], bytes], ...] = (
    _flip, _cut, _delete, _swap, _repeat, _insert, _lengths, _numbers, _markup, _json, _zipped, _zipped, _streams,
    _streams)


def write_files(folder: Path, count: int, seed: int, data: Path | None) -> dict[str, list[str]]:
    """Write damaged files; returns name → what was done to it. No two are alike (an alike one would be a duplicate)."""
    chance, whole = Chance(seed), seeds(data)
    names = sorted(whole)
    done: dict[str, list[str]] = {}
    known: set[bytes] = set()
    while len(done) < count:
        name = names[len(done) % len(names)]
        content, steps = whole[name], []
        for _ in range(chance.choice((1, 1, 2, 3))):
            if chance.random() < 0.05:
                other = whole[chance.choice(names)]
                content = content[: chance.randrange(len(content) + 1)] + other[chance.randrange(len(other)):]
                steps.append("splice")
            else:
                damage = chance.choice(DAMAGES)
                content = damage(content or b" ", chance)
                steps.append(damage.__name__.strip("_"))
        if content in known:
            continue
        known.add(content)
        stem, _, suffix = name.rpartition(".")
        if chance.random() < 0.05:  # a name that lies about the content
            suffix = chance.choice(("pdf", "docx", "txt", "html", "csv", "json", "eml", "bin"))
        path = folder / f"{len(done):05d}-{stem}.{suffix}"
        path.write_bytes(content)
        done[path.name] = steps
    return done


def run(folder: Path, store: Path, files: dict[str, list[str]], *, timeout_s: float = 30, memory_mb: float = 800
        ) -> dict[str, Any]:
    """Ingest the folder and account for every file; raises SystemExit when one is lost or counted twice."""
    from luthier.ingest.base import Ingest, ingest, read_documents, read_set_aside
    from luthier.prepare.chunk import Chunk
    from luthier.prepare.clean import Clean
    from luthier.prepare.injection import Injection
    from luthier.prepare.steps import Kept, StepContext
    from luthier.spec import parse
    from luthier.store import Store
    from luthier.task import Task

    spec = parse(Ingest, {"timeout_s": timeout_s, "memory_mb": memory_mb, "ocr": {"engine": "off"}})
    began, used = time.monotonic(), _children()
    made = ingest([folder], spec, store=Store(store))
    wall, cpu = time.monotonic() - began, _children() - used
    documents, asides = read_documents(made), read_set_aside(made)
    outcome = {document.path: "document" for document in documents}
    twice = [aside.path for aside in asides if aside.path in outcome]
    outcome |= {aside.path: aside.reason for aside in asides}
    lost = sorted(set(files) - set(outcome))
    if lost or twice or len(outcome) != len(files):
        raise SystemExit(f"{len(lost)} files lost {lost[:5]}, {len(twice)} counted twice {twice[:5]}")
    ctx = StepContext(task=Task(type="assistant"))
    failed: Counter[str] = Counter()
    passages = 0
    for document in documents:
        try:
            (judged,), _, _ = Injection(mode="drop").judge([document])
            kept = [found.item for found in Clean().apply([judged], ctx) if isinstance(found, Kept)]
            passages += sum(isinstance(found, Kept) for found in Chunk().apply(kept, ctx))
        except Exception as error:  # whatever it is, it is what this script looks for
            how = "+".join(files[document.path])
            failed[f"{document.path} ({how}): {type(error).__name__}: {str(error)[:200]}"] += 1
    formats: dict[str, Counter[str]] = {}
    for path, what in outcome.items():
        formats.setdefault(path.rpartition(".")[2], Counter())[what] += 1
    damages: dict[str, Counter[str]] = {}
    for path, steps in files.items():
        for step in set(steps):
            damages.setdefault(step, Counter())["document" if outcome[path] == "document" else "set aside"] += 1
    return {
        "files": len(files), "accounted": len(outcome),
        "outcomes": dict(Counter(outcome.values()).most_common()),
        "formats": {name: dict(count.most_common()) for name, count in sorted(formats.items())},
        "damages": {name: dict(sorted(count.items())) for name, count in sorted(damages.items())},
        "to_report": sorted(f"{aside.path} ({'+'.join(files[aside.path])}): {aside.reason}: {aside.detail}"
                            for aside in asides if aside.reason in ("error", "crashed", "timeout", "memory")),
        "prepare_failed": sorted(failed), "passages": passages, "flagged_pages": made.summary["page_warnings"],
        "wall_s": round(wall, 1), "reader_cpu_s": round(cpu, 1), "timeout_s": timeout_s, "memory_mb": memory_mb,
    }


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2_400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="an empty folder that the damaged files stay in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch) / "files"
        folder.mkdir(parents=True, exist_ok=True)
        files = write_files(folder, arguments.files, arguments.seed, data_folder())
        result = run(folder, Path(scratch) / "store", files)
    save("fuzz", {"seed": arguments.seed, **result, "machine": machine()})
    print(json.dumps({key: value for key, value in result.items() if key != "formats"}, indent=1))


if __name__ == "__main__":
    main()
