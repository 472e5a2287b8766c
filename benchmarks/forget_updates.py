"""Ten months of a growing classifier under `luthier watch`: new intents every month, one file withdrawn by `luthier
forget`, one label changed, one poisoned batch. Once undisturbed, once killed at random points; both must end alike.

    python benchmarks/forget_updates.py [--months 10] [--kills 1]

CLINC150, starter:encoder, head only. The first release knows 20 intents; each month three come, with a few more rows
of the old ones. The program runs `luthier watch --once` as cron would. The second project goes through the same months
while SIGKILL hits the watch (and so its update) after a random part of the time that the month took undisturbed.
Compared at the end: the hashes of the live weights, the history without times, and what came of every queued job.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
import label_common as lab

from luthier.ingest.forgotten import read_forgotten
from luthier.project import Project
from luthier.project.new import new
from luthier.release.base import live_release, read_history, read_release
from luthier.serve.labels.predictor import open_release
from luthier.watch.champion import forgotten_in, open_champion
from luthier.watch.queue import Queue

SETTINGS = (
    "prepare.makers=[{kind: rows, path: data, text: text, label: label}]", "adapt.model=starter:encoder",
    "train.plan={kind: head}", "train.epochs=6", "train.learning_rate=0.005", "train.verify_resume=false",
    "train.checkpoint_every_s=2", "release.system=tuned", "release.gate.beats=null",
    "evaluate.labels.systems=[majority, tuned]", "evaluate.labels.latency_rows=0", "evaluate.bootstrap_samples=500",
    "watch.settle_s=0", "watch.poll_s=0.2", "watch.retry_s=0.2", "watch.retries=50", "watch.gate.unsure=promote",
    "watch.gate.max_loss=0.03", "watch.least_past=2000",
)
"""All past rows are replayed: on cached features that costs a second."""
FIRST, MONTHLY, TRAIN, TEST = 20, 3, 24, 12
WITHDRAWN, CHANGED, POISONED = 4, 6, 8
OLD_LABEL, NEW_LABEL = "pin_change", "account_security"
"""In month CHANGED the rows of the one get the other's name, which stays that of their test rows too."""


def clinc() -> tuple[list[str], dict[str, dict[str, list[str]]]]:
    """Intents, domain by domain; split → intent → texts."""
    folder = common.data_folder() / "clinc150"
    domains = json.loads((folder / "domains.json").read_text("utf-8"))
    rows: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for split, found in rows.items():
        for text, intent in json.loads((folder / "data_full.json").read_text("utf-8"))[split]:
            found.setdefault(intent, []).append(text)
    return [intent for names in domains.values() for intent in names], rows


class World:
    """What comes in which month; the same for both projects."""

    def __init__(self) -> None:
        self.intents, self.rows = clinc()

    def of(self, intents: list[str], train: slice, test: slice) -> list[dict[str, str]]:
        return [{"text": text, "label": intent, "split": split} for intent in intents
                for split, part in (("train", train), ("test", test)) for text in self.rows[split][intent][part]]

    def first(self) -> list[dict[str, str]]:
        return self.of(self.intents[:FIRST], slice(TRAIN), slice(TEST))

    def month(self, month: int) -> list[dict[str, str]]:
        """New intents and a few rows of the first ones; in month POISONED all with the next intent's name."""
        fresh = self.intents[FIRST + MONTHLY * (month - 1) : FIRST + MONTHLY * month]
        old = [intent for intent in self.intents[:FIRST] if intent != OLD_LABEL]
        more = slice(TRAIN + 3 * month, TRAIN + 3 * month + 3)
        rows = [*self.of(fresh, slice(TRAIN), slice(TEST)), *self.of(old, more, slice(TEST + month, TEST + month + 1))]
        if month != POISONED:
            return rows
        names = [*fresh, *old]
        following = dict(zip(names, [*names[1:], names[0]]))
        return [{**row, "label": following[row["label"]]} for row in rows]


def write(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def luthier(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "luthier.cli", *arguments, "-C", str(folder), "--json"]
    for setting in SETTINGS:
        command += ["--set", setting]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("ab"),
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def do(folder: Path, arguments: tuple[str, ...], *, kills: int, longest_s: float, rng: random.Random) -> int:
    """Run a command, killed `kills` times on the way and begun anew; how many kills hit."""
    hit = 0
    for _ in range(kills):
        process = luthier(folder, *arguments)
        try:
            process.wait(rng.uniform(0.1, 1) * longest_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            hit += 1
    code = luthier(folder, *arguments).wait()
    if code not in (0, 7):
        raise SystemExit(f"luthier {' '.join(arguments)} ended with {code}; see {folder / 'log'}")
    return hit


def came(folder: Path, world: World, month: int) -> str:
    """Put a month's files into the project."""
    data = folder / "data"
    write(data / f"month-{month:02}.jsonl", world.month(month))
    if month == POISONED + 1:
        (data / f"month-{POISONED:02}.jsonl").unlink()
        return f"{MONTHLY} new intents; the poisoned file was taken away"
    if month == POISONED:
        return "every row with a wrong label"
    if month == CHANGED:
        file = data / "first.jsonl"
        file.write_text(file.read_text("utf-8").replace(f'"{OLD_LABEL}"', f'"{NEW_LABEL}"'), "utf-8")
        return f"{MONTHLY} new intents; '{OLD_LABEL}' became '{NEW_LABEL}'"
    if month == WITHDRAWN:
        return f"{MONTHLY} new intents; month-02 is withdrawn"
    return f"{MONTHLY} new intents"


def go_through(folder: Path, world: World, months: int, *, kills: int, times: dict[str, float] | None = None
               ) -> dict[str, Any]:
    """All months; `times` are the undisturbed seconds of each command, for the kills."""
    shutil.rmtree(folder, ignore_errors=True)
    new(folder, task="classify")
    (folder / "data").mkdir(exist_ok=True)
    write(folder / "data" / "first.jsonl", world.first())
    rng, took, table, hits = random.Random(7), {}, [], 0
    for month in range(months + 1):
        what = came(folder, world, month) if month else f"{FIRST} intents, the first release"
        commands = [("watch", "--once")]
        if month == WITHDRAWN:
            commands.append(("forget", "data/month-02.jsonl"))
        for command in commands:
            began, cpu, name = time.monotonic(), cpu_s(), f"{month} {command[0]}"
            hits += do(folder, command, kills=kills if times else 0, longest_s=(times or took).get(name, 0), rng=rng)
            took[name] = time.monotonic() - began
            row = {"month": month, "command": command[0], "cpu_s": cpu_s() - cpu,
                   "what": what if command[0] == "watch" else "forget month-02",
                   "seconds": round(took[name], 1), **outcome_of(folder, command[0])}
            table.append(row)
            print(line_of(row), flush=True)
    return {"table": table, "seconds": took, "hits": hits, "end": end_of(folder)}


def cpu_s() -> float:
    """CPU seconds of all processes that were waited for; what a kill left alone for a moment is not in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def opened(folder: Path) -> Project:
    return Project.open(folder, overrides=SETTINGS)


def outcome_of(folder: Path, command: str) -> dict[str, Any]:
    """Old and new score, and the decision, of the last update of the history."""
    release = live_release(opened(folder).releases)
    queue = Queue(folder / ".luthier" / "watch" / "queue.sqlite")
    job = queue.jobs()[-1]
    queue.close()
    updates = [row for row in read_history(release.parent) if row["event"] == "update"]
    found = {"decision": "promoted" if command == "forget" else job.outcome["state"] if job.outcome else job.state,
             "live": read_release(release).label}
    if updates and (command == "forget" or (job.outcome and job.outcome.get("checks"))):
        for check in updates[-1]["checks"]:
            pair = re.search(r"([\d.]+) → ([\d.]+)", check["sentence"])
            if check["name"] in ("max_loss", "max_new_loss") and pair:
                found["old" if check["name"] == "max_loss" else "new"] = [float(pair[1]), float(pair[2])]
        found["failed"] = [check["name"] for check in updates[-1]["checks"] if check["outcome"] == "failed"]
    return found


def line_of(row: dict[str, Any]) -> str:
    old, new_ = (f"{pair[0]:.3f} → {pair[1]:.3f}" if (pair := row.get(name)) else "      –      "
                 for name in ("old", "new"))
    why = f" ({', '.join(row['failed'])})" if row.get("failed") else ""
    return (f"month {row['month']:>2}  old test {old}   new test {new_}   {row['decision']}{why}, {row['live']} is live"
            f"   {row['cpu_s']:4.0f} CPU s   {row['what']}")


def end_of(folder: Path) -> dict[str, Any]:
    """What both projects must agree on."""
    project = opened(folder)
    record = read_release(live_release(project.releases))
    queue = Queue(folder / ".luthier" / "watch" / "queue.sqlite")
    jobs = [(job.why["trigger"], job.why.get("files"), job.state, (job.outcome or {}).get("state"))
            for job in queue.jobs()]
    queue.close()
    return {
        "live": record.label, "jobs": jobs,
        "weights": {name: sha for name, sha in record.files.items() if name.startswith("model/")},
        "history": [{name: value for name, value in row.items() if name != "at"}
                    for row in read_history(record.folder.parent)],
    }


def facts_of(folder: Path, world: World, months: int) -> dict[str, Any]:
    """Whether the withdrawn file is out of every ancestor, and what the model says to the changed label's test rows."""
    project = opened(folder)
    champion = open_champion(project)
    found: dict[str, Any] = {"forgotten": forgotten_in(champion.run, project, read_forgotten(project.root)).clean}
    if months >= CHANGED:
        model = open_release(champion.record.folder)
        texts = world.rows["test"][OLD_LABEL][TEST:]  # never part of the project
        told = [model.decide(row, top_k=0)["best_guess"] for row in
                model.logits([one.row for one in model.texts(texts)])]
        found |= {"changed_n": len(told), "says_new": told.count(NEW_LABEL) / len(told),
                  "says_old": told.count(OLD_LABEL) / len(told)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--months", type=int, default=10)
    parser.add_argument("--kills", type=int, default=1, help="kills in each month of the second project")
    told = parser.parse_args()
    world, work = World(), lab.scratch("updates")
    print("undisturbed")
    calm = go_through(work / "calm" / "desk", world, told.months, kills=0)
    facts = facts_of(work / "calm" / "desk", world, told.months)
    print(f"withdrawn rows out of the live model and all it came from: {facts['forgotten']}")
    if "says_new" in facts:
        print(f"unseen questions about the changed label: '{NEW_LABEL}' {facts['says_new']:.2f}, "
              f"'{OLD_LABEL}' {facts['says_old']:.2f} (n = {facts['changed_n']})")
    print(f"killed {told.kills} times a command")
    rough = go_through(work / "rough" / "desk", world, told.months, kills=told.kills, times=calm["seconds"])
    same = {name: calm["end"][name] == rough["end"][name] for name in calm["end"]}
    print(f"{rough['hits']} kills hit; the same at the end: " + ", ".join(
        f"{name} {'yes' if value else 'NO'}" for name, value in same.items()))
    path = common.save("forget_updates", {
        "months": told.months, "calm": calm["table"], "rough": rough["table"], "hits": rough["hits"], "same": same,
        "facts": facts, "cpu_s": round(cpu_s()), "settings": SETTINGS,
        "machine": common.machine()})
    print(f"saved {path}")
    if not all(same.values()):
        raise SystemExit("the killed project ended otherwise")


if __name__ == "__main__":
    main()
