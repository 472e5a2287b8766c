"""XML of any vocabulary as text: titles and questions become headings, short values rows, the rest paragraphs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from luthier.ingest._blocks import clean, list_item
from luthier.ingest.base import NO, READERS, SURE, Refused, Source
from luthier.ingest.text import spans_of as text_spans
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span

TITLES = {"title", "heading", "head", "headline", "subject", "focus", "name", "question", "term", "h1", "h2", "h3"}
INLINE = {"b", "i", "em", "strong", "emph", "emphasis", "sub", "sup", "a", "link", "xref", "ulink", "code", "literal",
          "ph", "term", "span", "u", "br", "uicontrol", "filename", "command"}
LISTS = {"ul", "ol", "itemizedlist", "orderedlist", "list", "steps"}
ITEMS = {"li", "listitem", "item", "step"}


@register(READERS, "xml")
class XmlReader(Spec):
    """XML files of any vocabulary; question and answer elements become a heading with its text."""

    version: ClassVar[int] = 2

    def accepts(self, source: Source) -> int:
        head = source.head.lstrip(b"\xef\xbb\xbf \t\r\n")
        declared = head.startswith((b"<?xml", b"\xff\xfe<\x00?\x00x\x00m\x00l", b"\xfe\xff\x00<\x00?\x00x\x00m\x00l"))
        if re.search(rb"<(?:html|HTML)\b", head[:2000]):
            return NO
        return SURE if declared or (source.suffix == ".xml" and head.startswith(b"<")) else NO

    def read(self, source: Source) -> Iterator[Document]:
        root = parse(source.read_bytes())
        if _tag(root) == "svg":
            raise Refused("unsupported", "an image: text recognition is not part of this version")
        meta = {key: value for key, value in root.attrib.items() if isinstance(key, str) and "}" not in key}
        title = next((clean("".join(child.itertext())) for child in root.iter()
                      if isinstance(child.tag, str) and _tag(child) in TITLES - {"question"}), "")
        spans = list(_walk(root, 1))
        if title and not (spans and spans[0].kind == "heading" and spans[0].text == title):
            spans.insert(0, Span(text=title, kind="heading", level=1, line=root.sourceline))
        yield source.document(reader="xml", media="application/xml", spans=spans, title=title, meta=meta)


def parse(data: bytes) -> Any:
    """The root element. Files that declare entities are refused: expanding them can fill the memory, or read files."""
    import lxml.etree as etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False,
                             remove_comments=True, remove_pis=True)
    wide = data.decode("utf-16", "ignore") if data[:2] in (b"\xff\xfe", b"\xfe\xff") else data.decode("latin-1")
    if re.search(r"<!ENTITY\b", wide):
        raise Refused("unsafe-xml", "it declares entities, which can be used to fill the memory; remove them")
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        if "entity amplification" in str(error):
            raise Refused("unsafe-xml", "it declares entities that fill the memory; remove them") from None
        raise Refused("corrupt", f"not well-formed XML: {error.msg}") from None
    if root is None:
        raise Refused("corrupt", "no root element")
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and next(iter(declared.iterentities()), None) is not None:  # in an encoding not seen above
        raise Refused("unsafe-xml", "it declares entities, which can be used to fill the memory; remove them")
    return root


def _tag(element: Any) -> str:
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


def _walk(element: Any, level: int) -> Iterator[Span]:
    rows: list[str] = []
    rows_line = None
    for child in element:
        if not isinstance(child.tag, str):
            continue
        name = _tag(child)
        row = _row(child)
        if row:
            rows.append(row)
            rows_line = rows_line or child.sourceline
            continue
        if rows:
            yield Span(text="\n".join(rows), kind="row", line=rows_line)
            rows, rows_line = [], None
        if name in LISTS and any(_tag(item) in ITEMS for item in child):
            numbered = name in ("ol", "orderedlist", "steps")
            items = [clean("".join(item.itertext())) for item in child if isinstance(item.tag, str)]
            text = "\n".join(list_item(item, 0, f"{i}." if numbered else "-")
                             for i, item in enumerate((i for i in items if i), 1))
            yield Span(text=text, kind="list", line=child.sourceline)
        elif _is_text(child):
            yield from _text(child, name, level)
        elif len(child):
            below = level + (1 if any(_tag(grand) in TITLES for grand in child) else 0)
            yield from _walk(child, min(below, 6))
    if rows:
        yield Span(text="\n".join(rows), kind="row", line=rows_line)


def _row(element: Any) -> str:
    """`name: value` for an element that holds one short value, or only attributes; "" for anything else."""
    if len(element):
        return ""
    name = _tag(element)
    text = clean(element.text or "")
    if text and name not in TITLES | {"answer", "p", "para", "text"} and len(text) <= 60 and text.count(" ") <= 5:
        return f"{element.tag.rpartition('}')[2]}: {text}"
    if not text and element.attrib:
        values = ", ".join(f"{key.rpartition('}')[2]}: {value}" for key, value in element.attrib.items())
        return f"{element.tag.rpartition('}')[2]}: {values}"
    return ""


def _is_text(element: Any) -> bool:
    """Words of its own, and inside it only inline markup."""
    own = (element.text or "").strip() or any((child.tail or "").strip() for child in element)
    return bool(own) and all(_tag(child) in INLINE or (child.tail or "").strip() for child in element
                             if isinstance(child.tag, str))


def _text(element: Any, name: str, level: int) -> Iterator[Span]:
    text = "".join(element.itertext())
    if name in TITLES and len(clean(text)) <= 300:
        yield Span(text=clean(text), kind="heading", level=level, line=element.sourceline)
        return
    for span in text_spans(_unfolded(text)):
        kind = "paragraph" if span.kind == "heading" else span.kind
        yield Span(text=span.text, kind=kind, line=element.sourceline)


def _unfolded(text: str) -> str:
    """Text that lost its line breaks to runs of spaces gets them back; the writer's indents go."""
    text = re.sub(r"(?<=\S) {2,}(?=[-•*] +\S)", "\n", text)
    text = re.sub(r"(?<=[.?!:;)]) {4,}(?=\S)", "\n\n", text)
    text = "\n".join(line.strip() for line in text.split("\n"))
    text = re.sub(r"(?m)^([-•*]) +", r"- ", text)
    return re.sub(r"\n(?!- )([^\n]+\n)(?=- )", r"\n\1\n", text)
