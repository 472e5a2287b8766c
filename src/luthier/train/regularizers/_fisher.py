"""The diagonal of the Fisher information of a finished model: how much each weight matters for what it says.

F = 1/N · sum over rows x of E_y [ (d log p(y | x) / dθ)² ], in nats per squared unit of weight. What people get wrong
(van de Ven 2025, arXiv 2502.11756, compares the ways in use): the squares are of one example's gradient each, not of a
mini-batch's mean, which is smaller by about the batch size; y is drawn from the model or summed over (`sampled`,
`exact`), while the data's own label (`empirical`) measures how wrong the model still is; and the model is in evaluation
mode, finished, and without penalties. A row here is a text or an image with its label or labels, a tagged text or an
answer (all of its tokens together), or a query among the texts of 8 rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from luthier.progress import Progress, Silent
from luthier.train.contract import in_float32
from luthier.train.objectives import CHUNK_NUMBERS, Chunked, Plain
from luthier.train.regularizers._weights import Weight

Labels = Literal["sampled", "exact", "empirical"]
Terms = list[tuple[float, torch.Tensor]]
"""(weight, log-likelihood): the squared gradients of the likelihoods are added up with these weights."""

MANY_CLASSES = 32
"""`exact` computes one gradient for each class and row; from here on it says so."""
CANDIDATES = 8
"""Embed: so many rows' texts stand against each other."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a Fisher is estimated."""

    labels: Labels = "sampled"
    samples: int = 500
    """Most rows it is the mean over, drawn from the seed."""
    seed: int = 0
    columns: Callable[[Any], np.ndarray | None] = lambda row: None
    """See `Setting.columns`."""
    chunked: bool = False
    """Language models: the output layer is one linear layer, which `objectives.choose` has checked."""


def estimate(model: Any, rows: Sequence[Any], weights: Sequence[Weight], way: Way, *, progress: Progress = Silent()
             ) -> dict[str, torch.Tensor]:
    """The Fisher's diagonal at the model as it is: a weight's name → float32, in the weight's shape, on its device.

    `weights` are some of `all_weights(model.module)`; with LoRA the gradient is that of the frozen weight which the
    product stands beside, so it is that of the product. Weights that the rows do not reach (the backbone's, where rows
    are finished features) are left out. The model ends as it was.
    """
    chosen = _some(rows, way.samples, way.seed)
    groups = [chosen[at:at + CANDIDATES] for at in range(0, len(chosen), CANDIDATES)] \
        if model.task.type == "embed" else [[row] for row in chosen]
    terms_of = _labelled(model, way) if model.task.labelled else _written(model, way)
    classes = len(model.labels) if model.task.labelled else 0
    if way.labels == "exact" and classes > MANY_CLASSES:
        progress.say(f"  the exact Fisher of {len(chosen):,} rows and {classes} classes needs "
                     f"{len(chosen) * classes:,} gradients; fisher: sampled needs {len(chosen):,}")
    totals: dict[str, torch.Tensor] = {}
    with _measuring(model.module, weights), progress.track("importance of weights", len(chosen), unit="rows") as bar:
        for number, group in enumerate(groups):
            terms = terms_of(group, np.random.default_rng([way.seed, 7, number]))
            for at, (share, score) in enumerate(terms):
                _add_squares(totals, weights, score, share, keep_graph=at + 1 < len(terms))
            bar.advance(len(group))
    return {name: total / len(chosen) for name, total in totals.items()}


def _some(rows: Sequence[Any], most: int, seed: int) -> list[Any]:
    if len(rows) <= most:
        return [*rows]
    return [rows[at] for at in np.sort(np.random.default_rng([seed, 5]).permutation(len(rows))[:most])]


def _add_squares(totals: dict[str, torch.Tensor], weights: Sequence[Weight], score: torch.Tensor, share: float, *,
                 keep_graph: bool) -> None:
    found = torch.autograd.grad(score, [weight.base for weight in weights], retain_graph=keep_graph, allow_unused=True)
    for weight, gradient in zip(weights, found):
        if gradient is not None:
            gradient = gradient.float()
            if weight.name not in totals:
                totals[weight.name] = torch.zeros_like(gradient)
            totals[weight.name].addcmul_(gradient, gradient, value=share)


@contextlib.contextmanager
def _measuring(module: nn.Module, weights: Sequence[Weight]) -> Iterator[None]:
    """Evaluation mode, float32, and gradients for these weights; afterwards everything is as before."""
    was = module.training
    wanted = [(weight.base, weight.base.requires_grad) for weight in weights]
    swapped = [(inner, inner.__dict__.pop("forward")) for inner in module.modules()
               if hasattr(inner, "lora_A") and "forward" in inner.__dict__]  # a faster layer, which has none for W
    module.eval()
    try:
        with in_float32(module):
            for parameter, _ in wanted:
                parameter.requires_grad_(True)
            yield
    finally:
        for parameter, before in wanted:
            parameter.requires_grad_(before)
        for inner, forward in swapped:
            inner.__dict__["forward"] = forward
        module.train(was)


def _labelled(model: Any, way: Way) -> Callable[[Sequence[Any], np.random.Generator], Terms]:
    """Likelihoods of a labelled task's rows."""
    from luthier.train.labelled.feed import LabelFeed
    from luthier.train.labelled.objective import SCALE

    network, task = model.module, model.task
    device = next(network.parameters()).device
    feed = LabelFeed(model.processor, task, len(model.labels), pass_tokens=1)

    def terms(rows: Sequence[Any], rng: np.random.Generator) -> Terms:
        batch = feed.passes([row.but(weight=1.0) for row in rows])[0].to(device)
        if task.type == "embed":
            queries, documents = network(batch.inputs["query"]), network(batch.inputs["documents"])
            scores = (SCALE * queries @ documents.T).masked_fill(batch.inputs["also_right"], float("-inf"))
            return [term for score, target in zip(scores, batch.targets) for term in
                    _of_choice(score[None], target[None], way.labels, rng)]
        logits, targets = network(batch.inputs)[0], batch.targets
        if task.type == "tag":
            carried = batch.weights > 0
            return _of_choice(logits[carried], targets[carried], way.labels, rng)
        places = way.columns(rows[0])
        if places is not None:
            among = torch.from_numpy(places).to(device)
            logits = logits[among]
            targets = targets[:, among] if targets.ndim == 2 else torch.searchsorted(among, targets)
        if task.multi_label:
            return _of_each(logits, targets[0], way.labels, rng)
        return _of_choice(logits[None], targets, way.labels, rng)

    return terms


def _of_choice(logits: torch.Tensor, targets: torch.Tensor, labels: Labels, rng: np.random.Generator) -> Terms:
    """One class each at [positions], together one likelihood: logits [positions, classes], targets int64 [positions] or
    probabilities [positions, classes]."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    chances = logits.log_softmax(-1)
    if labels == "exact":
        return [(float(log.detach().exp()), log) for log in chances[0] if float(log.detach()) > -np.inf]
    if labels == "empirical" and targets.ndim == 2:
        return [(1.0, (targets * chances.masked_fill(targets == 0, 0.0)).sum())]
    said = draw(chances.detach().exp(), rng) if labels == "sampled" else targets
    return [(1.0, chances.gather(1, said[:, None]).sum())]


def _of_each(logits: torch.Tensor, targets: torch.Tensor, labels: Labels, rng: np.random.Generator) -> Terms:
    """Every class by itself (multi_label): logits and targets [classes]. The labels are independent and their scores
    y - p have mean 0, so the expectation over all sets of labels is the sum over the classes."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    chances = logits.detach().sigmoid()
    if labels == "exact":
        return [(float(p * (1 - p)), logit) for p, logit in zip(chances, logits)]
    said = targets.to(logits)
    if labels == "sampled":
        said = torch.from_numpy(rng.random(len(logits))).to(chances) < chances
    return [(1.0, -F.binary_cross_entropy_with_logits(logits, said.to(logits), reduction="sum"))]


def _written(model: Any, way: Way) -> Callable[[Sequence[Any], np.random.Generator], Terms]:
    """Likelihoods of whole answers: the sum over the tokens that carry loss."""
    from luthier.train.batches import collate

    module = model.module
    device = next(module.parameters()).device
    objective: Any = Chunked(module) if way.chunked else Plain(module)

    def terms(rows: Sequence[Any], rng: np.random.Generator) -> Terms:
        batch = collate(rows, "none").to(device)
        batch = replace(batch, weights=torch.ones_like(batch.weights))
        if way.labels == "sampled":
            batch = replace(batch, targets=_tokens(objective, batch, rng))
        return [(1.0, -objective(batch, 1.0))]

    return terms


@torch.no_grad()
def _tokens(objective: Any, batch: Any, rng: np.random.Generator) -> torch.Tensor:
    """A token drawn from the model at every supervised position, each after the text as it stands. int64 [positions]"""
    given = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
    if isinstance(objective, Plain):
        return draw(objective.module(**given).logits.flatten(0, 1)[batch.positions].float().softmax(-1), rng)
    hidden, head = objective.decoder(**given)[0].flatten(0, 1)[batch.positions], objective.head
    return torch.cat([draw(F.linear(part, head.weight, head.bias).float().softmax(-1), rng)
                      for part in hidden.split(max(1, CHUNK_NUMBERS // len(head.weight)))])


def draw(chances: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """One class for each row of probabilities [rows, classes]. int64 [rows]"""
    sums = chances.cpu().double().cumsum(-1)  # on a GPU, torch has no deterministic running sum
    point = torch.from_numpy(rng.random((len(chances), 1))) * sums[:, -1:]
    return (sums <= point).sum(-1).to(chances.device)
