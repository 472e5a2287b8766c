"""Formats that Luthier knows and does not read: told by name, with what to do instead."""

from __future__ import annotations

from luthier.ingest.base import Refused, Source

SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"{\\rtf", "unsupported", "RTF: save it as DOCX"),
    (b"\x1f\x8b", "unsupported", "a gzip archive: unpack it"),
    (b"BZh", "unsupported", "a bzip2 archive: unpack it"),
    (b"\xfd7zXZ", "unsupported", "an xz archive: unpack it"),
    (b"7z\xbc\xaf", "unsupported", "a 7-Zip archive: unpack it"),
    (b"Rar!", "unsupported", "a RAR archive: unpack it"),
    (b"%!PS", "unsupported", "PostScript: save it as PDF"),
    (b"SQLite format 3", "unsupported", "a database: export the tables as CSV"),
    (b"\x7fELF", "unsupported", "a program"),
    (b"MZ\x90", "unsupported", "a program"),
    (b"ID3", "unsupported", "a sound file"),
)
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_OLD = {".doc": "DOCX", ".dot": "DOCX", ".xls": "XLSX", ".ppt": "PPTX", ".pps": "PPTX", ".msg": "EML"}


def refuse_known(source: Source) -> None:
    """Raise Refused for a recognised format that no reader can ever handle as it is."""
    head = source.head
    for signature, reason, detail in SIGNATURES:
        if head.startswith(signature):
            raise Refused(reason, detail)
    if head[4:12] in (b"ftypisom", b"ftypmp42", b"ftypheic", b"ftypqt  "):
        raise Refused("unsupported", "a film or photograph")
    if head.startswith(_OLE):
        data = source.read_bytes()
        if "EncryptedPackage".encode("utf-16-le") in data:  # how Office wraps a file with a password
            raise Refused("encrypted", "protected with a password: save it without one")
        to = _OLD.get(source.suffix, "DOCX, XLSX or PPTX")
        raise Refused("unsupported", f"the format of Office 97–2003: save it as {to}")
    if head.startswith(b"PK"):
        if not source.members:
            raise Refused("corrupt", "the archive's table of contents is damaged or cut off")
        if b"mimetypeapplication/vnd.oasis.opendocument" in head[:120]:
            kind = {".ods": "XLSX", ".odp": "PPTX"}.get(source.suffix, "DOCX")
            raise Refused("unsupported", f"OpenDocument: save it as {kind} or PDF")
        if b"mimetypeapplication/epub" in head[:80]:
            raise Refused("unsupported", "EPUB: save it as HTML or PDF")


def refuse_unknown(source: Source) -> None:
    """Raise Refused for a file that no reader accepts."""
    if source.head.startswith(b"PK"):
        raise Refused("unsupported", "a ZIP archive: unpack it into the folder")
    named = f" although it is named {source.suffix}" if source.suffix in (".pdf", ".docx", ".pptx", ".xlsx") else ""
    if named:
        raise Refused("corrupt", f"the content is not what the name says: no {source.suffix[1:].upper()} signature")
    raise Refused("unknown-format", "neither a known format nor readable text")
