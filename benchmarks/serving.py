"""Serving speed: 8 requests at a time through `luthier serve`, against one-at-a-time `model.generate`.

    python benchmarks/serving.py            # about 15 minutes on one core

Same model (starter:chat), same questions, greedy, at most 64 new tokens, one thread each. The server is the real one,
in a process of its own, asked over HTTP; the clients' work is not counted, all of the server's is. One configuration
per process, in alternating order; a ratio compares the two neighbours of one round. Tokens are counted, not assumed:
the answers end where the model ends them. `passages` puts about 400 tokens of text before every question, as retrieval
does: reading a prompt costs both sides the same, so the gain is smaller.

Measured against `generate` in the same number format, and, since bfloat16 is a choice of the server, across formats.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import common

GOAL = 3.0
LIMIT = 64
QUESTIONS = [
    "What are the symptoms of asthma?", "How is a violin made?", "Who invented the telephone?",
    "List three healthy breakfasts.", "Why is the sky blue?", "What is a mortgage?", "How do plants make food?",
    "Describe the water cycle.", "What does a transformer do in a power grid?", "How do I boil an egg?",
    "What is the difference between weather and climate?", "Explain compound interest.", "What is a black hole?",
    "How does a bicycle stay upright?", "Name some uses of copper.", "What is the role of the liver?",
    "How do vaccines work?", "Why do leaves change colour?", "What is a balance sheet?", "How far away is the moon?",
    "What makes bread rise?", "Explain what an operating system does.", "What causes tides?", "How do magnets work?",
]
FILLER = ("The handbook says that every request is written down with its date, the name of the person who asked and "
          "what was done about it. Parts that were replaced are kept for thirty days in the blue cabinet. ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times that every system is measured (default 3)")
    parser.add_argument("--questions", type=int, default=24, help="of the 24 questions (default all)")
    parser.add_argument("--concurrent", type=int, default=8, help="requests at a time (default 8)")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--workloads", nargs="+", default=["short", "passages"], choices=["short", "passages"])
    parser.add_argument("--worker", nargs=2, metavar=("WHAT", "DTYPE"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        what, dtype = args.worker
        return serve_worker(args.folder, dtype, args.concurrent) if what == "serve" else generate_worker(dtype)
    os.environ["OMP_NUM_THREADS"] = "1"
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        make_release(Path(folder))
        for number in range(args.rounds):
            for workload in args.workloads:
                prompts = make_prompts(workload, args.questions)
                for dtype in args.dtypes:
                    systems = ["generate", "serve"] if number % 2 == 0 else ["serve", "generate"]
                    for system in systems:
                        measured = (measure_generate(dtype, prompts) if system == "generate" else
                                    measure_serve(Path(folder), dtype, prompts, args.concurrent))
                        run = {"round": number, "workload": workload, "dtype": dtype, "system": system, **measured}
                        runs.append(run)
                        print(f"round {number + 1}  {workload:8}  {dtype:8}  {system:8}  {run['tokens']} tokens  "
                              f"{run['tokens'] / run['cpu_s']:6.1f} tokens/CPU-s  "
                              f"{run['tokens'] / run['wall_s']:6.1f} tokens/s", flush=True)
    result = {"goal": GOAL, "concurrent": args.concurrent, "max_tokens": LIMIT, "questions": args.questions,
              "machine": common.machine(), "ratios": ratios(runs), "runs": runs}
    print()
    for row in result["ratios"]:
        print(f"{row['workload']:8}  serve {row['serve']:8} / generate {row['generate']:8}  "
              f"CPU x {row['cpu']['median']:.2f} ({row['cpu']['min']:.2f} to {row['cpu']['max']:.2f})   "
              f"wall x {row['wall']['median']:.2f} ({row['wall']['min']:.2f} to {row['wall']['max']:.2f})   "
              f"equal answers {row['equal']} of {row['asked']}")
    print(f"\nSaved to {common.save('serving', result)}")
    missed = [row for row in result["ratios"] if row["workload"] == "short" and row["serve"] == row["generate"]
              and row["cpu"]["median"] < GOAL]
    for row in missed:
        print(f"MISSED: {row['serve']} reaches {row['cpu']['median']:.2f} x, the goal is {GOAL:g} x")


def ratios(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tokens per second of the server over those of generate, round by round."""
    found = []
    formats = list(dict.fromkeys(run["dtype"] for run in runs))
    for workload in dict.fromkeys(run["workload"] for run in runs):
        across = [("bfloat16", "float32")] if len(formats) > 1 else []
        across = [("bfloat16", "float32")] if len(formats) > 1 else []
        for served, plain in [*((one, one) for one in formats), *across]:
            def of(system: str, dtype: str, workload: str = workload) -> list[dict[str, Any]]:
                return [run for run in runs if (run["workload"], run["system"], run["dtype"]) ==
                        (workload, system, dtype)]

            pairs = list(zip(of("serve", served), of("generate", plain), strict=True))
            row: dict[str, Any] = {"workload": workload, "serve": served, "generate": plain}
            for name in ("cpu", "wall"):
                row[name] = common.spread([(ours["tokens"] / ours[f"{name}_s"]) / (theirs["tokens"] /
                                           theirs[f"{name}_s"]) for ours, theirs in pairs])
            row["asked"] = len(pairs[0][0]["texts"])
            row["equal"] = sum(a == b for a, b in zip(pairs[0][0]["texts"], pairs[0][1]["texts"], strict=True))
            found.append(row)
    return found


def make_prompts(workload: str, count: int) -> list[str]:
    questions = QUESTIONS[:count]
    if workload == "short":
        return questions
    return [f"[1] handbook.pdf, page {at + 1}\n{FILLER * 9}\n\nQuestion: {question}" for at, question in
            enumerate(questions)]


def measure_generate(dtype: str, prompts: list[str]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--worker", "generate", dtype], input=json.dumps(prompts),
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def generate_worker(dtype: str) -> None:
    """What people do without a server: one question after the other."""
    import torch

    from luthier.models.generate import decode_answer, encode_prompt, load_module
    from luthier.models.sources import resolve
    from luthier.types import Message

    torch.set_num_threads(1)
    module, tokenizer = load_module(resolve("starter:chat").folder, dtype=dtype, device="cpu")
    prompts = [encode_prompt(tokenizer, [Message(role="user", content=text)]) for text in json.load(sys.stdin)]

    def ask(prompt: list[int], limit: int) -> list[int]:
        ids = torch.tensor([prompt])
        return module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit,
                               do_sample=False)[0, len(prompt):].tolist()

    ask(prompts[0], 4)
    cpu, wall = common.cpu_seconds(), time.monotonic()
    answers = [ask(prompt, LIMIT) for prompt in prompts]
    cpu, wall = common.cpu_seconds() - cpu, time.monotonic() - wall
    print(json.dumps({"tokens": sum(map(len, answers)), "cpu_s": cpu, "wall_s": wall,
                      "peak_gib": common.peak_gib(), "texts": [decode_answer(tokenizer, ids) for ids in answers]}))


def measure_serve(folder: Path, dtype: str, prompts: list[str], concurrent: int) -> dict[str, Any]:
    with server(folder, dtype, concurrent) as (url, process):
        ask(url, prompts[0], 4)
        cpu, wall = cpu_of(process.pid), time.monotonic()
        with ThreadPoolExecutor(concurrent) as pool:
            replies = list(pool.map(lambda prompt: ask(url, prompt, LIMIT), prompts))
        return {"tokens": sum(reply["usage"]["completion_tokens"] for reply in replies),
                "cpu_s": cpu_of(process.pid) - cpu, "wall_s": time.monotonic() - wall, "peak_gib": peak_of(process.pid),
                "texts": [reply["choices"][0]["message"]["content"] for reply in replies]}


@contextlib.contextmanager
def server(folder: Path, dtype: str, concurrent: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen([sys.executable, __file__, "--worker", "serve", dtype, "--folder", str(folder),
                                "--concurrent", str(concurrent)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Serving "):
                url = line.split(" at ")[1].split()[0]
                break
        else:
            raise SystemExit("the server did not start")
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/healthz", timeout=5)
                break
            time.sleep(0.2)
        yield url, process
    finally:
        process.terminate()
        process.wait(timeout=60)


def serve_worker(folder: Path, dtype: str, concurrent: int) -> None:
    from luthier.serve.base import Serve, serve
    from luthier.serve.engines.transformers import Transformers

    serve(folder / "bench" / "1", Serve(port=0, no_key=True, engine=Transformers(
        dtype=dtype, threads=1, max_running=concurrent)), root=folder)


def ask(url: str, prompt: str, limit: int) -> dict[str, Any]:
    body = {"model": "bench", "max_tokens": limit, "messages": [{"role": "user", "content": prompt}]}
    request = urllib.request.Request(f"{url}/v1/chat/completions", data=json.dumps(body).encode(),
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)


def cpu_of(pid: int) -> float:
    """User and system seconds of another process, all threads (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_of(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def make_release(folder: Path) -> None:
    """The starter as it is, as a release of the one system `base`."""
    from transformers import AutoConfig, AutoTokenizer

    from luthier.index.rag import Rag
    from luthier.models.generate import stop_tokens
    from luthier.models.sources import resolve
    from luthier.task import Task

    source = resolve("starter:chat")
    tokenizer = AutoTokenizer.from_pretrained(source.folder)
    config = type("Holder", (), {"config": AutoConfig.from_pretrained(source.folder)})()
    release = folder / "bench" / "1"
    release.mkdir(parents=True)
    (release / "release.json").write_text(json.dumps({
        "name": "bench", "version": 1, "choice": "base", "systems": ["base"], "forced": None, "approved_by": "",
        "created": "2026-11-21T00:00:00Z", "tuned": {"present": False, "passed": False, "why": "a benchmark"},
        "base": {"source": source.source, "folder": str(source.folder), "fingerprint": source.fingerprint,
                 "name": source.name, "bundled": False},
        "task": Task().dump(), "rag": Rag().dump(), "encoder": {"source": None, "fingerprint": None},
        "template": tokenizer.chat_template, "stop_ids": stop_tokens(config, tokenizer), "dtype": "float32",
        "lineage": {}, "gate": [], "files": {}, "key": "bench",
    }))


if __name__ == "__main__":
    main()
