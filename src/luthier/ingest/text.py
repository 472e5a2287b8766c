"""Plain text: paragraphs joined again, headings, lists, tables and questions with answers told apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from luthier.ingest._blocks import clean, list_item, table
from luthier.ingest.base import LIKELY, MAYBE, NO, READERS, Refused, Source
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span

NAMES = {".txt", ".text", ".log", ".rst", ".asc", ".adoc", ".org"}


@register(READERS, "text")
class TextReader(Spec):
    """Plain text in any common encoding; also the last resort for every other file that is readable text."""

    encoding: str | None = None
    """Encoding of the files, such as `cp1252`; None finds it out."""

    version: ClassVar[int] = 2

    def accepts(self, source: Source) -> int:
        if not looks_like_text(source.head):
            return NO
        return LIKELY if source.suffix in NAMES else MAYBE

    def read(self, source: Source) -> Iterator[Document]:
        text, encoding = decode(source.read_bytes(), self.encoding)
        yield source.document(reader="text", media="text/plain", spans=spans_of(text),
                              meta={"encoding": encoding})


def looks_like_text(head: bytes) -> bool:
    """Decodable and almost without control characters. `head` may end inside a character."""
    if not head:
        return False
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _utf16(head):
        return True
    control = sum(byte < 32 and byte not in (9, 10, 12, 13, 27) for byte in head) / len(head)
    if control > 0.005:
        return False
    try:
        head.decode("utf-8")
        return True
    except UnicodeDecodeError as error:
        if error.start >= len(head) - 3:
            return True
    return sum(byte >= 127 for byte in head) / len(head) < 0.6  # an eight-bit encoding, unless nearly all is high


def _utf16(data: bytes) -> str | None:
    """Unmarked UTF-16 of mostly Latin text: every other byte is zero."""
    sample = data[:4000]
    if len(sample) >= 8:
        even, odd = sample[0::2].count(0) / (len(sample) / 2), sample[1::2].count(0) / (len(sample) / 2)
        if odd > 0.7 and even < 0.05:
            return "utf-16-le"
        if even > 0.7 and odd < 0.05:
            return "utf-16-be"
    return None


def decode(data: bytes, encoding: str | None = None) -> tuple[str, str]:
    """Text and the encoding it was in. Raises Refused when the bytes are not text."""
    if encoding:
        try:
            return _newlines(data.decode(encoding)), encoding
        except LookupError:
            raise Refused("corrupt", f"there is no encoding '{encoding}' (readers: text: encoding)") from None
        except UnicodeDecodeError as error:
            raise Refused("corrupt", f"not {encoding}: byte {error.start} cannot be decoded") from None
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return _newlines(data.decode(name, "replace")), name
    try:
        return _newlines(data.decode("utf-8")), "utf-8"
    except UnicodeDecodeError:
        pass
    wide = _utf16(data)
    if wide:
        return _newlines(data.decode(wide, "replace")), wide
    if _mixed(data):
        lines = (_either(line) for line in data.split(b"\n"))
        return _newlines("\n".join(lines)), "utf-8, cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(data[:200_000], threshold=0.3).best()
    name = best.encoding if best else "cp1252"
    if name in ("latin_1", "ascii", "cp1250", "cp1252", "cp1254", "cp1258", "mac_roman", "hp_roman8", "cp437", "cp850"):
        # Look-alikes that differ in a few letters: the one nearly all Western files of this kind are in.
        name = "cp1252"
    return _newlines(data.decode(name, "replace")), name


def _mixed(data: bytes) -> bool:
    """Some lines UTF-8 and some not, as where logs or mails of several programs were put into one file. By chance a
    line in another encoding is hardly ever valid UTF-8, so a third of such lines is no chance."""
    odd = [line for line in data[:2_000_000].split(b"\n") if not line.isascii()]
    valid = sum(_is_utf8(line) for line in odd)
    return valid >= 2 and valid >= len(odd) / 3


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _either(line: bytes) -> str:
    return line.decode("utf-8") if _is_utf8(line) else line.decode("cp1252", "replace")


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


BULLET = re.compile(r"^(\s*)(?:[-*+•‣◦▪●–·]|\(?(\d{1,3}|[a-z])[.)])\s+(?=\S)")
_NUMBERED = re.compile(r"^(\d{1,3}(?:\.\d{1,3})*)\.?\s+(\S.*)$")
_QUESTION = re.compile(r"^\s*(?:\*\*)?(?:Q|Question|Frage|F)\s?\d{0,3}\s?[:.)]\s+\S", re.IGNORECASE)
_ANSWER = re.compile(r"^\s*(?:\*\*)?(?:A|Answer|Antwort)\s?\d{0,3}\s?[:.)]\s+\S", re.IGNORECASE)
_RULE = re.compile(r"^\s*([=\-~^\"*+#_])\1{2,}\s*$")

Line = tuple[int, str]


def spans_of(text: str, *, first_line: int = 1) -> list[Span]:
    """Spans of plain text. Headings are recognised only where little doubt is left."""
    lines = text.translate({0x0C: "\n", 0xFEFF: None}).expandtabs(4).split("\n")
    widths = sorted(len(line.rstrip()) for line in lines if line.strip())
    wrap = widths[int(len(widths) * 0.9)] if widths else 0  # where the writer's lines end
    spans: list[Span] = []
    underlines: list[str] = []
    blocks = list(_blocks([(first_line + i, line.rstrip()) for i, line in enumerate(lines)]))
    for position, block in enumerate(blocks):
        following = blocks[position + 1] if position + 1 < len(blocks) else []
        spans += _block(block, following, wrap, underlines)
    return spans


def _blocks(lines: list[Line]) -> Iterator[list[Line]]:
    """Groups of lines without an empty one between; a question or an answer starts a new group."""
    block: list[Line] = []
    for number, line in lines:
        if not line.strip():
            if block:
                yield block
            block = []
            continue
        if block and (_QUESTION.match(line) or _ANSWER.match(line)):
            yield block
            block = []
        block.append((number, line))
    if block:
        yield block


def _block(block: list[Line], following: list[Line], wrap: int, underlines: list[str]) -> list[Span]:
    number, first = block[0]
    if len(block) >= 2 and _RULE.match(block[1][1]) and not _RULE.match(first) and _title_like(first):
        level = _underline_level(block[1][1].strip()[0], underlines)
        rest = block[2:]
        return [Span(text=clean(first), kind="heading", level=level, line=number),
                *(_block(rest, following, wrap, underlines) if rest else ())]
    if len(block) >= 3 and _RULE.match(first) and _RULE.match(block[2][1]):  # a rule above and below
        level = _underline_level(first.strip()[0] + "^", underlines)
        rest = block[3:]
        return [Span(text=clean(block[1][1]), kind="heading", level=level, line=block[1][0]),
                *(_block(rest, following, wrap, underlines) if rest else ())]
    if all(_RULE.match(line) for _, line in block):
        return []
    if len(block) == 1:
        level = _heading_level(first, following)
        if level:
            return [Span(text=clean(first), kind="heading", level=level, line=number)]
    if _QUESTION.match(first) or _ANSWER.match(first):
        listed = any(BULLET.match(line) for _, line in block[1:])
        return [Span(text="\n".join(clean(line) for _, line in block) if listed else _joined(block, 0), line=number)]
    grid = _grid(block)
    if grid:
        return [Span(text=table(grid), kind="table", line=number)]
    start = next((i for i, (_, line) in enumerate(block) if BULLET.match(line)), None)
    if start is not None and _is_list(block[start:]):
        before = [Span(text=_joined(block[:start], wrap), line=number)] if start else []
        return [*before, Span(text=_list(block[start:]), kind="list", line=block[start][0])]
    if all(line.lstrip().startswith(">") for _, line in block):
        stripped = [(n, line.lstrip().lstrip("> ")) for n, line in block]
        return [Span(text=_joined(stripped, wrap), kind="quote", line=number)]
    return [Span(text=_joined(block, wrap), line=number)]


def _underline_level(mark: str, underlines: list[str]) -> int:
    """`=` is the top and `-` below it, as in Markdown; other marks rank by first appearance, as in reST."""
    fixed = {"=": 1, "-": 2}
    if mark in fixed and not any(m.endswith("^") for m in underlines):
        return fixed[mark]
    if mark not in underlines:
        underlines.append(mark)
    return min(underlines.index(mark) + 1, 6)


def _title_like(line: str) -> bool:
    text = line.strip()
    return len(text) <= 100 and any(c.isalpha() for c in text) and not text.endswith((".", ",", ";"))


def _heading_level(line: str, following: list[Line]) -> int:
    text = line.strip()
    if not _title_like(line) or not following or line.startswith("    "):
        return 0
    numbered = _NUMBERED.match(text)
    if numbered and numbered.group(2)[0].isupper() and len(text) <= 80:
        depth = numbered.group(1).count(".") + 1
        # "1. Open the valve" on a line of its own is as likely a step: only with running text below it a heading.
        prose = len(following) > 1 or len(following[0][1]) > 80
        if depth >= 2 or (prose and not _NUMBERED.match(following[0][1].strip())):
            return min(depth, 6)
    letters = [c for c in text if c.isalpha()]
    if len(letters) >= 4 and text == text.upper() and len(text) <= 80 and not text.endswith((":", "!")):
        return 1
    return 0


def _is_list(block: list[Line]) -> bool:
    """Every line opens an item or continues one with an indent; a single item needs a bullet sign."""
    starts = [bool(BULLET.match(line)) for _, line in block]
    indents = [len(line) - len(line.lstrip()) for _, line in block]
    loose = all(start or indent > indents[0] for start, indent in zip(starts, indents))
    return loose and (sum(starts) >= 2 or bool(re.match(r"^\s*[-*+•‣◦▪●]", block[0][1])))


def _list(block: list[Line]) -> str:
    items: list[str] = []
    indents: list[int] = []
    for _, line in block:
        found = BULLET.match(line)
        if found:
            indent = len(found.group(1))
            while indents and indents[-1] > indent:
                indents.pop()
            if not indents or indents[-1] < indent:
                indents.append(indent)
            number = found.group(2)
            marker = f"{number}." if number else "-"
            items.append(list_item(clean(line[found.end():]), len(indents) - 1, marker))
        elif items:
            items[-1] += " " + clean(line)
    return "\n".join(items)


def _joined(block: list[Line], wrap: int) -> str:
    """Lines that the margin broke become one paragraph; short lines (addresses, verse) stay lines."""
    lines = [line.strip() for _, line in block]
    if len(lines) == 1:
        return clean(lines[0])
    full = sum(len(line) >= 0.6 * wrap for line in lines[:-1])
    if full >= 0.7 * (len(lines) - 1):
        text = lines[0]
        for line in lines[1:]:
            broken = re.search(r"[a-zà-ÿ]-$", text) and re.match(r"[a-zà-ÿ]", line)
            text = text[:-1] + line if broken else f"{text} {line}"
        return clean(text)
    return "\n".join(clean(line) for line in lines)


def _grid(block: list[Line]) -> list[list[str]]:
    """Rows of a table drawn with pipes, or with columns that stand below each other; [] if it is none."""
    lines = [line for _, line in block]
    if len(lines) >= 2 and all(line.count("|") >= 2 or re.fullmatch(r"[\s+|:=-]+", line) for line in lines):
        rows = [line.strip().strip("|").split("|") for line in lines if not re.fullmatch(r"[\s+|:=-]+", line)]
        if len({len(row) for row in rows}) == 1 and len(rows[0]) >= 2:
            return rows
    if len(lines) < 3 or any(BULLET.match(line) for line in lines):
        return []
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines if not re.fullmatch(r"[\s=-]+", line)]
    counts = {len(row) for row in rows}
    if len(rows) >= 3 and len(counts) == 1 and counts.pop() >= 2:
        starts = [[found.end() for found in re.finditer(r"(?:^|\s{2})\s*(?=\S)", line)] for line in lines]
        if all(abs(a - b) <= 2 or a > b for a, b in zip(starts[0], starts[1])):
            return rows
    return []


def shifted(spans: list[Span], *, levels: int) -> list[Span]:
    """The spans with their headings moved `levels` deeper, for text that sits inside another document."""
    return [replace(s, level=min(s.level + levels, 6)) if s.kind == "heading" else s for s in spans]
