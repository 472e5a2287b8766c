"""What the office formats share: the check before anything is unpacked, and the file's own properties."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
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


@contextlib.contextmanager
def tell_damage() -> Iterator[None]:
    """Turn what the office libraries raise on damaged files into `Refused`."""
    import zlib

    import lxml.etree as etree

    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, zipfile.BadZipFile, zlib.error, EOFError,
            etree.LxmlError, NotImplementedError) as error:
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
