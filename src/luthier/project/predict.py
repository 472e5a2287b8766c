"""`luthier predict`: ask a release with labels from the terminal or over a whole file, with the server's decisions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError, UsageError
from luthier.progress import Progress, Silent
from luthier.project.base import Project
from luthier.release.folder import read_release
from luthier.store import write_text

if TYPE_CHECKING:
    from luthier.serve.labels.predictor import Asked, Predictor

CHUNK = 512
"""Rows that are read, decided and kept in memory at a time."""
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Predicted:
    """What `predict` found."""

    rows: list[dict[str, Any]]
    """One a row: where, what the server would answer, or error."""
    written: Path | None
    failed: int
    """Rows that could not be decided; each says why."""

    def data(self) -> dict[str, Any]:
        return {"rows": self.rows, "written": str(self.written) if self.written else None, "failed": self.failed}

    def text(self) -> str:
        lines = [] if self.written else [_line(row) for row in self.rows]
        if self.written:
            lines.append(f"{len(self.rows)} rows written to {self.written}")
        if self.failed:
            lines.append(f"{self.failed} rows could not be decided; their `error` says why")
        return "\n".join(lines)


def predict(project: Project, folder: Path, inputs: Sequence[str] = (), *, file: Path | None = None,
            column: str | None = None, out: Path | None = None, top_k: int = 5, explain: str | None = None,
            part: str | None = None, progress: Progress = Silent()) -> Predicted:
    """Decide texts, image files or folders of images (`inputs`), or the rows of a file (.csv, .tsv, .jsonl, .json,
    .parquet, or .txt with a text a line); `out` takes JSON lines. UsageError for nothing to do, DataError for a file
    that cannot be read.

    `column` names the file's column of texts or image paths; without it, it is found by its name as for training data.
    `part` names a task that the model learned: answers are then among its labels alone.
    """
    from luthier.serve.labels.predictor import Predictor

    if bool(inputs) == (file is not None):
        raise UsageError("say what to decide: a text, image files, or --file with rows (one of them)")
    record = read_release(folder)
    settings = project.spec.serve.labels
    predictor = Predictor.open(record, runtime=settings.runtime, threads=settings.threads)
    if explain is not None and record.task.type not in ("classify", "image"):
        raise UsageError(f"explanations are for the tasks classify and image; the release is of '{record.task.type}'")
    if part is not None:
        predictor.named([], part)
        if explain is not None:
            raise UsageError("an explanation is among all labels; give either --explain or --part")
    reads = "image" if record.task.type == "image" else "text"
    wanted = list(_named(inputs, reads)) if file is None else list(_rows(file, column, reads))
    if not wanted:
        raise DataError(f"{file or 'the input'} holds nothing to decide")
    found: list[dict[str, Any]] = []
    with progress.track("predict", len(wanted), unit="rows") as bar:
        for start in range(0, len(wanted), CHUNK):
            some = wanted[start : start + CHUNK]
            found += _decide(predictor, some, reads, top_k=top_k, explain=explain, part=part or "",
                             most_pixels=settings.max_image_pixels)
            bar.advance(len(some))
    if out is not None:
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    return Predicted(found, out, sum("error" in row for row in found))


def _decide(predictor: Predictor, some: Sequence[tuple[str, str]], reads: str, *, top_k: int, explain: str | None,
            part: str, most_pixels: int) -> list[dict[str, Any]]:
    """`some`: (where, text or image path)."""
    answers: list[dict[str, Any]] = [{"where": where} for where, _ in some]
    values = {at: value for at, (_, value) in enumerate(some) if value.strip()}
    for at in range(len(some)):
        if at not in values:
            answers[at]["error"] = f"the {reads} is missing, or the row cannot be read"

    def each() -> dict[int, Asked]:
        found = {}
        for at, value in values.items():
            try:
                found[at] = predictor.texts([value])[0] if reads == "text" else predictor.image(
                    _bytes(Path(value)), most_pixels=most_pixels, name=value)
            except DataError as error:
                answers[at]["error"] = str(error)
        return found

    try:  # all texts at once are tokenised ten times faster than one by one
        asked = dict(zip(values, predictor.texts([*values.values()]))) if reads == "text" and values else each()
    except DataError:
        asked = each()
    if part:
        asked = dict(zip(asked, predictor.named([*asked.values()], part)))
    logits = predictor.logits([one.row for one in asked.values()]) if asked else []
    for (at, one), row in zip(asked.items(), logits):
        if reads == "text":
            answers[at]["text"] = one.text
        if predictor.task.type == "tag":
            answers[at]["spans"] = predictor.spans(one, row)
        elif predictor.task.type == "embed":
            answers[at]["embedding"] = [round(float(value), 6) for value in row]
        else:
            answers[at] |= predictor.decide(row, top_k=top_k, part=part)
            if explain is not None:
                answers[at]["explanation"] = _explained(predictor, one, answers[at], row, explain)
        if one.truncated:
            answers[at]["truncated"] = True
    return answers


def _explained(predictor: Predictor, one: Asked, answer: dict[str, Any], logits: Any, method: str) -> dict[str, Any]:
    from luthier.serve.labels.explain import Explainer

    if method not in ("occlusion", "integrated_gradients"):
        raise UsageError(f"unknown way to explain '{method}'; choose occlusion or integrated_gradients")
    if len(predictor.labels) < 2 and not predictor.task.multi_label:
        raise UsageError("there is one label only, so nothing speaks for or against it")
    label = answer.get("best_guess") or predictor.labels[int(logits.argmax())]
    return Explainer(predictor).explain(one, label, method, 5)  # type: ignore[arg-type]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error.strerror or error}") from None


def _named(inputs: Sequence[str], reads: str) -> Iterator[tuple[str, str]]:
    for at, value in enumerate(inputs):
        if reads == "image" and Path(value).is_dir():
            for path in sorted(Path(value).rglob("*")):
                if path.suffix.lower() in IMAGES:
                    yield str(path), str(path)
        else:
            yield (value if reads == "image" else f"input {at + 1}"), value


def _rows(file: Path, column: str | None, reads: str) -> Iterator[tuple[str, str]]:
    """(where, text or image path) of every row; relative image paths start at the file's folder. A row that cannot be
    read, or holds nothing in the column, keeps its place with an empty value, which is then told as an error."""
    from luthier.prepare.makers._rows import Row, read_rows, read_text

    if file.suffix.lower() == ".txt":
        if column is not None:
            raise UsageError("--column is for tables; a .txt file holds one text or path a line")
        lines = read_text(file, file.name)[0].splitlines()
        cells = [(f"{file.name}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    else:
        rows = list(read_rows(file, str(file), {}))
        name = _column([row.data for row in rows if isinstance(row, Row)], column, reads, file)
        cells = [(row.where, _cell(row.data.get(name)) if isinstance(row, Row) else "") for row in rows]
    for where, value in cells:
        yield where, str(file.parent / value) if reads == "image" and value else value


def _column(rows: Sequence[Mapping[str, Any]], wanted: str | None, reads: str, file: Path) -> str:
    from luthier.prepare.makers._columns import fields_of, guess

    fields = fields_of(rows)
    if wanted is not None:
        if wanted not in fields:
            raise UsageError(f"{file} has no column '{wanted}'; it has: {', '.join(fields) or 'none'}")
        return wanted
    try:
        found = fields[0] if len(fields) == 1 else guess(reads, fields) or (guess("query", fields)
                                                                            if reads == "text" else None)
    except DataError:
        found = None
    if found is None:
        raise UsageError(f"{file}: name the column that holds the {reads}s with --column; it has: "
                         f"{', '.join(fields) or 'none'}")
    return found


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _line(row: dict[str, Any]) -> str:
    """One answer for a person."""
    if "error" in row:
        return f"{row['where']}: {row['error']}"
    if "spans" in row:
        spans = [f"{one['label']}: {one['text']} ({one['probability']:.3f})" for one in row["spans"]]
        return "\n".join(spans) or "nothing"
    if "embedding" in row:
        return json.dumps(row["embedding"])
    if "labels" in row:
        said = ", ".join(f"{one['label']} ({one['probability']:.3f})" for one in row["labels"]) or "no label applies"
    else:
        said = f"{row['label']} ({row['probability']:.3f})" if not row["abstained"] else \
            f"none of these (best guess: {row['best_guess']}, {row['probability']:.3f})"
    place = "" if row["where"].startswith("input ") else f"{row['where']}: "
    why = row.get("explanation", {}).get("tokens", [])
    told = "".join(f"\n  {one['contribution']:+.2f}  {one['text']}" for one in why)
    return place + said + told
