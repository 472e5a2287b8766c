"""HTML by walking the document tree: everything a person would read, in order; page furniture is left out and counted.

Content extractors made for news pages drop a quarter to a third of technical pages (option tables, lists), so nothing
is guessed by density here: only elements that say they are navigation, script or form are left out.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from luthier.ingest import _hidden
from luthier.ingest._blocks import MAX_COLUMNS, clean_lines, list_item, spanned, table
from luthier.ingest.base import LIKELY, NO, READERS, SURE, Refused, Source
from luthier.ingest.text import looks_like_text
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span

INVISIBLE = {"script", "style", "noscript", "template", "svg", "canvas", "iframe", "object", "embed", "audio",
             "video", "map", "head", "link", "meta", "datalist"}
CONTROLS = {"button", "select", "input", "textarea", "dialog"}
BLOCKS = {"address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "div", "dl", "dt",
          "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup",
          "hr", "html", "legend", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "td",
          "tfoot", "th", "thead", "tr", "ul", "menu", "search"}
_FURNITURE = re.compile(r"(?:^|[\s_-])(?:nav|navbar|navigation|breadcrumbs?|cookie(?:s|-?banner|-?consent)?|skip-?link|"
                        r"site-?footer|page-?footer|site-?header|main-?menu|menu-?bar|share-?buttons?|social-?links?|"
                        r"pagination|sr-only|visually-hidden)(?:$|[\s_-])", re.IGNORECASE)
_NOT_XML = {**dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF])}
"""Characters that no XML tree may hold; libxml2 reads some of them and then takes them back from nobody."""
_ROLES = {"navigation", "search", "menu", "menubar", "banner", "contentinfo", "dialog", "alertdialog", "toolbar"}


@register(READERS, "html")
class HtmlReader(Spec):
    """Web pages: headings, paragraphs, lists, definitions, tables and code; navigation and scripts are left out."""

    keep_furniture: bool = False
    """Also keep navigation, site header and footer, and cookie notices."""
    encoding: str | None = None
    """Encoding of the files; None believes the page's own declaration."""

    version: ClassVar[int] = 2

    def accepts(self, source: Source) -> int:
        head = source.head.lstrip(b"\xef\xbb\xbf \t\r\n")[:4000].lower()
        if head.startswith((b"<!doctype html", b"<html")) or (head.startswith(b"<?xml") and b"<html" in head):
            return SURE
        named = source.suffix in (".html", ".htm", ".xhtml", ".shtml")
        return LIKELY if named and looks_like_text(source.head) else NO

    def read(self, source: Source) -> Iterator[Document]:
        root = parse(source.read_bytes(), self.encoding)
        hidden = _hidden.of_html(root)
        walk = Walk(keep_furniture=self.keep_furniture)
        body = next(iter(root.iter("body")), root)
        spans = list(walk.spans(body))
        meta = _meta(root)
        meta["hidden_text"] = hidden
        if walk.dropped_words:
            meta["furniture_words"] = walk.dropped_words
        title = meta.pop("title", "") or next((s.text for s in spans if s.kind == "heading" and s.level == 1), "")
        yield source.document(reader="html", media="text/html", spans=spans, title=title, meta=meta)


def parse(data: bytes, encoding: str | None = None) -> Any:
    """The root element of a page, however broken its markup is."""
    import lxml.etree as etree
    from lxml import html

    if encoding is None and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        declared = re.search(rb"charset\s*=\s*[\"']?\s*([A-Za-z0-9_-]+)", data[:4096])
        encoding = declared.group(1).decode() if declared else None
    if encoding is None:
        from luthier.ingest.text import decode

        _, encoding = decode(data)
    try:
        codecs.lookup(encoding)
    except (LookupError, ValueError):
        encoding = "utf-8"
    data = data.decode(encoding, "replace").translate(_NOT_XML).encode("utf-8", "replace")
    data = re.sub(rb"^\s*<\?xml[^>]*\?>", b"", data)
    parser = html.HTMLParser(encoding="utf-8", huge_tree=True)
    try:
        root = html.document_fromstring(data, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        reason = "empty" if "empty" in str(error).lower() else "corrupt"
        raise Refused(reason, f"not readable as HTML: {error}") from None
    if "Excessive depth" in str(parser.error_log.last_error):  # libxml2 has left out the rest
        raise Refused("corrupt", "nested too deeply: more than 2,048 elements")
    _flatten(root)
    return root


MAX_DEPTH = 100
"""Elements nested deeper than this are read as plain text; real pages have up to about 40."""


_FRAMES = {"table", "thead", "tbody", "tfoot", "tr", "ul", "ol", "dl", "menu"}
"""Elements whose own text nobody reads, only that of their cells and items."""


def _flatten(root: Any) -> None:
    """Turn what is nested too deeply for a recursive walk into text, in place. (libxml2 itself drops what lies deeper
    than 256 unless told that trees may be huge.)"""
    if not root.getroottree().xpath("/*" * MAX_DEPTH):
        return
    path: list[Any] = []
    for event, element in _events(root):
        if event == "start":
            path.append(element)
            if len(path) == MAX_DEPTH and len(element):
                target = next(one for one in reversed(path) if one.tag not in _FRAMES)
                text = " ".join(target.itertext())
                for child in list(target):
                    target.remove(child)
                target.text = text
        else:
            path.pop()


def _events(root: Any) -> Iterator[tuple[str, Any]]:
    """Start and end of each element, in order; the children of an element may change while it is being started."""
    stack = [(root, iter(()))]
    yield "start", root
    stack[0] = (root, iter(list(root)))
    while stack:
        element, children = stack[-1]
        child = next(children, None)
        if child is None:
            yield "end", element
            stack.pop()
        elif isinstance(child.tag, str):
            yield "start", child
            stack.append((child, iter(list(child))))


def spans_of_fragment(source: str) -> list[Span]:
    """Spans of a piece of HTML inside another format."""
    if not re.sub(r"<[^>]*>", "", source).strip():
        return []
    return list(Walk().spans(parse(source.encode("utf-8", "replace"), "utf-8")))


def _meta(root: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    for element in root.iter("meta"):
        name = (element.get("name") or element.get("property") or "").lower()
        content = (element.get("content") or "").strip()
        key = {"description": "description", "author": "author", "keywords": "keywords", "og:title": "og:title",
               "date": "date", "article:published_time": "date", "article:modified_time": "modified",
               "og:url": "url"}.get(name)
        if key and content:
            meta.setdefault(key, content[:1000])
    for element in root.iter("link"):
        if (element.get("rel") or "").lower() == "canonical" and element.get("href"):
            meta["url"] = element.get("href")
    title = next((clean_lines(element.text_content()) for element in root.iter("title")), "")
    og = meta.pop("og:title", "")
    meta["title"] = title or og
    meta["language"] = root.get("lang") or ""
    return {key: value for key, value in meta.items() if value}


class Walk:
    """One pass over a tree; counts the words of what it leaves out."""

    def __init__(self, *, keep_furniture: bool = False):
        self.keep_furniture = keep_furniture
        self.dropped_words = 0
        self.level = 0

    def spans(self, element: Any) -> Iterator[Span]:
        """Spans of an element's content, in order; text between blocks makes paragraphs of its own."""
        run: list[str] = [element.text or ""]
        run_line = element.sourceline
        for child in element:
            if not isinstance(child.tag, str):  # a comment
                run.append(child.tail or "")
                continue
            if self.left_out(child):
                pass
            elif self.is_block(child):
                yield from self.paragraph(run, run_line)
                run = []
                yield from self.block(child)
                run_line = child.sourceline
            else:
                if not "".join(run).strip():
                    run_line = child.sourceline
                run.append(self.inline(child))
            run.append(child.tail or "")
        yield from self.paragraph(run, run_line)

    def paragraph(self, run: Iterable[str], line: int | None) -> Iterator[Span]:
        text = _flow("".join(run))
        if text:
            yield Span(text=text, line=line)

    def left_out(self, element: Any) -> bool:
        tag = element.tag
        if tag in INVISIBLE or tag in CONTROLS:
            return True
        if self.keep_furniture:
            return False
        role = (element.get("role") or "").lower()
        names = f"{element.get('class') or ''} {element.get('id') or ''}"
        furniture = tag in ("nav", "search") or role in _ROLES
        if tag in ("footer", "header") and not furniture:
            # A page's own header and footer, not those of an article; a header with the title of the page stays.
            outer = {parent.tag for parent in element.iterancestors()} & {"article", "main", "section", "blockquote"}
            furniture = not outer and (tag == "footer" or next(element.iter("h1"), None) is None)
        if not furniture and tag in BLOCKS | {"a", "span"} and _FURNITURE.search(names):
            furniture = next(element.iter("h1", "main", "article"), None) is None
        if furniture and tag not in ("body", "html", "main", "article"):
            self.dropped_words += len(" ".join(element.itertext()).split())
            return True
        return False

    def is_block(self, element: Any) -> bool:
        """A block by name, or an inline element (such as a link) around blocks."""
        return element.tag in BLOCKS or any(
            isinstance(inner.tag, str) and inner.tag in BLOCKS for inner in element.iterdescendants())

    def block(self, element: Any) -> Iterator[Span]:
        tag, line = element.tag, element.sourceline
        if re.fullmatch("h[1-6]", tag):
            text = _flow(self.inline(element)).replace("\n", " ")
            if text:
                self.level = int(tag[1])
                yield Span(text=text, kind="heading", level=self.level, line=line)
        elif tag in ("ul", "ol", "menu"):
            items = list(self.list_items(element, 0))
            if items:
                yield Span(text="\n".join(items), kind="list", line=line)
        elif tag == "dl":
            items = list(self.definitions(element))
            if items:
                yield Span(text="\n".join(items), kind="list", line=line)
        elif tag == "table":
            yield from self.table(element)
        elif tag == "pre":
            text = element.text_content().strip("\n").rstrip()
            if text.strip():
                yield Span(text=text, kind="code", line=line)
        elif tag in ("figcaption", "caption"):
            text = _flow(self.inline(element))
            if text:
                yield Span(text=text, kind="caption", line=line)
        elif tag == "blockquote":
            for span in self.spans(element):
                yield Span(text=span.text, kind="quote" if span.kind == "paragraph" else span.kind, level=span.level,
                           line=span.line)
        elif tag == "details":
            yield from self.details(element)
        else:
            yield from self.spans(element)

    def details(self, element: Any) -> Iterator[Span]:
        """A fold-out: its summary is the heading of what it hides, as in most pages of questions and answers."""
        summary = next((child for child in element if child.tag == "summary"), None)
        outer = self.level
        if summary is not None:
            text = _flow(self.inline(summary)).replace("\n", " ")
            tail = summary.tail
            element.remove(summary)
            element.text = (element.text or "") + (tail or "")
            if text:
                self.level = min(outer + 1, 6)
                yield Span(text=text, kind="heading", level=self.level, line=summary.sourceline)
        yield from self.spans(element)
        self.level = outer

    def list_items(self, element: Any, depth: int) -> Iterator[str]:
        number = int(element.get("start") or 1) if element.tag == "ol" and _is_int(element.get("start")) else None
        for child in element:
            if not isinstance(child.tag, str) or self.left_out(child):
                continue
            if child.tag in ("ul", "ol"):  # a list put directly into a list
                yield from self.list_items(child, depth + 1)
                continue
            own, below = self.item(child, depth)
            if own:
                yield list_item(own, depth, f"{number}." if number is not None else "-")
                number = number + 1 if number is not None else None
            yield from below

    def item(self, element: Any, depth: int) -> tuple[str, list[str]]:
        """An item's own text, and the items of the lists inside it."""
        nested = [child for child in element.iterdescendants("ul", "ol")
                  if next(child.iterancestors("ul", "ol", "table"), None) is next(element.iterancestors("ul", "ol"), 0)]
        below: list[str] = []
        for inner in nested:
            below += self.list_items(inner, depth + 1)
            _drop_keeping_tail(inner)
        return "\n".join(span.text for span in self.spans(element)), below

    def definitions(self, element: Any) -> Iterator[str]:
        """`- term: definition`, one a line; several terms of one definition share it."""
        terms: list[str] = []
        pending = False
        for child in element.iterdescendants("dt", "dd"):
            if next(child.iterancestors("dl"), None) is not element:
                continue
            text = "\n".join(span.text for span in self.spans(child))
            if child.tag == "dt":
                if not pending:
                    terms = []
                terms.append(text.replace("\n", " "))
                pending = True
            elif text:
                yield list_item(f"{', '.join(terms)}: {text}" if pending and terms else text)
                pending = False
        if pending and terms:
            yield list_item(", ".join(terms))

    def table(self, element: Any) -> Iterator[Span]:
        rows = [row for row in element.iter("tr") if next(row.iterancestors("table"), None) is element]
        caption = next((child for child in element if child.tag == "caption"), None)
        if caption is not None:
            yield from self.block(caption)
        cells = [[cell for cell in row if cell.tag in ("td", "th")] for row in rows]
        if max(map(len, cells), default=0) > MAX_COLUMNS:
            raise Refused("too-large", f"a table of more than {MAX_COLUMNS:,} columns")
        layout = element.get("role") == "presentation" or max(map(len, cells), default=0) <= 1 or any(
            next(cell.iter("table", "h1", "h2", "h3"), None) is not None for row in cells for cell in row)
        if layout:  # a grid used to place things on the page
            for row in cells:
                for cell in row:
                    yield from self.spans(cell)
            return
        text = table(spanned([[(self.cell(cell), _span(cell, "colspan"), _span(cell, "rowspan")) for cell in row]
                            for row in cells]))
        if text:
            yield Span(text=text, kind="table", line=element.sourceline)

    def cell(self, cell: Any) -> str:
        return "\n".join(span.text for span in self.spans(cell))

    def inline(self, element: Any) -> str:
        """Text of inline content; `<br>` is a line break, white space of the source is not."""
        if element.tag == "br":
            return "\x01"
        if element.tag == "img":
            text = element.get("alt") or ""
            return text if text.count(" ") >= 2 else ""  # "logo" is no text
        parts = [element.text or ""]
        for child in element:
            if isinstance(child.tag, str) and not self.left_out(child):
                inner = self.inline(child)
                parts.append(f" {inner} " if child.tag in BLOCKS else inner)
            parts.append(child.tail or "")
        return "".join(parts)


def _flow(text: str) -> str:
    return clean_lines(" ".join(text.split()).replace("\x01", "\n"))


def _is_int(text: str | None) -> bool:
    return text is None or text.lstrip("-").isdigit()


def _span(cell: Any, name: str) -> int:
    text = cell.get(name) or "1"
    return min(max(int(text), 1), 200) if text.isdigit() else 1


def _drop_keeping_tail(element: Any) -> None:
    parent, before = element.getparent(), element.getprevious()
    if element.tail:
        if before is not None:
            before.tail = (before.tail or "") + element.tail
        else:
            parent.text = (parent.text or "") + element.tail
    parent.remove(element)
