"""Laws of schedules: slots come when the calendar says, once each, also where the clock jumps."""

import datetime as dt
import time

import pytest

from luthier.project.schedule import parse_schedule
from luthier.project.updates import Watch


@pytest.fixture(autouse=True)
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(("text", "since", "now", "last", "following"), [
    ("daily 02:00", "2026-11-20 12:00", "2026-11-20 13:00", None, "2026-11-21 02:00"),
    ("daily 02:00", "2026-11-20 12:00", "2026-11-21 02:00", "2026-11-21 02:00", "2026-11-22 02:00"),
    ("daily 02:00", "2026-11-01 12:00", "2026-11-20 13:00", "2026-11-20 02:00", "2026-11-21 02:00"),  # 19 missed: once
    ("weekly mon 06:30", "2026-11-20 12:00", "2026-11-25 00:00", "2026-11-23 06:30", "2026-11-30 06:30"),
    ("weekly Sunday 06:30", "2026-11-20 12:00", "2026-11-21 00:00", None, "2026-11-22 06:30"),
    ("monthly 1 00:00", "2026-11-20 12:00", "2026-12-05 00:00", "2026-12-01 00:00", "2027-01-01 00:00"),
    ("monthly 31 05:00", "2027-01-31 12:00", "2027-03-01 00:00", "2027-02-28 05:00", "2027-03-31 05:00"),
    ("every 6h", "2026-11-20 12:00", "2026-11-20 17:59", None, "2026-11-20 18:00"),
    ("every 6h", "2026-11-20 12:00", "2026-11-22 13:00", "2026-11-22 12:00", "2026-11-22 18:00"),
    ("every 30m", "2026-11-20 12:00", "2026-11-20 12:31", "2026-11-20 12:30", "2026-11-20 13:00"),
])
def test_last_and_next_slot(text, since, now, last, following):
    schedule = parse_schedule(text)
    found = schedule.last(at(since), at(now))
    assert (found and found.at) == (last and at(last))
    assert schedule.next(at(since), at(now)).at == at(following)


def test_every_slot_is_met_once_by_somebody_who_looks_every_ten_minutes_through_a_year():
    """The clock jumps at 2027-03-28 02:00 (to 03:00) and 2027-10-31 03:00 (back to 02:00): 02:30 has one slot a day."""
    schedule, since, now = parse_schedule("daily 02:30"), at("2027-01-01 00:00"), at("2027-01-01 00:00")
    names = []
    while now < at("2028-01-01 00:00"):
        slot = schedule.last(since, now)
        if slot is not None:
            names.append(slot.name)
            since = slot.at
        now += 600
    assert names == [f"{dt.date(2027, 1, 1) + dt.timedelta(days=day)}T02:30" for day in range(365)]


@pytest.mark.parametrize(("text", "said"), [
    ("hourly", "is no schedule; write 'every 6h'"), ("", "is no schedule"), ("daily", "is no schedule"),
    ("daily 24:00", "'24:00' is no time of day"), ("daily 2am", "is no time of day"),
    ("weekly mo 02:00", "'mo' is no day of the week; write one of mon, tue"), ("monthly 0 02:00", "from 1 to 31"),
    ("every 0h", "whole number and m, h or d"), ("every 6", "whole number and m, h or d"),
])
def test_what_is_no_schedule_is_told_so(text, said):
    with pytest.raises(ValueError, match=said):
        Watch(schedule=text)
