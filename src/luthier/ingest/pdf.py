"""PDF with a text layer: text in reading order with headings, lists and tables, page numbers and boxes.

PDFium reads the characters (readers built on pdfminer glue words together in real manuals); liteparse, built on PDFium
too, gives positioned runs, drawn lines and tables without lines. Order, paragraphs, headings and ruled tables are ours.
Each page's words are compared with those PDFium reads by itself; pages where the two disagree are flagged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from luthier.ingest._blocks import clean
from luthier.ingest._pdf_blocks import Block, blocks_of, spans_of
from luthier.ingest._pdf_guards import MAX_HIDDEN, MAX_RULES, hidden_text, outline, refuse_page_bomb
from luthier.ingest._pdf_layout import Line, Run, lines_of, open_table, ruled_tables
from luthier.ingest._quality import agreement, judge_text
from luthier.ingest.base import NO, READERS, SURE, Refused, Source
from luthier.ingest.image import without as without_ocr
from luthier.ingest.ocr._doubt import word_share
from luthier.ingest.ocr.base import Picture
from luthier.ingest.text import spans_of as text_spans
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span

BATCH_PAGES = 100
"""Pages that liteparse holds at a time."""
MIN_RECALL = 0.85
"""Below this share of PDFium's words the layout has lost text, and the page is taken as PDFium reads it."""
MIN_ORDER = 0.5
"""Below this share of PDFium's neighbouring word pairs the reading order is uncertain."""
MIN_WORDS = 0.85
"""Below this share of word-like text, a text layer under a picture of the page is compared with the picture's text."""
STAMP_CHARS = 150
"""Up to this many characters over a picture of the page may be a stamp or a fax header, and not its text."""
COVERED = 0.5
"""Share of the page that a picture covers when it is a picture of the page."""


@register(READERS, "pdf")
class PdfReader(Spec):
    """PDF files: their text layer, and text recognition (`ingest.ocr`) for pages without one, or with a broken one."""

    running_text: bool = False
    """Also keep headers and footers that repeat on the pages."""
    form_fields: bool = True
    """Also read what is filled into form fields."""

    version: ClassVar[int] = 3

    def accepts(self, source: Source) -> int:
        return SURE if b"%PDF-" in source.head[:1024] else NO

    def read(self, source: Source) -> Iterator[Document]:
        opened = _open(source.path)
        try:
            total = len(opened)
            refuse_page_bomb(source.path, total)
            wanted = min(total, source.max_pages or total)
            plain, without, blank, hidden = _plain_text(opened, wanted)
            if not any(plain) and (source.ocr != "on" or not without):
                raise Refused("no-text-layer", f"{total} page{'s' * (total > 1)} of pictures without text: a scan; "
                                               + without_ocr(source.ocr))
            pictures = _wanted(opened, plain, without) if source.ocr == "on" else []
            bookmarks, ring = outline(opened)
            meta = _meta(opened)
        finally:
            opened.close()
        meta |= {"pages": total, "pages_without_text": without, "blank_pages": blank,
                 "pages_skipped": total - wanted or None, "ocr_wanted": pictures,
                 "hidden_text": hidden[:MAX_HIDDEN]}
        blocks, extra, notes = self._pages(source.path, plain, wanted, safe=not ring) if any(plain) else ([], [], {})
        spans = spans_of(blocks, bookmarks, {one["page"] for one in notes.get("page_warnings", ())})
        spans = sorted([*spans, *extra], key=lambda span: span.page or 0) if extra else spans
        meta |= notes
        yield source.document(reader="pdf", media="application/pdf", spans=spans, title=_title(meta, spans), meta=meta)

    def picture(self, source: Source, page: int, dpi: int) -> Picture:
        """The page as PDFium draws it, grey; coarser than `dpi` where it would have more than `max_megapixels`."""
        import pypdfium2

        opened = _open(source.path)
        try:
            drawn = opened[page - 1]
            wide, high = drawn.get_size()
            scale = min(dpi / 72, (source.max_megapixels * 1e6 / max(wide * high, 1)) ** 0.5)
            return Picture(drawn.render(scale=scale, grayscale=True).to_numpy().squeeze().copy(), scale)
        except pypdfium2.PdfiumError:
            raise Refused("corrupt", f"page {page} is damaged: PDFium cannot draw it") from None
        finally:
            opened.close()

    def _pages(self, path: Path, plain: list[str], wanted: int, *, safe: bool = True
               ) -> tuple[list[Block], list[Span], dict[str, Any]]:
        """Blocks of all pages; whole spans (form fields, pages as PDFium reads them); what to note in the document."""
        pages: dict[int, list[Line]] = {}
        heights: dict[int, float] = {}
        extra: list[Span] = []
        for page in _layout(path, wanted, self.form_fields) if safe else ():
            runs = _runs(page)
            tables = _tables(page, runs)
            within = {id(run) for one in tables for run in one.runs}
            pages[page.page_num] = lines_of([run for run in runs if id(run) not in within], tables)
            heights[page.page_num] = page.height
            extra += _fields(page)
        running, repeated = ({}, []) if self.running_text else _running(pages, heights)
        blocks: list[Block] = []
        warnings: list[Any] = []
        contents = 0
        for number in range(1, wanted + 1):
            left_out = running.get(number, set())
            lines = pages.get(number, [])
            ours = "\n".join(line.text or "\n".join(map(" ".join, line.rows or [])) for line in lines)
            recall, order = agreement(ours, plain[number - 1])
            if recall < MIN_RECALL:
                warnings.append({"page": number, "warning": "layout-lost-text", "value": round(recall, 3)})
                extra += [Span(text=s.text, kind=s.kind, level=s.level, page=number) for s in
                          text_spans(plain[number - 1])]
                continue
            warnings += [{"page": number, **one} for one in _judged(lines)]
            if order < MIN_ORDER:
                warnings.append({"page": number, "warning": "reading-order", "value": round(order, 3)})
            kept = [line for line in lines if id(line) not in left_out]
            blocks += blocks_of(number, [line for line in kept if not _CONTENTS.search(line.text)])
            contents += sum(bool(_CONTENTS.search(line.text)) for line in kept)
        notes = {"page_warnings": warnings, "running_text": repeated, "contents_lines": contents or None}
        return blocks, extra, notes


def _judged(lines: list[Line]) -> list[dict[str, Any]]:
    """What looks wrong about one page, before sentences are joined across pages; programs may look odd."""
    running = [line for line in lines if not line.mono]
    found = judge_text("\n".join(line.text or "\n".join(map(" ".join, line.rows or [])) for line in running or lines))
    return found if running else [one for one in found if one["warning"] == "garbled"]


def _open(path: Path) -> Any:
    import pypdfium2
    import pypdfium2.raw as raw

    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        code = getattr(error, "err_code", None)
        if code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY) or "assword" in str(error):
            raise Refused("encrypted", "opens only with a password: save it without one") from None
        raise Refused("corrupt", "damaged or cut off: PDFium cannot open it") from None


def _plain_text(opened: Any, wanted: int) -> tuple[list[str], list[int], list[int], list[dict[str, Any]]]:
    """PDFium's own text by page, pages with pictures but no text, blank pages, and text that nobody can see."""
    import pypdfium2

    texts: list[str] = []
    without, blank = [], []
    hidden: list[dict[str, Any]] = []
    for number in range(1, wanted + 1):
        text = ""
        objects = 1
        try:
            page = opened[number - 1]
            text_page = page.get_textpage()
            text = text_page.get_text_bounded().replace("\r\n", "\n").replace("\ufffe", "-").replace("\x02", "-")
            if not text.strip():
                objects = sum(1 for _ in page.get_objects(max_depth=1))
            elif len(hidden) < MAX_HIDDEN:
                hidden += hidden_text(page, text_page, number)
            text_page.close()
            page.close()
        except pypdfium2.PdfiumError:
            pass  # one damaged page: noted as a page without text
        texts.append(text if text.strip() else "")
        if not text.strip():
            (without if objects else blank).append(number)
    return texts, without, blank, hidden


def _wanted(opened: Any, plain: list[str], without: list[int]) -> list[dict[str, Any]]:
    """Pages whose picture should be read, and why: no text, broken text, or hardly any over a picture of the page.

    For pages with text, `words` is its share of word-like text and `chars` its length: the better reading is taken.
    """
    found: list[dict[str, Any]] = [{"page": page, "why": "no-text"} for page in without]
    for number, text in enumerate(plain, 1):
        chars = len("".join(text.split()))
        if not chars:
            continue
        share = word_share(text)
        broken = judge_text(text)
        why = "broken-text" if broken else "poor-text" if share < MIN_WORDS else "stamp" if chars < STAMP_CHARS else ""
        if why and (broken or _is_covered(opened, number)):
            found.append({"page": number, "why": why, "words": round(share, 3), "chars": chars})
    return sorted(found, key=lambda one: one["page"])


def _is_covered(opened: Any, number: int) -> bool:
    """Whether a picture covers most of the page."""
    import pypdfium2
    import pypdfium2.raw as raw

    try:
        page = opened[number - 1]
        wide, high = page.get_size()
        for found in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=3):
            left, bottom, right, top = found.get_bounds()
            seen = max(0, min(right, wide) - max(left, 0)) * max(0, min(top, high) - max(bottom, 0))
            if seen > COVERED * wide * high:
                return True
    except pypdfium2.PdfiumError:
        return False
    return False


def _meta(opened: Any) -> dict[str, Any]:
    raw = opened.get_metadata_dict(skip_empty=True)
    meta = {key.lower(): clean(raw[key]) for key in ("Title", "Author", "Subject", "Keywords") if raw.get(key)
            and not re.fullmatch(r"\(?(?:anonymous|unspecified|untitled)\)?", clean(raw[key]), re.IGNORECASE)}
    for key, name in (("CreationDate", "created"), ("ModDate", "modified")):
        date = re.match(r"D:(\d{4})(\d{2})(\d{2})", raw.get(key, ""))
        if date:
            meta[name] = "-".join(date.groups())
    return meta


def _title(meta: dict[str, Any], spans: list[Span]) -> str:
    """The stated title, unless a program made it up; else the first of the top headings on the first two pages."""
    stated = meta.pop("title", "")
    made_up = re.search(r"\.(?:docx?|pptx?|xlsx?|indd|tex|dvi|pdf|qxd)\b|^microsoft |^untitled|^\(?anonymous|^slide 1$",
                        stated, re.IGNORECASE)
    if stated and not made_up:
        return stated
    heads = [span for span in spans if span.kind == "heading" and (span.page or 0) <= 2]
    return min(heads, key=lambda span: span.level).text if heads else ""


def _layout(path: Path, wanted: int, form_fields: bool) -> Iterator[Any]:
    from liteparse.parser import LiteParse
    from liteparse.types import ParseError

    parser = LiteParse(ocr_enabled=False, output_format="json", image_mode="off", extract_links=False, quiet=True,
                       extract_blocks=True, extract_vector_graphics=True, extract_form_fields=form_fields,
                       continue_on_page_error=True, skip_diagonal_text=True, num_workers=1, max_pages=wanted,
                       emit_word_boxes=True)
    try:
        for batch in parser.parse_batches(path, BATCH_PAGES):
            yield from (page for page in batch.result.pages if page.page_num <= wanted)
    except ParseError:
        return  # pages that are missing here are taken as PDFium reads them, and flagged


_BOLD = re.compile(r"bold|black|heavy|semibold|demi|-bd\b|,b\b", re.IGNORECASE)
_MONO = re.compile(r"mono|courier|consol|typewriter|menlo|inconsolata|cmtt|nimbusmon|sourcecode|firacode|lucidacon|"
                   r"sftt|\btt\d", re.IGNORECASE)


def _runs(page: Any) -> list[Run]:
    found = []
    for item in page.text_items:
        if not item.text.strip():
            continue
        font = item.font_name or ""
        size = item.font_size or item.height or 10.0
        if item.height and not 0.4 < size / item.height < 2.5:  # a size given in other units than points
            size = item.height * 0.85
        # The font named is that of the run's first word: the pitch tells whether all of it is in a fixed-width font.
        mono = bool(_MONO.search(font)) and item.width / len(item.text.strip()) > 0.515 * size
        words = tuple((word.text, word.x, word.x + word.width) for word in item.words)
        found.append(Run(item.text, item.x, item.y, item.x + item.width, item.y + item.height, size,
                         bool(_BOLD.search(font)) or (item.font_weight or 0) >= 600, mono, words))
    return found + _drawn_bullets(page, found)


def _drawn_bullets(page: Any, runs: list[Run]) -> list[Run]:
    """Browsers draw the bullets of a list: small round shapes just left of a line."""
    found = []
    shapes = page.vector_graphics.shapes if page.vector_graphics else ()
    for shape in shapes if len(shapes) <= MAX_RULES else ():
        x, y, wide, high = shape.bbox
        if shape.has_curve and 1.5 <= wide <= 7 and abs(wide - high) < 0.5:
            marked = [run for run in runs if run.top <= y + high / 2 <= run.bottom]
            first = min((run for run in marked if run.x0 > x), key=lambda run: run.x0, default=None)
            beside = any(run.x1 > x - 20 for run in marked if run.x0 < x)
            if first is not None and first.x0 - x <= 25 and not beside:
                found.append(Run("•", x, first.top, x + wide, first.bottom, first.size, False, False))
    return found


_LEADER = re.compile(r"(?:\. ?){5,}|…{2,}|_{6,}|(?:· ?){5,}")


_CONTENTS = re.compile(r"(?:(?:\. ?){5,}|…{2,}|(?:· ?){5,})\s*(?:\d+|[ivxlc]+)$")
"""A line of a table of contents: its words stand again where they belong."""


def _tables(page: Any, runs: list[Run]) -> list[Line]:
    """Ruled tables, and those that liteparse finds without rules."""
    drawn = page.vector_graphics.lines if page.vector_graphics else []
    rules = [(min(r.x1, r.x2), min(r.y1, r.y2), max(r.x1, r.x2), max(r.y1, r.y2)) for r in drawn]
    ruled = ruled_tables(rules, runs) if len(rules) <= MAX_RULES else []
    # One drawn row is a shaded header, or the end of a table of the page before.
    found = [one for one in ruled if len(one.rows or ()) > 1 or one.top < 0.2 * page.height]
    for block in page.blocks or ():
        if block.kind != "table" or block.bbox is None:
            continue
        x0, top = block.bbox.x, block.bbox.y
        x1, bottom = x0 + block.bbox.width, top + block.bbox.height
        rows = [[cell.text for cell in row] for row in [*([block.header] if block.header else []), *(block.rows or [])]]
        drawn_over = [t for t in found if _overlap((x0, top, x1, bottom), (t.x0, t.top, t.x1, t.bottom))]
        if len(rows) < 2 or any(len(t.rows or ()) > 1 for t in drawn_over):
            continue
        inside = [run for run in runs if x0 - 2 <= (run.x0 + run.x1) / 2 <= x1 + 2
                  and top - 2 <= (run.top + run.bottom) / 2 <= bottom + 2]
        columns = max(map(len, rows))
        if not inside:
            continue
        stated = [[cell.replace("**", "").replace("<br>", "\n") for cell in row] for row in rows]
        rows = open_table(inside, columns) or (stated if _keeps_runs(stated, inside) else [])
        text = " ".join(cell for row in rows for cell in row)
        if _LEADER.search(text) or all(run.mono for run in inside):  # a table of contents; a program
            continue
        recall, _ = agreement(text, " ".join(run.text for run in inside))
        if recall >= 0.95 and columns >= 2:  # a table that loses words is read as text
            found = [t for t in found if t not in drawn_over]
            found.append(Line(inside, x0=x0, top=top, x1=x1, bottom=bottom, rows=rows,
                              size=max((run.size for run in inside), default=10.0)))
    return found


def _keeps_runs(rows: list[list[str]], runs: list[Run]) -> bool:
    """Does nearly every run stand whole in one cell and below one head? Else the cells are cut or glued wrongly."""
    cells = [" ".join(cell.split()) for row in rows for cell in row]
    top = min(run.top for run in runs)
    heads = [(run.x0 + run.x1) / 2 for run in runs if run.top < top + 0.5 * run.size]
    broken = sum(not any(" ".join(run.text.split()) in cell for cell in cells)
                 or sum(run.x0 < head < run.x1 for head in heads) > 1 for run in runs)
    return broken <= 0.2 * len(runs)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _fields(page: Any) -> list[Span]:
    """Filled form fields as `name: value`."""
    rows = []
    for one in page.form_fields or ():
        value = one.value if one.type not in ("checkbox", "radio", "radiobutton") else ("yes" if one.checked else "")
        if value and value.strip():
            rows.append(f"{one.alternate_name or one.name or one.id}: {clean(value)}")
    return [Span(text="\n".join(rows), kind="row", page=page.page_num)] if rows else []


def _running(pages: dict[int, list[Line]], heights: dict[int, float]) -> tuple[dict[int, set[int]], list[str]]:
    """Lines in the top and bottom margins that return from page to page: ids of the lines by page, and their texts.

    A line returns when its words do, numbers apart, or when most pages have a line with a number at the same height.
    """
    places: list[tuple[int, Line, str, int]] = []
    for number, lines in pages.items():
        for line in lines:
            height = heights[number]
            if line.rows is None and (line.bottom < 0.1 * height or line.top > 0.9 * height):
                shape = re.sub(r"\d+|\b[ivxlc]+\b", "#", line.text.lower())
                places.append((number, line, shape, round(line.top / 4)))
    shapes = _pages_of((shape, number) for number, _, shape, _ in places)
    at = _pages_of((height, number) for number, _, shape, height in places if re.search(r"^#|#$", shape))
    found: dict[int, set[int]] = {}
    texts: Counter[str] = Counter()
    for number, line, shape, height in places:
        only_number = shape.strip("#-–—| ./[]()") in ("", "page", "page # of", "seite", "seite # von", "p")
        often = len(shapes[shape]) >= min(3, len(pages)) and len(shapes[shape]) >= max(0.2 * len(pages), 2)
        same_height = len(at.get(height, ())) >= 3 and len(at[height]) >= 0.5 * len(pages) and "#" in shape
        if often or same_height or (only_number and (len(pages) >= 2 or len(shape) > 3)):
            found.setdefault(number, set()).add(id(line))
            texts[line.text if not only_number else "#"] += 1
    return found, [text for text, _ in texts.most_common(10)]


def _pages_of(pairs: Iterable[tuple[Any, int]]) -> dict[Any, set[int]]:
    found: dict[Any, set[int]] = {}
    for key, page in pairs:
        found.setdefault(key, set()).add(page)
    return found
