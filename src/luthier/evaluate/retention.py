"""General skills before and after tuning: did the model forget what it could do?

Two probes, both paired between base and tuned model: the token loss of answers to general instructions (PEFT's
measure of forgetting: its relative rise), and the accuracy on choice questions, each choice scored by its
log-likelihood per byte of its text (lm-evaluation-harness's `acc_norm`, which divides by length alike). For small
models the loss is the sensitive one; choice questions move only when much is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from luthier.errors import DataError
from luthier.evaluate.compare import Bootstrap, Column
from luthier.models.sources import file_hash
from luthier.spec import Spec
from luthier.types import Example, digest

if TYPE_CHECKING:
    from luthier.evaluate.systems import Subject

DATA = Path(__file__).parent / "data"
BUILTIN = "builtin"


class Retention(Spec):
    """The probe of general skills, before and after tuning."""

    instructions: str = BUILTIN
    """General instructions with good answers: `builtin`, a JSONL file (`instruction`, `response`) relative to the
    project folder, or `none` to leave this probe out."""
    choices: str = BUILTIN
    """Choice questions: `builtin`, a JSONL file (`question`, `choices`, `answer` = index of the right one; or PIQA's
    own `goal`, `sol1`, `sol2`, `label`), or `none`."""
    max_items: int = Field(default=200, ge=10)
    """At most this many items of each file, chosen by a hash."""
    max_rise: float = Field(default=0.05, ge=0)
    """Relative rise of the general token loss (0.05 = 5 %) above which no tuned system can win the verdict."""


def fingerprint(spec: Retention, root: Path) -> dict[str, str]:
    """Hashes of the probe files: what the evaluation's artifact depends on."""
    return {name: "none" if path is None else file_hash(path)[:16]
            for name, path in (("instructions", _path(spec.instructions, "general.jsonl", root)),
                               ("choices", _path(spec.choices, "choices.jsonl", root)))}


def retention(base: Subject, tuned: Subject | None, spec: Retention, *, system: str | None, root: Path,
              samples: int, seed: int) -> dict[str, Any]:
    """The report's `retention`: token loss and choice accuracy of both models with paired intervals.

    Without a tuned model only the base's figures are given. Intervals resample items.
    """
    from luthier.evaluate.systems import chat_example

    found: dict[str, Any] = {"limit": spec.max_rise}
    instructions = load_instructions(spec, root)
    if instructions:
        probes = [chat_example(row["instruction"], row["response"], system=system) for row in instructions]
        draws = Bootstrap([probe.id for probe in probes], samples=samples, seed=seed)
        columns = {name: _loss_column(subject, probes, name)
                   for name, subject in (("base", base), ("tuned", tuned)) if subject is not None}
        found["token_loss"] = _token_loss(draws, columns)
    questions = load_choices(spec, root)
    if questions:
        draws = Bootstrap([digest(row["question"]) for row in questions], samples=samples, seed=seed)
        columns = {name: Column([float(right) for right in choose(subject, questions, system, name)])
                   for name, subject in (("base", base), ("tuned", tuned)) if subject is not None}
        found["choice"] = _choice(draws, columns)
    return found


def _loss_column(subject: Subject, probes: Sequence[Example], name: str) -> Column:
    losses = subject.losses(probes, what=f"general skills, {name}")
    return Column([loss.sum / loss.tokens if loss.tokens else None for loss in losses],
                  [float(loss.tokens) for loss in losses])


def _token_loss(draws: Bootstrap, columns: dict[str, Column]) -> dict[str, Any]:
    base = draws.measure(columns["base"])
    if base is None:
        raise DataError("the general instructions hold no answer tokens; check evaluate.retention.instructions")
    if "tuned" not in columns:
        return {"base": base.value, "n": base.n}
    tuned = draws.measure(columns["tuned"])
    rise = draws.difference(columns["tuned"], columns["base"], relative=True)
    assert tuned is not None and rise is not None  # the same texts as the base's
    return {"base": round(base.value, 6), "tuned": round(tuned.value, 6), "relative_rise": round(rise.value, 6),
            "low": rise.dump()["low"], "high": rise.dump()["high"], "n": rise.n}


def _choice(draws: Bootstrap, columns: dict[str, Column]) -> dict[str, Any]:
    measured = {name: draws.measure(column) for name, column in columns.items()}
    found: dict[str, Any] = {name: one.dump() for name, one in measured.items() if one is not None}
    if "tuned" in columns:
        change = draws.difference(columns["tuned"], columns["base"])
        found["difference"] = change.dump() if change is not None else None
    return found


def choose(subject: Subject, questions: Sequence[dict[str, Any]], system: str | None, name: str) -> list[bool]:
    """Whether the right choice is the likeliest, by log-likelihood per byte, without the stop token."""
    from luthier.evaluate.systems import chat_example

    probes = [chat_example(row["question"], choice, system=system) for row in questions for choice in row["choices"]]
    losses = iter(subject.losses(probes, what=f"choice questions, {name}", without_stop=True))
    right = []
    for row in questions:
        scores = [-next(losses).sum / len(choice.encode()) for choice in row["choices"]]
        right.append(max(range(len(scores)), key=scores.__getitem__) == row["answer"])
    return right


def load_instructions(spec: Retention, root: Path) -> list[dict[str, Any]]:
    """Rows with `instruction` and `response`; DataError names the line of a bad one."""
    path = _path(spec.instructions, "general.jsonl", root)
    return [] if path is None else _sample(_rows(path, _bad_instruction), "instruction", spec.max_items)


def load_choices(spec: Retention, root: Path) -> list[dict[str, Any]]:
    """Rows with `question`, `choices` and `answer`; DataError names the line of a bad one."""
    path = _path(spec.choices, "choices.jsonl", root)
    return [] if path is None else _sample(_rows(path, _bad_choice, _as_choice), "question", spec.max_items)


def _path(value: str, builtin: str, root: Path) -> Path | None:
    if value == "none":
        return None
    path = DATA / builtin if value == BUILTIN else root / value
    if not path.is_file():
        raise DataError(f"evaluate.retention: no file at {path}; name a JSONL file, 'builtin' or 'none'")
    return path


def _as_choice(row: Any) -> Any:
    """A row of PIQA (Bisk et al. 2020) in the form of all others."""
    if not isinstance(row, dict) or not {"goal", "sol1", "sol2"} <= row.keys():
        return row
    return {"question": row["goal"], "choices": [row["sol1"], row["sol2"]], "answer": row.get("label")}


def _rows(path: Path, problem: Any, form: Callable[[Any], Any] = lambda row: row) -> list[dict[str, Any]]:
    rows = []
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = form(json.loads(line))
            except ValueError as error:
                raise DataError(f"{path.name}:{number}: not valid JSON: {error}") from None
            if why := problem(row):
                raise DataError(f"{path.name}:{number}: {why}")
            rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no rows; name another file, 'builtin' or 'none' under evaluate.retention")
    return rows


def _bad_instruction(row: Any) -> str:
    texts = isinstance(row, dict) and all(isinstance(row.get(k), str) and row[k].strip()
                                          for k in ("instruction", "response"))
    return "" if texts else "a row needs the texts 'instruction' and 'response'"


def _bad_choice(row: Any) -> str:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        return "a row needs the text 'question', the list 'choices' and the index 'answer'"
    choices, answer = row.get("choices"), row.get("answer")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        return "'choices' must be a list of at least two texts"
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        return f"'answer' must be the index of the right choice, 0 to {len(choices) - 1}"
    return ""


def _sample(rows: list[dict[str, Any]], field: str, most: int) -> list[dict[str, Any]]:
    unique = list({row[field]: row for row in rows}.values())
    return unique if len(unique) <= most else sorted(unique, key=lambda row: digest(row[field]))[:most]
