"""What makers that ask a model (`synthesize`) are going to cost, for `luthier check`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from luthier.errors import LuthierError
from luthier.project.base import Project
from luthier.store import Artifact

WORDS_PER_PASSAGE = 90


def asking(project: Project) -> list[Any]:
    """The project's makers that ask a model."""
    labelled = project.spec.task.labelled
    return [] if labelled else [maker for maker in project.spec.prepare.makers if hasattr(maker, "forecast")]


def teachers(project: Project, made: Mapping[str, Artifact], words: float) -> list[Any]:
    """What each of them asks at most (`Forecast`): by the passages of the last prepared data, else by
    words. A teacher that cannot be found is left out here; it is told as a problem of prepare."""
    if not asking(project):
        return []
    last = project.latest().get("prepare")
    before = project.store.find("prepare", last) if last else None
    passages = int(before.summary["passages"]) if before is not None else round(words / WORDS_PER_PASSAGE)
    found = []
    for maker in asking(project):
        with contextlib.suppress(LuthierError):
            found.append(maker.forecast(max(1, passages), words, replies=project.store.cache("prepare"),
                                        root=project.root))
    return found
