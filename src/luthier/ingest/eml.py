"""E-mail messages (RFC 5322): sender, date and subject, the body, and attachments that are text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from email.message import EmailMessage, MIMEPart
from pathlib import PurePath
from typing import Any, ClassVar

from luthier.ingest._blocks import clean
from luthier.ingest.base import LIKELY, NO, READERS, SURE, Refused, Source
from luthier.ingest.text import decode, shifted
from luthier.ingest.text import spans_of as text_spans
from luthier.plugins import register
from luthier.spec import Spec
from luthier.types import Document, Span

MAX_DEPTH = 3
"""Forwarded messages inside forwarded messages are read this deep."""
_HEADER = re.compile(rb"^(?:from|to|received|return-path|message-id|date|subject|mime-version|delivered-to"
                     rb"|dkim-signature|x-[\w-]+|reply-to|cc|content-type):\s", re.IGNORECASE)
_STRONG = re.compile(rb"^(?:received|message-id|mime-version|return-path|date):\s", re.IGNORECASE | re.MULTILINE)


@register(READERS, "eml")
class EmlReader(Spec):
    """Saved e-mails: the head, the body (plain text preferred), text attachments, and a list of the others."""

    attachments: bool = True
    """Also read attachments that are text, HTML, Markdown or CSV, and forwarded messages."""

    version: ClassVar[int] = 1

    def accepts(self, source: Source) -> int:
        head = source.head.lstrip(b"\r\n")
        if not _HEADER.match(head):
            return NO
        if source.suffix in (".eml", ".mht", ".mhtml"):
            return SURE
        top = head.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
        return LIKELY if source.suffix == "" and len(_STRONG.findall(top)) >= 2 else NO

    def read(self, source: Source) -> Iterator[Document]:
        from email import message_from_bytes, policy

        message = message_from_bytes(source.read_bytes(), policy=policy.default)
        meta: dict[str, Any] = {"attachments": []}
        spans = list(self._message(message, meta, 0))
        for name in ("from", "to", "cc", "date", "subject", "message-id", "in-reply-to"):
            meta[name] = _header(message, name)
        yield source.document(reader="eml", media="message/rfc822", spans=spans, title=meta["subject"], meta=meta)

    def _message(self, message: EmailMessage, meta: dict[str, Any], depth: int) -> Iterator[Span]:
        subject = _header(message, "subject")
        if subject:
            yield Span(text=subject, kind="heading", level=min(1 + depth, 6))
        head = [f"{name.capitalize()}: {value}" for name in ("from", "to", "cc", "date")
                if (value := _header(message, name))]
        if head:
            yield Span(text="\n".join(head), kind="row")
        body = message.get_body(preferencelist=("plain", "html"))
        if body is not None:
            yield from shifted(_spans(body), levels=1 + depth)
        for part in message.iter_attachments():
            yield from self._attachment(part, meta, depth)  # type: ignore[arg-type]

    def _attachment(self, part: EmailMessage, meta: dict[str, Any], depth: int) -> Iterator[Span]:
        media = part.get_content_type()
        name = PurePath(part.get_filename() or "").name or media
        if media == "message/rfc822":
            inner = part.get_payload()
            inner = inner[0] if isinstance(inner, list) and inner else None
            read = self.attachments and depth < MAX_DEPTH and isinstance(inner, EmailMessage)
            meta["attachments"].append({"name": name, "media": media, "read": read})
            if read:
                yield from self._message(inner, meta, depth + 1)  # type: ignore[arg-type]
            return
        data = part.get_payload(decode=True) or b""
        readable = self.attachments and (media.startswith("text/") or PurePath(name).suffix.lower() in _BY_SUFFIX)
        spans = []
        if readable:
            try:
                spans = _spans(part, name)
            except Refused as refused:  # an attachment that cannot be read does not cost the message
                meta["attachments"].append({"name": name, "media": media, "bytes": len(data), "read": False,
                                            "reason": refused.detail})
                return
        meta["attachments"].append({"name": name, "media": media, "bytes": len(data), "read": bool(spans)})
        if spans:
            yield Span(text=f"Attachment: {name}", kind="heading", level=min(2 + depth, 6))
            yield from shifted(spans, levels=2 + depth)


_BY_SUFFIX = {".md": "text/markdown", ".markdown": "text/markdown", ".csv": "text/csv", ".tsv": "text/csv",
              ".html": "text/html", ".htm": "text/html", ".txt": "text/plain"}


def _header(message: EmailMessage, name: str) -> str:
    try:
        return clean(str(message.get(name, "") or ""))
    except (ValueError, IndexError, AttributeError, TypeError, OverflowError):  # broken headers trip the library
        raw = next((value for key, value in message.raw_items() if key.lower() == name), "")
        return clean(str(raw))


def _spans(part: MIMEPart, name: str = "") -> list[Span]:
    """Spans of one text part, by its media type and, where that says nothing, by its file name."""
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return []
    media = part.get_content_type()
    if media in ("text/plain", "application/octet-stream"):
        media = _BY_SUFFIX.get(PurePath(name).suffix.lower(), media)
    charset = part.get_content_charset()
    try:
        codecs.lookup(charset or "utf-8")
    except (LookupError, ValueError):  # unknown, or with a NUL in its name
        charset = None
    if media == "text/html":
        from luthier.ingest.html import Walk, parse

        return list(Walk().spans(parse(data, charset))) if data.strip() else []
    try:
        text = data.decode(charset or "utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        text, _ = decode(data)
    if media == "text/markdown":
        from luthier.ingest.markdown import spans_of

        return spans_of(text)
    if media == "text/csv":
        from luthier.ingest.csv import spans_of

        return spans_of(text)
    if media == "text/calendar":
        return [Span(text=text.strip(), kind="code")]
    body, mark, signature = text.partition("\n-- \n")
    spans = text_spans(body)
    return [Span(text=span.text, kind=span.kind, level=span.level) for span in spans] + (
        [Span(text=signature.strip(), kind="row")] if mark and signature.strip() else [])
