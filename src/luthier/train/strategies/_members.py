"""Several finished fits: brought together as one model, averaged weight by weight, and judged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from luthier.adapt.ensemble import combine
from luthier.adapt.labelled import load_label_model, save_label_model
from luthier.adapt.network import LabelModel
from luthier.adapt.predict import probabilities
from luthier.errors import DataError, SpecError
from luthier.train.contract import Contract, Finding
from luthier.train.labelled import checks
from luthier.train.labelled.base import Fitted, Job
from luthier.train.labelled.gap import measure_gap
from luthier.train.labelled.pool import rows_for
from luthier.train.labelled.score import LOWER, score_labels, validate


def plain(model: LabelModel, folder: Path) -> LabelModel:
    """The same model without adapters: LoRA is merged by way of a folder that is removed again."""
    if model.method.kind != "lora":
        return model
    aside = folder / "merged"
    save_label_model(model, aside)
    merged = load_label_model(aside)
    shutil.rmtree(aside)
    return merged


def together(fitted: Sequence[Fitted], job: Job, weights: Sequence[float] | None = None) -> Fitted:
    """All members as one model, with the first one's summary. SpecError for the task embed."""
    if fitted[0].model.task.type == "embed":
        raise SpecError("vectors of different models do not live in one space, so the task 'embed' has no ensemble; "
                        "take strategy ensemble with combine: soup, or crossval with final: refit")
    model = combine([plain(one.model, job.folder) for one in fitted], weights)
    return Fitted(model=model, value=None, loss=None, summary=dict(fitted[0].summary))


def judged(fitted: Fitted, job: Job) -> Fitted:
    """The model with its value, gap and logits on the job's validation rows; without them its value is None."""
    model, metric = fitted.model, fitted.model.task.metric
    if not job.validation:
        return replace(fitted, value=None, loss=None, logits=None,
                       summary={**fitted.summary, "validation": None, "gap": None, "validation_best": None})
    value, loss, logits = validate(model, job.validation, rows_for(job, model, job.validation))
    gap = measure_gap(model, job.train, rows_for(job, model, job.train), validation=value,
                      n_validation=len(job.validation), seed=job.seed)
    return replace(fitted, value=value, loss=loss, logits=logits, summary={
        **fitted.summary, "validation": {"metric": metric, "value": value, "n": len(job.validation),
                                         "better": "lower" if metric in LOWER else "higher"},
        "validation_best": loss, "gap": gap})


def greedy_weights(logits: Sequence[np.ndarray], targets: np.ndarray, *, multi_label: bool, rounds: int = 50
                   ) -> list[float]:
    """Ensemble selection with replacement (Caruana et al. 2004): begin with the best member, and add in each round the
    one that lowers the log loss of the mean most. The shares (they sum to 1) of the best round are returned."""
    chances = np.stack([probabilities(values, multi_label=multi_label) for values in logits])

    def loss(mean: np.ndarray) -> float:
        kept = np.clip(mean, 1e-12, 1 - 1e-12)
        if multi_label:
            return float(-(targets * np.log(kept) + (1 - targets) * np.log(1 - kept)).mean())
        return float(-np.log(kept[np.arange(len(targets)), targets]).mean())

    counts = np.zeros(len(chances), dtype=int)
    total = np.zeros_like(chances[0])
    best: tuple[float, np.ndarray] | None = None
    for chosen in range(1, rounds + 1):
        losses = [loss((total + one) / chosen) for one in chances]
        at = int(np.argmin(losses))
        counts[at] += 1
        total = total + chances[at]
        if best is None or losses[at] < best[0] - 1e-12:
            best = (losses[at], counts.copy())
    assert best is not None
    return [float(count) for count in best[1] / best[1].sum()]


def soup(fitted: Sequence[Fitted], job: Job) -> tuple[Fitted, list[int]]:
    """The greedy soup (Wortsman et al. 2022, recipe 1): members from the best down enter the mean of the weights if the
    validation value does not fall. Returns the one model, and the members in it. DataError without validation rows."""
    if not job.validation:
        raise DataError("a soup adds a member only if the validation value does not fall, and there are no validation "
                        "rows; add some, or take combine: mean")
    models = [plain(one.model, job.folder / f"member-{at + 1}") for at, one in enumerate(fitted)]
    states = [model.module.state_dict() for model in models]
    rows = rows_for(job, models[0], job.validation)
    sign = -1 if models[0].task.metric in LOWER else 1

    def score(model: LabelModel) -> tuple[float, float]:
        value, loss, _ = validate(model, job.validation, rows)
        return sign * value, -loss

    scores = [score(model) for model in models]
    order = sorted(range(len(models)), key=lambda at: (scores[at], -at), reverse=True)
    into, chosen, best = models[order[0]], [order[0]], scores[order[0]][0]
    kept = {name: value.clone() for name, value in states[order[0]].items()}
    for at in order[1:]:
        tried = {name: value + (states[at][name] - value) / (len(chosen) + 1) if value.is_floating_point() else value
                 for name, value in kept.items()}
        _fill(into, tried)
        found = score(into)[0]
        if found >= best:
            chosen, kept, best = [*chosen, at], tried, found
    _fill(into, kept)
    return Fitted(model=into, value=None, loss=None, summary=dict(fitted[order[0]].summary)), chosen


@torch.no_grad()
def _fill(model: LabelModel, state: dict[str, torch.Tensor]) -> None:
    for name, value in model.module.state_dict().items():
        value.copy_(state[name])


def calibration_error(logits: np.ndarray, targets: np.ndarray, *, multi_label: bool, bins: int = 15) -> float:
    """Expected calibration error of the likeliest class (multi-label: of every class by itself), in even bins."""
    chances = probabilities(logits, multi_label=multi_label)
    if multi_label:
        sure, right = chances.reshape(-1), np.asarray(targets).reshape(-1) > 0.5
    else:
        sure, right = chances.max(-1), chances.argmax(-1) == targets
    place = np.minimum((sure * bins).astype(int), bins - 1)
    return float(sum(abs(right[place == b].mean() - sure[place == b].mean()) * (place == b).mean()
                     for b in range(bins) if (place == b).any()))


def figures(logits: np.ndarray, targets: np.ndarray, metric: str, *, multi_label: bool) -> dict[str, float]:
    """The task's metric, log loss and calibration error."""
    return {metric: score_labels(metric, targets, logits, multi_label=multi_label),
            "log_loss": score_labels("log_loss", targets, logits, multi_label=multi_label),
            "calibration_error": calibration_error(logits, targets, multi_label=multi_label)}


def look_for_leaks(job: Job) -> Job:
    """Check point 7 once for all rows, before they are divided; the jobs that follow need not."""
    if not job.look_for_leaks:
        return job
    job.folder.mkdir(parents=True, exist_ok=True)
    contract = Contract(job.folder)
    contract.add(checks.check_row_leak(job.train, [*job.validation, *job.test], root=job.root))
    contract.enforce()
    return job.but(look_for_leaks=False)


def adopt_contract(job: Job, folder: Path) -> None:
    """Write the run's contract: a fit's findings, with those that were made for all rows in their place."""
    def read(file: Path) -> list[Finding]:
        return [Finding(point["point"], point["state"], point["text"], point.get("facts", {}))
                for point in json.loads(file.read_text("utf-8"))] if file.is_file() else []

    own = read(job.folder / "contract.json")
    contract = Contract(job.folder)
    contract.add(*read(folder / "contract.json"), *own)
