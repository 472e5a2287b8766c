"""What the office formats share: the check before anything is unpacked, and the file's own properties."""

from __future__ import annotations

import contextlib
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from luthier.ingest.base import Refused, Source

MAX_MEMBERS = 50_000
MAX_RATIO = 400
"""Unpacked over packed size. Honest office files reach about 100 (sheets full of equal cells)."""
RATIO_FROM_MB = 50
"""Below this size no ratio matters."""


def check_archive(source: Source) -> None:
    """Refuse an archive that would fill memory or disk when unpacked, or that is damaged; unpacks nothing.

    The sizes come from the table of contents. A file that lies there does not get further: the standard library reads
    no more of a member than the table says.
    """
    try:
        with zipfile.ZipFile(source.path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Refused("corrupt", f"damaged archive: {error}") from None
    unpacked = sum(member.file_size for member in members)
    packed = max(sum(member.compress_size for member in members), 1)
    if len(members) > MAX_MEMBERS:
        raise Refused("zip-bomb", f"{len(members):,} files inside")
    if unpacked > source.max_unpacked_mb * 1e6:
        raise Refused("zip-bomb", f"unpacks to {unpacked / 1e6:,.0f} MB; the limit is {source.max_unpacked_mb:,.0f} MB "
                                  "(ingest.max_unpacked_mb)")
    if unpacked > RATIO_FROM_MB * 1e6 and unpacked / packed > MAX_RATIO:
        raise Refused("zip-bomb", f"unpacks to {unpacked / packed:,.0f} times its size")
    if any(member.flag_bits & 1 for member in members):
        raise Refused("encrypted", "the archive is protected with a password: save it without one")
    refuse_declarations(source, [member for member in members if member.filename.endswith((".xml", ".rels", ".vml"))])


_PROLOG = re.compile(r"(?:\s+|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)
_PROLOG_BYTES = 65_536


def refuse_declarations(source: Source, members: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse an office file with a part that has a document type declaration: the only place for XML entities.

    The OOXML standard (ECMA-376, part 2) forbids them, so no honest file has one. A part that cannot be unpacked is
    left to the reader, which may not need it.
    """
    with zipfile.ZipFile(source.path) as archive:
        for member in members:
            try:
                with archive.open(member) as part:
                    data = part.read(_PROLOG_BYTES)
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError):
                continue
            text = _decoded(data)
            seven = re.match(r"\s*<\?xml[^>]*encoding\s*=\s*[\"']utf-?7", text, re.IGNORECASE)
            end = _PROLOG.match(text)
            after = text[end.end():] if end else text
            if seven or after.startswith("<!DOCTYPE") or (not after and len(data) == _PROLOG_BYTES):
                raise Refused("unsafe-xml", f"{member.filename[:80]} declares a document type, which no office program "
                                            "writes and which can be used to fill the memory or to read files")


def _decoded(data: bytes) -> str:
    """The head of an XML part, read well enough to see its first tags."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if b"\x00" in data[:4]:
        return data.decode("utf-16-le" if data[1:2] == b"\x00" else "utf-16-be", "replace")
    return data.removeprefix(b"\xef\xbb\xbf").decode("latin-1")


def dangers(source: Source) -> dict[str, Any]:
    """What the file carries besides its text, for the document's `meta`; nothing of it is run, opened or fetched.

    `macros` (names of the parts with program code), `embedded` (number of objects of other programs) and
    `external_links` (first 20 addresses that the office program would fetch: templates, images, frames; not links that
    a person has to click).
    """
    names = sorted(source.members)
    found: dict[str, Any] = {
        "macros": [name for name in names if re.search(r"vbaProject\.bin$|/macrosheets/|/activeX/.*\.bin$", name)],
        "embedded": sum("/embeddings/" in name for name in names) or None,
    }
    links: list[str] = []
    with zipfile.ZipFile(source.path) as archive:
        for name in names:
            if not name.endswith(".rels"):
                continue
            try:
                with archive.open(name) as part:
                    text = part.read(1_000_000).decode("utf-8", "replace")
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError):
                continue
            for one in re.findall(r"<(?:\w+:)?Relationship\b[^>]*>", text):
                target = re.search(r"Target\s*=\s*[\"']([^\"']*)", one)
                if target and re.search(r"TargetMode\s*=\s*[\"']External", one) and "/hyperlink" not in one:
                    links.append(target.group(1)[:300])
    found["external_links"] = list(dict.fromkeys(links))[:20]
    return {key: value for key, value in found.items() if value}


@contextlib.contextmanager
def tell_damage() -> Iterator[None]:
    """Turn what the office libraries raise on damaged files into `Refused`."""
    from xml.etree.ElementTree import ParseError

    import lxml.etree as etree

    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, zipfile.BadZipFile, zlib.error, EOFError,
            etree.LxmlError, ParseError, NotImplementedError, OSError, RecursionError, OverflowError,
            struct.error) as error:
        # The libraries have no error class of their own for this: a missing part is a KeyError, a bad number a
        # ValueError, a missing element an AttributeError.
        raise Refused("corrupt", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    except Exception as error:
        # python-docx and python-pptx raise their own PackageNotFoundError and XML errors; anything else is ours.
        if type(error).__module__.split(".")[0] in ("docx", "pptx", "openpyxl"):
            raise Refused("corrupt", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
        raise


def properties(core: Any) -> dict[str, Any]:
    """The file's own statements: title, author, subject, keywords, created, modified."""
    found: dict[str, Any] = {}
    for name, attribute in (("title", "title"), ("author", "author"), ("author", "creator"), ("subject", "subject"),
                            ("keywords", "keywords"), ("created", "created"), ("modified", "modified"),
                            ("language", "language"), ("category", "category")):
        try:
            value = getattr(core, attribute, None)
        except (ValueError, TypeError):  # an unreadable date
            continue
        if value and name not in found:
            found[name] = value.isoformat() if hasattr(value, "isoformat") else str(value)
    if found.get("author") in ("python-docx", "openpyxl", "Steve Canny"):  # the libraries' templates, not a person
        del found["author"]
    if found.get("title") == "PowerPoint Presentation":
        del found["title"]
    return found
