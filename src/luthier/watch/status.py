"""`luthier watch --status`: the queue, the worker and what comes next, as data and as text."""

from __future__ import annotations

import time
from typing import Any

from luthier.errors import StoreError
from luthier.project import Project
from luthier.project.schedule import parse_schedule
from luthier.watch.queue import Job, Queue, only_worker
from luthier.watch.worker import FOLDER, local, sentence_of, why_of

SHOWN = 20


def status(project: Project) -> dict[str, Any]:
    """watching: whether a worker lives; jobs: newest last; next_slot: seconds since 1970, or None. Changes nothing."""
    folder, spec = project.state / FOLDER, project.spec.watch
    found: dict[str, Any] = {"watching": False, "jobs": [], "schedule": spec.schedule, "next_slot": None}
    now = time.time()
    if not (folder / "queue.sqlite").is_file():
        return found
    queue = Queue(folder / "queue.sqlite")
    try:
        found["watching"] = _watching(project)
        found["jobs"] = [_told(job, now) for job in queue.jobs()]
        if spec.schedule is not None and queue.note("schedule") == parse_schedule(spec.schedule).text:
            found["next_slot"] = parse_schedule(spec.schedule).next(float(queue.note("schedule_since") or now), now).at
    finally:
        queue.close()
    return found


def _watching(project: Project) -> bool:
    try:
        with only_worker(project.state / FOLDER, wait_s=0):
            return False
    except StoreError:
        return True


def _told(job: Job, now: float) -> dict[str, Any]:
    ended = job.ended_at is not None
    return {"id": job.id, "why": job.why, "state": job.state, "attempts": job.attempts, "since": round(job.since, 1),
            "queued_at": round(job.queued_at, 1), "sentence": sentence_of(job.outcome) if job.outcome else job.error,
            "seconds": round((job.ended_at or now) - job.started_at, 1) if job.started_at and (
                ended or job.state == "running") else None,
            "tried_again_at": round(job.not_before, 1) if job.state == "queued" and job.attempts else None,
            "outcome": job.outcome, "what": why_of(job)}


def text_of(found: dict[str, Any]) -> str:
    """The same for people: one line a job, the newest last."""
    lines = ["A watch is running." if found["watching"] else "No watch is running."]
    if found["next_slot"] is not None:
        lines.append(f"Next by schedule ('{found['schedule']}'): {local(found['next_slot'])}")
    jobs = found["jobs"]
    if not jobs:
        return "\n".join([*lines, "Nothing has been queued yet."])
    if len(jobs) > SHOWN:
        lines.append(f"… {len(jobs) - SHOWN} older ones; --json shows all")
    for job in jobs[-SHOWN:]:
        again = f", tried again at {local(job['tried_again_at'])}" if job["tried_again_at"] else ""
        said = f": {job['sentence'].splitlines()[0]}" if job["sentence"] else ""
        lines.append(f"{job['id']:>4}  {job['state']:<8} since {local(job['since'])}  ({job['what']}){said}{again}")
    return "\n".join(lines)
