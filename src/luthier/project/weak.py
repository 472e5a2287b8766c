"""`luthier weak`: what each source of weak labels says, how right it is, and where sources disagree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import UsageError
from luthier.prepare.weak.apply import FILE
from luthier.prepare.weak.figures import share
from luthier.progress import Progress, Silent
from luthier.project.base import Project
from luthier.queues import ReviewItem, read_review

_SHOWN = 5


@dataclass(frozen=True)
class WeakLook:
    """The figures of the newest data, and the rows that sources disagree about."""

    figures: dict[str, Any]
    disagreements: list[ReviewItem]
    folder: Path

    def data(self) -> dict[str, Any]:
        return {**self.figures, "folder": str(self.folder), "disagreements": len(self.disagreements)}

    def text(self) -> str:
        found = self.figures
        width = max([6, *(len(row["source"]) for row in found["sources"])])
        width = min(width, 44)
        lines = [f"{'source':<{width}}  {'made by':<8} {'votes':>7} {'coverage':>9} {'overlaps':>9} {'conflicts':>9} "
                 f"{'estimated':>9}  measured on labelled rows"]
        for row in found["sources"]:
            lines.append(f"{row['source'][:width]:<{width}}  {row['made_by']:<8} {row['votes']:>7,} "
                         f"{row['coverage']:>9.0%} {row['overlaps']:>9.0%} {row['conflicts']:>9.0%} "
                         f"{row['estimated']:>9.0%}  {share(row['measured'])}")
        lines += ["", f"Labelled {found['labelled']:,} of {found['rows']:,} rows ({found['coverage']:.0%}) with a "
                      f"probability of at least {found['min_probability']:.0%}"
                      + (f"; their mean probability is {found['expected']:.0%}" if found["expected"] else "") + ".",
                  f"Right on rows that people labelled: {share(found['measured'])}; of all rows with a vote: model "
                  f"{share(found['measured_all'])}, majority {share(found['majority_all'])}."]
        lines += [f"note: {told}" for told in found["warnings"]]
        if self.disagreements:
            lines += ["", f"{len(self.disagreements)} rows wait in the review queue `labels`, such as:"]
            for item in self.disagreements[:_SHOWN]:
                lines.append(f"  {' '.join(item.text.split())[:90]}  ({item.where})\n      "
                             f"{item.context or item.reason}")
            lines.append("Decide them with: luthier review --queue labels")
        lines += ["", f"Data card: {self.folder / 'card.html'}"]
        return "\n".join(lines)


def weak(project: Project, *, progress: Progress | None = None) -> WeakLook:
    """Prepare what is not prepared yet, and read the figures. UsageError where nothing makes weak labels."""
    if not project.spec.prepare.weak.labelers:
        raise UsageError("prepare.weak.labelers names nothing that labels rows; add labelers such as rules, neighbours "
                         "or descriptions to luthier.yaml (docs/weak-labels.md)")
    for _ in project.run(to="prepare", progress=progress or Silent()):
        pass
    folder = project.artifact("prepare").path
    return WeakLook(json.loads((folder / FILE).read_text("utf-8")),
                    [item for item in read_review(folder) if item.queue == "labels"], folder)
