"""What must not be read, learned or searched any more: `labels/forgotten.jsonl`, written by `luthier forget`.

One JSON object a line, made for git; it holds hashes, so that the text itself is forgotten too:
`{"document": "handbook/old.pdf", "sha256": "…"}` for a document, which is left out by its content wherever it lies, and
by its path whatever it says; `{"file": "data/march.csv", "rows": ["…"]}` for labelled rows and pairs, which are left
out by their content in whatever file they stand. Taking a line out of the file brings its content back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import DataError
from luthier.store import tell_disk_trouble, write_text
from luthier.types import digest

FILE = Path("labels") / "forgotten.jsonl"
REASON = "forgotten"
"""Why such a document is set aside, and such a row dropped."""


@dataclass(frozen=True)
class Forgotten:
    """Everything that is to be left out."""

    paths: frozenset[str] = frozenset()
    """Of documents, relative to the ingested folder."""
    hashes: frozenset[str] = frozenset()
    """sha256 of documents."""
    rows: frozenset[str] = frozenset()
    """Digests of rows (`luthier.prepare.forgotten_rows.row_digest`)."""

    def document(self, path: str, sha256: str) -> bool:
        """Whether a document is to be left out."""
        return path in self.paths or sha256 in self.hashes

    @property
    def rows_hash(self) -> str:
        """Stands for all rows that are left out; empty where there are none."""
        return digest(*sorted(self.rows)) if self.rows else ""


def read_entries(root: Path) -> list[dict[str, Any]]:
    """The lines of the project's file, oldest first. DataError names a line that is none, for a slip there would bring
    back what a person wanted gone."""
    try:
        lines = (root / FILE).read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{FILE} cannot be read ({error}); nothing is prepared without it") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise DataError(f"{FILE}:{number}: not JSON: {error}") from None
        if not isinstance(entry, dict) or not (_texts(entry, "document", "sha256") or _rows(entry)):
            raise DataError(f"{FILE}:{number}: an entry names a `document` with its `sha256`, or a `file` with its "
                            "`rows`")
        found.append(entry)
    return found


def read_forgotten(root: Path) -> Forgotten:
    """What the project's file says; nothing where there is no file."""
    entries = read_entries(root)
    documents = [entry for entry in entries if "document" in entry]
    return Forgotten(paths=frozenset(entry["document"] for entry in documents),
                     hashes=frozenset(entry["sha256"] for entry in documents),
                     rows=frozenset(row for entry in entries for row in entry.get("rows", ())))


def add_entry(root: Path, entry: Mapping[str, Any]) -> bool:
    """Add a line; False where the same document or rows stand there already. What a person wrote is left as it is."""
    known = read_entries(root)
    what = {name: entry[name] for name in ("document", "sha256", "file", "rows") if name in entry}
    if any({name: old.get(name) for name in what} == what for old in known):
        return False
    path = root / FILE
    before = path.read_text("utf-8-sig") if path.exists() else ""
    with tell_disk_trouble(root):
        path.parent.mkdir(parents=True, exist_ok=True)
        joint = "" if not before or before.endswith("\n") else "\n"
        write_text(path, before + joint + json.dumps(entry, ensure_ascii=False) + "\n")
    return True


def _texts(entry: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(entry.get(name), str) and entry[name] for name in names)


def _rows(entry: Mapping[str, Any]) -> bool:
    rows = entry.get("rows")
    return _texts(entry, "file") and isinstance(rows, list) and all(isinstance(row, str) and row for row in rows)
