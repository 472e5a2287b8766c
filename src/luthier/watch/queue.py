"""The queue of updates: one SQLite table that survives `kill -9`, and a lock that lets one worker take from it.

Laws: a key is queued once, ever; a job is run by one worker at a time; a job whose worker died is taken up by the next
one; an ended job has one outcome, which never changes. What a job does must be idempotent, since a worker can die
between the job's last step and the note that it is done.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from luthier.errors import StoreError
from luthier.store import tell_disk_trouble

State = Literal["queued", "running", "done", "refused", "waiting", "failed"]
ENDED: tuple[State, ...] = ("done", "refused", "waiting", "failed")
"""refused: the gate said no; waiting: a person must approve; failed: an error that trying again does not mend."""
_STATES = ", ".join(f"'{state}'" for state in get_args(State))
_TABLES = f"""
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, why TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ({_STATES})), attempts INTEGER NOT NULL DEFAULT 0, worker TEXT,
  queued_at REAL NOT NULL, not_before REAL NOT NULL, started_at REAL, heartbeat REAL, ended_at REAL,
  error TEXT, outcome TEXT, CHECK ((outcome IS NULL) = (state IN ('queued', 'running'))));
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class LostJob(StoreError):
    """The job is not this worker's any more; going on would break the queue's laws."""


@dataclass(frozen=True)
class Job:
    """A row of the queue. Times are seconds since 1970."""

    id: int
    key: str
    """Digest of what triggered it."""
    why: dict[str, Any]
    """What triggered it, for people: `trigger` and its facts."""
    state: State
    attempts: int
    """Times it was begun; a stop by SIGTERM does not count."""
    worker: str | None
    queued_at: float
    not_before: float
    """A retry waits until then."""
    started_at: float | None
    heartbeat: float | None
    ended_at: float | None
    error: str | None
    """What went wrong at the last attempt, while it is to be tried again."""
    outcome: dict[str, Any] | None
    """Written once, when the job ends."""

    @property
    def since(self) -> float:
        """When it came into its state."""
        return self.ended_at or (self.started_at if self.state == "running" else None) or self.queued_at


class Queue:
    """All changes are transactions that are on the disk on return. One connection, for one thread."""

    def __init__(self, file: Path, *, clock: Callable[[], float] = time.time):
        self.file, self.clock = file, clock
        with tell_disk_trouble(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
        with _told(file):
            self._db = sqlite3.connect(file, timeout=30, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_TABLES)

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with _told(self.file):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                raise

    # For whoever triggers

    def add(self, key: str, why: Mapping[str, Any], *, notes: Mapping[str, str] | None = None) -> bool:
        """Queue a job unless its key was ever queued; True when it is new. `notes` are written together with it."""
        now = self.clock()
        with self._change() as db:
            done = db.execute("INSERT OR IGNORE INTO jobs (key, why, state, queued_at, not_before) "
                              "VALUES (?, ?, 'queued', ?, ?)", (key, json.dumps(why), now, now))
            self._write_notes(notes or {})
            return done.rowcount == 1

    def note(self, name: str) -> str | None:
        """A fact that outlives processes; None where it was never written."""
        with _told(self.file):
            row = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else row["value"]

    def write_notes(self, notes: Mapping[str, str]) -> None:
        with self._change():
            self._write_notes(notes)

    def _write_notes(self, notes: Mapping[str, str]) -> None:
        self._db.executemany("INSERT INTO notes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                             list(notes.items()))

    def jobs(self) -> list[Job]:
        """Every job, oldest first."""
        with _told(self.file):
            return [_job(row) for row in self._db.execute("SELECT * FROM jobs ORDER BY id")]

    # For the worker that holds the lock

    def claim(self, worker: str) -> Job | None:
        """The next due job, now running under this worker; None when there is none.

        A job that runs under somebody else was left by a worker that died (the caller holds the only lock) and comes
        first; then the oldest queued one. Jobs never overtake: one that waits for its retry holds back those behind.
        """
        now = self.clock()
        with self._change() as db:
            row = db.execute("SELECT * FROM jobs WHERE state IN ('running', 'queued') "
                             "ORDER BY state = 'queued', id LIMIT 1").fetchone()
            if row is None or (row["state"] == "queued" and row["not_before"] > now) or row["worker"] == worker:
                return None
            db.execute("UPDATE jobs SET state = 'running', attempts = attempts + 1, worker = ?, started_at = ?, "
                       "heartbeat = ? WHERE id = ?", (worker, now, now, row["id"]))
            return _job(db.execute("SELECT * FROM jobs WHERE id = ?", (row["id"],)).fetchone())

    def beat(self, job: Job) -> None:
        """Note that the job's worker is alive."""
        self._mine(job, "heartbeat = ?", (self.clock(),))

    def finish(self, job: Job, state: State, outcome: Mapping[str, Any]) -> None:
        """End the job. LostJob when it is not running under this worker: an outcome is never written twice."""
        if state not in ENDED:
            raise ValueError(f"a job ends as {', '.join(ENDED)}, not as {state}")
        self._mine(job, "state = ?, outcome = ?, ended_at = ?, error = NULL, worker = NULL",
                   (state, json.dumps(dict(outcome)), self.clock()))

    def retry(self, job: Job, wait_s: float, error: str) -> None:
        """Back into the queue, to be tried again in `wait_s` seconds."""
        self._mine(job, "state = 'queued', worker = NULL, not_before = ?, error = ?", (self.clock() + wait_s, error))

    def give_back(self, job: Job) -> None:
        """Back into the queue as if this attempt had not been: the worker was asked to stop."""
        self._mine(job, "state = 'queued', worker = NULL, attempts = attempts - 1", ())

    def _mine(self, job: Job, change: str, values: tuple[Any, ...]) -> None:
        with self._change() as db:
            done = db.execute(f"UPDATE jobs SET {change} WHERE id = ? AND state = 'running' AND worker = ?",
                              (*values, job.id, job.worker))
            if done.rowcount != 1:
                raise LostJob(f"job {job.id} in {self.file} is not run by this worker any more; is another "
                                 "`luthier watch` at work on a copy of this folder?")


@contextlib.contextmanager
def only_worker(folder: Path, *, wait_s: float = 1.0) -> Iterator[None]:
    """Hold the lock that one living process of a state folder can hold; the system frees it when that process dies.

    StoreError when another one holds it for `wait_s` seconds.
    """
    from filelock import FileLock, Timeout

    with tell_disk_trouble(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / "worker.lock").acquire(timeout=wait_s):
                yield
        except Timeout:
            raise StoreError(f"another `luthier watch` is at work in {folder.parent}; stop it first, or see what it "
                             "does with: luthier watch --status") from None


def _job(row: sqlite3.Row) -> Job:
    facts = dict(row)
    return Job(**{**facts, "why": json.loads(facts["why"]),
                  "outcome": None if facts["outcome"] is None else json.loads(facts["outcome"])})


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """SQLite's troubles in one sentence."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"the queue {file} cannot be used: {error}; free some disk space, or check the folder's "
                         "permissions (network drives are not fit for it)") from None
    except sqlite3.DatabaseError as error:
        raise StoreError(f"the queue {file} is damaged ({error}); delete it: the next `luthier watch` finds out what "
                         "is to do") from None
