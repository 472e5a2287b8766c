"""How long the stages of a run take: their work in units, this machine's own past rates, and how far off they were."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import median

from luthier.ingest.ocr.forecast import IMAGES
from luthier.models.sources import cache_folder
from luthier.prepare.makers.conll import SUFFIXES as CONLL
from luthier.project.asking import asking
from luthier.project.base import Done, Project
from luthier.store import Artifact
from luthier.task import LABELLED
from luthier.types import read_jsonl

DEFAULT_RATES = {"ingest": 4e5, "pictures": 0.25, "prepare": 1200.0, "index": 1500.0, "train": 150.0, "evaluate": 30.0}
"""Units per second: bytes read, pages read from their pictures, words prepared, words embedded, tokens trained, tokens
generated."""
UNITS = {"ingest": "bytes", "prepare": "words", "index": "words", "train": "tokens", "evaluate": "generated tokens"}
ROW_RATES = {"prepare": 3000.0, "train": 30.0, "train-head": 150.0, "evaluate": 80.0}
"""The same for labelled tasks, in rows per second: of a table prepared, trained once (`train-head`: by a head on frozen
features, which are computed once), and tested."""
RATED_MODEL = 135e6
"""Parameters of the model that the rates of `train` and `evaluate` are for; another one's are in proportion."""
NO_BFLOAT16 = 1 / 3
"""Their part on a processor that does not compute in bfloat16 (measured: 80 against 400 tokens a CPU second)."""
TOKENS_PER_WORD, BYTES_PER_WORD, WORDS_PER_PICTURE = 1.45, 12, 300


def work_of(project: Project, made: Mapping[str, Artifact]) -> dict[str, float]:
    """Units of work per stage; exact where the stage before is made, estimated from file sizes otherwise."""
    spec = project.spec
    if spec.task.labelled:
        return _row_work(project, made)
    work: dict[str, float] = {"ingest": float(sum(file.stat().st_size for file in _files(project)))}
    words = words_of(project, made)
    work["prepare"], work["index"] = words, words
    if "prepare" in made:
        counts = {"train": 0.0, "test": 0.0}
        tokens = 0.0
        for row in read_jsonl(made["prepare"].path / "examples.jsonl"):
            if row["split"] in counts:
                counts[row["split"]] += 1
            if row["split"] == "train":
                text = row["input"] if isinstance(row["input"], str) else " ".join(m["content"] for m in row["input"])
                tokens += TOKENS_PER_WORD * len(f"{text} {row['target'] or ''}".split()) + 30
    else:
        tokens, counts = words * 3.0, {"train": words / 40, "test": words / 250}
    train = spec.train
    work["train"] = tokens * train.epochs
    asked = min(counts["test"], spec.evaluate.max_questions)
    work["evaluate"] = asked * len(spec.evaluate.systems) * spec.evaluate.max_new_tokens * 0.7
    return work


def rate_of(project: Project, stage: str) -> str:
    """Name of a stage's rate: labelled tasks work in rows, and each base model at its own speed."""
    task = project.spec.task
    model = f":{project.spec.adapt.model}" if stage in ("train", "evaluate") else ""
    if not task.labelled:
        return stage + model
    head = "-head" if stage == "train" and project.spec.train.plan.kind == "head" else ""
    return f"{stage}{head}:{task.type}{model}"


def seconds_of(project: Project, stage: str, units: float, made: Mapping[str, Artifact]) -> float:
    """How long a stage takes for its units of work: by what it took here with this base model, or by the shipped
    rates."""
    rates, name = rates_of(cache_folder()), rate_of(project, stage)
    if name in rates:
        return units / rates[name]
    rate = rates[name.removesuffix(f":{project.spec.adapt.model}")]
    if stage in ("train", "evaluate") and not project.spec.task.labelled:
        parameters = float(made["adapt"].summary.get("parameters") or 0) if "adapt" in made else 0.0
        rate *= RATED_MODEL / (parameters or RATED_MODEL) * (1 if _computes_in_bfloat16() else NO_BFLOAT16)
    return units / rate


@cache
def _computes_in_bfloat16() -> bool:
    """Whether the processor says so; without asking torch, which takes seconds to load. True where it says nothing."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True
    return "flags" not in told or "avx512_bf16" in told or "amx_bf16" in told


def pictures(project: Project) -> int:
    """Pages that the next ingest will read by text recognition."""
    from luthier.ingest.ocr.forecast import pages_to_read

    spec, latest = project.spec.ingest, project.latest().get("ingest")
    return pages_to_read([project.root / source for source in spec.sources], spec,
                         project.store.find("ingest", latest) if latest else None)


def _row_work(project: Project, made: Mapping[str, Artifact]) -> dict[str, float]:
    """Rows per stage of a labelled task; before prepare has counted them, lines of a table and files of class folders
    stand for rows."""
    train = project.spec.train
    if "prepare" in made:
        counts = dict(made["prepare"].summary)
    else:
        whole = 0.0
        for maker in project.spec.prepare.makers:
            path = project.root / str(getattr(maker, "path", ""))
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            each = maker.kind in ("text_folders", "image_folders")
            whole += len(files) if each else sum(_rows_in(file) for file in files)
        counts = {"examples": whole, "train": whole * 0.75, "validation": whole * 0.1, "test": whole * 0.15}
    rows = float(counts["train"])
    passes = 1.0 if train.plan.kind == "head" else float(train.epochs)
    return {"prepare": float(counts["examples"]), "train": rows * passes + 2 * passes * float(counts["validation"]),
            "evaluate": rows + float(counts["validation"]) + float(counts["test"])}


def _rows_in(file: Path) -> float:
    """About how many rows a file holds: its lines, or one for every 100 bytes where it has no line for each."""
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv", ".jsonl", ".ndjson"):
        return max(1, file.read_bytes().count(b"\n") - (suffix in (".csv", ".tsv")))
    if suffix in CONLL:
        return file.read_bytes().count(b"\n\n") + 1
    return file.stat().st_size / (800 if suffix == ".npz" else 100) if suffix in (
        ".json", ".parquet", ".arrow", ".npz") else 0.0


def words_of(project: Project, made: Mapping[str, Artifact]) -> float:
    """Words of the documents; a guess by size where nobody read them yet."""
    if "ingest" in made:
        return float(made["ingest"].summary["words"])
    return sum(WORDS_PER_PICTURE if file.suffix.lower() in IMAGES else file.stat().st_size / BYTES_PER_WORD
               for file in _files(project))


def _files(project: Project) -> list[Path]:
    found: list[Path] = []
    for source in project.spec.ingest.sources:
        folder = project.root / source
        found += [file for file in (folder.rglob("*") if folder.is_dir() else [folder]) if file.is_file()]
    return found


@cache
def rates_of(folder: Path) -> dict[str, float]:
    """Units per second by stage: the median of the last runs on this machine, or the shipped defaults."""
    found: dict[str, list[float]] = {}
    file = folder / "rates.jsonl"
    if file.is_file():
        for row in read_jsonl(file):
            found.setdefault(row["stage"], []).append(row["units"] / max(row["seconds"], 1e-3))
    rows = {f"{stage}:{task}": rate for stage, rate in ROW_RATES.items() for task in LABELLED}
    shipped = {**DEFAULT_RATES, **rows}
    return shipped | {stage: median(seen[-7:]) for stage, seen in found.items()
                      if stage not in shipped or not stage.startswith(("train", "evaluate"))}  # of models unnamed


def record(project: Project, done: Done) -> None:
    """After a stage really ran: note its rate on this machine, and how far the forecast was off."""
    if not done.fresh or done.artifact is None or done.stage not in DEFAULT_RATES:
        return
    made = {stage: artifact for stage, id in project.latest().items()
            if (artifact := project.store.find(stage, id)) is not None}
    units = work_of(project, made).get(done.stage, 0.0)
    if units <= 0:
        return
    if done.stage == "prepare" and asking(project):
        return  # a teacher's time is forecast by itself and says nothing about words
    rate = rate_of(project, done.stage)
    now = {"at": round(time.time())}
    row = {"stage": rate, "units": units, "seconds": done.seconds}
    rows, forecast = [row], seconds_of(project, done.stage, units, made)
    read = done.artifact.summary.get("ocr", {}) if done.stage == "ingest" else {}
    if read.get("read_now"):  # its speed is its own: a scan of 2 MB takes as long as a PDF of 200 pages
        forecast += read["read_now"] / rates_of(cache_folder())["pictures"]
        rows = [{"stage": "pictures", "units": float(read["read_now"]), "seconds": read["seconds"]},
                {**row, "seconds": max(done.seconds - read["seconds"], 0.05)}]
    for file, text in (*((cache_folder() / "rates.jsonl", one | now) for one in rows),
                       (project.state / "forecasts.jsonl", row | now | {"forecast": forecast})):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(text) + "\n")
        except OSError:
            return  # a forecast is a courtesy: a read-only cache folder must not stop a run


def past(project: Project) -> list[str]:
    """How far past forecasts in this project were off."""
    file = project.state / "forecasts.jsonl"
    if not file.is_file():
        return ["No run on record here: times are for two cores of a 2023 server and may be off by a factor of 3."]
    rows = list(read_jsonl(file))
    off = [max(row["forecast"], row["seconds"]) / max(min(row["forecast"], row["seconds"]), 1e-3)
           for row in rows if row["seconds"] >= 1]
    if not off:
        return []
    return [f"Past forecasts here were off by a factor of {median(off):.1f} (median of {len(off)} stages)."]


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
