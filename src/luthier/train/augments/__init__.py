"""Augmentations: changes of a training input that leave its label true. One file a method.

They are drawn anew each time a row is seen in training, and never touch validation or test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from luthier.plugins import Seam

if TYPE_CHECKING:
    import numpy as np

AUGMENTS = Seam("augmentation", package="luthier.train.augments")


@runtime_checkable
class Augment(Protocol):
    """Registered with `@register(AUGMENTS, "name")` on a Spec."""

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
