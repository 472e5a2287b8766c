"""Releasing a classifier, a tagger, an embedder or an image model: one folder `model/` that holds everything.

Parity (contract point 11) has three parts. The trained model and the folder, loaded afresh, must give the same logits
on probe rows; a row asked by itself must give what it gives in a batch, for that is how the server asks; and where the
report kept the test's answers, the released model must give the same ones: what was measured is what is released.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.errors import ContractError, DataError, GateRefused, SpecError, StoreError
from luthier.progress import Progress
from luthier.release.base import LABEL_SYSTEMS, Parts, Release, blended
from luthier.release.gate import System, unreleasable
from luthier.store import Artifact, Store, tell_disk_trouble, write_json
from luthier.task import Task
from luthier.types import Example, digest, read_jsonl

if TYPE_CHECKING:
    from luthier.adapt.network import LabelModel

SAME = 1e-5
"""Greatest logit difference between trained and released float32 model, relative to the largest logit."""
ALONE = 1e-3
"""The same between a row asked by itself and in a padded batch: other sums in another order."""
MEASURED = 2e-3
"""Greatest difference of a probability from the one in the report."""
REFITTED = 0.01
"""The same for a linear model that is fitted again: on another processor its optimiser may stop a step earlier."""
WITHOUT_BASE: tuple[System, ...] = ("tfidf", "pixels")
"""Systems that contain nothing of the base model."""
MADE: Mapping[str, str] = {
    "features": "a logistic regression on the untouched base model's features",
    "tfidf": "a logistic regression on TF-IDF of words (1 to 2) and of letters (2 to 5, within words), fitted on the "
             "train rows; no base model, nothing was tuned",
    "pixels": "a logistic regression on the images shrunk to 16 × 16 pixels, fitted on the train rows; no base model, "
              "nothing was tuned",
    "base": "the base model as it was; nothing was trained",
}
"""What an untuned system is made from, for the model card."""


def make_parts(part: Path, *, choice: System, report: Artifact, found: Mapping[str, Any], run: Artifact,
               model: Artifact, data: Artifact, task: Task, spec: Release, store: Store, root: Path,
               lineage: Mapping[str, str], progress: Progress) -> Parts:
    """Write `model/` and `parity.json`; ContractError when the folder does not answer as the trained model does."""
    from luthier.adapt.base import read_facts
    from luthier.adapt.labelled import load_label_model
    from luthier.release.label_card import label_card
    from luthier.release.untuned import untuned_model

    if choice not in LABEL_SYSTEMS:
        raise GateRefused(unreleasable(choice))
    if spec.onnx and choice in WITHOUT_BASE:
        raise SpecError(f"release.onnx: '{choice}' is released, whose "
                        + ("words are counted" if choice == "tfidf" else "images are shrunk")
                        + " outside of the network, so that a model.onnx could not answer; set release.onnx to false")
    to = part / "model"
    fit: dict[str, Any] = {}
    if choice == "tuned":
        trained = open_at(run.path / "best", root)
    else:
        trained, fit = untuned_model(choice, found=found, task=task, model=model, data=data, store=store, root=root,
                                     progress=progress)
    settings = decisions(report, trained, spec, choice)
    trained = trained.but(temperature=settings["temperature"])
    write_model(trained, to, settings, dtype=spec.dtype)
    probes = probe_rows(data, spec.probes)
    released = load_label_model(to)
    set_root(released, root)
    parity = compare(trained, released, probes, dtype=spec.dtype)
    parity |= against_report(released, report, choice, probes, bounded=spec.dtype == "float32")
    if fit:
        parity["fit"] = fit
    if spec.onnx:
        from luthier.release.export_onnx import export_onnx

        parity["onnx"] = export_onnx(released, part / "model.onnx", [example for example in probes])
        progress.say(f"  {parity['onnx']['sentence']}")
    progress.say(f"  parity: {parity['sentence']}")
    write_json(part / "parity.json", parity)
    facts = read_facts(model)
    record = {
        "systems": [choice], "template": None, "stop_ids": [], "encoder": {"source": None, "fingerprint": None},
        "base": {"source": facts["source"], "folder": facts["folder"], "fingerprint": facts["fingerprint"],
                 "name": facts["name"], "bundled": False},
        "tuned": {"present": choice == "tuned", "passed": choice == "tuned",
                  "why": "" if choice == "tuned" else f"the release is '{choice}', which needs no tuning"},
        "labels": {"names": list(trained.labels), **settings, "onnx": spec.onnx},
    }
    made_from = sources(run, data, store, lineage, choice)
    return Parts(record=record, agreement=parity["agreement"] if spec.dtype != "float32" else None,
                 card=lambda record, found: label_card(record, found, made_from, parity, Path(facts["folder"])))


def open_at(folder: Path, root: Path) -> LabelModel:
    """The model in a folder, which finds images from the project folder."""
    from luthier.adapt.labelled import load_label_model

    model = load_label_model(folder)
    set_root(model, root)
    return model


def set_root(model: LabelModel, root: Path) -> None:
    """Where relative image paths start."""
    if model.task.type == "image":
        model.processor.root = root  # type: ignore[attr-defined]


def decisions(report: Artifact, model: LabelModel, spec: Release, choice: System) -> dict[str, Any]:
    """temperature, thresholds (label → probability; only where they are not the rule) and abstain."""
    file = report.path / "calibration.json"
    found: dict[str, Any] = {"temperature": model.temperature, "thresholds": {}, "abstain": model.task.abstain}
    if choice != "tuned" or not file.is_file():  # a logistic regression is calibrated by its own fit
        if spec.thresholds == "fitted":
            raise DataError("release.thresholds is 'fitted', but the evaluation fitted none for this model; add "
                            "validation rows or set it to half")
        return found
    try:
        told = json.loads(file.read_text("utf-8"))
        found["temperature"] = float(told["temperature"])
        fitted = {str(label): float(value) for label, value in told["thresholds"].items()}
        known = list(told["labels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} cannot be used ({error}); delete {report.path} and evaluate again") from None
    if set(known) != set(model.labels):
        raise StoreError(f"{file} speaks of other labels than the trained model has; evaluate again")
    if spec.thresholds == "fitted":
        if not fitted:
            raise DataError("release.thresholds is 'fitted', but the evaluation fitted none (they are for two classes, "
                            "or several labels a text, and need validation rows); set it to half")
        found["thresholds"] = fitted
    return found


def write_model(model: LabelModel, folder: Path, settings: Mapping[str, Any], *, dtype: str) -> None:
    """The self-contained folder, with what serving decides by in network.json; bfloat16 halves the weights' file."""
    import torch
    from safetensors.torch import load_file, save_file

    from luthier.adapt.labelled import NETWORK, WEIGHTS, save_label_model

    with tell_disk_trouble(folder):
        save_label_model(model, folder)
        if dtype == "bfloat16":
            tensors = {name: value.bfloat16() if value.dtype == torch.float32 else value
                       for name, value in load_file(folder / WEIGHTS).items()}
            save_file(tensors, folder / WEIGHTS)
        facts = json.loads((folder / NETWORK).read_text("utf-8"))
        write_json(folder / NETWORK, {**facts, **settings})


def probe_rows(data: Artifact, count: int) -> list[Example]:
    """Test rows chosen by a hash; those of validation and training where there are too few."""
    from luthier.prepare.base import read_examples

    found: list[Example] = []
    for split in ("test", "validation", "train"):
        rows = sorted(read_examples(data, split), key=lambda example: digest("probe", example.id))
        found += rows[: count - len(found)]
    if not found:
        raise DataError("there are no examples to probe the released model with; run `luthier prepare` again")
    return found


def answers(model: LabelModel, examples: Sequence[Example]) -> list[np.ndarray]:
    """Logits of each row: [classes], tag: [tokens, outputs], embed: a unit vector."""
    from luthier.adapt import predict

    rows = model.rows([replace(example, target=None) for example in examples], targets=False)
    return list((predict.tag_logits if model.task.type == "tag" else predict.logits)(model, rows))


def compare(trained: LabelModel, released: LabelModel, probes: Sequence[Example], *, dtype: str) -> dict[str, Any]:
    """The figures of parity.json; ContractError for float32 logits that are not the trained model's."""
    wanted, given = answers(trained, probes), answers(released, probes)
    alone = [answers(released, [example])[0] for example in probes]
    scale = max(1e-12, *(float(np.abs(one).max()) for one in wanted))
    difference = max(float(np.abs(a - b).max()) for a, b in zip(wanted, given)) / scale
    apart = max(float(np.abs(a - b).max()) for a, b in zip(given, alone)) / scale
    same = [np.array_equal(a.argmax(-1), b.argmax(-1)) for a, b in zip(wanted, given)]
    agreement = float(np.mean(same))
    if dtype == "float32" and (difference > SAME or agreement < 1):
        raise ContractError(f"contract point 11 (parity): the released model's logits differ from the trained "
                            f"model's by {difference:.2e} of the largest (limit {SAME:.0e}) and "
                            f"{len(same) - sum(same)} of {len(same)} probe rows are decided otherwise; delete the run "
                            "and train again")
    if apart > ALONE:
        raise ContractError(f"contract point 11 (parity): a row asked by itself gives other logits than in a batch "
                            f"({apart:.2e} of the largest, limit {ALONE:.0e}), so the server could not answer as the "
                            "test did; the base model mixes rows or pads")
    return {"dtype": dtype, "num_rows": len(probes), "agreement": agreement, "max_relative_difference": difference,
            "max_alone_difference": apart, "largest_logit": scale,
            "sentence": f"{sum(same)} of {len(same)} probe rows decided alike, logits differ by at most "
                        f"{difference:.1e} of the largest, in and out of batches by {apart:.1e}"}


def against_report(released: LabelModel, report: Artifact, choice: System, probes: Sequence[Example], *,
                   bounded: bool) -> dict[str, Any]:
    """How far the released model's answers are from those that the report measured; ContractError beyond the bound,
    unless the weights are in lower precision, which the gate bounds."""
    file = report.path / "predictions.jsonl"
    if not file.is_file() or released.task.type == "embed":
        return {"measured_rows": 0}
    wanted = {row["example"]: row["systems"].get(choice) for row in read_jsonl(file)}
    known = [example for example in probes if wanted.get(example.id) and example.split == "test"]
    if not known:
        return {"measured_rows": 0}
    given = answers(released, known)
    if released.task.type == "tag":
        from luthier.adapt.spans import decode_spans

        tags = decode_spans(released, known, released.rows(known, targets=False), given)
        alike = sum([(tag.start, tag.end, tag.label) for tag in row] == [tuple(one) for one in measured["said"]]
                    for row, measured in zip(tags, (wanted[example.id] for example in known)))
        limit, worst = 0.0, 1 - alike / len(known)
    else:
        from luthier.adapt.predict import probabilities

        places = {label: at for at, label in enumerate(released.labels)}
        probs = probabilities(np.stack(given), multi_label=released.task.multi_label, temperature=released.temperature)
        worst = max(abs(float(row[places[label]]) - value) for example, row in zip(known, probs)
                    for label, value in wanted[example.id]["top"])
        limit = MEASURED if choice == "tuned" else REFITTED
    if worst > limit and bounded:
        raise ContractError(f"contract point 11 (parity): the released model's answers differ from those that the "
                            f"report measured by up to {worst:.3f} (limit {limit:g}) on {len(known)} test rows; run "
                            "`luthier evaluate` again")
    return {"measured_rows": len(known), "max_measured_difference": worst}


def sources(run: Artifact, data: Artifact, store: Store, lineage: Mapping[str, str], choice: System) -> list[str]:
    """Plain sentences about data and training, for the model card."""
    from collections import Counter

    counts: Counter[str] = Counter()
    makers: Counter[str] = Counter()
    for row in read_jsonl(data.path / "examples.jsonl"):
        known = any(row.get(name) is not None for name in ("labels", "spans", "target"))
        counts[row["split"] if known else "unlabelled"] += 1
        makers[row["origin"]["where"].rpartition(":")[0] or row["origin"]["step"]] += 1
    lines = [f"{counts[split]} {split} rows: {lineage['prepare']}" for split in ("train", "validation", "test")
             if counts[split]]
    if counts["unlabelled"]:
        lines.append(f"{counts['unlabelled']} rows without a label")
    files = [name for name, _ in makers.most_common(5)]
    lines.append(f"read from {', '.join(files)}" + (f" and {len(makers) - 5} more" if len(makers) > 5 else ""))
    if choice != "tuned":
        return [*lines, MADE[choice]]
    steps, strategy = run.summary.get("steps"), run.summary.get("strategy", "once")
    told = "training" + (f" by the strategy '{strategy}'" if strategy != "once" else "")
    lines.append(f"{told}: {steps if steps is not None else 'an unrecorded number of'} steps: {lineage['train']}")
    gap = (run.summary.get("gap") or {}).get("sentence")
    lines += blended(run)
    return [*lines, f"overfitting: {gap}"] if gap else lines
