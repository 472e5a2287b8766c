"""Word documents (DOCX): a walk over the body in order, with heading styles, lists, tables, notes and text boxes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from luthier.ingest import _hidden
from luthier.ingest._blocks import MAX_COLUMNS, clean_lines, list_item, table
from luthier.ingest._office import check_archive, dangers, properties, tell_damage
from luthier.ingest.base import NO, READERS, SURE, Refused, Source
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"


@register(READERS, "docx")
class DocxReader(Spec):
    """Word documents; tracked insertions are read as accepted, deletions as gone."""

    notes: bool = True
    """Also read footnotes and endnotes, after the text they belong to."""

    version: ClassVar[int] = 2

    def accepts(self, source: Source) -> int:
        return SURE if "word/document.xml" in source.members else NO

    def read(self, source: Source) -> Iterator[Document]:
        check_archive(source)
        with tell_damage():
            opened = _open(source)
            meta = properties(opened.core_properties) | dangers(source)
            body = _Body(opened, self.notes)
            spans = _faked_headings(list(body.spans(opened.element.body)))
            meta["hidden_text"] = _hidden.of_word(opened.element.body, W)
        title = meta.pop("title", "") or next((span.text for span in spans if span.kind == "heading"), "")
        yield source.document(
            reader="docx", media="application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            spans=_merged(spans), title=title, meta=meta)


def _open(source: Source) -> Any:
    """The document, also of a template or of a file with macros (DOCM, DOTX, DOTM), whose parts have other types."""
    from docx.opc.part import PartFactory
    from docx.package import Package
    from docx.parts.document import DocumentPart

    for kind in ("ms-word.document.macroEnabled", "ms-word.template.macroEnabledTemplate",
                 "openxmlformats-officedocument.wordprocessingml.template"):
        PartFactory.part_type_for[f"application/vnd.{kind}.main+xml"] = DocumentPart
    main = Package.open(str(source.path)).main_document_part
    if not isinstance(main, DocumentPart):
        raise Refused("corrupt", f"the main part is {main.content_type}, no Word document")
    return main.document


class _Item(NamedTuple):
    text: str
    kind: str
    level: int
    marker: str
    bold: bool


class _Body:
    """One document: its styles, numbering and notes, and the counters of its lists."""

    def __init__(self, opened: Any, notes: bool):
        self.numbering = _numbering(opened)
        self.styles = _styles(opened)
        self.notes = _notes(opened) if notes else {}
        self.counts: Counter[tuple[str, int]] = Counter()

    def spans(self, body: Any) -> Iterator[_Item]:
        for element in body:
            if element.tag == W + "p":
                yield from self.paragraph(element)
            elif element.tag == W + "tbl":
                yield from self.table(element)
            elif element.tag == W + "sdt":  # a content control: a table of contents, a form field, a cover page
                content = element.find(W + "sdtContent")
                if content is not None:
                    yield from self.spans(content)
            elif element.tag in (W + "customXml", W + "ins", W + "smartTag", W + "moveTo"):
                yield from self.spans(element)

    def paragraph(self, element: Any) -> Iterator[_Item]:
        note_ids: list[str] = []
        text = clean_lines("".join(_text(element, note_ids)))
        style = self.style(element)
        if text and not style.name.startswith(("toc ", "TOC ")):
            yield self.classified(element, text, style)
        for box in _boxes(element):
            yield from self.spans(box)
        for note in note_ids:
            if self.notes.get(note):
                yield _Item(f"[{note.split(':')[1]}] {self.notes[note]}", "paragraph", 0, "", False)

    def classified(self, element: Any, text: str, style: _Style) -> _Item:
        if style.level:
            return _Item(text.replace("\n", " "), "heading", style.level, "", False)
        number = element.find(f"{W}pPr/{W}numPr")
        list_id, depth = style.list_id, style.depth
        if number is not None:
            list_id = _value(number.find(W + "numId")) or list_id
            depth = int(_value(number.find(W + "ilvl")) or depth)
        if list_id and list_id != "0":
            return _Item(text, "list", depth, self.marker(list_id, depth), False)
        if style.name.lower().startswith("list"):
            return _Item(text, "list", 0, "1." if "number" in style.name.lower() else "-", False)
        lowered = style.name.lower()
        if "caption" in lowered:
            return _Item(text, "caption", 0, "", False)
        if "quote" in lowered:
            return _Item(text, "quote", 0, "", False)
        if "code" in lowered or "preformatted" in lowered or lowered == "macro text":
            return _Item("".join(_text(element, [])).rstrip(), "code", 0, "", False)
        return _Item(text, "paragraph", 0, "", _all_bold(element))

    def marker(self, list_id: str, depth: int) -> str:
        if self.numbering.get((list_id, depth), "bullet") in ("bullet", "none"):
            return "-"
        self.counts[(list_id, depth)] += 1
        for key in [key for key in self.counts if key[0] == list_id and key[1] > depth]:
            del self.counts[key]  # a deeper list starts again below a new item
        return f"{self.counts[(list_id, depth)]}."

    def style(self, element: Any) -> _Style:
        properties_ = element.find(W + "pPr")
        name = _value(properties_.find(W + "pStyle")) if properties_ is not None else ""
        style = self.styles.get(name or "", self.styles.get("", _Style()))
        direct = _value(properties_.find(W + "outlineLvl")) if properties_ is not None else ""
        if direct and direct.isdigit() and int(direct) < 6:
            return style._replace(level=int(direct) + 1)
        return style

    def table(self, element: Any) -> Iterator[_Item]:
        rows: list[list[str]] = []
        hanging: dict[int, str] = {}
        contents: list[_Item] = []
        for row in element.iter(W + "tr"):
            if next(row.iterancestors(W + "tbl")) is not element:
                continue
            line: list[str] = []
            for cell in row.iter(W + "tc"):
                if next(cell.iterancestors(W + "tr")) is not row:
                    continue
                inner = list(self.spans(cell))
                contents += inner
                text = "\n".join(list_item(i.text, i.level, i.marker) if i.kind == "list" else i.text for i in inner)
                about = cell.find(W + "tcPr")
                wide = int(_value(about.find(W + "gridSpan")) or 1) if about is not None else 1
                merge = about.find(W + "vMerge") if about is not None else None
                if merge is not None and _value(merge) != "restart":  # continues the cell above
                    text = hanging.get(len(line), text)
                elif merge is not None:
                    hanging[len(line)] = text
                line += [text] * min(wide, 200)
                if len(line) > MAX_COLUMNS:
                    raise Refused("too-large", f"a table of more than {MAX_COLUMNS:,} columns")
            rows.append(line)
        if max(map(len, rows), default=0) <= 1:  # a frame around text, not a table
            yield from contents
            return
        text = table(rows)
        if text:
            yield _Item(text, "table", 0, "", False)


class _Style(NamedTuple):
    name: str = ""
    level: int = 0
    list_id: str = ""
    depth: int = 0


def _value(element: Any) -> str:
    return (element.get(W + "val") or "") if element is not None else ""


def _styles(opened: Any) -> dict[str, _Style]:
    """Paragraph styles by id, with what they inherit. Word keeps the English names in files of any language."""
    raw = {}
    default = ""
    for element in opened.styles.element.iterchildren(W + "style"):
        if element.get(W + "type") in (None, "paragraph"):
            raw[element.get(W + "styleId")] = element
            if element.get(W + "default") in ("1", "true"):
                default = element.get(W + "styleId")

    def resolve(id: str, seen: frozenset[str]) -> _Style:
        element = raw[id]
        based = _value(element.find(W + "basedOn"))
        base = resolve(based, seen | {id}) if based in raw and based not in seen else _Style()
        name = _value(element.find(W + "name"))
        found = re.fullmatch(r"heading (\d)", name, re.IGNORECASE)
        outline = _value(element.find(f"{W}pPr/{W}outlineLvl"))
        level = base.level
        if found:
            level = min(int(found.group(1)), 6)
        elif name.lower() == "title":
            level = 1
        elif outline.isdigit():
            level = int(outline) + 1 if int(outline) < 6 else 0
        number = element.find(f"{W}pPr/{W}numPr")
        list_id = _value(number.find(W + "numId")) if number is not None else ""
        depth = _value(number.find(W + "ilvl")) if number is not None else ""
        return _Style(name, level, list_id or base.list_id, int(depth or base.depth))

    styles = {id: resolve(id, frozenset({id})) for id in raw}
    return {**styles, "": styles.get(default, _Style())}


def _numbering(opened: Any) -> dict[tuple[str, int], str]:
    """Number format by list id and depth."""
    try:
        root = opened.part.numbering_part.element
    except (KeyError, NotImplementedError):
        return {}
    abstract = {element.get(W + "abstractNumId"): {int(level.get(W + "ilvl")): _value(level.find(W + "numFmt"))
                                                  for level in element.iterchildren(W + "lvl")}
                for element in root.iterchildren(W + "abstractNum")}
    found = {}
    for number in root.iterchildren(W + "num"):
        for depth, kind in abstract.get(_value(number.find(W + "abstractNumId")), {}).items():
            found[(number.get(W + "numId"), depth)] = kind
    return found


def _notes(opened: Any) -> dict[str, str]:
    """Text of footnotes and endnotes by `footnote:2`."""
    import lxml.etree as etree

    found = {}
    for relation in opened.part.rels.values():
        kind = relation.reltype.rpartition("/")[2]
        if kind in ("footnotes", "endnotes") and not relation.is_external:
            parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
            root = etree.fromstring(relation.target_part.blob, parser)
            for note in root.iterchildren(W + kind[:-1]):
                text = " ".join(clean_lines("".join(_text(p, []))) for p in note.iter(W + "p"))
                found[f"{kind[:-1]}:{note.get(W + 'id')}"] = text.strip()
    return found


_SKIPPED = {W + "del", W + "moveFrom", W + "instrText", W + "delText", W + "pPr", W + "rPr", W + "txbxContent",
            MC + "Fallback", W + "fldData"}


def _text(element: Any, note_ids: list[str]) -> Iterator[str]:
    for child in element:
        tag = child.tag
        if tag in _SKIPPED:
            continue
        if tag == W + "t":
            yield child.text or ""
        elif tag == W + "tab":
            yield "\t"
        elif tag in (W + "br", W + "cr"):
            yield "\n"
        elif tag == W + "noBreakHyphen":
            yield "-"
        elif tag == W + "sym":
            yield "•" if child.get(W + "font", "").startswith(("Symbol", "Wingdings")) else ""
        elif tag in (W + "footnoteReference", W + "endnoteReference"):
            id = f"{tag.removeprefix(W).removesuffix('Reference')}:{child.get(W + 'id')}"
            note_ids.append(id)
            yield f"[{child.get(W + 'id')}]"
        elif isinstance(tag, str) and tag.endswith("}t") and "math" in tag:
            yield child.text or ""
        elif isinstance(tag, str):
            yield from _text(child, note_ids)


def _boxes(paragraph: Any) -> Iterator[Any]:
    """Text boxes anchored in a paragraph; each is stored twice, for new and for old programs."""
    for box in paragraph.iter(W + "txbxContent"):
        old = any(parent.tag == MC + "Fallback" for parent in box.iterancestors())
        if not old and next(box.iterancestors(W + "p")) is paragraph:
            yield box


def _all_bold(paragraph: Any) -> bool:
    runs = [run for run in paragraph.iter(W + "r") if "".join(_text(run, [])).strip()]
    return bool(runs) and all(
        (bold := run.find(f"{W}rPr/{W}b")) is not None and _value(bold) not in ("0", "false") for run in runs)


def _faked_headings(items: list[_Item]) -> list[_Item]:
    """Where the writer used no heading styles, a short bold line above running text is a heading."""
    if any(item.kind == "heading" for item in items):
        return items
    found = []
    for item, after in zip(items, [*items[1:], None]):
        short = len(item.text) <= 80 and "\n" not in item.text and not item.text.endswith((".", ",", ";", ":"))
        if item.kind == "paragraph" and item.bold and short and after is not None and not after.bold:
            item = item._replace(kind="heading", level=1)
        found.append(item)
    return found


def _merged(items: list[_Item]) -> Iterator[Span]:
    """Spans; items of one list that follow each other make one span."""
    lines: list[str] = []
    for item in [*items, None]:
        if lines and (item is None or item.kind != "list"):
            yield Span(text="\n".join(lines), kind="list")
            lines = []
        if item is None:
            return
        if item.kind == "list":
            lines.append(list_item(item.text, item.level, item.marker))
        else:
            yield Span(text=item.text, level=item.level, kind=item.kind)  # type: ignore[arg-type]
