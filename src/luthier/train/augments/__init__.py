"""Augmentations: changes of a training input that leave its label true. One file a method.

They are drawn anew each time a row is seen in training, and never touch validation or test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from luthier.plugins import Seam
from luthier.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np

    from luthier.adapt.network import LabelModel
    from luthier.store import Cache

AUGMENTS = Seam("augmentation", package="luthier.train.augments")


@runtime_checkable
class Augment(Protocol):
    """Registered with `@register(AUGMENTS, "name")` on a Spec.

    One that needs a file, the model or all texts is `Unbound` instead; one that reads a file also has
    `inputs(root: Path) -> Mapping[str, str]`, the hashes of what it reads.
    """

    kind: ClassVar[str]
    reads: ClassVar[Literal["text", "image"]]
    """What `apply` takes: text is str, image is np.uint8 [height, width, 3]."""

    def dump(self) -> dict[str, Any]:
        """JSON-ready fields, as every Spec has."""
        ...

    def apply(self, data: Any, rng: np.random.Generator) -> Any:
        """A changed copy of the same type (an image: of the same shape); the input itself stays as it is. All
        randomness comes from `rng`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where an augmentation is used: what `bind` receives."""

    root: Path
    """The project folder that paths start from."""
    model: LabelModel
    """The model that will be trained."""
    texts: Sequence[str]
    """All texts that may be changed; empty for images."""
    cache: Cache
    """For expensive results, by keys that name everything they depend on."""
    progress: Progress = Silent()


class Unbound(Protocol):
    """An augmentation that must be bound before it can be applied; registered in the same way."""

    kind: ClassVar[str]
    reads: ClassVar[Literal["text", "image"]]

    def dump(self) -> dict[str, Any]: ...

    def bind(self, setting: Setting) -> Augment:
        """Read or compute what it needs, once before training."""
        ...


def ready(augments: Sequence[Augment | Unbound], setting: Setting) -> list[Augment]:
    """The augmentations with all that they need."""
    return [one if isinstance(one, Augment) else one.bind(setting) for one in augments]


def inputs_of(specs: Sequence[Any], root: Path) -> Mapping[str, str]:
    """Hashes of the files that these specs read, by name."""
    found: dict[str, str] = {}
    for number, spec in enumerate(specs):
        if hasattr(spec, "inputs"):
            found.update({f"{number}.{name}": value for name, value in spec.inputs(root).items()})
    return found
