"""Text files read as they come: encoding by one look, gzip, and limits, so that no file has to fit into memory."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from luthier.errors import DataError

CHUNK = 1 << 20
MAX_LINE = 64 << 20
"""Characters of the longest line that is read; a longer one is set aside."""
_WHOLE = 16 << 20  # bytes of a file in an old encoding that are all looked at to tell which
_BOMB_BYTES, _BOMB_RATIO = 200 << 20, 200


@dataclass(frozen=True)
class TextFile:
    """A text file whose encoding is known; `.gz` is unpacked on the way."""

    path: Path
    name: str
    """As the user wrote it."""
    encoding: str
    empty: bool
    """It holds white space at most."""

    def open(self) -> IO[str]:
        """Text with line feeds only, from the start."""
        codec = {"utf-8": "utf-8-sig"}.get(self.encoding, self.encoding)
        errors = "strict" if self.encoding in ("utf-8", "utf-16") else "replace"
        return io.TextIOWrapper(_open(self.path), encoding=codec, errors=errors, newline=None)


def look(path: Path, name: str) -> TextFile:
    """Read the file once, in pieces, for its encoding: UTF-8 or UTF-16 by its mark, UTF-8, else the likeliest old one.

    Raises DataError for a file that cannot be read or unpacked, for an archive bomb, and for one that is no text.
    """
    packed = path.stat().st_size if path.is_file() else 0
    decoder: codecs.IncrementalDecoder | None = None
    encoding, failed, size, empty = "", False, 0, True
    odd = b""  # the piece that is not UTF-8
    try:
        with _open(path) as raw:
            while chunk := raw.read(CHUNK):
                if decoder is None:
                    encoding = "utf-16" if chunk.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
                    decoder = codecs.getincrementaldecoder(encoding)()
                size += len(chunk)
                if path.suffix.lower() == ".gz" and size > max(_BOMB_BYTES, packed * _BOMB_RATIO):
                    raise DataError(f"{name} unpacks to more than {_BOMB_RATIO} times its size and looks like an "
                                    "archive bomb; unpack it yourself if it is none")
                text = ""
                if not failed:
                    try:
                        text = decoder.decode(chunk)
                    except UnicodeDecodeError:
                        failed, odd = True, chunk
                if "\0" in text or (encoding == "utf-8" and b"\0" in chunk):
                    raise DataError(f"{name} is not a text file (it holds zero bytes)")
                empty = empty and not (chunk.strip() if failed else text.strip("\ufeff \t\r\n\x0b\x0c"))
        if decoder is not None and not failed:
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        failed = True
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} cannot be unpacked: {error}") from None
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from None
    if failed:
        with _open(path) as raw:
            sample = raw.read(_WHOLE) if size <= _WHOLE else raw.read(CHUNK) + odd
        encoding, text = guess(sample)
        if "\0" in text:
            raise DataError(f"{name} is not a text file (it holds zero bytes)")
    return TextFile(path, name, encoding or "utf-8", empty)


def _open(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.open(path, "rb"), CHUNK)  # type: ignore[arg-type]  # a raw stream but by name
    return path.open("rb")


def lines(file: IO[str]) -> Iterator[tuple[int, str | None]]:
    """(number, line) of every line that is not blank; None for one that is too long."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and not line.endswith("\n"):
            while (rest := file.readline(CHUNK)) and not rest.endswith("\n"):
                pass
            yield number, None
        elif not line.isspace():
            yield number, line.removesuffix("\n")


def read_text(file: Path, name: str) -> tuple[str, str]:
    """(text with line feeds only, encoding): UTF-8 or UTF-16 by its mark, UTF-8, else the likeliest old encoding."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        encoding = "utf-8"
    try:
        text = raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError:
        encoding, text = guess(raw)
    if "\0" in text:
        raise DataError(f"{name} is not a text file (it holds zero bytes)")
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def guess(raw: bytes) -> tuple[str, str]:
    """Windows' Western encoding unless charset-normalizer (extra `ingest`) knows better; both decode every byte."""
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return "cp1252", raw.decode("cp1252", "replace")
    found = from_bytes(raw, cp_isolation=["cp1252", "cp1250", "cp1251", "shift_jis", "gb18030", "euc_kr", "big5"])
    best = found.best()
    western = next(
        (match for match in found if match.encoding == "cp1252" or "cp1252" in match.could_be_from_charset), None
    )
    if best is None or (western is not None and western.chaos <= best.chaos):
        return "cp1252", raw.decode("cp1252", "replace")
    return best.encoding, str(best)
