"""`forget`: where a document, a file of rows or one row went, and a live release that never saw it.

A model cannot be made to forget by training on, so the live release is trained again, from the base model, without it.
What keeps it out from then on is a line in `labels/forgotten.jsonl` (`luthier.ingest.forgotten`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier.errors import UsageError
from luthier.ingest.base import read_documents
from luthier.ingest.forgotten import FILE, Forgotten, add_entry, read_entries
from luthier.models.sources import file_hash
from luthier.prepare.base import read_examples
from luthier.prepare.forgotten_rows import row_digest
from luthier.prepare.labels import file_of
from luthier.progress import Progress, Silent
from luthier.project.base import Project
from luthier.project.gc import parents
from luthier.release.base import list_releases
from luthier.release.folder import now, person
from luthier.store import Artifact
from luthier.types import Example
from luthier.watch.champion import past_rows, touches
from luthier.watch.data import ROWS_STAGE, STAGE
from luthier.watch.update import Outcome, update

_DATA = ("prepare", STAGE, ROWS_STAGE)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be forgotten."""

    name: str
    """Path of the document or file, or the row's place."""
    entries: tuple[Mapping[str, Any], ...]
    """The lines for labels/forgotten.jsonl."""
    forgotten: Forgotten
    """These lines alone, for finding where they went."""
    files: tuple[Path, ...] = ()
    """Where it still lies in the project folder."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Where it went."""

    releases: tuple[Mapping[str, Any], ...] = ()
    """release, stage, and whether its model `learned` from it."""
    runs: tuple[Mapping[str, Any], ...] = ()
    """run, and how many train rows of it it learned from, itself or through the model it was trained from."""
    stores: tuple[Mapping[str, Any], ...] = ()
    """run, and how many rows of it are kept there for later trainings."""
    indexes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    """Other artifacts that hold text of it: documents, prepared rows, reports."""

    @property
    def anything(self) -> bool:
        return bool(self.releases or self.runs or self.stores or self.indexes or self.others)


@dataclass(frozen=True, kw_only=True)
class Forgot:
    """What `forget` found and did."""

    name: str
    reached: Reached
    recorded: bool = False
    """Its line was added now; False where it stood there already, or with --list."""
    listed: bool = False
    update: Outcome | None = None
    files: tuple[Path, ...] = field(default=())

    @property
    def state(self) -> str:
        return "listed" if self.listed else self.update.state if self.update is not None else "recorded"

    def data(self) -> dict[str, Any]:
        reached = self.reached
        return {"name": self.name, "state": self.state, "recorded": self.recorded,
                "releases": list(reached.releases), "runs": list(reached.runs), "replay_stores": list(reached.stores),
                "indexes": list(reached.indexes), "others": list(reached.others),
                "files": [str(file) for file in self.files],
                "update": self.update.data() if self.update is not None else None}

    def text(self) -> str:
        lines = list(_told(self.name, self.reached))
        if self.listed:
            return "\n".join([*lines, f"Only listed. To forget it: luthier forget {self.name!r}"])
        lines.append(f"{FILE}: {'recorded' if self.recorded else 'it stands there already'}; it is neither read nor "
                     "learned from now on.")
        if self.update is not None:
            lines.append(self.update.text())
            if self.update.state in ("refused", "pending"):
                lines.append(f"The live release {self.update.champion} STILL KNOWS IT. Approve or improve the update, "
                             "or release it in spite of the gate: luthier forget --force")
        for file in self.files:
            lines.append(f"Still in your folder, delete it yourself: {file}")
        if any(row["stage"] != "live" for row in self.reached.releases) or self.reached.others:
            lines.append("Earlier releases and artifacts keep it on disk, so that a rollback works; delete the folders "
                         "of the releases named above, then: luthier gc --yes, and the folder .luthier/store/cache")
        return "\n".join(lines)


def _told(name: str, reached: Reached) -> list[str]:
    if not reached.anything:
        return [f"'{name}' reached nothing that Luthier made."]
    lines = [f"'{name}' reached:"]
    for row in reached.releases:
        how = "its model learned from it" if row["learned"] else "its test or its index holds it"
        lines.append(f"  release {row['release']} ({row['stage']}): {how}")
    lines += [f"  run {row['run']}: learned from {row['rows']} rows of it" + (" (an earlier model did)" if
              row["inherited"] else "") for row in reached.runs]
    lines += [f"  replay store of run {row['run']}: {row['rows']} rows" for row in reached.stores]
    lines += [f"  index {one}" for one in reached.indexes]
    if reached.others:
        lines.append(f"  {len(reached.others)} more artifacts: {', '.join(reached.others[:4])}"
                     + (" …" if len(reached.others) > 4 else ""))
    return lines


def forget(project: Project, what: str, *, only_list: bool = False, reason: str = "", force: bool = False,
           progress: Progress = Silent()) -> Forgot:
    """Forget a document, a file of rows, or one row (`data/march.csv:12`); UsageError for what nobody knows.

    `only_list` changes nothing. `force` releases the model without it in spite of the gates; both are recorded.
    """
    target = find_target(project, what)
    where = reached(project, target.forgotten)
    if only_list:
        return Forgot(name=target.name, reached=where, listed=True, files=target.files)
    recorded = [add_entry(project.root, {**entry, "at": now(), "by": person(),
                                         **({"reason": reason} if reason else {})}) for entry in target.entries]
    outcome = None
    if any(row["stage"] == "live" for row in where.releases):
        outcome = update(project, progress=progress, force=force)
    return Forgot(name=target.name, reached=where, recorded=any(recorded), update=outcome, files=target.files)


def find_target(project: Project, what: str) -> Target:
    """A document by path or id, else rows by file, or by file and line, in anything that was ever made."""
    plain = what.replace("\\", "/").removeprefix("./").rstrip("/")
    documents: dict[str, str] = {}
    for artifact in _of(project, "ingest"):
        for document in read_documents(artifact):
            if what == document.id or plain in (document.path, *(f"{source}/{document.path}" for source in
                                                                 project.spec.ingest.sources)):
                documents[document.sha256] = document.path
    if documents:
        entries = tuple({"document": path, "sha256": sha} for sha, path in sorted(documents.items()))
        files = [project.root / source / path for source in project.spec.ingest.sources for path in documents.values()]
        return Target(name=plain, entries=entries, files=tuple(file for file in dict.fromkeys(files) if file.is_file()),
                      forgotten=Forgotten(paths=frozenset(documents.values()), hashes=frozenset(documents)))
    rows: dict[str, Example] = {}
    for artifact in _of(project, "prepare"):
        for example in read_examples(artifact):
            if _stands_in(example, plain) and not example.origin.passages and not _gone(example, project.root):
                rows[row_digest(example, project.root)] = example
    if rows:
        entry = {"file": plain, "rows": sorted(rows)}
        file = project.root / file_of(plain)
        return Target(name=plain, entries=(entry,), forgotten=Forgotten(rows=frozenset(rows)),
                      files=(file,) if file.exists() else ())
    known = next((entry for entry in read_entries(project.root) if plain in (entry.get("document"), entry.get("file"))),
                 None)
    lying = project.root / plain
    if known is None and lying.is_file():
        return Target(name=plain, entries=({"document": plain, "sha256": file_hash(lying)},), files=(lying,),
                      forgotten=Forgotten(hashes=frozenset({file_hash(lying)})))
    if known is not None:
        return Target(name=plain, entries=(), forgotten=Forgotten(
            paths=frozenset([known["document"]] if "document" in known else []),
            hashes=frozenset([known["sha256"]] if "document" in known else []),
            rows=frozenset(known.get("rows", ()))))
    raise UsageError(f"no document, file of rows or row called '{what}' is known in {project.root}; name a document's "
                     "path (handbook/old.pdf), a file (data/march.csv) or a row (data/march.csv:12), as luthier trace "
                     "shows them")


def _of(project: Project, *stages: str) -> list[Artifact]:
    return [artifact for artifact in project.store.artifacts() if artifact.stage in stages]


def _stands_in(example: Example, plain: str) -> bool:
    where = example.origin.where
    return bool(where) and (plain in (where, file_of(where), example.id, example.image)
                            or file_of(where).startswith(f"{plain}/"))


def _gone(example: Example, root: Path) -> bool:
    return bool(example.image) and not (root / example.image).is_file()


def reached(project: Project, forgotten: Forgotten) -> Reached:
    """Everything in the store and the releases that holds it, or was made from what holds it."""
    ids = {sha[:16] for sha in forgotten.hashes}
    artifacts = {(one.stage, one.id): one for one in project.store.artifacts()}
    holds: dict[tuple[str, str], int] = {}
    for key, one in artifacts.items():
        if one.stage == "ingest":
            found = sum(document.id in ids or document.path in forgotten.paths for document in read_documents(one))
        elif one.stage in _DATA:
            found = sum(touches(example, forgotten, ids, project.root) for example in read_examples(one))
        else:
            continue
        if found:
            holds[key] = found
    learned = {key: _learned(one, project, forgotten, ids) for key, one in artifacts.items() if one.stage == "train"}
    touched = _closure(artifacts, set(holds) | {key for key, rows in learned.items() if rows})
    runs = [{"run": f"train/{key[1]}", "rows": own or before, "inherited": not own} for key, own in learned.items()
            if (before := _inherited(artifacts[key], learned, artifacts)) or own]
    stores = [{"run": f"train/{key[1]}", "rows": count} for key, one in artifacts.items() if one.stage == "train"
              and (count := sum(touches(example, forgotten, ids, project.root) for example in past_rows(one)))]
    known = {row["run"] for row in runs}
    releases = []
    for record in list_releases(project.releases):
        names = {tuple(value.split("/", 1)) for value in record.lineage.values()}
        if names & touched:
            releases.append({"release": record.label, "stage": record.stage,
                             "learned": record.lineage.get("train") in known and record.choice not in
                             ("retrieval", "base")})
    rest = sorted(f"{stage}/{id}" for stage, id in touched if stage not in ("train", "index"))
    return Reached(releases=tuple(releases), runs=tuple(runs), stores=tuple(stores), others=tuple(rest),
                   indexes=tuple(sorted(f"index/{id}" for stage, id in touched if stage == "index")))


def _learned(run: Artifact, project: Project, forgotten: Forgotten, ids: set[str]) -> int:
    """Train and validation rows of it that a run's own data holds."""
    stage, _, id = str(run.inputs.get("data", "")).partition("/")
    data = project.store.find(stage, id) if id else None
    return 0 if data is None else sum(touches(example, forgotten, ids, project.root) for example in read_examples(data)
                                      if example.split != "test")


def _inherited(run: Artifact, learned: Mapping[tuple[str, str], int], artifacts: Mapping[tuple[str, str], Artifact]
               ) -> int:
    """The same of the runs that it was trained from."""
    here, total = run, 0
    while here is not None:
        stage, _, id = str(here.inputs.get("start", "")).partition("/")
        total = max(total, learned.get((stage, id), 0))
        here = artifacts.get((stage, id))
    return total


def _closure(artifacts: Mapping[tuple[str, str], Artifact], seeds: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The seeds and all that was made from them. Documents and rows are looked into, not judged by their ancestors: an
    update's data names the data before it, whether or not it still holds the same rows."""
    found = set(seeds)
    while True:
        more = {key for key, one in artifacts.items() if key not in found and one.stage not in ("ingest", *_DATA)
                and (set(_sources(one)) & found)}
        if not more:
            return found
        found |= more


def _sources(artifact: Artifact) -> list[tuple[str, str]]:
    """What an artifact was made from, but for what it was only compared with."""
    if artifact.stage == "compare":
        inputs = {name: value for name, value in artifact.inputs.items() if name in ("data", "run", "report", "index")}
        return parents(replace(artifact, inputs=inputs))
    return parents(artifact)
