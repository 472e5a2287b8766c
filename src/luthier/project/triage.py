"""`luthier triage FOLDER`: sort a stream of documents, and write the result where people find it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import UsageError
from luthier.executors import Executor
from luthier.prepare.weak.figures import share
from luthier.progress import Progress, Silent
from luthier.project.base import Project
from luthier.store import Artifact, tell_disk_trouble, write_text
from luthier.triage.base import triage
from luthier.types import read_jsonl

FOLDER = "triage"
FILES = ("triage.jsonl", "triage.csv", "summary.json", "set_aside.jsonl")
_SHOWN = 12


@dataclass(frozen=True)
class Sorted:
    """What `luthier triage` made."""

    artifact: Artifact
    out: Path

    def data(self) -> dict[str, Any]:
        return {**{name: value for name, value in self.artifact.summary.items() if name not in ("made_at", "seconds")},
                "out": str(self.out)}

    def text(self) -> str:
        found = self.artifact.summary
        lines = []
        for row in list(read_jsonl(self.out / FILES[0]))[:_SHOWN]:
            values = ", ".join(f"{name}: {value['value'][:40] if value else '–'}"
                               for name, value in row["fields"].items())
            sure = f"{row['class'] or '?':<20} {row['probability']:>4.0%}  " if "probability" in row else ""
            lines.append(f"{sure}{row['path']}" + (f"  ({values})" if values else ""))
        if found["documents"] > _SHOWN:
            lines.append(f"… and {found['documents'] - _SHOWN} more")
        lines.append("")
        if found["classes"] or found["open"]:
            lines.append(", ".join(f"{count} {name}" for name, count in found["classes"].items())
                         + (f"{', ' if found['classes'] else ''}{found['open']} left open" if found["open"] else ""))
        if found["examples_measured"]:
            lines.append(f"The examples, each judged by the others: {share(found['examples_measured'])} right")
        lines += [f"{name}: found in {count} of {found['documents']}" for name, count in found["fields"].items()]
        if found["set_aside"]:
            lines.append(f"{found['set_aside']} files could not be read; see {self.out / 'set_aside.jsonl'}")
        if found["review"]:
            lines.append(f"{found['review']} documents wait for a person: luthier review --queue labels")
        return "\n".join([*lines, f"Result: {self.out / FILES[0]} and {FILES[1]}"])


def sort_documents(project: Project, folders: Sequence[Path], *, out: Path | None = None,
                   executor: Executor | None = None, progress: Progress | None = None) -> Sorted:
    """Judge every document below `folders` and write triage.jsonl and triage.csv into `out` (the project's `triage/`).
    UsageError for a folder that does not exist."""
    for folder in folders:
        if not folder.exists():
            raise UsageError(f"no such file or folder: {folder}")
    made = triage([*folders], project.spec.triage, store=project.store, root=project.root, releases=project.releases,
                  ingest=project.spec.ingest, executor=executor, progress=progress or Silent())
    project.remember("triage", made)
    out = out or project.root / FOLDER
    with tell_disk_trouble(out):
        out.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            write_text(out / name, (made.path / name).read_text("utf-8", errors="surrogatepass"))
    return Sorted(made, out)
