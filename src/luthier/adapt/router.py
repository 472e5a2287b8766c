"""Which column of a progressive network answers when the caller names no task: the one whose centroid is nearest.

Centroids are means of unit feature vectors of the frozen base, one for each task or for each of its classes, and
nearness is the cosine (a nearest-mean classifier, as in iCaRL, Rebuffi et al. 2017). A row that is less like its column
than all but a small share of that column's own validation rows is out of scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn


class Router(nn.Module):
    """Centroids with their columns, and how near a row must be. Nothing here is trained."""

    centroids: torch.Tensor
    """float32 [centroids, width], of length 1."""
    owners: torch.Tensor
    """int64 [centroids]: the column that each belongs to, every column at least once."""
    limits: torch.Tensor
    """float32 [columns]: a row whose cosine is lower is out of scope."""
    error: torch.Tensor
    """Share of validation rows that went to a wrong column."""

    def __init__(self, centroids: int, width: int, columns: int):
        super().__init__()
        self.register_buffer("centroids", torch.zeros(centroids, width))
        self.register_buffer("owners", torch.zeros(centroids, dtype=torch.int64))
        self.register_buffer("limits", torch.full((columns,), -1.0))
        self.register_buffer("error", torch.zeros(()))

    @classmethod
    def of(cls, centroids: Sequence[np.ndarray], limits: Sequence[float], error: float = 0.0) -> Router:
        """From each column's centroids [some, width] and limit."""
        found = cls(sum(len(own) for own in centroids), centroids[0].shape[1], len(centroids))
        found.centroids.copy_(torch.from_numpy(np.concatenate(centroids)))
        found.owners.copy_(torch.tensor([at for at, own in enumerate(centroids) for _ in own]))
        found.limits.copy_(torch.tensor(limits))
        found.error.fill_(error)
        return found

    def parts(self) -> tuple[list[np.ndarray], list[float]]:
        """What `of` takes."""
        owners = self.owners.numpy()
        return ([self.centroids.float().numpy()[owners == at] for at in range(len(self.limits))],
                [float(limit) for limit in self.limits])

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """features [rows, width] of the frozen base: (column int64 [rows], in scope bool [rows])."""
        cosine, column = self.near(features).max(-1)
        return column, cosine >= self.limits.float()[column]

    def near(self, features: torch.Tensor) -> torch.Tensor:
        """Cosine of each row to the nearest centroid of each column, [rows, columns]."""
        each = nn.functional.normalize(features.float(), dim=-1) @ self.centroids.float().t()
        return torch.stack([each[:, self.owners == at].amax(-1) for at in range(len(self.limits))], -1)

    def describe(self) -> dict[str, Any]:
        """What network.json says."""
        return {"centroids": len(self.centroids), "width": self.centroids.shape[1], "columns": len(self.limits)}


def centroids_of(features: np.ndarray, classes: Sequence[Any]) -> np.ndarray:
    """The mean of the unit vectors of each class, brought to length 1, classes in the order of their names. features
    [rows, width], one class a row; float32 [classes, width]"""
    unit = _unit(features)
    means = [unit[[at for at, own in enumerate(classes) if own == name]].mean(0) for name in sorted(set(classes))]
    return _unit(np.stack(means))


def limit_of(centroids: np.ndarray, features: np.ndarray, quantile: float) -> float:
    """The cosine to the nearest of a column's centroids that a share `quantile` of these rows stays below; 0 sets none
    (-1)."""
    if not quantile or not len(features):
        return -1.0
    near = (_unit(features) @ centroids.T).max(1)
    return float(np.quantile(near.astype(np.float64), quantile, method="lower"))


def _unit(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
