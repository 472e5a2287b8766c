"""What runs in a job's process: `python -m luthier.watch.job PROJECT [--json] [--set …] ANSWER`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from luthier.progress import JsonLines, Progress, Terminal
from luthier.project import Project
from luthier.watch.attempt import end_with_parent, run
from luthier.watch.process import Answer

STATES = {"nothing": "done", "promoted": "done", "refused": "refused", "pending": "waiting"}
"""What an update came to → how its job ends."""


def main() -> int:
    end_with_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("project", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("answer", type=Path)
    told = parser.parse_args()
    progress: Progress = JsonLines() if told.json else Terminal()
    return run(lambda: update_project(Project.open(told.project, overrides=told.set), progress), told.answer)


def update_project(project: Project, progress: Progress) -> Answer:
    """Update the live release; the first release where nothing is live yet."""
    from luthier.watch.update import update

    if not has_live(project):
        return _first(project, progress)
    found = update(project, progress=progress)
    return Answer(STATES[found.state], found.data())


def has_live(project: Project) -> bool:
    """Whether there is a release that an update can start from."""
    return (project.releases / (project.spec.release.name or project.spec.name) / "live").exists()


def _first(project: Project, progress: Progress) -> Answer:
    for _ in project.run(progress=progress):
        pass
    from luthier.release.base import live_release, read_release

    folder = live_release(project.releases, project.spec.release.name or project.spec.name)
    label = read_release(folder).label
    return Answer("done", {"state": "promoted", "sentence": f"{label} is live, the first release.",
                           "release": str(folder)})


if __name__ == "__main__":
    if (os.cpu_count() or 1) <= 2:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in luthier.cli: spinning threads cost more than they give
    raise SystemExit(main())
