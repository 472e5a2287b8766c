"""What a preparing step is: items in, kept or dropped items out, each drop with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from luthier.progress import Progress, Silent
from luthier.shelf import Memory
from luthier.task import Task
from luthier.types import Dropped

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


@dataclass(frozen=True)
class Kept(Generic[Out]):
    """An item that goes on to the next step (changed or not)."""

    item: Out


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What every step may read."""

    task: Task
    seed: int = 0
    progress: Progress = Silent()
    memory: Memory = field(default_factory=Memory)
    """What holds the records that the steps give to each other."""


class Step(Protocol[In, Out]):
    """A cleaning, chunking or filtering step; its spec is the object itself."""

    def apply(self, items: Iterable[In], ctx: StepContext) -> Iterator[Kept[Out] | Dropped]:
        """Yield what stays and, with a reason, what goes; the data card counts both."""
        ...
