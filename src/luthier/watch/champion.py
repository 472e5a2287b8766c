"""The champion: the live release, with the artifacts that it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from luthier.errors import StoreError
from luthier.ingest.base import read_documents
from luthier.ingest.forgotten import Forgotten
from luthier.prepare.base import read_examples
from luthier.prepare.forgotten_rows import row_digest
from luthier.project.base import Project
from luthier.release.base import ReleaseRecord, live_release, read_release
from luthier.release.gate import TUNED
from luthier.store import Artifact, Store
from luthier.types import Document, Example
from luthier.watch.changes import Changes
from luthier.watch.data import STAGE


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The live release."""

    record: ReleaseRecord
    data: Artifact
    """What it was tested on, and trained on: prepare's artifact, or that of an update."""
    run: Artifact
    model: Artifact
    """The artifact of `adapt`."""
    documents: Artifact | None
    index: Artifact | None
    compare: Artifact | None
    """The comparison that it won when it was made by an update."""

    @property
    def tuned(self) -> bool:
        return self.record.choice in TUNED

    def read_documents(self) -> list[Document]:
        return read_documents(self.documents) if self.documents is not None else []


def open_champion(project: Project, folder: Path | None = None) -> Champion:
    """The live release, or that in `folder`. UsageError when nothing is live yet; StoreError when what it was made from
    is no longer in the store."""
    record = read_release(folder or live_release(project.releases, project.spec.release.name or project.spec.name))
    lineage = record.lineage

    def artifact(stage: str) -> Artifact | None:
        return find(project.store, lineage.get(stage, ""))

    data = artifact(STAGE if STAGE in lineage else "prepare")
    run, model = artifact("blend") or artifact("train"), artifact("adapt")
    for name, found in (("data", data), ("training", run), ("base model", model)):
        if found is None:
            raise StoreError(f"release {record.label} cannot be updated: its {name} is no longer in "
                             f"{project.store.root}; make a new first release with: luthier run")
    assert data is not None and run is not None and model is not None
    return Champion(record=record, data=data, run=run, model=model, documents=artifact("ingest"),
                    index=artifact("index"), compare=artifact("compare"))


def find(store: Store, name: str) -> Artifact | None:
    """The artifact called `stage/id`."""
    stage, _, id = name.partition("/")
    return store.find(stage, id) if id else None


def beginning(champion: Champion, *, model: Artifact, changes: Changes, project: Project, forgotten: Forgotten
              ) -> tuple[Artifact | None, str]:
    """(the run that training begins from, or None for the base model; why, for a person)."""
    spec = project.spec.watch
    learned = [example for example in changes.removed if example.split != "test"]
    if not champion.tuned:
        return None, f"the live release is '{champion.record.choice}', which is fitted on all rows anew"
    if spec.start == "base":
        return None, "watch.start is 'base'"
    if model.id != champion.model.id:
        return None, "the base model or what of it trains (section adapt) is another one than the live release's"
    if learned and spec.removed == "base":
        return None, f"{len(learned)} rows that the live model learned from were removed, and no training on makes a " \
                     "model forget"
    if not forgotten_in(champion.run, project, forgotten).clean:
        return None, "the live model, or one that it was trained from, learned from what was forgotten since"
    if _is_ensemble(champion.run.path / "best"):
        return None, "the live model is an ensemble, which training cannot go on from"
    return champion.run, f"training goes on from the live release {champion.record.label}"


def _is_ensemble(folder: Path) -> bool:
    try:
        return "ensemble" in json.loads((folder / "network.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False


def ancestors(run: Artifact, store: Store) -> Iterator[Artifact]:
    """A run and all whose weights or rows are in it, the latest first: what it began from, and for a blend the run
    that it was made from and those that were mixed in."""
    queue, seen = [run], set()
    while queue:
        here = queue.pop(0)
        if here.id in seen:
            continue
        seen.add(here.id)
        yield here
        names = [here.inputs.get("start", ""), here.inputs.get("run", ""), *here.inputs.get("others", ())]
        queue += [one for name in names if (one := find(store, str(name))) is not None]


@dataclass(frozen=True)
class Traces:
    """What a run, and those before it, learned of what is forgotten."""

    examples: tuple[Example, ...]
    kept: int
    """Rows of it in their stores of past rows."""

    @property
    def clean(self) -> bool:
        return not self.examples and not self.kept


def forgotten_in(run: Artifact, project: Project, forgotten: Forgotten) -> Traces:
    """Look through the train and validation rows of a run and of those it was trained from."""
    if not (forgotten.paths or forgotten.hashes or forgotten.rows):
        return Traces((), 0)
    ids = {sha[:16] for sha in forgotten.hashes}  # a document's id; see luthier.types.Document
    found: dict[str, Example] = {}
    kept = 0
    for one in ancestors(run, project.store):
        data = find(project.store, str(one.inputs.get("data", "")))
        rows = [example for example in read_examples(data) if example.split != "test"] if data is not None else []
        found |= {example.id: example for example in rows if touches(example, forgotten, ids, project.root)}
        kept += sum(touches(example, forgotten, ids, project.root) for example in past_rows(one))
    return Traces(tuple(found.values()), kept)


def touches(example: Example, forgotten: Forgotten, ids: set[str], root: Path) -> bool:
    """Whether a row comes from a forgotten document, or is a forgotten row. `ids` are the documents' ids."""
    if ids & set(example.origin.documents):
        return True
    if not forgotten.rows or (example.image and not (root / example.image).is_file()):
        return False
    return row_digest(example, root) in forgotten.rows


def past_rows(run: Artifact) -> list[Example]:
    """The rows that a run stored for later trainings."""
    from luthier.train.past import FOLDER, ROWS
    from luthier.types import decode_example, read_jsonl

    file = run.path / FOLDER / ROWS
    return [decode_example(row) for row in read_jsonl(file)] if file.is_file() else []


