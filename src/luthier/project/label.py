"""`luthier label`: the rows without a label that are worth a person's minute, and what the person says of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import DataError, SpecError
from luthier.prepare.decisions import FILE, FOLDER, Decision, read_looked_at
from luthier.progress import Progress, Silent
from luthier.project.base import Project
from luthier.queues import append_line
from luthier.store import tell_disk_trouble, write_text

PROPOSED = "proposed.jsonl"
TOP = 3
"""Likeliest labels that are shown."""


@dataclass(frozen=True)
class Proposal:
    """The rows to look at, most uncertain first."""

    file: Path
    rows: list[dict[str, Any]]
    """id, where, text (and image), proposed, probability, top (label and probability), why; `labels` is null."""
    labels: tuple[str, ...]
    """All labels that may be chosen."""
    multi_label: bool
    waiting: int
    """Rows without a label that nobody has decided yet."""

    def data(self) -> dict[str, Any]:
        return {"file": str(self.file), "waiting": self.waiting, "labels": list(self.labels), "rows": self.rows}

    def text(self, decided: int | None = None) -> str:
        """For people; `decided`: how many rows were just decided in a conversation."""
        lines = [] if decided is not None else [_line(row) for row in self.rows]
        if decided is not None:
            lines.append(f"{decided} of {len(self.rows)} rows decided; they count from the next `luthier run` on.")
        else:
            lines += ["", f"{len(self.rows)} of {self.waiting:,} rows without a label, written to {self.file}.",
                      f"Decide them with `luthier label --ask`, or write lines such as "
                      f'{{"id": "…", "labels": ["…"]}} into {self.file.parent / FILE}; then: luthier run']
        return "\n".join(lines)


def propose(project: Project, *, count: int = 20, progress: Progress = Silent()) -> Proposal:
    """Ask the latest model about the rows without a label and write the ones it knows least about to
    `labels/proposed.jsonl`. Decided rows are not proposed again. SpecError for other tasks than classify and image."""
    task = project.spec.task
    if task.type not in ("classify", "image"):
        raise SpecError(f"luthier label is for the tasks classify and image, not '{task.type}'")
    run, data = project.artifact("train"), project.artifact("prepare")
    from luthier.adapt import predict
    from luthier.prepare.base import read_examples
    from luthier.train.base import open_tuned_labels
    from luthier.train.labelled.active import choose
    from luthier.train.labelled.warm import as_rows

    done = [one for one in read_looked_at(project.root) if isinstance(one, Decision)]
    keys = {key for one in done for key in (one.id, one.where, one.text) if key}
    waiting = [example for example in read_examples(data, "train") if not example.labelled
               and not keys & {example.id, example.origin.where, str(example.input)}]
    if not waiting:
        raise DataError("there is no row without a label to propose; add rows with an empty label (or a maker with "
                        "unlabelled: true), then: luthier prepare")
    model = open_tuned_labels(run, root=project.root)
    rows = model.rows(waiting, targets=False)
    features = predict.features(model, rows, progress=progress)
    logits = predict.logits(model, as_rows(rows, features), progress=progress)
    chances = predict.probabilities(logits, multi_label=task.multi_label, temperature=model.temperature)
    found = []
    for pick in choose(chances, features, count, seed=project.spec.train.seed, multi_label=task.multi_label):
        example, own = waiting[pick.at], chances[pick.at]
        top = [(model.labels[at], round(float(own[at]), 4)) for at in (-own).argsort(kind="stable")[:TOP]]
        found.append({
            "id": example.id, "where": example.origin.where, "text": str(example.input),
            **({"image": example.image} if example.image else {}), "labels": None, "proposed": top[0][0],
            "probability": top[0][1], "top": [list(pair) for pair in top],
            "why": _why(top, pick.cluster_size, multi_label=task.multi_label)})
    file = project.root / FOLDER / PROPOSED
    with tell_disk_trouble(project.root):
        file.parent.mkdir(exist_ok=True)
        write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    return Proposal(file, found, model.labels, task.multi_label, len(waiting))


def _why(top: Sequence[tuple[str, float]], stands_for: int, *, multi_label: bool) -> str:
    close = f"{top[0][0]} or {top[1][0]}?" if len(top) > 1 and not multi_label else "a label is as likely as not"
    return close + (f" Stands for {stands_for} uncertain rows like it." if stands_for > 1 else " Unlike the others.")


def _line(row: dict[str, Any]) -> str:
    shown = " ".join((row["text"] or row.get("image", "")).split())
    return f"{row['probability']:5.0%}  {row['proposed']:<28} {shown[:90]}  ({row['where']})"


def ask(proposal: Proposal, *, key: Callable[[], str], line: Callable[[str], str], say: Callable[[str], None]) -> int:
    """Go through the proposal with a person and append every decision to `labels/decisions.jsonl` at once; returns how
    many there were.

    `key` waits for one key: a number chooses a label (several may be chosen one after the other where the task allows
    it, Enter ends), o asks for another one by name (`line`), s skips, q quits.
    """
    count = 0
    for number, row in enumerate(proposal.rows, 1):
        say(f"\n[{number}/{len(proposal.rows)}]  {row['where']}\n{row['text'] or row.get('image', '')}")
        for at, (label, chance) in enumerate(row["top"], 1):
            say(f"  {at}  {label}  {chance:.0%}")
        say("  o  another label   s  skip   q  quit" + ("   Enter  done" if proposal.multi_label else ""))
        chosen = _choose(row, proposal, key, line, say)
        if chosen is None:
            break
        if chosen is not False:
            _append(proposal.file.parent / FILE, {"id": row["id"], "where": row["where"], "text": row["text"],
                                                  "labels": chosen})
            count += 1
    return count


def _choose(row: dict[str, Any], proposal: Proposal, key: Callable[[], str], line: Callable[[str], str],
            say: Callable[[str], None]) -> list[str] | bool | None:
    """The labels; False to skip, None to quit."""
    chosen: list[str] = []
    while True:
        pressed = key().lower()
        if pressed in ("q", "\x03", "\x04", ""):
            return None
        if pressed == "s":
            return False
        label = ""
        if pressed.isdigit() and 1 <= int(pressed) <= len(row["top"]):
            label = row["top"][int(pressed) - 1][0]
        elif pressed == "o":
            named = " ".join(line("label").split())
            label = named if named in proposal.labels else ""
            if not label:
                say(f"  '{named}' is none of: {', '.join(proposal.labels)}")
        elif pressed in "\r\n" and proposal.multi_label:
            return chosen
        if label and label not in chosen:
            chosen.append(label)
            say(f"  → {', '.join(chosen)}")
        if chosen and not proposal.multi_label:
            return chosen


def _append(file: Path, row: dict[str, Any]) -> None:
    with tell_disk_trouble(file.parent):
        append_line(file, row)
