"""The content-addressed store: what a stage made, found again by what it was made from.

An artifact's id is the hash of (stage, stage version, spec, input ids), so the same call twice is a cache hit, and a
change re-runs exactly what it reaches. A stage writes into `<id>.part`; the folder is renamed when it is complete and
synced, so a killed process leaves either nothing or a part folder that the next run continues. A file lock keeps two
processes off the same artifact.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.errors import StoreError
from luthier.types import digest

DONE = "DONE"


def canonical(data: Any) -> str:
    """JSON with sorted keys and no spaces: equal data gives equal text, hence equal ids."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Artifact:
    """The immutable result of a stage."""

    stage: str
    id: str
    path: Path
    spec: Mapping[str, Any] = field(compare=False)
    inputs: Mapping[str, Any] = field(compare=False)
    summary: Mapping[str, Any] = field(compare=False)
    """Small facts for people and for the next stage: counts, seconds, scores."""
    fresh: bool = field(default=False, compare=False)
    """Made by this call (True) or found in the store (False)."""


@dataclass(frozen=True)
class Content:
    """An input that counts by what it holds: artifacts with the same content give the same id, and `inputs.json` names
    the one that was there when the result was made."""

    artifact: Artifact
    digest: str


class Store:
    """A folder of artifacts, `<root>/<stage>/<id>/`, and of small per-item caches, `<root>/cache/<name>/`."""

    makes = True
    """Whether `build` makes what is not there; a store for a dry run only finds."""

    def __init__(self, root: str | Path, *, wait_s: float = 0):
        """`wait_s`: seconds to wait for another process that makes the same artifact; -1 waits as long as it takes."""
        self.root, self.wait_s = Path(root), wait_s

    @staticmethod
    def key(stage: str, *, version: int, spec: Any, inputs: Mapping[str, Any]) -> str:
        """The artifact id: 16 hexadecimal digits."""
        return digest(canonical([stage, version, _plain(spec), _plain(_by_content(inputs))]))

    def find(self, stage: str, id: str) -> Artifact | None:
        """The finished artifact, or None."""
        folder = self.root / stage / id
        done = folder / DONE
        if not done.is_file():
            return None
        try:
            return Artifact(
                stage=stage, id=id, path=folder,
                spec=json.loads((folder / "spec.json").read_text("utf-8")),
                inputs=json.loads((folder / "inputs.json").read_text("utf-8")),
                summary=json.loads(done.read_text("utf-8")),
            )
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder} is damaged ({error}); delete that folder and run again") from None

    def build(self, stage: str, *, version: int, spec: Any, inputs: Mapping[str, Any],
              make: Callable[[Path], Mapping[str, Any]]) -> Artifact:
        """Return the artifact, making it first if it is not there.

        `make(folder)` fills the part folder and returns the summary. What it left there when it was killed is there
        again at the next call, so a long stage can resume; a short one simply overwrites. `inputs` maps names to
        artifacts or plain strings (such as the hash of a file).
        """
        id = self.key(stage, version=version, spec=spec, inputs=inputs)
        found = self.find(stage, id)
        if found is not None:
            return found
        part = self.root / stage / f"{id}.part"
        with tell_disk_trouble(self.root):
            part.mkdir(parents=True, exist_ok=True)
            with self._lock(stage, id):
                found = self.find(stage, id)  # another process may have finished it while we waited
                if found is not None:
                    return found
                began = time.time()
                summary = {**make(part), "made_at": round(began, 1), "seconds": round(time.time() - began, 2)}
                write_json(part / "spec.json", _plain(spec))
                write_json(part / "inputs.json", _plain(inputs))
                write_json(part / DONE, summary)
                _sync_tree(part)
                os.replace(part, self.root / stage / id)
                _sync(self.root / stage)
        made = self.find(stage, id)
        if made is None:
            raise StoreError(f"{stage}/{id} vanished from {self.root} while it was being written")
        return Artifact(**{**made.__dict__, "fresh": True})

    @contextlib.contextmanager
    def _lock(self, stage: str, id: str) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / stage / f"{id}.lock")
        try:
            with lock.acquire(timeout=self.wait_s):
                yield
        except Timeout:
            raise StoreError(
                f"another luthier process is making {stage}/{id} in {self.root}; wait for it or stop it"
            ) from None
        with contextlib.suppress(OSError):
            (self.root / stage / f"{id}.lock").unlink()

    def cache(self, name: str) -> Cache:
        """Per-item results by content key, so that one changed document re-runs only its own items."""
        return Cache(self.root / "cache" / name)

    def artifacts(self) -> Iterator[Artifact]:
        """Every finished artifact."""
        for stage in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if stage.name != "cache" and stage.is_dir():
                for folder in sorted(stage.iterdir()):
                    found = self.find(stage.name, folder.name) if folder.is_dir() else None
                    if found is not None:
                        yield found


class Cache:
    """Small files by key. Keys are hashes of everything the value depends on, so entries never go stale."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def get(self, key: str) -> bytes | None:
        try:
            return self._file(key).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, key: str, value: bytes) -> None:
        with tell_disk_trouble(self.folder):
            file = self._file(key)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, value)


def _plain(value: Any) -> Any:
    """Specs and artifacts as JSON data."""
    if hasattr(value, "dump"):
        return value.dump()
    if isinstance(value, Content):
        value = value.artifact
    if isinstance(value, Artifact):
        return f"{value.stage}/{value.id}"
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _by_content(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: f"content/{value.digest}" if isinstance(value, Content) else value for name, value in inputs.items()}


def write_bytes(path: Path, data: bytes) -> None:
    """Atomic: write aside in the same folder, then rename."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True, default=_plain) + "\n")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for here, _, names in os.walk(folder):
        for name in names:
            _sync(Path(here) / name)
        _sync(Path(here))


@contextlib.contextmanager
def tell_disk_trouble(where: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(where if where.exists() else where.anchor or ".").free
            raise StoreError(
                f"the disk holding {where} is full ({free / 1e6:.0f} MB free); free some space and run again: "
                "finished stages are kept and training resumes from its last checkpoint"
            ) from None
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(f"cannot write to {where}: {error.strerror}; check the folder's permissions") from None
        raise
