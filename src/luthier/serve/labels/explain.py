"""Which words, or which parts of an image, speak for a label: occlusion and integrated gradients.

Both divide up the log-odds of the label (calibrated). Occlusion (Zeiler & Fergus 2014; Li et al. 2016) covers one word
or one cell and tells how much the log-odds fall: exact for what it says, blind to words that only count together.
Integrated gradients (Sundararajan, Taly & Yan 2017) follow the gradient from a baseline (mask tokens, or the image's
mean colour) to the input; by their completeness axiom the parts add up to the difference of the log-odds, which is
checked, and told, here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from luthier.serve.errors import ApiError
from luthier.serve.labels.predictor import Asked, Predictor

if TYPE_CHECKING:
    import torch

    from luthier.adapt.backbones.base import Row

Method = Literal["occlusion", "integrated_gradients"]
WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")
UNITS = 128
"""Most pieces that a text is covered in; longer texts are covered several words at a time."""
GRID = 7
"""Cells along a side of an image."""
STEPS = (16, 32, 64, 128, 256)
TOLERANCE = 0.02
"""Error of the completeness at which integration stops, relative to the difference of the log-odds."""


@dataclass(frozen=True)
class Unit:
    """A word (or several) with its tokens."""

    start: int
    end: int
    tokens: tuple[int, ...]


def units_of(text: str, offsets: Sequence[tuple[int, int]], most: int = UNITS) -> list[Unit]:
    """Words of a text with the places of their tokens; words that the model does not see are left out."""
    found: list[Unit] = []
    at = 0
    for match in WORD.finditer(text):
        tokens = []
        while at < len(offsets) and offsets[at][0] < match.end():
            start, end = offsets[at]
            if end > start and end > match.start():
                tokens.append(at)
            at += 1
        if tokens:
            found.append(Unit(match.start(), match.end(), tuple(tokens)))
    size = -(-len(found) // most) if found else 1
    groups = [found[i : i + size] for i in range(0, len(found), size)]
    return [Unit(group[0].start, group[-1].end, tuple(t for unit in group for t in unit.tokens)) for group in groups]


class Explainer:
    """Explains answers of one predictor. Everything runs where `Predictor.logits` runs."""

    def __init__(self, predictor: Predictor):
        self.predictor, self.model = predictor, predictor.model

    def explain(self, asked: Asked, label: str, method: Method, top: int) -> dict[str, Any]:
        """For a text: `tokens` (text, start, end, contribution), the `top` largest by size; for an image `heatmap`,
        rows of cells from the top."""
        if not asked.text:
            return {"label": label, "method": method, **self._image(asked, label, method)}
        units = units_of(asked.text, self.predictor.offsets(asked))
        if method == "occlusion":
            values, told = self._cover_words(asked, units, label), {}
        else:
            each, told = self._along_embeddings(asked, label)
            values = np.array([each[list(unit.tokens)].sum() for unit in units])
        order = sorted(range(len(units)), key=lambda at: (-abs(values[at]), at))[:top]
        tokens = [{"text": asked.text[units[at].start : units[at].end], "start": units[at].start,
                   "end": units[at].end, "contribution": round(float(values[at]), 5)} for at in order]
        return {"label": label, "method": method, "unit": "log-odds", "tokens": tokens, **told}

    def _cover_words(self, asked: Asked, units: Sequence[Unit], label: str) -> np.ndarray:
        """float64 [units]: how much the log-odds fall when the unit's tokens are masked (taken out without a mask)."""
        mask = getattr(getattr(self.model.processor, "tokenizer", None), "mask_token_id", None)
        rows = [asked.row]
        for unit in units:
            ids = list(asked.row.data)
            if mask is not None:
                for at in unit.tokens:
                    ids[at] = mask
            else:
                gone = set(unit.tokens)
                ids = [token for at, token in enumerate(ids) if at not in gone] or ids
            rows.append(asked.row.but(data=tuple(ids), size=len(ids)))
        return self._fall(rows, label)

    def _fall(self, rows: list[Row], label: str) -> np.ndarray:
        scores = self.predictor.log_odds(label)(np.stack(self.predictor.logits(rows)))
        return scores[0] - scores[1:]

    def _image(self, asked: Asked, label: str, method: Method) -> dict[str, Any]:
        pixels = asked.row.data
        edges = np.linspace(0, pixels.shape[0], GRID + 1).round().astype(int)
        bands = [slice(start, end) for start, end in itertools.pairwise(edges)]
        cells = list(itertools.product(bands, bands))
        mean = pixels.reshape(-1, 3).mean(0).round().astype(np.uint8)
        told: dict[str, Any] = {}
        if method == "occlusion":
            rows = [asked.row]
            for cell in cells:
                covered = pixels.copy()
                covered[cell] = mean
                rows.append(asked.row.but(data=covered))
            values = self._fall(rows, label)
        else:
            grey = np.broadcast_to(mean, pixels.shape)
            found = self.model.processor.batch([asked.row, asked.row.but(data=np.ascontiguousarray(grey))])
            batch = found["pixels"] if "pixels" in found else _no_path("is a linear model on a few pixels")
            each, told = self._integrate(batch[0], batch[1], lambda points: {"pixels": points}, label)
            flat = each.sum(0)  # channels
            values = np.array([flat[cell].sum() for cell in cells])
        heat = [[round(float(value), 5) for value in row] for row in values.reshape(GRID, GRID)]
        return {"unit": "log-odds", "heatmap": heat, **told}

    def _along_embeddings(self, asked: Asked, label: str) -> tuple[np.ndarray, dict[str, Any]]:
        """(float64 [tokens], completeness)."""
        import torch

        network: Any = self.model.module
        if len(getattr(network, "members", ())) > 1 and not network.shared:  # no path through several embedding tables
            _no_path("is an ensemble whose members have embeddings of their own")
        if hasattr(network, "columns"):
            _no_path("sends each text to a column of its own")
        tokenizer: Any = getattr(self.model.processor, "tokenizer", None) or _no_path("counts whole words")
        table = network.backbone.model.get_input_embeddings()
        ids = torch.tensor(asked.row.data)
        with torch.no_grad():
            here = table(ids[None])[0].float()
            mask = tokenizer.mask_token_id
            empty = torch.zeros_like(here[0]) if mask is None else table(torch.tensor([[mask]]))[0, 0].float()
        known = set(tokenizer.all_special_ids)
        special = torch.tensor([int(one) in known for one in asked.row.data])
        base = torch.where(special[:, None], here, empty)

        def inputs(points: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"input_ids": ids.expand(len(points), -1), "points": points}

        def run(values: dict[str, torch.Tensor]) -> torch.Tensor:
            points = values.pop("points")
            hook = table.register_forward_hook(lambda module, args, output: points.to(output.dtype))
            try:
                return network(values)
            finally:
                hook.remove()

        each, told = self._integrate(here, base, inputs, label, run)
        return each.sum(-1), told

    def _integrate(self, here: torch.Tensor, base: torch.Tensor, inputs: Callable[[torch.Tensor], Any], label: str,
                   run: Callable[[Any], torch.Tensor] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Attributions in the shape of `here` by Gauss-Legendre quadrature, with more points until they add up."""
        import torch

        ask = run or self.model.module
        self.model.module.eval()
        score = self._score(label)
        with torch.no_grad():
            ends = score(ask(inputs(torch.stack([here, base]))))
        wanted = float(ends[0] - ends[1])
        chunk = max(1, 4096 // here.shape[0]) if here.ndim == 2 else 8
        total, steps, error = torch.zeros_like(here), 0, 0.0
        for steps in STEPS:
            places, weights = np.polynomial.legendre.leggauss(steps)
            slope = torch.zeros_like(here)
            for start in range(0, steps, chunk):
                share = torch.tensor((places[start : start + chunk] + 1) / 2, dtype=here.dtype)
                share = share.view(-1, *([1] * here.ndim))
                points = (base + share * (here - base)).detach().requires_grad_(True)
                gradient, = torch.autograd.grad(score(ask(inputs(points))).sum(), points)
                part = torch.tensor(weights[start : start + chunk] / 2, dtype=here.dtype).view(share.shape)
                slope += (gradient * part).sum(0)
            total = slope * (here - base)
            error = abs(float(total.double().sum()) - wanted)
            if error <= TOLERANCE * max(abs(wanted), 0.05):
                break
        told = {"completeness": {"sum": round(float(total.double().sum()), 5), "difference": round(wanted, 5),
                                 "error": round(error, 5), "steps": steps,
                                 "holds": error <= TOLERANCE * max(abs(wanted), 0.05)}}
        return total.double().numpy(), told

    def _score(self, label: str) -> Callable[[torch.Tensor], torch.Tensor]:
        """The log-odds of `Predictor.log_odds`, for gradients."""
        import torch

        at = self.predictor.labels.index(label)
        others = [i for i in range(len(self.predictor.labels)) if i != at]

        def score(logits: torch.Tensor) -> torch.Tensor:
            scaled = logits.float() / self.model.temperature
            if self.predictor.task.multi_label:
                return scaled[:, at]
            return scaled[:, at] - torch.logsumexp(scaled[:, others], -1)

        return score


def _no_path(why: str) -> NoReturn:
    """ApiError: there is nothing between mask and input to integrate along."""
    raise ApiError(400, f"This model {why}; ask for the method occlusion.", param="explain.method",
                   code="unsupported_value")
