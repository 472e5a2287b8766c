"""A look at the first rows of a labelled project's data, for `luthier check`: what is wrong before anything is made."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from itertools import islice
from pathlib import Path

from luthier.errors import LuthierError
from luthier.index.rag import Rag
from luthier.prepare.base import MakeContext, Maker, Prepare, no_split
from luthier.prepare.labels import labels_of
from luthier.progress import Silent
from luthier.store import Store
from luthier.task import Task
from luthier.types import Dropped, Example

MOST = 400
"""Rows of each maker that are looked at."""
_FEWER = {"text_folders": 0, "image_folders": 256}
"""Of makers whose files take long to read; 0 looks at names only."""


def glance(task: Task, spec: Prepare, *, store: Store, root: Path, most: int = MOST) -> tuple[list[str], list[str]]:
    """(what would stop `prepare`, what a person should know); nothing is kept but the cache of images looked at.

    Sees missing files and columns, empty files, data without answers, rows that would be left out, and, where a file
    is shorter than `most` rows, classes with a single row.
    """
    problems: list[str] = []
    notes: list[str] = []
    seen: list[Example] = []
    whole = True
    for maker in spec.makers:
        looked = min(most, _FEWER.get(maker.kind, most))
        try:
            maker.inputs(root)
            found = _first(maker, task, spec, store, root, looked)
        except LuthierError as error:
            problems.append(str(error))
            continue
        whole = whole and len(found) < looked
        bad = [row for row in found if isinstance(row, Dropped)]
        seen += [row for row in found if isinstance(row, Example)]
        if bad:
            where = str(getattr(maker, "path", maker.kind))
            strict = getattr(maker, "strict", False)
            (problems if strict else notes).append(
                f"{len(bad):,} of the first {len(found):,} rows of {where} "
                f"{'are bad, and strict stops at them' if strict else 'would be left out'}, such as "
                f"{bad[0].item}: {bad[0].reason}: {bad[0].detail}")
    if whole and not problems:
        if not any(row.labelled for row in seen):
            problems.append("no row has an answer to learn from; name the column of the answers in prepare.makers, or "
                            "label some rows")
        counts = Counter(label for row in seen for label in labels_of(row))
        if len(counts) == 1 and task.type in ("classify", "image") and not task.multi_label:
            problems.append(f"all rows have the same label ({next(iter(counts))}); at least two classes are needed to "
                            "learn to tell them apart")
        single = sorted(label for label, count in counts.items() if count == 1)
        if single and task.type != "tag":
            notes.append(f"{len(single):,} class{'es have' if len(single) > 1 else ' has'} a single row and can be "
                         f"trained on but not tested: {', '.join(single[:6])}{', …' if len(single) > 6 else ''}")
    return problems, notes


def _first(maker: Maker, task: Task, spec: Prepare, store: Store, root: Path, most: int) -> list[Example | Dropped]:
    context = MakeContext(documents=(), passages=(), task=task, split_of=no_split, seed=spec.seed, root=root,
                          cache=store.cache("prepare"), progress=Silent(), rag=Rag(), store=store)
    with closing(maker.make(context)) as made:  # type: ignore[type-var]  # makers are generators
        return list(islice(made, most))
