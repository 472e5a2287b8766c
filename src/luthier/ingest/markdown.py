"""Markdown (CommonMark with tables): headings, paragraphs, lists, tables, fenced code, front matter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from luthier.ingest._blocks import clean_lines, list_item, table
from luthier.ingest.base import LIKELY, NO, READERS, Source
from luthier.ingest.text import decode, looks_like_text
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span


@register(READERS, "markdown")
class MarkdownReader(Spec):
    """Markdown files; links become their text, pictures their description."""

    encoding: str | None = None
    """Encoding of the files; None finds it out."""

    version: ClassVar[int] = 1

    def accepts(self, source: Source) -> int:
        named = source.suffix in (".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd")
        return LIKELY if named and looks_like_text(source.head) else NO

    def read(self, source: Source) -> Iterator[Document]:
        text, encoding = decode(source.read_bytes(), self.encoding)
        meta, body, skipped = front_matter(text)
        spans = spans_of(body, first_line=1 + skipped)
        yield source.document(reader="markdown", media="text/markdown", spans=spans,
                              title=str(meta.pop("title", "") or ""), meta={**meta, "encoding": encoding})


def front_matter(text: str) -> tuple[dict[str, Any], str, int]:
    """The YAML block on top as plain values, the rest, and how many lines the block took."""
    found = re.match(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|$)", text, re.DOTALL)
    if not found:
        return {}, text, 0
    import yaml

    try:
        data = yaml.safe_load(found.group(1))
    except (yaml.YAMLError, RecursionError):
        return {}, text, 0  # a rule and prose that only look like front matter stay in the text
    if not isinstance(data, dict):
        return {}, text, 0
    plain = {str(key): value if isinstance(value, str | int | float | bool) else str(value)
             for key, value in data.items() if value is not None}
    return plain, text[found.end():], found.group(0).count("\n")


def spans_of(text: str, *, first_line: int = 1) -> list[Span]:
    """Spans of Markdown source, each with the line it starts on."""
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

    tokens = MarkdownIt("commonmark", {"maxNesting": 40}).enable(["table", "strikethrough"]).parse(text)
    return list(_walk(SyntaxTreeNode(tokens).children, first_line))


def _walk(nodes: Sequence[Any], base: int) -> Iterator[Span]:
    for node in nodes:
        line = base + node.map[0] if node.map else None
        if node.type == "heading":
            yield Span(text=_inline(node), kind="heading", level=int(node.tag[1]), line=line)
        elif node.type == "paragraph":
            only_pictures = all(c.type in ("image", "softbreak") for c in node.children[0].children)
            yield Span(text=_inline(node), kind="caption" if only_pictures else "paragraph", line=line)
        elif node.type in ("bullet_list", "ordered_list"):
            yield Span(text="\n".join(_list(node, 0)), kind="list", line=line)
        elif node.type == "table":
            rows = [[_inline(cell) for cell in row.children] for part in node.children for row in part.children]
            yield Span(text=table(rows), kind="table", line=line)
        elif node.type in ("fence", "code_block"):
            yield Span(text=node.content.rstrip("\n"), kind="code", line=line)
        elif node.type == "blockquote":
            for span in _walk(node.children, base):
                yield Span(text=span.text, kind="quote" if span.kind == "paragraph" else span.kind,
                           level=span.level, line=span.line)
        elif node.type == "html_block":
            yield from _html(node.content, line)


def _html(source: str, line: int | None) -> Iterator[Span]:
    from luthier.ingest.html import spans_of_fragment

    for span in spans_of_fragment(source):
        yield Span(text=span.text, kind=span.kind, level=span.level, line=line)


def _list(node: Any, depth: int) -> Iterator[str]:
    number = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None
    for item in node.children:
        own: list[str] = []
        below: list[str] = []
        for child in item.children:
            if child.type in ("bullet_list", "ordered_list"):
                below += _list(child, depth + 1)
            elif child.type in ("fence", "code_block"):
                own.append(child.content.rstrip("\n"))
            elif child.type == "table":
                own += [span.text for span in _walk([child], 1)]
            elif child.type == "paragraph" or child.type == "heading":
                own.append(_inline(child))
            else:
                own += [span.text for span in _walk([child], 1)]
        yield list_item("\n".join(own), depth, f"{number}." if number is not None else "-")
        yield from below
        number = number + 1 if number is not None else None


def _inline(node: Any) -> str:
    """Text of a block's inline content without markup."""
    parts: list[str] = []

    def take(children: Sequence[Any]) -> None:
        for child in children:
            if child.type in ("text", "code_inline"):
                parts.append(child.content)
            elif child.type == "softbreak":
                parts.append(" ")
            elif child.type == "hardbreak" or (child.type == "html_inline" and re.match(r"<br\b", child.content)):
                parts.append("\n")
            elif child.type == "html_inline":
                continue  # a tag; the words between tags are text
            elif child.type == "image":
                parts.append(child.content)
            else:
                take(child.children)

    take(node.children)
    return clean_lines("".join(parts))
