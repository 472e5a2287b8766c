"""`luthier show`: the resolved project and what each stage made, for people and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from luthier.errors import UsageError
from luthier.project.base import STAGES, Done, Project, tree_size


def show(opened: Callable[[], Project], what: str) -> tuple[Any, str]:
    """(JSON data, text) about `what`; UsageError for something unknown."""
    from luthier.project import yaml_file

    if what == "schema":
        return yaml_file.json_schema(), yaml_file.schema_text().rstrip()
    if what == "kinds":
        return _kinds()
    project = opened()
    if what == "project":
        spec = project.spec
        return spec.dump(), yaml_file.commented_yaml(spec).rstrip()
    if what == "releases":
        return _releases(project)
    if what == "release":
        return _release(project)
    if what not in STAGES:
        raise UsageError(f"'{what}' cannot be shown; choose one of: project, schema, kinds, releases, "
                         f"{', '.join(STAGES)}")
    artifact = project.artifact(what)
    files = sorted(p.name + ("/" if p.is_dir() else "") for p in artifact.path.iterdir())
    data = {"stage": what, "id": artifact.id, "folder": str(artifact.path), "files": files,
            "bytes": tree_size(artifact.path), "inputs": dict(artifact.inputs), "summary": dict(artifact.summary)}
    text = [f"{what} {artifact.id}", f"folder: {artifact.path}", f"files: {', '.join(files)}", "",
            outline(_told(artifact.summary)), *_extra(what, artifact.path)]
    return data, "\n".join(text)


def _extra(stage: str, folder: Path) -> list[str]:
    """The page or table that a person wants to see next."""
    if stage == "ingest":
        from luthier.types import read_jsonl

        rows = [f"  {row['path']}: {row['reason']}" + (f" ({row['detail']})" if row["detail"] else "")
                for row in read_jsonl(folder / "set_aside.jsonl")]
        return ["", "Set aside:", *rows] if rows else []
    if stage == "prepare":
        return ["", f"Data card: {folder / 'card.html'}"]
    if stage == "blend":
        from luthier.blend.table import text_of

        table = json.loads((folder / "pareto.json").read_text("utf-8"))
        return ["", text_of(table), "", f"Front: {folder / 'pareto.html'}"]
    if stage == "train":
        preview = folder / "preview.html"  # labelled tasks have none: each row's loss is its label's
        return ["", (folder / "contract.txt").read_text("utf-8").rstrip(), *_suspects(folder / "suspects.json"),
                "", *([f"Tokens that carry loss: {preview}"] if preview.is_file() else []),
                f"Curves: tensorboard --logdir {folder / 'tensorboard'}"]
    if stage == "evaluate":
        return ["", f"Report: {folder / 'report.html'}"]
    return []


def _suspects(file: Path, most: int = 20) -> list[str]:
    """Rows whose label is probably wrong, the least believable first (the strategy `clean` writes them)."""
    rows = json.loads(file.read_text("utf-8"))["rows"] if file.is_file() else []
    lines = [f"  {row['where']}: {', '.join(row['labels'])} → {', '.join(row['proposed'])} ({row['probability']:.2f})  "
             f"{row['text'][:60]}" for row in rows[:most]]
    more = [f"  and {len(rows) - most:,} more"] if len(rows) > most else []
    return ["", f"Probably wrong labels (all of them: {file}):", *lines, *more] if rows else []


def _kinds() -> tuple[dict[str, Any], str]:
    """Every registered kind at every seam, with its first line of help and its fields."""
    data: dict[str, Any] = {}
    for seam in seams():
        data[seam.name] = {
            kind: {"help": (cls.__doc__ or "").strip().splitlines()[0],
                   "fields": {name: " ".join(cls.field_help().get(name, "").split()) for name in cls.model_fields}}
            for kind, cls in seam.kinds().items()
        }
    lines = []
    for name, kinds in data.items():
        lines.append(f"{name}:")
        for kind, about in kinds.items():
            lines.append(f"  {kind}: {about['help']}")
            lines += [f"      {field}: {text}" for field, text in about["fields"].items()]
    return data, "\n".join(lines)


def seams() -> list[Any]:
    """All seams, in the order of the stages."""
    from luthier.adapt.base import METHODS
    from luthier.evaluate.base import METRICS
    from luthier.evaluate.labels.metrics import LABEL_METRICS
    from luthier.ingest.base import READERS
    from luthier.ingest.ocr.base import OCR_ENGINES
    from luthier.prepare.base import MAKERS
    from luthier.prepare.formats.base import FORMATS
    from luthier.prepare.weak.base import LABELERS
    from luthier.train.base import AUGMENTS, KEEPS, LOSSES, MIXES, PLANS, REGULARIZERS, STRATEGIES
    from luthier.train.blends import BLENDS
    from luthier.tune.base import PRUNERS, SEARCHERS

    return [READERS, OCR_ENGINES, MAKERS, METHODS, PLANS, LOSSES, AUGMENTS, MIXES, STRATEGIES, KEEPS, REGULARIZERS,
            BLENDS, SEARCHERS, PRUNERS, METRICS, LABEL_METRICS, FORMATS, LABELERS]


def _releases(project: Project) -> tuple[list[dict[str, Any]], str]:
    from luthier.release.base import list_releases

    records = list_releases(project.releases)
    data = [{"name": r.name, "version": r.version, "stage": r.stage, "choice": r.choice, "forced": bool(r.forced)}
            for r in records]
    lines = [f"{row['name']}/{row['version']}  {row['stage']:<9} {row['choice']}{'  FORCED' if row['forced'] else ''}"
             for row in data]
    return data, "\n".join(lines) or "nothing has been released yet; run: luthier run"


def _release(project: Project) -> tuple[dict[str, Any], str]:
    from luthier.release.base import live_release

    folder = live_release(project.releases, project.spec.release.name or project.spec.name)
    data = json.loads((folder / "release.json").read_text("utf-8"))
    card = folder / "MODEL_CARD.md"
    return data, card.read_text("utf-8").rstrip() if card.is_file() else outline(data)


def _pictures(ocr: Mapping[str, Any]) -> str:
    """What text recognition did, for the headline of ingest."""
    if not ocr:
        return ""
    said = f"; {ocr['pages']} page{'s' * (ocr['pages'] != 1)} read from pictures"
    said += f", {ocr['failed']} failed" if ocr["failed"] else ""
    said += f", {ocr['in_doubt']} of {ocr['lines']:,} lines wait for review" if ocr["in_doubt"] else ""
    rate = ocr["error_rate"].get("all")
    if rate:
        between = f" ({rate['interval'][0]:.1%}–{rate['interval'][1]:.1%})" if "interval" in rate else ""
        said += f"; character error rate of {rate['lines']} corrected lines {rate['cer']:.1%}{between}"
    return said


def headline(done: Done, project: Project) -> str:
    """What a stage made, in one line."""
    summary: Mapping[str, Any] = done.artifact.summary if done.artifact else {}
    if done.stage == "ingest":
        aside = sum(summary.get("set_aside", {}).values())
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(summary.get("set_aside", {}).items()))
        return f"{summary['documents']} documents, {summary['words']:,} words" + (
            f"; {aside} set aside: {reasons}" if aside else "") + _pictures(summary.get("ocr", {}))
    if done.stage == "prepare" and "labels" in summary:
        aside = f", {summary['unlabelled']:,} unlabelled" if summary["unlabelled"] else ""
        aside += f", {summary['out_of_scope']:,} of none of the classes" if summary.get("out_of_scope") else ""
        gone = f"; {summary['dropped']:,} rows left out, with reasons" if summary["dropped"] else ""
        labels = f"{summary['labels']:,} labels; " if summary["labels"] else ""
        return (f"{labels}rows: {summary['train']:,} train, {summary['validation']:,} validation, "
                f"{summary['test']:,} test{aside}{gone}")
    if done.stage == "prepare":
        return (f"{summary['passages']} passages; examples: {summary['train']} train, {summary['validation']} "
                f"validation, {summary['test']} test ({summary['disjoint']}-disjoint)")
    if done.stage == "index":
        return f"{summary['passages']} passages searchable"
    if done.stage == "adapt":
        return f"{summary['name']}, {summary['parameters'] / 1e6:,.0f} M parameters"
    if done.stage == "train" and summary.get("validation"):
        found = summary["validation"]
        return (f"{summary['steps']:,} updates, validation {found['metric']} {found['value']:.3f} "
                f"(n = {found['n']:,})")
    if done.stage == "train":
        before, best = summary.get("validation_before"), summary.get("validation_best")
        loss = f", validation loss {before:.3f} → {best:.3f}" if before is not None and best is not None else ""
        return f"{summary['steps']} updates{loss}"
    if done.stage == "blend":
        new, old = summary["new"], summary["old"]
        kept = f", old {old['trained']:.3f} → {old['blend']:.3f}" if old else ""
        return f"a = {summary['at']:g}: new {new['metric']} {new['trained']:.3f} → {new['blend']:.3f}{kept}"
    if done.stage == "evaluate":
        return f"verdict: {summary['verdict']['choice'].replace('_', ' + ')}"
    from luthier.release.base import released_as

    return f"{done.folder.parent.name}/{done.folder.name}, {released_as(done.folder)}"


def verdict_of(release: Path) -> str:
    """The verdict's sentence, from the report in a release folder."""
    return json.loads((release / "report.json").read_text("utf-8"))["verdict"]["sentence"]


def _told(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary for people: the time as a date, and no counts of what the task does not have."""
    told = dict(summary)
    if "made_at" in told:
        told["made_at"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told["made_at"]))
    if "labels" in told:
        told = {key: value for key, value in told.items() if key not in ("documents", "passages")}
    return told


def outline(data: Any, depth: int = 0) -> str:
    """Nested JSON data as indented text."""
    pad = "  " * depth
    if isinstance(data, Mapping):
        lines = []
        for key, value in data.items():
            name = str(key).replace("_", " ")
            if key == "made_at" and isinstance(value, int | float):
                value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
            if isinstance(value, Mapping | list) and value:
                lines += [f"{pad}{name}:", outline(value, depth + 1)]
            elif isinstance(value, str) and "\n" in value:
                lines += [f"{pad}{name}:", *(f"{pad}  {line}" for line in value.splitlines())]
            else:
                lines.append(f"{pad}{name}: {_plain(value)}")
        return "\n".join(lines)
    if isinstance(data, list):
        return "\n".join(
            f"{pad}- {outline(item, depth + 1).lstrip()}" if isinstance(item, Mapping) else f"{pad}- {_plain(item)}"
            for item in data)
    return f"{pad}{_plain(data)}"


def _plain(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e6 else f"{value:,.0f}" if isinstance(
        value, float) else str(value)
