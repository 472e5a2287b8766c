"""`luthier trace`: lineage in both directions: answer → passage → file, document → examples → models → releases."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier.errors import UsageError
from luthier.ingest.base import read_documents, read_set_aside
from luthier.prepare.base import learned, read_dropped, read_examples, read_passages
from luthier.prepare.labels import file_of
from luthier.project.base import Project
from luthier.project.browse import source_of
from luthier.project.data import file_or_row
from luthier.project.gc import parents
from luthier.project.places import Places
from luthier.store import Artifact
from luthier.types import Dropped, Example, read_jsonl

_SHOWN = 50  # dropped items listed of one document


def trace(project: Project, what: str) -> dict[str, Any]:
    """Everything known about a document path, a document, passage, example or dropped item's id, a row (data.csv:12), a
    release or an answer id.

    Returns JSON data with a `type`; UsageError when nothing by that name is known.
    """
    for walk in (_answer, _release, _document, _passage, _example, _dropped, _source, _artifact):
        found = walk(project, what)
        if found is not None:
            return found
    raise UsageError(
        f"nothing called '{what}' is known in {project.root}; trace a document's path, a row (data.csv:12), an id "
        "shown by 'luthier show prepare', a release (NAME/VERSION) or an answer id from the server"
    )


def _prepared(project: Project) -> Artifact | None:
    return project.store.find("prepare", project.latest().get("prepare", "-"))


def _document(project: Project, what: str) -> dict[str, Any] | None:
    ingested = project.store.find("ingest", project.latest().get("ingest", "-"))
    if ingested is None:
        return None
    plain = what.replace("\\", "/").removeprefix("./")
    for document in read_documents(ingested):
        if what == document.id or plain in (document.path, f"documents/{document.path}"):
            return {
                "type": "document", "id": document.id, "path": document.path, "title": document.title,
                "reader": document.reader, "words": len(document.text.split()),
                **_from_document(project, document.id),
            }
    for aside in read_set_aside(ingested):
        if plain in (aside.path, f"documents/{aside.path}"):
            return {"type": "document", "path": aside.path, "set_aside": aside.reason, "detail": aside.detail}
    return None


def _from_document(project: Project, id: str) -> dict[str, Any]:
    prepared = _prepared(project)
    if prepared is None:
        return {"passages": [], "examples": [], "models": [], "releases": []}
    passages = [passage for passage in read_passages(prepared) if passage.document == id]
    examples = [example for example in read_examples(prepared) if id in example.origin.documents]
    trained = any(example.split == "train" for example in examples)
    places = Places(project, prepared)
    paths = _sources(prepared, places)
    known = sorted({*places.paths.values()}, key=len, reverse=True)
    gone = [drop for drop in read_dropped(prepared)
            if drop.item == id or source_of(drop, known, paths) == places.paths.get(id, "-")]
    return {
        "passages": [{"id": p.id, "where": p.citation, "places": places.of(p), "words": len(p.text.split())}
                     for p in passages],
        "examples": [{"id": e.id, "split": e.split, "made_by": e.origin.step, "question": e.question[-120:]}
                     for e in examples],
        "dropped": dict(Counter(f"{drop.step}: {drop.reason}" for drop in gone)),
        "dropped_items": [_told(drop) for drop in gone[:_SHOWN]],
        "models": [{"run": run.id, "learned_from_it": trained} for run in _made_from(project, prepared, "train")],
        "releases": _releases_of(project, prepared),
    }


def _passage(project: Project, what: str) -> dict[str, Any] | None:
    prepared = _prepared(project)
    if prepared is None:
        return None
    for passage in read_passages(prepared):
        if passage.id == what:
            examples = [e for e in read_examples(prepared) if what in e.origin.passages]
            return {
                "type": "passage", "id": what, "document": passage.document, "path": passage.path,
                "where": passage.citation, "places": Places(project, prepared).of(passage),
                "heading": list(passage.heading), "text": passage.text,
                "examples": [{"id": e.id, "split": e.split, "made_by": e.origin.step} for e in examples],
                "releases": _releases_of(project, prepared),
            }
    return None


def _example(project: Project, what: str) -> dict[str, Any] | None:
    prepared = _prepared(project)
    if prepared is None:
        return None
    place = what.removeprefix("./").removeprefix("data/")
    for example in read_examples(prepared):
        where = example.origin.where.removeprefix("data/")
        if example.id == what or where == place or (example.image and example.image == what):
            passages = {p.id: p for p in read_passages(prepared)}
            places = Places(project, prepared)
            documents = [{"id": id, "path": places.paths.get(id, "no longer among the documents"),
                          "reader": places.readers.get(id, "")} for id in example.origin.documents
                         if example.origin.passages]
            return {
                "type": "example", "id": example.id, "split": example.split, "question": example.question,
                "answer": example.target, **_labels_of(example), "origin": asdict(example.origin),
                "documents": documents,
                "passages": [{"id": id, "where": passages[id].citation, "places": places.of(passages[id]),
                              "text": passages[id].text}
                             for id in example.origin.passages if id in passages],
                "models": [{"run": run.id, "learned_from_it": example.split == "train"}
                           for run in _made_from(project, prepared, "train")],
                "releases": _releases_of(project, prepared),
            }
    return None


def _labels_of(example: Example) -> dict[str, Any]:
    """What a row of a labelled task is labelled with; nothing for other examples."""
    told: dict[str, Any] = {} if example.labels is None else {"labels": list(example.labels)}
    if example.spans is not None:
        told["tags"] = [f"{tag.label}: {str(example.input)[tag.start:tag.end]}" for tag in example.spans]
    return told | ({"image": example.image} if example.image else {})


def _dropped(project: Project, what: str) -> dict[str, Any] | None:
    """An item that a step refused: why, what it said, and the file that it comes from."""
    prepared = _prepared(project)
    if prepared is None:
        return None
    row = what.removeprefix("./").removeprefix("data/")
    found = [drop for drop in read_dropped(prepared)
             if what == drop.item or row in (drop.item.removeprefix("data/"),
                                             drop.detail.partition(": ")[0].removeprefix("data/"))]
    if not found:
        return None
    places = Places(project, prepared)
    paths = _sources(prepared, places)
    known = sorted({*places.paths.values()}, key=len, reverse=True)
    others = {one.id: one.origin.where for one in read_examples(prepared)} | {
        one.id: one.citation for one in read_passages(prepared)}
    named = [id for id in re.findall(r"\b[0-9a-f]{16}\b", " ".join(drop.detail for drop in found)) if id in others]
    return {"type": "dropped", "item": what, "from": source_of(found[0], known, paths),
            "dropped": [{**_told(drop), "text": drop.text} for drop in found],
            "see": [{"id": id, "where": others[id]} for id in dict.fromkeys(named)]}


def _told(drop: Dropped) -> dict[str, Any]:
    return {"item": drop.item, "step": drop.step, "reason": drop.reason, "detail": drop.detail}


def _sources(prepared: Artifact, places: Places) -> dict[str, str]:
    """Path by document and passage id."""
    return {**{passage.id: passage.path for passage in read_passages(prepared)}, **places.paths}


def _source(project: Project, what: str) -> dict[str, Any] | None:
    """A file or folder of labelled rows: what became of them."""
    prepared = _prepared(project)
    if prepared is None:
        return None
    plain = what.removeprefix("./").removeprefix("data/")

    def of_file(where: str) -> bool:
        file = file_of(where.removeprefix("data/"))
        return file == plain or file.startswith(f"{plain.rstrip('/')}/")

    rows = [example for example in read_examples(prepared) if of_file(example.origin.where)]
    gone = [drop for drop in read_dropped(prepared) if of_file(drop.item) or of_file(drop.detail.partition(": ")[0])]
    if not rows:
        return None
    return {"type": "file", "path": plain, "rows": dict(Counter(example.split for example in rows)),
            "labels": dict(Counter(label for example in rows for label in example.labels or ())),
            "dropped": dict(Counter(drop.reason for drop in gone)),
            "models": [{"run": run.id, "learned_from_it": any(example.split == "train" for example in rows)}
                       for run in _made_from(project, prepared, "train")],
            "releases": _releases_of(project, prepared)}


def _release(project: Project, what: str) -> dict[str, Any] | None:
    name, _, version = what.partition("/")
    if not version or any(part in ("", ".", "..") for part in (name, version)):
        return None
    file = project.releases / name / version / "release.json"
    if not file.is_file():
        return None
    record = json.loads(file.read_text("utf-8"))
    documents: list[dict[str, Any]] = []
    prepared_id = record.get("lineage", {}).get("prepare", "").rpartition("/")[2]
    prepared = project.store.find("prepare", prepared_id)
    if prepared is not None:
        counts: Counter[str] = Counter()
        for example in read_examples(prepared, "train"):
            counts.update(set(example.origin.documents))
        ingested = next((a for stage, id in parents(prepared) if stage == "ingest"
                         and (a := project.store.find(stage, id)) is not None), None)
        if ingested is not None:
            documents = [{"id": d.id, "path": d.path, "sha256": d.sha256, "train_examples": counts[d.id]}
                         for d in read_documents(ingested)]
    rows = Counter(file_or_row(example) for example in read_examples(prepared, "train")
                   if not example.origin.passages) if prepared is not None else Counter()
    return {"type": "release", "name": record["name"], "version": record["version"],
            "choice": record.get("choice"), "base": record.get("base"), "lineage": record.get("lineage"),
            "documents": documents, "files": dict(rows.most_common())}


def _answer(project: Project, what: str) -> dict[str, Any] | None:
    log = project.state / "answers.jsonl"
    if not log.is_file():
        return None
    wanted = what.removeprefix("answer:")
    for row in read_jsonl(log):
        if row.get("id") == wanted:
            passages = []
            prepared = _prepared(project)
            known = {p.id: p for p in read_passages(prepared)} if prepared else {}
            places = Places(project, prepared) if prepared else None
            for id in row.get("passages", []):
                passage = known.get(id)
                passages.append({"id": id, "where": passage.citation, "document": passage.document,
                                 "places": places.of(passage) if places else []} if passage
                                else {"id": id, "where": "no longer in the latest documents"})
            released = _release(project, str(row.get("release", "")))
            return {"type": "answer", **row, "passages": passages,
                    "made_from": released["lineage"] if released else "the release is no longer there"}
    return None


def _artifact(project: Project, what: str) -> dict[str, Any] | None:
    wanted = what.rpartition("/")[2]
    for artifact in project.store.artifacts():
        if artifact.id == wanted:
            above = [a for a in project.store.artifacts() if (artifact.stage, artifact.id) in parents(a)]
            return {"type": artifact.stage, "id": artifact.id, "folder": str(artifact.path),
                    "made_from": [f"{stage}/{id}" for stage, id in parents(artifact)],
                    "used_by": [f"{a.stage}/{a.id}" for a in above], "summary": dict(artifact.summary)}
    return None


def _made_from(project: Project, source: Artifact, stage: str) -> list[Artifact]:
    """Artifacts of a stage that were made from this one, from another one with the same rows to learn from, or from the
    data of an update, which is made from one of these."""
    alike = {(source.stage, source.id)}
    content = learned(source).digest
    for other in project.store.artifacts():
        if other.stage == source.stage and other.id != source.id and learned(other).digest == content:
            alike.add((other.stage, other.id))
    for data in ("update-data", "update-rows"):  # the second is made from the first
        alike |= {(a.stage, a.id) for a in project.store.artifacts() if a.stage == data
                  and tuple(str(a.inputs["data"]).split("/", 1)) in alike}
    return [a for a in project.store.artifacts() if a.stage == stage and alike & set(parents(a))]


def _releases_of(project: Project, prepared: Artifact) -> list[str]:
    found = []
    for file in sorted(project.releases.glob("*/*/release.json")) if project.releases.is_dir() else ():
        lineage = json.loads(file.read_text("utf-8")).get("lineage", {})
        if lineage.get("prepare", "").rpartition("/")[2] == prepared.id:
            found.append(f"{file.parent.parent.name}/{file.parent.name}")
    return found


def show_path(path: Path, root: Path) -> str:
    """Relative to the project when it lies in it: what a person can copy."""
    try:
        return str(path.resolve().relative_to(root))
    except ValueError:
        return str(path)
