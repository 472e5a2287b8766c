"""Law: what is prepared does not depend on how much is held in memory, and few rows are held at once."""

import csv
import json
import random
import weakref
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from luthier import progress, shelf
from luthier.prepare.privacy import work
from luthier.progress import Silent
from luthier.project import Project
from luthier.shelf import Memory
from luthier.types import Example

FILES = ("examples.jsonl", "passages.jsonl", "dropped.jsonl", "splits.json", "labels.json", "review.jsonl",
         "privacy.jsonl", "superseded.jsonl", "card.json")
DOCUMENT = """# Leave {n}

Every employee of branch {n} has {days} days of paid vacation in each calendar year, and asks for them at the {office}
desk four weeks before they begin. Write to leave{n}@example.org when the desk is closed for more than a day.

## Sick leave

Whoever is ill tells the {office} desk on the first day by telephone, and brings a certificate on the day {n} after it.

## How many days are left?

The portal of branch {n} shows the days that are left, and the {office} desk prints them on request within an hour.
"""
DESKS = ("front", "service", "travel", "pay", "contract", "library", "garage", "legal")


@pytest.fixture
def on_disk(monkeypatch):
    """Nothing is held in memory."""
    plain = Memory.__init__

    def full(self, memory_mb=0.0, folder=None):
        plain(self, 0.25, folder)
        self.full = True

    return lambda: monkeypatch.setattr(Memory, "__init__", full)


def assistant(root: Path) -> None:
    (root / "documents").mkdir(parents=True)
    for n in range(24):
        text = DOCUMENT.format(n=n, days=20 + n % 9, office=DESKS[n % 8])
        (root / f"documents/branch_{n}.md").write_text(text)
    (root / "documents/branch_3_v2.md").write_text(DOCUMENT.format(n=3, days=40, office="pay"))
    (root / "documents/prices.md").write_text("# Prices\n\n" + "".join(
        f"The part {n} costs {n}.50 € since 0{n % 9 + 1}.05.2026 at the front desk.\n\n" for n in range(9)))
    rows = [{"question": f"Where is desk {n % 30} of the {DESKS[n % 8]}?", "answer": f"On floor {n % 5}, room {n}."}
            for n in range(60)] + [{"question": "Who?"}, {"question": "Where is desk 1 of the service?", "answer": "x"}]
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "quiz.jsonl").write_text(json.dumps({"question": "Where is desk 2 of the travel?"}) + "\n")
    (root / "luthier.yaml").write_text("""
prepare:
  injection: {mode: drop}
  languages: [en, de]
  decontaminate: [quiz.jsonl]
  max_examples_per_document: 5
  volatility: {patterns: {"price*": volatile}}
  makers: [{kind: pairs, path: pairs.jsonl}, {kind: faq}, {kind: section}, {kind: unanswerable, share: 0.1},
           {kind: ground, share: 0.3}]
index: {mode: keywords}
""")


def labelled(root: Path) -> None:
    root.mkdir(parents=True)
    rng = random.Random(0)
    words = [f"word{n}" for n in range(400)]
    rows = [(" ".join(rng.choices(words, k=rng.choice((6, 30)))), f"class {n % 3}", f"c{n // 2}") for n in range(240)]
    rows += [(rows[n][0] + (" indeed" if n % 2 else ""), rows[n + n % 3][1], f"d{n}") for n in range(30)]
    rows += [("Write to ann.miller@example.org or call +44 20 7946 0958", "class 1", "e"), ("a", "", "f")]
    with (root / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "who"), *rows])
    (root / "luthier.yaml").write_text("""
task: {type: classify}
prepare:
  decontaminate: [quiz.txt]
  makers: [{kind: rows, path: rows.csv, text: text, label: label, group_by: who}]
""")
    (root / "quiz.txt").write_text(rows[5][0] + "\n")


@pytest.mark.parametrize("make", [assistant, labelled])
def test_in_memory_and_on_disk_the_same_is_prepared(tmp_path, on_disk, make):
    made = []
    for name in ("memory", "disk"):
        make(tmp_path / name)
        if name == "disk":
            on_disk()
        *_, done = Project.open(tmp_path / name).run(to="prepare")
        made.append(done.artifact)
    one, other = made
    assert one.summary["dropped"] and one.summary["train"] > 20 and one.summary["test"]
    assert {name: value for name, value in one.summary.items() if name not in ("seconds", "made_at")} == {
        name: value for name, value in other.summary.items() if name not in ("seconds", "made_at")}
    for name in FILES:
        assert (one.path / name).is_file() == (other.path / name).is_file(), name
        if (one.path / name).is_file():
            assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
    assert not [file for file in other.path.iterdir() if file.name.startswith("luthier-")]


@pytest.fixture
def alive(monkeypatch):
    """How many examples there are at once, at most."""
    refs, most = {}, [0]

    def see(example):
        key = id(example)
        refs[key] = weakref.ref(example, lambda _: refs.pop(key, None))
        most[0] = max(most[0], len(refs))
        return example

    plain, read = Example.__init__, shelf._example

    def init(self, **fields):
        plain(self, **fields)
        see(self)

    monkeypatch.setattr(Example, "__init__", init)
    monkeypatch.setattr(shelf, "_example", lambda row: see(read(row)))
    return most


class Seen(Silent):
    """Which bars there were, with how far they came."""

    def __init__(self):
        self.bars = {}

    @contextmanager
    def track(self, what, total, *, unit="", done=0):
        self.bars[what] = [total, 0]
        yield SimpleNamespace(advance=lambda count=1: self.bars[what].__setitem__(1, self.bars[what][1] + count))


@pytest.mark.parametrize("kind", ["pairs", "rows"])
def test_of_many_rows_a_few_are_in_memory_at_once_and_going_over_them_is_shown(tmp_path, on_disk, alive, monkeypatch,
                                                                               kind):
    """The bytes that are kept of each row are measured by benchmarks/memory.py."""
    monkeypatch.setattr(progress, "MANY", 500)
    monkeypatch.setattr(work, "_BATCH", 8)
    rng = random.Random(0)
    words = [f"w{n}" for n in range(5000)]
    with (tmp_path / "rows.jsonl").open("w") as file:
        for n in range(900):
            said = " ".join(rng.choices(words, k=40))
            file.write(json.dumps({"question": f"Q{n} {said[:100]}", "answer": said} if kind == "pairs" else
                                  {"text": said, "label": f"class {n % 4}"}) + "\n")
    task = "" if kind == "pairs" else "task: {type: classify}\n"
    (tmp_path / "luthier.yaml").write_text(f"{task}ingest: {{sources: []}}\nprepare:\n"
                                           f"  makers: [{{kind: {kind}, path: rows.jsonl}}]\n")
    on_disk()
    *_, done = Project.open(tmp_path).run(to="prepare", progress=(seen := Seen()))
    assert done.artifact.summary["examples"] > 850
    assert alive[0] < 40
    assert seen.bars["look for personal data"] == [900, 900]
    assert all(seen.bars[f"compare with {split} {'texts' if kind == 'pairs' else 'rows'}"][1] > 600
               for split in ("test", "validation"))
