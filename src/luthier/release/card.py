"""MODEL_CARD.md: what a release is, what it was made from, what was measured, and where its limits are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

LICENCES = {
    "starter:chat": "SmolLM2-135M-Instruct is published by Hugging Face under the Apache License 2.0.",
    "starter:encoder": "all-MiniLM-L6-v2 is published by the sentence-transformers project under the Apache License "
                       "2.0.",
}
NAMES = {"base": "Base model", "retrieval": "Base model with retrieval", "tuned": "Tuned model",
         "tuned_retrieval": "Tuned model with retrieval"}


def model_card(record: Mapping[str, Any], report: Mapping[str, Any], facts: Mapping[str, Any],
               parity: Mapping[str, Any] | None, base: Path) -> str:
    """Markdown from the release record, the report, `facts` about the data and the training, and parity.

    `base` is the base model's folder, where a licence file is looked for.
    """
    choice, verdict, test = record["choice"], report["verdict"], report["test"]
    lines = [
        f"# {record['name']}, version {record['version']}", "",
        f"{NAMES[choice]}. Released {record['created'][:10]}"
        + (f", approved by {record['approved_by']}" if record["approved_by"] else "")
        + f", from the base model {record['base']['name']} (`{record['base']['source']}`).", "",
        f"**Verdict of the test:** {verdict['sentence']}", "",
    ]
    if record["forced"]:
        lines += [f"**The gate was overruled** by {record['forced']['by']}. Failed checks:", "",
                  *(f"- {check['name']}: {check['sentence']}" for check in record["forced"]["failed"]), ""]
    lines += ["## What it is made from", "", *(f"- {line}" for line in facts["lines"]), ""]
    lines += ["## What was measured", "", *_results(report), ""]
    loss = report.get("retention", {}).get("token_loss", {})
    if loss.get("relative_rise") is not None:
        lines += [f"General skills: token loss on general text {loss['base']:.3f} before and {loss['tuned']:.3f} after "
                  f"tuning ({loss['relative_rise']:+.1%}, n = {loss['n']}).", ""]
    lines += [f"The test has {test['num_questions']} questions"
              + (f", {test['num_unanswerable']} of them unanswerable" if test.get("num_unanswerable") else "")
              + f", disjoint from training by {test.get('disjoint', 'nothing that was recorded')}. "
              "Intervals hold 95 %. The whole report is in `report.html`.", ""]
    lines += ["## The gate", "", "| Check | Outcome | Found |", "|---|---|---|",
              *(f"| {check['name']} | {check['outcome']} | {_cell(check['sentence'])} |" for check in record["gate"]),
              ""]
    lines += ["## What is in the folder", "", *_contents(record, parity), ""]
    lines += ["## Limits", "", *(f"- {line}" for line in _limits(record, report)), ""]
    lines += ["## Licence", "", *(f"- {line}" for line in _licence(record, base))]
    return "\n".join(lines) + "\n"


def _results(report: Mapping[str, Any]) -> list[str]:
    systems: Mapping[str, Any] = report["systems"]
    metrics = list(dict.fromkeys(name for found in systems.values() for name in found["metrics"]))
    rows = ["| Metric | " + " | ".join(NAMES.get(name, name) for name in systems) + " |",
            "|---" * (len(systems) + 1) + "|"]
    for metric in metrics:
        cells = [_value(found["metrics"].get(metric)) for found in systems.values()]
        rows.append(f"| {metric}{' (decides)' if metric == report['metric'] else ''} | " + " | ".join(cells) + " |")
    return rows


def _value(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "–"
    if found.get("low") is None or found.get("high") is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _contents(record: Mapping[str, Any], parity: Mapping[str, Any] | None) -> list[str]:
    base, tuned = record["base"], record["tuned"]
    lines = ["- no index: the project has no documents" if "retrieval" not in record["systems"] else
             "- `index/`: the search index over the documents; " + (
        f"its questions are embedded with `{record['encoder']['source']}`" if record["encoder"]["source"]
        else "it searches by words")]
    if tuned["present"]:
        state = "passed the gate" if tuned["passed"] else f"not what the gate let through: {tuned['why']}"
        lines.append(f"- `model/`: the tuned model, merged into one folder in Hugging Face format, {record['dtype']}; "
                     f"{state}")
    else:
        lines.append(f"- no tuned weights: {tuned['why']}")
    if parity is not None:
        lines.append(f"- `parity.json`: the exported model against the trained one: {parity['identical_answers']} of "
                     f"{parity['num_prompts']} probe answers are the same tokens, {parity['agreement']:.1%} of the "
                     f"tokens agree, largest logit difference {parity['max_logit_difference']:.2g}")
    lines.append("- `base/`: a copy of the base model" if base["bundled"] else
                 f"- the base model is not copied; it is read from `{base['source']}` and must have the fingerprint "
                 f"{base['fingerprint']}")
    return lines


def _limits(record: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    test, choice = report["test"], record["choice"]
    lines = [f"The figures hold for questions like the {test['num_questions']} of the test. Questions about other "
             "matters, in other words or in another language than "
             f"'{record['task']['language']}' may be answered worse."]
    if choice.endswith("retrieval"):
        lines.append("It answers from passages that search finds. What is not in the documents, or is not found, it "
                     "cannot know; read the cited passage before you rely on an answer.")
    if choice.startswith("tuned"):
        lines.append("It answers partly from what it learned. When the documents change, the weights do not: train and "
                     "release again.")
        lines.append("Text that was learned can come out again: give the model only to people who may read the "
                     "documents.")
    lines.append("It can be wrong in fluent sentences. It must not decide about people without a person who checks.")
    return lines


def _licence(record: Mapping[str, Any], base: Path) -> list[str]:
    source = record["base"]["source"]
    found = next((file.name for pattern in ("LICENSE*", "LICENCE*", "COPYING*") for file in sorted(base.glob(pattern))),
                 None)
    note = LICENCES.get(source) or (
        f"The base model's folder holds a licence text ({found}); it holds for the tuned weights too." if found else
        f"The licence of the base model '{source}' is not recorded in its folder; look it up before you pass the "
        "weights on.")
    lines = [note]
    encoder = record["encoder"]["source"]
    if encoder:
        lines.append(LICENCES.get(encoder, f"Look up the licence of the encoder '{encoder}' too."))
    lines.append("The documents and what was learned from them belong to their owners; Luthier adds no claim.")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
