"""Near-duplicates: planted copies with 3 to 10 % of their words changed, among real passages and filler.

One run compares Luthier's `Dedupe`, exact hashing, datasketch's MinHashLSH (3-word shingles, threshold .5, 128
permutations; `pip install datasketch`, else left out) on the same passages in the same order.

  recall          planted copies that are dropped (an accidental exact copy counts as well)
  false merges    passages dropped that are no planted copy: decoys (a real passage with another name in it, or with a
                  `not` put in) and filler; drops among the real passages themselves are listed to be read
  passages/CPU-s  the whole of `Dedupe.apply`, passages in, kept and dropped out
  peak            memory above what the passages take (MiB, tracemalloc, in a run of its own)

The copies change no word with a digit and no `not`: Luthier keeps those that do on purpose.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from common import data_folder, machine, read_rows, save

from luthier.prepare.dedupe import NEGATIONS, Dedupe
from luthier.prepare.steps import StepContext
from luthier.prepare.text import normalise, words
from luthier.task import Task
from luthier.types import Dropped, Passage

COPIES, DECOYS = 6000, 2000


def real_passages() -> list[tuple[str, str]]:
    """(title, text) of passages of 40 to 60 words of MedQuAD (whose pages have titles), medical abstracts and contract
    clauses, equal ones once."""
    found: dict[str, tuple[str, str]] = {}
    for name in ("medquad", "medical_abstracts", "cuad_clauses"):
        for split in ("train", "test"):
            for row in read_rows(data_folder() / name / f"{split}.jsonl"):
                text = max((value for value in row.values() if isinstance(value, str)), key=len).split()
                for at in range(0, len(text), 50):
                    piece = text[at : at + 50]
                    if len(piece) >= 40:
                        found.setdefault(normalise(" ".join(piece)), (row.get("focus", ""), " ".join(piece)))
    return list(found.values())


def filler(rng: random.Random, vocabulary: Sequence[str], weights: Sequence[int], count: int) -> list[str]:
    """Passages of 40 to 60 words drawn by their frequency in the real ones: they share many words, no sentence."""
    drawn = rng.choices(vocabulary, weights, k=60 * count)
    return [" ".join(drawn[60 * at : 60 * at + rng.randint(40, 60)]).capitalize() + "." for at in range(count)]


def copy_of(rng: random.Random, text: str, vocabulary: Sequence[str]) -> tuple[str, float]:
    """(the text with 3 to 10 % of its words replaced by others, the share replaced)."""
    tokens = text.split()
    free = [at for at, token in enumerate(tokens) if token.isalpha() and token.lower() not in NEGATIONS]
    most = int(0.1 * len(words(text)))
    least = max(1, round(0.03 * len(words(text))))
    count = min(len(free), rng.randint(least, max(least, most)))
    for at in rng.sample(free, count):
        tokens[at] = rng.choice(vocabulary)
    return " ".join(tokens), count / len(words(text))


def decoy_of(rng: random.Random, text: str) -> str:
    """The text about something else: a name in it replaced wherever it stands, or a `not` put in."""
    tokens = text.split()
    inside = {token.strip(".,;:()")
              for before, token in itertools.pairwise(tokens) if before[-1] not in ".!?:\"'-"}
    names = sorted(token for token in inside if len(token) > 3 and token[0].isupper() and token.isalpha())
    if names and rng.random() < 0.7:
        name = rng.choice(names)
        other = rng.choice(["Georgia", "Meridian", "Tannhauser", "Kowalski", "Oberhausen", "Verity", "Lindqvist"])
        if normalise(other) != normalise(name):
            return text[: len(tokens[0])] + text[len(tokens[0]):].replace(name, other)
    at = rng.randrange(1, len(tokens))
    return " ".join([*tokens[:at], "not", *tokens[at:]])


def corpus(total: int, seed: int) -> tuple[list[Passage], dict[str, str], set[str], set[str]]:
    """(passages, copy id → base id, decoy ids, real ids)."""
    rng = random.Random(seed)
    titled = real_passages()
    titles, real = [title for title, _ in titled], [text for _, text in titled]
    counts = Counter(word for text in real for word in words(text) if word.isalpha())
    vocabulary, weights = list(counts), list(counts.values())
    common = [word for word in vocabulary if counts[word] > 5 and word not in NEGATIONS]
    made = filler(rng, vocabulary, weights, max(0, total - len(real) - COPIES - DECOYS))
    base = [*real, *made]
    rows = [Passage(id=f"r{at}" if at < len(real) else f"f{at}", document="d", path="a",
                    title=titles[at] if at < len(real) else "", heading=(), text=text, spans=(at, at + 1))
            for at, text in enumerate(base)]
    copies: dict[str, str] = {}
    decoys: set[str] = set()
    picked = rng.sample(range(len(real)), min(len(real), COPIES // 2 + DECOYS))
    picked_filler = rng.sample(range(len(real), len(base)), min(len(made), COPIES - COPIES // 2))
    for number, at in enumerate([*picked[: COPIES // 2], *picked_filler, *picked[COPIES // 2 :]]):
        is_copy = number < COPIES // 2 + len(picked_filler)
        text = copy_of(rng, base[at], common)[0] if is_copy else decoy_of(rng, base[at])
        name = f"{'c' if is_copy else 'x'}{number}"
        if is_copy:
            copies[name] = rows[at].id
        else:
            decoys.add(name)
        rows.append(Passage(id=name, document="e", path="b", title=rows[at].title, heading=(), text=text,
                            spans=(number, number + 1)))
    return rows, copies, decoys, {row.id for row in rows[: len(real)]}


def luthier(rows: Sequence[Passage]) -> dict[str, str]:
    """Dropped id → detail."""
    return {found.item: found.detail for found in Dedupe().apply(rows, StepContext(task=Task()))
            if isinstance(found, Dropped)}


def exact(rows: Sequence[Passage]) -> dict[str, str]:
    return {found.item: found.detail for found in Dedupe(near=None).apply(rows, StepContext(task=Task()))
            if isinstance(found, Dropped)}


def datasketch(rows: Sequence[Passage]) -> dict[str, str]:
    from datasketch import MinHash, MinHashLSH

    found: dict[str, str] = {}
    lsh = MinHashLSH(threshold=0.5, num_perm=128)
    for row in rows:
        tokens = words(row.text)
        sketch = MinHash(num_perm=128)
        sketch.update_batch([" ".join(tokens[at : at + 3]).encode() for at in range(max(1, len(tokens) - 2))])
        hits = lsh.query(sketch)
        if hits:
            found[row.id] = min(hits)
        else:
            lsh.insert(row.id, sketch)
    return found


def measure(name: str, find: Callable[[Sequence[Passage]], dict[str, str]], rows: list[Passage],
            copies: dict[str, str], decoys: set[str], real: set[str], *, peak: bool) -> dict[str, Any]:
    began = time.process_time()
    gone = find(rows)
    seconds = time.process_time() - began
    result: dict[str, Any] = {
        "system": name, "passages": len(rows), "cpu_seconds": round(seconds, 2),
        "passages_per_cpu_second": round(len(rows) / seconds), "recall": round(sum(c in gone for c in copies) / len(
            copies), 4), "decoys_merged": sum(d in gone for d in decoys), "decoys": len(decoys),
        "filler_merged": sum(item.startswith("f") for item in gone), "real_merged": sum(item in real for item in gone),
    }
    planted = sum(c in gone for c in copies)
    result["precision"] = round(planted / max(1, planted + result["decoys_merged"] + result["filler_merged"]), 4)
    if peak:
        tracemalloc.start()
        find(rows)
        result["peak_mib"] = round(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    result["real_pairs"] = [[item, gone[item]] for item in gone if item in real]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=0, help="print so many of the pairs found among real passages")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    rows, copies, decoys, real = corpus(options.passages, options.seed)
    text_of = {row.id: row.text for row in rows}
    print(f"{len(rows):,} passages: {len(real):,} real, {len(copies):,} planted copies, {len(decoys):,} decoys")
    systems: dict[str, Callable[[Sequence[Passage]], dict[str, str]]] = {"luthier": luthier, "exact hash": exact}
    try:
        import datasketch as _  # noqa: F401

        systems["datasketch"] = datasketch
    except ImportError:
        print("datasketch is not installed: left out")
    results = []
    for name, find in systems.items():
        if options.only and name != options.only:
            continue
        found = measure(name, find, rows, copies, decoys, real, peak=name != "datasketch")
        pairs = found.pop("real_pairs")
        results.append(found)
        print(found, file=sys.stderr)
        if name == "luthier":
            gone = luthier(rows) if options.show else {}
            missed = [item for item in copies if item not in gone] if options.show else []
            for item in sorted(decoys & set(gone))[: options.show]:
                print("DECOY", gone[item], text_of[item])
            for item in missed[: options.show]:
                print("MISSED", text_of[copies[item]], "\n      ", text_of[item])
            for item, detail in pairs[: options.show]:
                print("REAL", text_of[detail.split(" repeats ")[1].split(" ")[0]], "\n    ", text_of[item])
    if not options.only:
        save("duplicates", {"machine": machine(), "seed": options.seed, "copies": len(copies),
                                    "real": len(real), "systems": results})


if __name__ == "__main__":
    main()
