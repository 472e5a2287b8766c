"""Releases on disk: `<releases>/<name>/<version>/`, with the append-only history and the pointer to the live one.

A release folder never changes after its rename. What changes over time (candidate, live, retired) is not in it: the
pointer file `live` names the live version, and `history.jsonl` tells how it came to that.
"""

from __future__ import annotations

import datetime
import getpass
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from luthier.errors import ModelError, StoreError, UsageError
from luthier.index.rag import Rag
from luthier.models.sources import file_hash, resolve
from luthier.release.gate import TUNED, System
from luthier.store import tell_disk_trouble, write_text
from luthier.task import Task

RECORD = "release.json"
HISTORY = "history.jsonl"
LIVE = "live"
Stage = Literal["candidate", "live", "retired"]


@dataclass(frozen=True, kw_only=True)
class ReleaseRecord:
    """A release as `serve`, `show` and `trace` read it."""

    folder: Path
    name: str
    version: int
    stage: Stage
    """candidate: complete but never live; live: the one that serves; retired: was live before."""
    choice: System
    """The system that this release stands for: what is served unless a caller asks for another."""
    systems: tuple[System, ...]
    """Every system that can be served from this folder; base always, retrieval where there is an index,
    tuned ones where there are weights. Tasks with labels: only the choice."""
    forced: Mapping[str, Any] | None
    """by, reason and the failed checks, when the gate was overruled; None for a release that passed."""
    approved_by: str
    created: str
    """UTC, ISO 8601."""
    base: Mapping[str, Any]
    """source, folder, fingerprint and name of the base model; `bundled` tells whether a copy lies in `base/`."""
    tuned: Mapping[str, Any]
    """present: whether `model/` holds the tuned weights; passed: whether they are what the gate let through; why."""
    task: Task
    rag: Rag
    encoder: Mapping[str, Any]
    """source and fingerprint of the index's encoder; both None for an index of keywords only."""
    template: str | None
    """Chat template (Jinja) that base and tuned model were trained, tested and are asked with; None: plain text."""
    stop_ids: tuple[int, ...]
    """Tokens that end an answer."""
    dtype: str
    """Number format of the stored tuned weights."""
    lineage: Mapping[str, str]
    """Stage to `stage/id` of the artifact that the release was made from."""
    gate: tuple[Mapping[str, Any], ...]
    """Every check with its limit, its measured value and its outcome."""
    files: Mapping[str, str]
    """sha256 of every file, by path relative to the folder."""
    key: str = field(repr=False)
    """Hash of everything the release was made from; the same key is not released twice."""
    labels: Mapping[str, Any] | None = None
    """Tasks with labels only: `names` in the order of the outputs, `temperature`, `thresholds` by label, `abstain`, and
    whether an `onnx` model lies beside the weights."""
    parent: str = ""
    """The release (NAME/VERSION) that this one updates; empty for one that was made by itself."""

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}"

    def weights(self, system: System, *, root: Path | None = None) -> Path:
        """Folder of the model (Hugging Face format) that `system` runs on.

        The base model is taken from `base/`, or else from where it came from (`root` is the folder that relative
        paths start from), and refused with ModelError if its files have changed since the release was tested.
        """
        if self.labels is not None:
            return self.folder / "model"
        if system in TUNED:
            if not self.tuned["present"]:
                raise ModelError(f"release {self.label} holds no tuned weights ({self.tuned['why']}); "
                                 f"it offers: {', '.join(self.systems)}")
            return self.folder / "model"
        if self.base["bundled"]:
            return self.folder / "base"
        found = resolve(self.base["source"], root=root)
        if found.fingerprint != self.base["fingerprint"]:
            raise ModelError(f"the base model '{self.base['source']}' at {found.folder} is not the one that release "
                             f"{self.label} was tested with; restore it or make a new release")
        return found.folder

    def verify(self) -> None:
        """Compare every file with its recorded hash; StoreError names the first one that is missing or changed."""
        for name, wanted in self.files.items():
            file = self.folder / name
            found = file_hash(file) if file.is_file() else None
            if found != wanted:
                raise StoreError(f"release {self.label}: {file} is {'missing' if found is None else 'changed'}; "
                                 "roll back or release again")


def read_release(folder: str | Path) -> ReleaseRecord:
    """The record in a release folder; UsageError for a folder that is none, StoreError for a damaged one."""
    folder = Path(folder)
    try:
        data = json.loads((folder / RECORD).read_text("utf-8"))
        data["version"] = int(data["version"])
        data |= {"task": Task(**data["task"]), "rag": Rag(**data["rag"]), "stop_ids": tuple(data["stop_ids"]),
                 "systems": tuple(data["systems"]), "gate": tuple(data["gate"])}
        return ReleaseRecord(folder=folder, stage=_stage(folder), **data)
    except FileNotFoundError:
        raise UsageError(f"{folder} is not a release folder (no {RECORD}); list them with: luthier show releases"
                         ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder / RECORD} is damaged ({error}); roll back or release again") from None


def list_releases(releases: Path, name: str | None = None) -> list[ReleaseRecord]:
    """Every complete release, oldest version first within a name."""
    names = [releases / name] if name else sorted(releases.iterdir()) if releases.is_dir() else []
    return [read_release(folder / str(version)) for folder in names for version in versions(folder)]


def live_release(releases: Path, name: str | None = None) -> Path:
    """Folder of the live release; UsageError when there is none, or several names and none was given."""
    live = [releases / name] if name else [folder for folder in sorted(releases.iterdir()) if _live(folder) is not None
                                           ] if releases.is_dir() else []
    if len(live) > 1:
        raise UsageError(f"{releases} holds live releases of {', '.join(folder.name for folder in live)}; name one")
    version = _live(live[0]) if live else None
    if version is None:
        refused = [row for row in read_history(live[0]) if row["event"] == "refused"] if live else []
        if refused:
            raise UsageError(f"nothing is live yet: the gate refused '{live[0].name}' on {refused[-1]['at'][:10]}; "
                             "the reasons are in " + str(live[0] / HISTORY))
        raise UsageError("nothing has been released yet; run: luthier run")
    folder = live[0] / str(version)
    if not (folder / RECORD).is_file():
        raise StoreError(f"{live[0] / LIVE} points to version {version}, which is not there; roll back with: "
                         "luthier release --rollback")
    return folder


def rollback(releases: Path, name: str | None = None) -> Path:
    """Make the release that was live before the live one live again; returns its folder.

    Rolling back twice goes two releases back. UsageError when there is none before.
    """
    folder = releases / name if name else live_release(releases).parent
    if not folder.is_dir():
        raise UsageError(f"there are no releases named '{folder.name}' in {releases}")
    with locked(folder):
        pending = settle(folder)
        if pending == "rollback":  # the call before was killed between the history and the pointer: that was this one
            return folder / str(_live(folder))
        stack = _live_stack(read_history(folder))
        earlier = [version for version in stack[:-1] if (folder / str(version) / RECORD).is_file()]
        if not earlier:
            raise UsageError(f"'{folder.name}' has no release before the live one, so there is nothing to go back to")
        back = earlier[-1]
        append(folder, "rollback", version=back, instead_of=stack[-1])
        write_text(folder / LIVE, f"{back}\n")
    return folder / str(back)


def settled(folder: Path) -> bool:
    """Whether the pointer shows what the history says; a kill between the two, or a damaged pointer, parts them."""
    stack = _live_stack(read_history(folder))
    try:
        return not stack or _live(folder) == stack[-1]
    except StoreError:
        return False


def settle(folder: Path) -> str | None:
    """Make the pointer follow the history again; returns the event that is finished by this."""
    if settled(folder):
        return None
    history = read_history(folder)
    stack = _live_stack(history)
    write_text(folder / LIVE, f"{stack[-1]}\n")
    return [row["event"] for row in history if row["event"] in ("live", "rollback")][-1]


def promote(folder: Path) -> None:
    """Make a complete release live: first the history, then the pointer, so that a kill between them is visible."""
    append(folder.parent, "live", version=int(folder.name))
    write_text(folder.parent / LIVE, f"{folder.name}\n")


def versions(folder: Path) -> list[int]:
    """Complete versions under a name, ascending; unfinished folders (`3.part`) are none."""
    return sorted(int(inner.name) for inner in (folder.iterdir() if folder.is_dir() else ())
                  if inner.name.isdigit() and (inner / RECORD).is_file())


def next_version(folder: Path) -> int:
    """One more than any version that ever was, deleted ones included."""
    told = [row["version"] for row in read_history(folder) if isinstance(row.get("version"), int)]
    return 1 + max([0, *versions(folder), *told])


def find_key(folder: Path, key: str) -> Path | None:
    """The newest release that was made from exactly these inputs."""
    for version in reversed(versions(folder)):
        if json.loads((folder / str(version) / RECORD).read_text("utf-8")).get("key") == key:
            return folder / str(version)
    return None


def append(folder: Path, event: str, **facts: Any) -> None:
    """Add one line to the history; what stands there is never touched, and the line is on the disk on return."""
    row = {"at": now(), "by": person(), "event": event, **facts}
    with tell_disk_trouble(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / HISTORY).open("ab+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill in the middle of the line before: keep what is there, go on below
                    file.write(b"\n")
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Every event, oldest first; a line that a kill cut short is left out."""
    try:
        lines = (folder / HISTORY).read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One release or rollback of a name at a time."""
    from filelock import FileLock, Timeout

    with tell_disk_trouble(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock").acquire(timeout=0):
                yield
        except Timeout:
            raise StoreError(f"another luthier process is releasing '{folder.name}'; wait for it or stop it") from None


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 of every file under a folder, by relative path."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as handle:
                found[file.relative_to(folder).as_posix()] = hashlib.file_digest(handle, "sha256").hexdigest()
    return found


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def person() -> str:
    """Login name, for the record; `unknown` where the system has none (a container without a user entry)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _live(folder: Path) -> int | None:
    try:
        return int((folder / LIVE).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise StoreError(f"{folder / LIVE} is damaged; restore it from the history with: luthier release") from None


def _stage(folder: Path) -> Stage:
    version = int(folder.name) if folder.name.isdigit() else None  # a folder copied elsewhere has no history
    if version is not None and _live(folder.parent) == version:
        return "live"
    was = any(row["event"] in ("live", "rollback") and row.get("version") == version
              for row in read_history(folder.parent))
    return "retired" if was else "candidate"


def was_live(folder: Path) -> bool:
    """Whether a release is live or was so before."""
    return _stage(folder) != "candidate"


def _live_stack(history: list[dict[str, Any]]) -> list[int]:
    """Live versions, the present one last; a rollback takes the ones above its target off."""
    stack: list[int] = []
    for row in history:
        if row["event"] == "live" and (not stack or stack[-1] != row["version"]):
            stack.append(row["version"])
        elif row["event"] == "rollback":
            while stack and stack[-1] != row["version"]:
                stack.pop()
    return stack
