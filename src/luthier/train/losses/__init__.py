"""The loss seam of labelled tasks. One file each; a loss sums the weighted losses of a batch's rows.

`bind` is called once with the train set's class counts; what it returns is called for every pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from luthier.plugins import Seam
from luthier.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    import torch

    BoundLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

LOSSES = Seam("loss", package="luthier.train.losses")


class Loss(Spec):
    """Base of every loss."""

    def bind(self, counts: np.ndarray, *, multi_label: bool) -> BoundLoss:
        """A function (logits [rows, classes], targets, weights [rows]) → sum over rows of weight · loss, in nats.

        Targets are class numbers int64 [rows], or probabilities float32 [rows, classes] (soft labels; with
        `multi_label` each class by itself, and the row's loss is the mean over the classes). `counts` [classes] are
        the train rows of each class.
        """
        raise NotImplementedError(f"loss '{self.kind}' must define bind()")


def balanced(counts: Any) -> Any:
    """Class weights n / (classes · n_c), as scikit-learn's `balanced`; a class without rows gets 0. float32."""
    import numpy as np

    present = counts > 0
    return np.where(present, counts.sum() / (max(present.sum(), 1) * np.maximum(counts, 1)), 0.0).astype(np.float32)
