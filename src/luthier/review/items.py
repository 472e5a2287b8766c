"""What there is to look at: the items that the stages wrote, the rows that `luthier label` proposes, and the labels
that the strategy `clean` suspects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from luthier.errors import DataError
from luthier.prepare.base import read_examples
from luthier.prepare.decisions import Decision, LeftOpen, read_looked_at
from luthier.prepare.labels import FILE as LABELS
from luthier.prepare.text import normalise
from luthier.queues import FOLDER, QUEUES, Decided, ReviewItem, read_decided, read_review
from luthier.store import Artifact, Store
from luthier.types import read_jsonl

STATE, LATEST, PROPOSED, SUSPECTS = ".luthier", "latest.json", "proposed.jsonl", "suspects.json"


def latest_artifacts(root: Path, store: Store) -> dict[str, Artifact]:
    """The newest artifact of every stage that has run and is still in the store."""
    try:
        ids = json.loads((root / STATE / LATEST).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    found = {stage: store.find(stage, id) for stage, id in ids.items()}
    return {stage: artifact for stage, artifact in found.items() if artifact is not None}


def gather(root: Path, artifacts: Mapping[str, Artifact]) -> tuple[list[ReviewItem], list[str]]:
    """(every item, by queue and the least certain first; what could not be read, in sentences)."""
    found: dict[tuple[str, str], ReviewItem] = {}
    problems: list[str] = []
    for item in _all(root, artifacts, problems):
        if item.queue not in QUEUES:
            problems.append(f"an item of the unknown queue '{item.queue}' is not shown ({item.where or item.id})")
        else:
            found.setdefault((item.queue, item.id), item)
    order = {queue: at for at, queue in enumerate(QUEUES)}
    return sorted(found.values(), key=lambda item: (order[item.queue], item.confidence)), problems


def choices(artifacts: Mapping[str, Artifact]) -> tuple[str, ...]:
    """The labels of the prepared rows; empty for tasks without labels."""
    file = artifacts["prepare"].path / LABELS if "prepare" in artifacts else None
    return tuple(json.loads(file.read_text("utf-8"))["labels"]) if file and file.is_file() else ()


def _all(root: Path, artifacts: Mapping[str, Artifact], problems: list[str]) -> Iterator[ReviewItem]:
    for artifact in artifacts.values():
        try:
            yield from read_review(artifact.path)
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"{artifact.path}/review.jsonl cannot be read ({error}); run the stage again")
    names = choices(artifacts)
    if names:
        yield from _suspected(artifacts, names)
        yield from _proposed(root, names, problems)


def _suspected(artifacts: Mapping[str, Artifact], names: tuple[str, ...]) -> Iterator[ReviewItem]:
    """Rows whose label is probably wrong. The file holds their first 300 characters only, and a decision must name the
    row as it is: so the text comes from the prepared rows. A row that is gone from them is not asked about."""
    file = artifacts["train"].path / SUSPECTS if "train" in artifacts else None
    rows = json.loads(file.read_text("utf-8"))["rows"] if file and file.is_file() else []
    if not rows:
        return
    texts = {example.id: str(example.input) for example in read_examples(artifacts["prepare"], "train")}
    for row in rows:
        if row["id"] in texts:
            given, better = list(row["labels"]), list(row["proposed"])
            yield ReviewItem(
                queue="labels", id=row["id"], text=texts[row["id"]], proposal=better, choices=names,
                confidence=float(row["probability_of_given"]), where=row["where"],
                reason=f"The label {_named(given)} is probably wrong: other rows speak for {_named(better)} "
                       f"({row['probability']:.0%}).",
                notes={"given": given, "image": row.get("image", "")})


def _proposed(root: Path, names: tuple[str, ...], problems: list[str]) -> Iterator[ReviewItem]:
    """Rows without a label that `luthier label` chose."""
    file = root / FOLDER / PROPOSED
    if not file.is_file():
        return
    try:
        for row in read_jsonl(file):
            yield ReviewItem(
                queue="labels", id=row["id"], text=row["text"], proposal=[row["proposed"]], choices=names,
                confidence=float(row["probability"]), where=row["where"], reason=row.get("why", ""),
                notes={"top": row.get("top", []), "image": row.get("image", "")})
    except (ValueError, KeyError, TypeError) as error:
        problems.append(f"{FOLDER}/{PROPOSED} cannot be read ({error}); write it anew with: luthier label")


def _named(labels: list[str]) -> str:
    return ", ".join(f"“{label}”" for label in labels) or "“none”"


def decisions(root: Path, items: Iterable[ReviewItem]) -> tuple[dict[str, list[Decided]], list[str]]:
    """(queue → its standing decisions in the order they were made; what could not be read, in sentences).

    The decisions about rows stand in another format (`labels/decisions*.jsonl`) and may name a row by its place or its
    text; here they carry the id of the item they are about.
    """
    found: dict[str, list[Decided]] = {}
    problems: list[str] = []
    for queue in QUEUES:
        if queue != "labels":
            try:
                found[queue] = read_decided(root, queue)
            except DataError as error:
                found[queue] = []
                problems.append(str(error))
    rows = [item for item in items if item.queue == "labels"]
    by_id = {row_id(item): item for item in rows}
    by_place = {item.where: item for item in rows if item.where}
    by_text = {_key(item.text): item for item in rows if item.text.strip()}
    found["labels"] = []
    for one in read_looked_at(root):
        if not isinstance(one, Decision):
            problems.append(f"{one.item}: {one.detail}")
            continue
        item = by_id.get(one.id) or by_text.get(_key(one.text)) or (by_place.get(one.where) if not one.text else None)
        labels = list(one.labels)
        verdict: Any = "reject" if isinstance(one, LeftOpen) else \
            "accept" if item is not None and labels == proposed_labels(item) else "edit"
        found["labels"].append(Decided(
            id=item.id if item is not None else one.id or one.where or one.text, verdict=verdict,
            value=None if verdict == "reject" else labels, by=one.by, at=one.at, text=one.text, where=one.where,
            settles=one.settles, source=one.source))
    return found, problems


def row_id(item: ReviewItem) -> str:
    """The id of the row that an item of the queue `labels` is about."""
    return str(item.notes.get("example") or item.id)


def proposed_labels(item: ReviewItem) -> list[str]:
    if isinstance(item.proposal, str):
        return [item.proposal] if item.proposal else []
    return list(item.proposal)


def pair_of(item: ReviewItem) -> dict[str, str]:
    """Question and answer of a synthetic pair."""
    if "question" in item.notes and "answer" in item.notes:
        return {"question": str(item.notes["question"]), "answer": str(item.notes["answer"])}
    found = re.match(r"Q:\s*(.*?)\s*\nA:\s*(.*)\Z", item.text, re.DOTALL)
    return {"question": found[1], "answer": found[2]} if found else {"question": item.text, "answer": ""}


def _key(text: str) -> str:
    return normalise(text) or text.strip()
