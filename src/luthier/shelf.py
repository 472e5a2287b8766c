"""Sequences of records that may be larger than memory: in a list up to a bound, in a file without a name above it.

A stage that goes over its records several times takes and gives `Sequence`s. Which of them is a list, which a shelf,
and which a view of a shelf in another order is no concern of the steps: they iterate, index and count. A shelf on disk
keeps 16 bytes a record in memory, and reads a record anew each time it is asked for.
"""

from __future__ import annotations

import json
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, overload

from luthier.types import (
    Document,
    Dropped,
    Example,
    Message,
    Origin,
    Passage,
    Tag,
    decode_document,
    encode,
)

T = TypeVar("T")
_Put = TypeVar("_Put", contravariant=True)
MEMORY_MB = 512.0
"""What is held in memory where nobody says otherwise (MiB)."""
_BUFFER = 1 << 17


class Sink(Protocol[_Put]):
    """What a step puts records into: a list, or a shelf."""

    def append(self, record: _Put, /) -> None: ...

    def extend(self, records: Iterable[_Put], /) -> None: ...


class Memory:
    """How much the shelves of one run may hold together; what is more lies in files without names in `folder`.

    Nameless files vanish with the process, however it ends. `folder` should be on the disk that the results go to: a
    system's temporary folder may itself be memory.
    """

    def __init__(self, memory_mb: float = MEMORY_MB, folder: Path | None = None):
        self.mb, self.folder = memory_mb, folder
        self._held = 0
        self._shelves: weakref.WeakSet[Shelf[Any]] = weakref.WeakSet()
        self.full = False
        """Whether the bound was passed: from then on every shelf is on disk."""

    def documents(self) -> Shelf[Document]:
        return Shelf(self, decode_document)

    def passages(self) -> Shelf[Passage]:
        return Shelf(self, _passage)

    def examples(self) -> Shelf[Example]:
        return Shelf(self, _example)

    def drops(self) -> Shelf[Dropped]:
        return Shelf(self, lambda row: _filled(Dropped, row))

    def rows(self) -> Shelf[dict[str, Any]]:
        return Shelf(self, lambda row: row)

    def join(self, shelf: Shelf[Any]) -> None:
        self._shelves.add(shelf)

    def file(self) -> Any:
        return tempfile.TemporaryFile("w+b", dir=self.folder, prefix="luthier-shelf-")

    def hold(self, size: int) -> None:
        """Count what a shelf took in; over the bound, all shelves go to disk."""
        self._held += size
        if self._held > self.mb * 2**20:
            self.full = True
            for shelf in list(self._shelves):
                shelf.spill()

    def release(self, size: int) -> None:
        """Count what a shelf gave back."""
        self._held -= size


class Shelf(Sequence[T], Generic[T]):
    """Records in the order in which they were put."""

    def __init__(self, memory: Memory, decode: Callable[[dict[str, Any]], T]):
        self._memory, self._decode = memory, decode
        self._list: list[T] = []
        self._weight = 0
        self._file: Any = None
        self._ends = array("q")
        self._waiting: list[bytes] = []
        self._size = 0  # bytes of what is waiting
        self._block, self._begin, self._next = b"", 0, 0
        if memory.full:
            self.spill()
        else:
            memory.join(self)

    def append(self, record: T, /) -> None:
        """Put one more."""
        if self._file is None:
            self._list.append(record)
            size = weight(record)
            self._weight += size
            self._memory.hold(size)
            return
        line = (json.dumps(record, ensure_ascii=False) if isinstance(record, dict) else encode(record)).encode(
            "utf-8", "surrogatepass")
        self._waiting.append(line)
        self._size += len(line)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(line))
        if self._size > _BUFFER:
            self._write()

    def extend(self, records: Iterable[T], /) -> None:
        """Put several more."""
        for record in records:
            self.append(record)

    def spill(self) -> None:
        """Move to disk."""
        if self._file is None:
            self._file, held, self._list = self._memory.file(), self._list, []
            self.extend(held)
            self._memory.release(self._weight)
            self._weight = 0

    def __del__(self) -> None:
        self._memory.release(self._weight)

    def __len__(self) -> int:
        return len(self._ends) if self._file is not None else len(self._list)

    def __iter__(self) -> Iterator[T]:
        at = 0
        while at < len(self):  # it may grow, or move to disk, meanwhile
            yield self._read(at)
            at += 1

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T]: ...
    def __getitem__(self, at: int | slice) -> T | Sequence[T]:
        if isinstance(at, slice):
            return view(self, range(*at.indices(len(self))))
        if not -len(self) <= at < len(self):
            raise IndexError(f"record {at} of {len(self)}")
        return self._read(at % len(self))

    def _read(self, at: int) -> T:
        if self._file is None:
            return self._list[at]
        begin, end = self._ends[at - 1] if at else 0, self._ends[at]
        if begin < self._begin or end > self._begin + len(self._block):
            self._write()
            self._file.seek(begin)
            ahead = _BUFFER if at == self._next else 0  # whoever reads one after the other is given the next ones, too
            self._block, self._begin = self._file.read(max(end - begin, ahead)), begin
        self._next = at + 1
        line = self._block[begin - self._begin : end - self._begin]
        return self._decode(json.loads(line.decode("utf-8", "surrogatepass")))

    def _write(self) -> None:
        if self._waiting:
            self._file.seek(0, 2)
            self._file.write(b"".join(self._waiting))
            self._waiting, self._size = [], 0

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    __hash__ = object.__hash__  # one shelf is another than its equal: the memory counts both


class View(Sequence[T]):
    """Some records of another sequence, in an order of their own."""

    def __init__(self, base: Sequence[T], numbers: array[int]):
        self._base, self._numbers = base, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[T]:
        return (self._base[at] for at in self._numbers)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T]: ...
    def __getitem__(self, at: int | slice) -> T | Sequence[T]:
        return View(self._base, self._numbers[at]) if isinstance(at, slice) else self._base[self._numbers[at]]

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    __hash__ = object.__hash__

    def of(self, numbers: Iterable[int]) -> View[T]:
        """A view of this view, without going through it."""
        return View(self._base, array("q", (self._numbers[at] for at in numbers)))


# What a shelf reads was written by itself a moment ago, every field of it: it need not go through `__init__`, which
# takes half of the time for a frozen dataclass.

def _filled(cls: type[T], fields: dict[str, Any]) -> T:
    made = object.__new__(cls)
    vars(made).update(fields)
    return made


def _passage(row: dict[str, Any]) -> Passage:
    row["heading"], row["spans"] = tuple(row["heading"]), tuple(row["spans"])
    return _filled(Passage, row)


def _example(row: dict[str, Any]) -> Example:
    said, origin = row["input"], row["origin"]
    if not isinstance(said, str):
        row["input"] = tuple(_filled(Message, turn) for turn in said)
    origin["documents"], origin["passages"] = tuple(origin["documents"]), tuple(origin["passages"])
    row["origin"] = _filled(Origin, origin)
    row["tags"], row["negatives"] = tuple(row["tags"]), tuple(row["negatives"])
    if row["labels"] is not None:
        row["labels"] = tuple(row["labels"])
    if row["spans"] is not None:
        row["spans"] = tuple(_filled(Tag, tag) for tag in row["spans"])
    return _filled(Example, row)


def view(base: Sequence[T], numbers: Iterable[int]) -> Sequence[T]:
    """The records with these numbers, in this order: 8 bytes each."""
    if isinstance(base, View):
        return base.of(numbers)
    return View(base, array("q", numbers))


def _same(one: Sequence[Any], other: object) -> bool:
    return isinstance(other, Sequence) and len(one) == len(other) and all(a == b for a, b in zip(one, other))


class Again(Iterable[T]):
    """What a function yields, as often as it is gone through."""

    def __init__(self, make: Callable[[], Iterator[T]]):
        self._make = make

    def __iter__(self) -> Iterator[T]:
        return self._make()


def weight(record: Any) -> int:
    """About how many bytes a record takes in memory."""
    if isinstance(record, Example):
        said = record.input if isinstance(record.input, str) else "".join(turn.content for turn in record.input)
        return 1600 + len(said) + len(record.target or "") + len(record.origin.evidence) + sum(
            map(len, record.negatives))
    if isinstance(record, Passage):
        return 1000 + len(record.text)
    if isinstance(record, Document):
        return 1000 + sum(700 + len(span.text) for span in record.spans)
    if isinstance(record, Dropped):
        return 600 + len(record.text) + len(record.detail)
    return 1000 + sum(len(value) for value in record.values() if isinstance(value, str)) if isinstance(
        record, Mapping) else 1000
