"""`luthier prepare` on files of 50 to 800 MB: what it holds in memory, and how that grows with the file.

The rows are made of MedQuAD's sentences in random combinations (so they are many, different, and of a real language),
with 2 % exact repeats and 1 % rows whose answer is that of another row with a word changed. For each size and bound
(`prepare.memory_mb`) a process of its own runs the stage on conversations, and on labelled rows; its peak memory is
what the operating system says. What a row costs in memory is the difference of the peaks over that of the rows.

    python benchmarks/memory.py [--sizes 50,200,800] [--bounds 64]     # about 25 minutes
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import data_folder, machine, read_rows, save

KINDS = {"conversations": "- {kind: pairs, path: rows.jsonl}",
         "labelled rows": "- {kind: rows, path: rows.jsonl, text: text, label: label}"}


def rows_of(kind: str, megabytes: int) -> Iterator[dict[str, Any]]:
    """Rows until the file has its size; always the same ones."""
    rng = random.Random(7)
    found = read_rows(data_folder() / "medquad" / "train.jsonl")
    sentences = sorted({sentence.strip() for row in found for sentence in re.split(r"(?<=[.?!])\s+", row["answer"])
                        if 40 < len(sentence) < 400})
    questions = sorted({row["question"].strip() for row in found})
    size, kept = 0, []
    while size < megabytes * 2**20:
        chance = rng.random()
        if kept and chance < 0.03:
            row = dict(rng.choice(kept))
            if chance < 0.01:
                words = row["answer"].split()
                words[len(words) // 2] = "changed"
                row = {"question": f"{row['question']} Say it again.", "answer": " ".join(words)}
        else:
            row = {"question": f"{rng.choice(questions)} {rng.choice(sentences)}",
                   "answer": " ".join(rng.choices(sentences, k=rng.randint(2, 9)))}
            if len(kept) < 1000:
                kept.append(row)
        if kind == "labelled rows":
            row = {"text": f"{row['question']} {row['answer']}", "label": f"class {len(row['answer']) % 20}"}
        line = len(json.dumps(row)) + 1
        size += line
        yield row


def measure(kind: str, megabytes: int, bound: float) -> dict[str, Any]:
    """Prepare one file in a process of its own."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent / "work") as name:
        root = Path(name)
        count = 0
        with (root / "rows.jsonl").open("w") as file:
            for row in rows_of(kind, megabytes):
                file.write(json.dumps(row) + "\n")
                count += 1
        task = "task: {type: classify}\n" if kind == "labelled rows" else ""
        (root / "luthier.yaml").write_text(
            f"{task}ingest: {{sources: []}}\nprepare:\n  memory_mb: {bound}\n  makers:\n    {KINDS[kind]}\n")
        began = time.monotonic()
        command = [sys.executable, __file__, "--inside", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        told = json.loads(done.stdout.splitlines()[-1])
        return {"kind": kind, "megabytes": megabytes, "rows": count, "bound_mb": bound,
                "seconds": round(time.monotonic() - began, 1), **told}


def inside(root: Path) -> None:
    """One run of the stage; prints its figures as the last line."""
    from luthier.project import Project

    for _ in Project.open(root).run(to="prepare"):
        pass
    used = resource.getrusage(resource.RUSAGE_SELF)
    artifact = Project.open(root).artifact("prepare")
    print(json.dumps({"peak_mb": used.ru_maxrss // 1024, "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
                      "kept": artifact.summary["examples"], "dropped": artifact.summary["dropped"]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="50,200,800")
    parser.add_argument("--bounds", default="64")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--inside", type=Path)
    given = parser.parse_args()
    if given.inside is not None:
        inside(given.inside)
        return
    results = []
    for kind in given.kinds.split(","):
        for bound in given.bounds.split(","):
            for size in given.sizes.split(","):
                one = measure(kind, int(size), float(bound))
                results.append(one)
                print(f"{kind}: {size} MB, {one['rows']:,} rows, bound {bound} MB: peak {one['peak_mb']:,} MB, "
                      f"{one['cpu_seconds']:,.0f} CPU s ({one['rows'] / one['cpu_seconds']:,.0f} rows/s); "
                      f"{one['kept']:,} kept, {one['dropped']:,} dropped", flush=True)
    growth = []
    for one, other in itertools.pairwise(results):
        if (one["kind"], one["bound_mb"]) == (other["kind"], other["bound_mb"]):
            cost = (other["peak_mb"] - one["peak_mb"]) * 2**20 / (other["rows"] - one["rows"])
            growth.append({"kind": one["kind"], "from_mb": one["megabytes"], "to_mb": other["megabytes"],
                           "bytes_a_row": round(cost)})
            print(f"{one['kind']}, {one['megabytes']} → {other['megabytes']} MB: {cost:,.0f} bytes a row")
    save("memory", {"machine": machine(), "runs": results, "growth": growth})


if __name__ == "__main__":
    main()
