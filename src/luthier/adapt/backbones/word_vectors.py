"""Files of word vectors: Word2Vec's text and binary formats, and GloVe's text format (no first line)."""

from __future__ import annotations

import gzip
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from luthier.errors import ModelError

MOST = 50_000
"""Words kept from a file's beginning, where the commonest stand, beside the words of the train texts."""


def read_vectors(path: Path, *, wanted: Collection[str] = (), most: int = MOST) -> tuple[list[str], np.ndarray]:
    """Words and their vectors, float32 [words, width], in the file's order: the first `most`, and all of `wanted`.

    Reads word by word, so that a file of many gigabytes needs no memory beyond what is kept. The first vector of a word
    that comes twice counts. `.gz` is opened. ModelError names the line (text) or the word's number (binary).
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            words: list[str] = []
            vectors: list[np.ndarray] = []
            seen: set[str] = set()
            for number, (word, vector) in enumerate(_entries(file, path)):
                if word not in seen and (number < most or word in wanted):
                    seen.add(word)
                    words.append(word)
                    vectors.append(vector.copy())
    except (OSError, EOFError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not words:
        raise ModelError(f"{path} holds no word vectors")
    found = np.stack(vectors)
    if not np.isfinite(found).all():
        bad = words[int(np.flatnonzero(~np.isfinite(found).all(1))[0])]
        raise ModelError(f"{path}: the vector of '{bad}' holds a number that is not finite")
    return words, found


def _entries(file: Any, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    first = file.readline()
    header = re.fullmatch(rb"(\d+) (\d+)\s*", first)
    if header is None:
        width = len(first.split()) - 1
        if width < 2:
            raise ModelError(f"{path}, line 1: neither a word with its vector (GloVe), nor the number of words and "
                             "their width (Word2Vec)")
        yield _parsed(first, width, path, 1)
        yield from _lines(file, width, path, 2)
        return
    count, width = int(header[1]), int(header[2])
    start = file.tell()
    line = file.readline()
    file.seek(start)
    try:
        _parsed(line, width, path, 2)
    except ModelError:
        if _looks_like_text(line):
            raise
        yield from _binary(file, count, width, path)
    else:
        yield from _lines(file, width, path, 2)


def _looks_like_text(line: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in line.partition(b" ")[2])


def _lines(file: Any, width: int, path: Path, number: int) -> Iterator[tuple[str, np.ndarray]]:
    for at, line in enumerate(file, number):
        if line.strip():
            yield _parsed(line, width, path, at)


def _parsed(line: bytes, width: int, path: Path, number: int) -> tuple[str, np.ndarray]:
    parts = line.rstrip().rsplit(b" ", width)  # from the right: some words of GloVe 840B hold spaces
    try:
        if len(parts) != width + 1:
            raise ValueError
        return parts[0].decode("utf-8", "replace"), np.array(parts[1:], dtype=np.float32)
    except ValueError:
        raise ModelError(f"{path}, line {number}: not a word and {width} numbers") from None


def _binary(file: Any, count: int, width: int, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    for number in range(count):
        word = bytearray()
        while (byte := file.read(1)) != b" ":
            if not byte or len(word) > 1000:
                raise ModelError(f"{path} ends inside word {number + 1} of {count}; fetch it again")
            if byte != b"\n":  # the original program ends an entry with one, others do not
                word += byte
        data = file.read(4 * width)
        if len(data) != 4 * width:
            raise ModelError(f"{path} ends inside word {number + 1} of {count}; fetch it again")
        yield word.decode("utf-8", "replace"), np.frombuffer(data, dtype="<f4")
