"""What is new, changed and gone since the live release was made: by document and by row, found by content.

A row is known by what is asked (its text, image or question); it changed where its answer did, or where its words did
in part and it stands at the same place. Where it stands decides nothing else: a file may be renamed or sorted anew.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from luthier.index.rag import bare_question
from luthier.prepare.label_build import content
from luthier.prepare.label_repeats import UNLABELLED, answer, said
from luthier.prepare.labels import file_of
from luthier.prepare.text import jaccard, normalise, words
from luthier.store import canonical
from luthier.types import Document, Dropped, Example, Message

ALIKE = 0.5
"""Share of their words that two rows at one place have in common where one is the other, edited."""
_KINDS = ("unanswerable", "grounded")

Status = Literal["kept", "new", "changed"]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The difference between two prepared data sets."""

    documents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Paths that are `new`, `changed`, `removed`, or `moved` (`old → new`, with the same bytes)."""
    status: Mapping[str, Status] = field(default_factory=dict)
    """Row id (of the new data) → what it is. Rows without an answer are left out."""
    before: Mapping[str, Example] = field(default_factory=dict)
    """Id of a changed row → what it was."""
    kept: Mapping[str, Example] = field(default_factory=dict)
    """Id of a kept row → the row in the old data, whose split and place may have been others."""
    removed: tuple[Example, ...] = ()
    """Rows of the old data whose document, or which themselves, are gone."""
    replaced: tuple[Example, ...] = ()
    """Rows that a document no longer gives: it changed, or its rows are chosen otherwise."""
    set_aside: tuple[Example, ...] = ()
    """Rows that `prepare` no longer takes though they are there: repeats, contradictions, leaks."""

    def of(self, *kinds: Status) -> set[str]:
        """Ids of the rows that are of these kinds."""
        return {id for id, kind in self.status.items() if kind in kinds}

    @property
    def nothing(self) -> bool:
        return not (self.of("new", "changed") or self.removed or self.replaced or self.set_aside
                    or any(self.documents.values()))

    def counts(self) -> dict[str, int]:
        """How many rows are new, changed, removed, replaced, set aside and kept."""
        found = Counter(self.status.values())
        return {"new": found["new"], "changed": found["changed"], "removed": len(self.removed),
                "replaced": len(self.replaced), "set_aside": len(self.set_aside), "kept": found["kept"]}

    def sentence(self) -> str:
        """What happened, for a person."""
        told = [f"{len(paths)} {kind}" for kind, paths in self.documents.items() if paths]
        counts = self.counts()
        rows = [f"{counts[kind]} {kind.replace('_', ' ')}" for kind in ("new", "changed", "removed", "replaced",
                                                                        "set_aside") if counts[kind]]
        parts = ([f"documents: {', '.join(told)}"] if told else []) + ([f"rows: {', '.join(rows)}"] if rows else [])
        return "; ".join(parts) or "nothing changed"


def find_changes(old: Sequence[Example], new: Sequence[Example], *, dropped: Sequence[Dropped] = (),
                 old_documents: Sequence[Document] = (), new_documents: Sequence[Document] = (), root: Path
                 ) -> Changes:
    """Compare the rows and documents of two prepared data sets; `dropped` is what the newer one refused."""
    old, new = ([example for example in rows if UNLABELLED not in example.tags] for rows in (old, new))
    known: dict[str, list[Example]] = defaultdict(list)
    for example in old:
        known[key_of(example, root)].append(example)
    asked: set[str] = set()
    status: dict[str, Status] = {}
    before: dict[str, Example] = {}
    kept: dict[str, Example] = {}
    for example in new:
        key = key_of(example, root)
        asked.add(key)
        same = next((one for one in known.get(key, ()) if answer(one) == answer(example)), None)
        status[example.id] = "kept" if same is not None else "changed" if key in known else "new"
        if same is not None:
            kept[example.id] = same
        elif key in known:
            before[example.id] = known[key][0]
    gone = [example for key, rows in known.items() if key not in asked for example in rows]
    edited = _edited(gone, [example for example in new if status[example.id] == "new"])
    status.update(dict.fromkeys(edited, "changed"))
    before.update(edited)
    taken = {example.id for example in edited.values()}
    return Changes(documents=document_changes(old_documents, new_documents), status=status, before=before, kept=kept,
                   **_sorted_out([example for example in gone if example.id not in taken], dropped, old_documents,
                                 new_documents, root))


def key_of(example: Example, root: Path) -> str:
    """What a row asks, in comparable form."""
    if isinstance(example.input, str):
        key = content(example, root)
        # a query may have several matching texts, and text to be continued is all there is
        return f"{key}\0{example.target}" if example.labels is None and example.spans is None else key
    turns = [[turn.role, normalise(_bare(turn))] for turn in example.input if turn.role != "system"]
    return canonical([turns, [tag for tag in example.tags if tag in _KINDS]])


def _bare(turn: Message) -> str:
    return bare_question(turn.content) if turn.role == "user" else turn.content


def document_changes(old: Iterable[Document], new: Iterable[Document]) -> dict[str, tuple[str, ...]]:
    """Paths by what happened to them."""
    before, after = ({document.path: document.sha256 for document in some} for some in (old, new))
    changed = sorted(path for path in before.keys() & after.keys() if before[path] != after[path])
    came, went = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    by_hash = {before[path]: path for path in went}
    moved = {path: by_hash[after[path]] for path in came if after[path] in by_hash}
    return {"new": tuple(path for path in came if path not in moved), "changed": tuple(changed),
            "removed": tuple(path for path in went if path not in moved.values()),
            "moved": tuple(f"{old} → {path}" for path, old in moved.items())}


def _edited(gone: Sequence[Example], new: Sequence[Example]) -> dict[str, Example]:
    """Id of a new row → the vanished row at the same place that it is a new wording of."""
    places = {example.origin.where: example for example in gone if example.origin.where and not example.image
              and not example.origin.passages}
    found = {}
    for example in new:
        old = places.get(example.origin.where)
        if old is not None and not example.origin.passages and jaccard(set(words(old.question)), set(words(
                example.question))) >= ALIKE:
            found[example.id] = places.pop(example.origin.where)
    return found


def _sorted_out(gone: Sequence[Example], dropped: Sequence[Dropped], old_documents: Sequence[Document],
                new_documents: Sequence[Document], root: Path) -> dict[str, tuple[Example, ...]]:
    """The vanished rows: removed, no longer given by their document, or refused by `prepare`."""
    texts = {normalise(drop.text) for drop in dropped if drop.text}
    path_of = {document.id: document.path for document in old_documents}
    left = {document.path for document in new_documents} | {document.sha256 for document in new_documents}
    sha_of = {document.id: document.sha256 for document in old_documents}
    found: dict[str, list[Example]] = {"removed": [], "replaced": [], "set_aside": []}
    for example in gone:
        sources = [id for id in example.origin.documents if id in path_of]
        if sources:
            there = all(path_of[id] in left or sha_of[id] in left for id in sources)
            found["replaced" if there else "removed"].append(example)
        else:
            refused = normalise((str(example.input) if isinstance(example.input, str) else example.question)[:300])
            found["set_aside" if refused and refused in texts else "removed"].append(example)
    return {name: tuple(rows) for name, rows in found.items()}


def describe(changes: Changes, new: Sequence[Example]) -> dict[str, Any]:
    """Everything as JSON data, for `changes.json`: with what changed rows said before, and rows by file."""
    by_id = {example.id: example for example in new}
    files: dict[str, Counter[str]] = defaultdict(Counter)
    for id, kind in changes.status.items():
        files[file_of(by_id[id].origin.where) or by_id[id].origin.step][kind] += 1
    for example in changes.removed:
        files[file_of(example.origin.where) or example.origin.step]["removed"] += 1
    return {
        "documents": {kind: list(paths) for kind, paths in changes.documents.items()},
        "counts": changes.counts(), "sentence": changes.sentence(),
        "files": {name: dict(counts) for name, counts in sorted(files.items())
                  if set(counts) - {"kept"}},
        "new": sorted(changes.of("new")), "changed": [
            {"id": id, "where": by_id[id].origin.where, "text": by_id[id].question[:300], "was": told(old),
             "is": told(by_id[id]), **({"text_was": old.question[:300]} if old.question != by_id[id].question else {})}
            for id, old in sorted(changes.before.items())],
        "removed": [{"where": example.origin.where, "split": example.split} for example in changes.removed],
        "replaced": len(changes.replaced), "set_aside": [{"where": example.origin.where, "split": example.split}
                                                         for example in changes.set_aside],
    }


def told(example: Example) -> str:
    """A row's answer for a person."""
    return said(example) if isinstance(example.input, str) else (example.target or "")[:300]
