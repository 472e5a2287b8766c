"""When a watched project updates itself: `every 6h`, `daily 02:00`, `weekly mon 02:00`, `monthly 1 02:00`.

Times of day are local. A slot is named by its wall-clock time, so an hour that the clock shows twice (end of summer
time) has one slot, and one that it skips is run at the moment after it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
UNITS = {"m": 60, "h": 3600, "d": 86400}
KNOWN = "'every 6h' (or 30m, 2d), 'daily 02:00', 'weekly mon 02:00' or 'monthly 1 02:00'"
_TIME = re.compile(r"(\d{1,2}):(\d{2})")


@dataclass(frozen=True)
class Slot:
    """One time at which an update is due."""

    at: float
    """Seconds since 1970."""
    name: str
    """The same slot has the same name in every process: local wall-clock time, or number for `every`."""


@dataclass(frozen=True)
class Schedule:
    """A parsed schedule."""

    text: str
    every_s: float | None = None
    """Seconds between slots, counted from when the schedule was first seen; None for times of day."""
    time: dt.time = dt.time()
    due: Callable[[dt.date], bool] = lambda day: True
    """Whether a day has a slot."""

    def last(self, since: float, now: float) -> Slot | None:
        """The latest slot after `since` and not after `now`; None when none has come yet. Missed slots are one."""
        if self.every_s is not None:
            count = int((now - since) // self.every_s)
            return Slot(since + count * self.every_s, f"{since:.0f}+{count}") if count >= 1 else None
        day = dt.datetime.fromtimestamp(now).date()
        for back in range(63):  # two months hold a slot of every schedule
            slot = self._on(day - dt.timedelta(days=back))
            if slot is not None and slot.at <= now:
                return slot if slot.at > since else None
        return None

    def next(self, since: float, now: float) -> Slot:
        """The first slot after `now`."""
        if self.every_s is not None:
            count = max(0, int((now - since) // self.every_s)) + 1
            return Slot(since + count * self.every_s, f"{since:.0f}+{count}")
        day = dt.datetime.fromtimestamp(now).date()
        found = (self._on(day + dt.timedelta(days=ahead)) for ahead in range(64))
        return next(slot for slot in found if slot is not None and slot.at > now)

    def _on(self, day: dt.date) -> Slot | None:
        if not self.due(day):
            return None
        moment = dt.datetime.combine(day, self.time)
        return Slot(moment.timestamp(), moment.isoformat(timespec="minutes"))


def parse_schedule(text: str) -> Schedule:
    """The schedule that `text` says; ValueError names what was not understood and what would be."""
    words = text.lower().split()
    kind, rest = (words[0], words[1:]) if words else ("", [])
    if kind == "every" and len(rest) == 1:
        return Schedule(text, every_s=_interval(rest[0]))
    if kind == "daily" and len(rest) == 1:
        return Schedule(text, time=_time(rest[0]))
    if kind == "weekly" and len(rest) == 2:
        named = [at for at, name in enumerate(DAYS) if name.startswith(rest[0]) and len(rest[0]) >= 3]
        if not named:
            raise ValueError(f"'{rest[0]}' is no day of the week; write one of {', '.join(day[:3] for day in DAYS)}")
        return Schedule(text, time=_time(rest[1]), due=lambda day: day.weekday() == named[0])
    if kind == "monthly" and len(rest) == 2:
        if not rest[0].isdecimal() or not 1 <= int(rest[0]) <= 31:
            raise ValueError(f"'{rest[0]}' is no day of the month; write a number from 1 to 31")
        number = int(rest[0])
        return Schedule(text, time=_time(rest[1]), due=lambda day: day.day == min(number, _length(day)))
    raise ValueError(f"'{text}' is no schedule; write {KNOWN}")


def _interval(text: str) -> float:
    found = re.fullmatch(r"(\d+)([mhd])", text)
    if not found or not int(found[1]):
        raise ValueError(f"'{text}' is no interval; write a whole number and m, h or d, such as 30m, 6h or 2d")
    return int(found[1]) * UNITS[found[2]]


def _time(text: str) -> dt.time:
    found = _TIME.fullmatch(text)
    if not found or int(found[1]) > 23 or int(found[2]) > 59:
        raise ValueError(f"'{text}' is no time of day; write it as hours and minutes, such as 02:00 or 23:30")
    return dt.time(int(found[1]), int(found[2]))


def _length(day: dt.date) -> int:
    """Days in the month of `day`."""
    following = day.replace(day=28) + dt.timedelta(days=4)
    return (following - dt.timedelta(days=following.day)).day
