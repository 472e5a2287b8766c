"""Public benchmarks kept out of training: `prepare.decontaminate` names files whose texts no trained row may repeat.

A model that has read a benchmark's questions is not measured by it. A row goes when it holds a benchmark text of eight
words or more as a whole, when half of the 13-word runs of the shorter text are shared, or when its 3-word shingles
overlap one by Jaccard 0.8 (`luthier.prepare.leak`, after Brown et al. 2020, appendix C). Nothing is downloaded: the
files are the user's.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import DataError, UsageError
from luthier.prepare.text import normalise, words
from luthier.shelf import Again, Memory, Sink, view
from luthier.types import Dropped, Example, digest

REASON = "benchmark"
FOLDER, VARIABLE = "benchmarks", "LUTHIER_BENCHMARKS"
LEAST = 5
"""Benchmark fields of fewer words (labels, single answers) say nothing about where a row comes from."""
WHOLE = 8
"""Words from which on a benchmark text is also found inside a longer one."""


@dataclass(frozen=True)
class Benchmark:
    """The texts of one benchmark."""

    name: str
    texts: tuple[str, ...]
    places: tuple[str, ...]
    """File and line of each text."""


def find_benchmark(entry: str, root: Path) -> Path:
    """The file or folder of a path, or of a name: `benchmarks/NAME` in the project, `$LUTHIER_BENCHMARKS/NAME`.

    A name may leave out the suffix. UsageError, with the places that were looked at, where there is none.
    """
    from luthier.prepare.makers._rows import SUFFIXES

    given = Path(entry).expanduser()
    places = [given if given.is_absolute() else root / given, root / FOLDER / entry]
    if shared := os.environ.get(VARIABLE):
        places.append(Path(shared) / entry)
    for place in places:
        for path in (place, *(place.with_name(place.name + suffix) for suffix in (*SUFFIXES, ".txt"))):
            if path.exists():
                return path
    raise UsageError(f"prepare.decontaminate: there is no '{entry}'; looked for {', '.join(map(str, places))} (also "
                     "with .jsonl, .csv, .parquet or .txt). Nothing is downloaded: put the benchmark's file there")


def benchmark_inputs(entries: Sequence[str], root: Path) -> dict[str, str]:
    """Name → hash of its files, as an input of prepare."""
    from luthier.models.sources import file_hash

    return {entry: digest(*(file_hash(file) for file in _files(find_benchmark(entry, root)))) for entry in entries}


def read_benchmark(entry: str, root: Path) -> Benchmark:
    """All text fields of five words or more of a benchmark's rows (JSONL, JSON, CSV, TSV, Parquet) or lines (txt).

    DataError where it holds none.
    """
    from luthier.prepare.makers._rows import BadRow, read_rows

    path = find_benchmark(entry, root)
    found: dict[str, tuple[str, str]] = {}

    def take(value: Any, place: str) -> None:
        for text in _strings(value):
            key = normalise(text)
            if key.count(" ") + 1 >= LEAST:
                found.setdefault(key, (text, place))

    for file in _files(path):
        if file.suffix.lower() == ".txt":
            for number, line in enumerate(file.read_text("utf-8-sig", errors="replace").splitlines(), 1):
                take(line, f"{file.name}:{number}")
            continue
        for row in read_rows(file, file.name, {}):
            if not isinstance(row, BadRow):
                take(row.data, row.where)
    if not found:
        raise DataError(f"prepare.decontaminate: {path} holds no text of {LEAST} words or more; give the benchmark's "
                        "rows as JSONL, CSV, Parquet, or text with a question a line")
    return Benchmark(Path(entry).stem, tuple(text for text, _ in found.values()),
                     tuple(place for _, place in found.values()))


def drop_benchmarks(examples: Sequence[Example], entries: Sequence[str], root: Path, dropped: Sink[Dropped],
                    memory: Memory | None = None) -> Sequence[Example]:
    """The examples without the train and validation rows that repeat a benchmark; test rows train nothing and stay."""
    kept = examples
    for entry in entries:
        benchmark = read_benchmark(entry, root)
        row_of = array("q")

        def rows(kept: Sequence[Example] = kept, numbers: array[int] = row_of) -> Iterator[str]:
            del numbers[:]
            for at, example in enumerate(kept):
                if example.split != "test":
                    for text in _texts(example):
                        numbers.append(at)
                        yield text

        gone: dict[int, tuple[int, str]] = {}
        for number, held, why in matches(Again(rows), benchmark.texts, memory):
            gone.setdefault(row_of[number], (held, why))
        for at, (held, why) in sorted(gone.items()):
            example = kept[at]
            dropped.append(Dropped(
                item=example.id, step=example.origin.step, reason=REASON, text=example.question[:300],
                detail=f"{example.origin.where}: {why} of {benchmark.name} ({benchmark.places[held]})"))
        kept = view(kept, (at for at in range(len(kept)) if at not in gone)) if gone else kept
    return kept


def matches(texts: Iterable[str], held: Sequence[str], memory: Memory | None = None
            ) -> Iterator[tuple[int, int, str]]:
    """(number of a text, number of the benchmark text it repeats, how)."""
    from luthier.prepare.leak import find_leaks

    whole = _Whole(held)
    for at, text in enumerate(texts):
        inside = whole.inside(text)
        if inside is not None:
            yield at, inside, "holds a text"
    for leak in find_leaks(texts, held, memory):
        yield leak.item, leak.held, f"{leak.share:.0%} is a text"


class _Whole:
    """Which benchmark text stands, whole, inside another text."""

    def __init__(self, held: Sequence[str]):
        self._starts: dict[str, list[tuple[int, list[str]]]] = {}
        self._short: dict[str, int] = {}
        for at, text in enumerate(held):
            tokens = words(text)
            if len(tokens) >= WHOLE:
                self._starts.setdefault(" ".join(tokens[:WHOLE]), []).append((at, tokens))
            else:
                self._short.setdefault(" ".join(tokens), at)

    def inside(self, text: str) -> int | None:
        tokens = words(text)
        if (same := self._short.get(" ".join(tokens))) is not None:
            return same
        for at in range(len(tokens) - WHOLE + 1):
            for number, wanted in self._starts.get(" ".join(tokens[at : at + WHOLE]), ()):
                if tokens[at : at + len(wanted)] == wanted:
                    return number
        return None


def _texts(example: Example) -> list[str]:
    """What a row teaches: all it says, and its question by itself."""
    from luthier.prepare.leak import trained_texts

    found = [example.question, *trained_texts(example)]
    if isinstance(example.input, str) and example.target:
        found.append(example.target)
    return list(dict.fromkeys(text for text in found if text))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _files(path: Path) -> list[Path]:
    from luthier.prepare.makers._rows import SUFFIXES

    known = {*SUFFIXES, ".txt"}
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in known)
