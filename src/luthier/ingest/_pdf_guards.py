"""What a hostile PDF may try: pages that do not exist, an outline that bites its tail, text that nobody can see."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from luthier.ingest._blocks import clean
from luthier.ingest._pdf_blocks import Bookmark
from luthier.ingest.base import Refused

BYTES_PER_PAGE = 4
"""A file with fewer bytes per page lies about its pages: even packed, a page object takes more."""
MANY_PAGES = 2_000
"""Up to here no file is suspected."""
MAX_BOOKMARKS = 20_000
MAX_RULES = 20_000
"""Lines drawn on one page from which no table is looked for: a map or a drawing, or made to waste time."""
TINY_POINTS = 2.0
"""Text of a smaller size cannot be read on paper."""
LIGHT = 0xF0
"""Each of red, green and blue from this value on: white, to the eye."""
MAX_HIDDEN = 20
"""Pieces of hidden text that are kept for the data card."""


def refuse_page_bomb(path: Path, total: int) -> None:
    """Raise Refused for a file that claims more pages than its bytes can hold."""
    size = path.stat().st_size
    if total > MANY_PAGES and total * BYTES_PER_PAGE > size:
        raise Refused("pdf-bomb", f"claims {total:,} pages in {size / 1e3:,.0f} kB")


def outline(opened: Any) -> tuple[list[Bookmark], bool]:
    """The bookmarks in order, six levels deep, and whether they run in a ring: liteparse 2.18 crashes on one."""
    import pypdfium2.raw as raw

    found: list[Bookmark] = []
    seen: set[int] = set()
    ring = False

    def below(parent: Any, level: int) -> None:
        nonlocal ring
        entry = raw.FPDFBookmark_GetFirstChild(opened.raw, parent)
        while entry and len(seen) < MAX_BOOKMARKS:
            address = ctypes.cast(entry, ctypes.c_void_p).value or 0
            if address in seen:
                ring = True
                return
            seen.add(address)
            title = _title(raw, entry)
            target = raw.FPDFBookmark_GetDest(opened.raw, entry)
            page = raw.FPDFDest_GetDestPageIndex(opened.raw, target) if target else -1
            if title and page >= 0:
                found.append(Bookmark(title, level, page + 1))
            if level < 6:
                below(entry, level + 1)
            entry = raw.FPDFBookmark_GetNextSibling(opened.raw, entry)

    below(None, 1)
    return found, ring


def _title(raw: Any, entry: Any) -> str:
    size = raw.FPDFBookmark_GetTitle(entry, None, 0)
    buffer = ctypes.create_string_buffer(min(size, 4000))
    raw.FPDFBookmark_GetTitle(entry, buffer, len(buffer))
    return buffer.raw.decode("utf-16-le", "replace").partition("\x00")[0]


def hidden_text(page: Any, text_page: Any, number: int) -> list[dict[str, Any]]:
    """Pieces of text on a page that a person does not see: {page, how, text}, `how` being `invisible` (drawn without
    ink), `white` (on white), `transparent` or `tiny`.

    Ink-less text on a page with a picture is the text layer of a scan, and is none. White text is seen where something
    dark or a picture was drawn below it before. Text inside forms (XObjects) is not looked at.
    """
    import pypdfium2.raw as raw

    red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
    size = ctypes.c_float()
    below: list[Any] = []
    pictures = False
    suspects: list[tuple[Any, str, int]] = []
    for at in range(raw.FPDFPage_CountObjects(page.raw)):
        one = raw.FPDFPage_GetObject(page.raw, at)
        kind = raw.FPDFPageObj_GetType(one)
        if kind != raw.FPDF_PAGEOBJ_TEXT:
            pictures = pictures or kind in (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_FORM)
            below.append(one)
            continue
        how = ""
        if raw.FPDFTextObj_GetTextRenderMode(one) in (3, 7):
            how = "invisible"
        elif raw.FPDFPageObj_GetFillColor(one, red, green, blue, alpha):
            white = min(red.value, green.value, blue.value) >= LIGHT
            how = "transparent" if alpha.value < 8 else "white" if white else ""
        if not how and raw.FPDFTextObj_GetFontSize(one, size) and 0 < size.value < TINY_POINTS:
            how = "tiny" if _height(raw, one) < TINY_POINTS else ""
        if how:
            suspects.append((one, how, len(below)))
    found: list[dict[str, Any]] = []
    for one, how, drawn in suspects:
        if (how == "invisible" and pictures) or (how == "white" and _on_dark(raw, one, below[:drawn])):
            continue
        text = _text(raw, one, text_page)
        if not text:
            continue
        if found and found[-1]["how"] == how and len(found[-1]["text"]) < 300:
            found[-1]["text"] = f"{found[-1]['text']} {text}"[:400]
        else:
            found.append({"page": number, "how": how, "text": text[:400]})
    return found[:MAX_HIDDEN]


def _bounds(raw: Any, one: Any) -> tuple[float, float, float, float] | None:
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    if not raw.FPDFPageObj_GetBounds(one, left, bottom, right, top):
        return None
    return left.value, bottom.value, right.value, top.value


def _height(raw: Any, one: Any) -> float:
    """Height on the page, which the text's matrix may have enlarged (a size of 1 scaled by 12 is usual)."""
    box = _bounds(raw, one)
    return box[3] - box[1] if box else TINY_POINTS


def _on_dark(raw: Any, text: Any, drawn: list[Any]) -> bool:
    """Was something other than white drawn before, where the text stands?"""
    box = _bounds(raw, text)
    if box is None:
        return False
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
    for one in reversed(drawn[-5_000:]):
        area = _bounds(raw, one)
        if area is None or not (area[0] <= x <= area[2] and area[1] <= y <= area[3]):
            continue
        if raw.FPDFPageObj_GetType(one) != raw.FPDF_PAGEOBJ_PATH:  # a picture, a shading or a form
            return True
        mode, stroke = ctypes.c_int(), ctypes.c_int()
        if not raw.FPDFPath_GetDrawMode(one, mode, stroke) or not mode.value:
            continue
        if raw.FPDFPageObj_GetFillColor(one, red, green, blue, alpha) and alpha.value > 8:
            return min(red.value, green.value, blue.value) < LIGHT
    return False


def _text(raw: Any, one: Any, text_page: Any) -> str:
    length = raw.FPDFTextObj_GetText(one, text_page.raw, None, 0)
    buffer = (ctypes.c_ushort * max(length // 2, 1))()
    raw.FPDFTextObj_GetText(one, text_page.raw, buffer, length)
    return clean(bytes(buffer).decode("utf-16-le", "replace").rstrip("\x00"))
