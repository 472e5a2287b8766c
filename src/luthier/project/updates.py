"""The section `watch` of luthier.yaml: when a project updates itself."""

from __future__ import annotations

from pydantic import Field, field_validator

from luthier.project.schedule import parse_schedule
from luthier.project.updating import Updating


class Watch(Updating):
    """How an update makes the next model, what that must show, and when `luthier watch` makes one by itself."""

    on_change: bool = True
    """Update when documents, labelled data or people's decisions (`labels/`) changed."""
    schedule: str | None = None
    """Also update at these times: `every 6h` (or 30m, 2d), `daily 02:00`, `weekly mon 02:00`, `monthly 1 02:00` (in
    shorter months day 31 is the last day). Times of day are local; slots that were missed run once. null: never."""
    poll_s: float = Field(default=10.0, gt=0)
    """Seconds between looks at the files' sizes and times."""
    settle_s: float = Field(default=30.0, ge=0)
    """Seconds without any change after which the files count as completely copied."""
    retries: int = Field(default=5, ge=0)
    """How often an update is tried again after trouble that may pass: a full disk, too little memory, an endpoint that
    does not answer, a process that was killed. A refusal of the gate and a mistake in the data are not tried again."""
    retry_s: float = Field(default=60.0, gt=0)
    """Seconds before the first new try; each further one waits twice as long, at most an hour."""
    stop_s: float = Field(default=60.0, gt=0)
    """Seconds that a running update gets to save its state after SIGTERM or Ctrl-C; then it is killed, and goes on from
    its last checkpoint at the next start."""

    @field_validator("schedule")
    @classmethod
    def _schedule_is_known(cls, text: str | None) -> str | None:
        if text is not None:
            parse_schedule(text)
        return text
