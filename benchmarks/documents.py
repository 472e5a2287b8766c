"""Text fidelity, tables and speed on born-digital documents: Luthier's readers, PDFium alone, MarkItDown, Kreuzberg.

    python -m venv peers && peers/bin/pip install 'markitdown[pdf,docx]' kreuzberg
    python benchmarks/documents.py --peers peers/bin/python     # writes results/documents.json

Two sources of truth. Files made here from real prose (MedQuAD answers) with known words, order and cells: one and two
columns, headings, lists, running headers, footnotes, words cut at line ends, ligatures, turned pages, ruled and unruled
tables; the same as DOCX and HTML with navigation; and pages that are bad on purpose (glued words, a font without
letters, text of pictures, hidden text). And real manuals on this machine (/usr/share/doc), whose truth is what PDFium
reads, less running headers and tables of contents (found by a rule of this script's own). Measures:

- recall: longest common subsequence of words with the truth, by its length (so order counts); extra: share of the
  output that is not in it (running headers count there); letters: the same recall over letters and digits alone, the
  notation of formulas left out, since PDFium splits some words of the manuals ("mod ern", "concatena tion");
- tables: F1 over pairs of neighbouring cells (adjacency relations, Göbel et al., ICDAR 2013), exact text;
- pages per CPU-second of one process, after one small file to warm up;
- bad pages: how many of those that are bad are flagged, and how many of the others.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import machine, save
from documents_made import Case, Table, load_sentences, make_bad, make_docx, make_html, make_pdfs, tokens

from luthier.evaluate.metrics.rouge_l import longest_common_subsequence

MANUALS = ("bzip2/manual.pdf.gz", "nettle-dev/nettle.pdf.gz", "fontconfig/fontconfig-user.pdf.gz",
           "zlib1g-dev/crc-doc.1.0.pdf.gz", "libtasn1-doc/libtasn1.pdf", "shared-mime-info/shared-mime-info-spec.pdf")


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


def letters(text: str) -> str:
    """Letters and digits in order; of a formula between dollars without LaTeX's commands."""
    bare = re.sub(r"\$[^$\n]{1,400}\$", lambda formula: re.sub(r"\\[a-z]+|[_^{}$]", "", formula[0]), text)
    return "".join(tokens(bare))


def score(case: Case, result: dict[str, Any]) -> dict[str, Any]:
    found = tokens(result["text"])
    common = longest_common_subsequence(case.words, found)
    row: dict[str, Any] = {"recall": common / max(len(case.words), 1), "extra": 1 - common / max(len(found), 1),
                           "pages_per_cpu_s": case.pages / max(result["cpu_s"], 1e-6)}
    if case.letters:
        row["letters"] = longest_common_subsequence(case.letters, letters(result["text"])) / len(case.letters)
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
                case.words = tokens(text := without_running(results["pdfium"][case.name]["pages"]))
                case.letters = letters(text)
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
            systems[system] = {key: sum(row[key] for row in mine) / len(mine) for key in (
                "recall", "extra", "letters", "table_f1") if all(key in row for row in mine)}
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
