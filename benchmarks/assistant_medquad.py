"""Proof on real data: the starter before and after training on MedQuAD, through the public API.

    python benchmarks/assistant_medquad.py          # about 25 minutes on a quiet core
    python benchmarks/assistant_medquad.py --rows 2200 --questions 300 --judged 300 --general 424    # everything

A fixed subset (by a hash of the question) of MedQuAD's 2,200 pairs for training, and of its 300 test pairs; no disease
is on both sides. Reported, base against tuned: the loss per answer token; token-F1 and the other metrics of greedy
answers, with paired bootstrap intervals; what general skill was kept, on two probes that no training saw. The losses
are judged twice: by `evaluate`, and by plain transformers in fp32 (common.py), which knows nothing of Luthier.

Base answers are longer than MedQuAD's, and word overlap punishes length, so token-F1 is also given with all answers cut
after fewer tokens: a short limit helps a base that rambles.

What has to hold: answer-token loss falls by at least 15 %, token-F1 rises with an interval that excludes zero, general
loss rises by at most 5 %, at most 60 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import common
from assistant_documents import page

GOALS = {"answer_loss_change": -0.15, "general_loss_rise": 0.05, "minutes": 60}
LIMIT = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1200, help="training rows, of 2200 (default 1200)")
    parser.add_argument("--questions", type=int, default=100, help="test questions answered, of 300 (default 100)")
    parser.add_argument("--judged", type=int, default=150, help="test rows whose loss is judged, of 300 (default 150)")
    parser.add_argument("--general", type=int, default=100, help="general instructions judged, of 424 (default 100)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--rank", type=int, default=32, help="of LoRA")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--replay", type=float, default=0.1, help="share of general instructions; 0 for none")
    parser.add_argument("--max-new-tokens", type=int, default=192,
                        help="longest answer; 97 of 100 references are shorter")
    parser.add_argument("--folder", type=Path, default=Path("build/assistant_medquad"),
                        help="the project folder; a finished stage in it is not run again")
    parser.add_argument("--name", default="assistant_medquad", help="of the result file")
    args = parser.parse_args()
    began, cpu = time.monotonic(), common.cpu_seconds()
    made = run(args)
    result = {
        "benchmark": "assistant_medquad", "machine": common.machine(),
        "settings": {key: value for key, value in vars(args).items() if key not in ("folder", "name")},
        **made, "minutes": round((time.monotonic() - began) / 60, 1),
        "cpu_minutes": round((common.cpu_seconds() - cpu) / 60, 1),
    }
    result["goals"] = goals(result)
    show(result)
    print(f"written to {common.save(args.name, result)}")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The stages, then the independent judge."""
    from luthier.adapt.base import Adapt, adapt
    from luthier.adapt.full import Full
    from luthier.adapt.lora import LoRA
    from luthier.evaluate.base import Evaluate, evaluate
    from luthier.ingest.base import ingest
    from luthier.models.sources import resolve
    from luthier.prepare.base import Prepare, prepare
    from luthier.prepare.makers.pairs import Pairs
    from luthier.prepare.split import SplitBy
    from luthier.progress import Terminal
    from luthier.store import Store
    from luthier.task import Task
    from luthier.train.base import Replay, Train, train

    root: Path = args.folder
    lay_out(root, args.rows)
    common_args: dict[str, Any] = {"store": Store(root / ".luthier" / "store"), "progress": Terminal()}
    rooted = {**common_args, "root": root.resolve()}
    seconds: dict[str, float] = {}

    def timed(stage: str, artifact: Any) -> Any:
        seconds[stage] = round(artifact.summary.get("seconds", 0.0), 1)
        return artifact

    task = Task(metric="token_f1")
    documents = timed("ingest", ingest([root / "documents"], **common_args))
    data = timed("prepare", prepare(documents, task, Prepare(
        makers=(Pairs(path="train.jsonl", group_by="focus"), Pairs(path="test.jsonl", split="test")),
        split=SplitBy(test=0, validation=0.04)), **rooted))
    method = Full() if args.method == "full" else LoRA(rank=args.rank, alpha=2 * args.rank)
    model = timed("adapt", adapt(task, Adapt(method=method), **rooted))
    trained = timed("train", train(model, data, Train(
        epochs=args.epochs, learning_rate=args.learning_rate,
        replay=Replay(share=args.replay) if args.replay else None), **rooted))
    report = timed("evaluate", evaluate(
        data=data, index=None, model=model, run=trained, task=task,
        spec=Evaluate(systems=("base", "tuned"), max_questions=args.questions, max_new_tokens=args.max_new_tokens,
                      latency_questions=0),
        **rooted))
    read = json.loads((report.path / "report.json").read_text("utf-8"))
    answers = common.read_rows(report.path / "predictions.jsonl")

    base = resolve("starter:chat").folder
    best = trained.path / "best"
    tuned = (base, best) if args.method == "lora" else (best, None)
    clock = time.monotonic()
    probes = {"test": held_out(base, args.judged), "general": general(base, args.general)}
    judged = {}
    for name, rows in probes.items():
        judged[name] = common.relative_change(common.losses(base, None, rows), common.losses(*tuned, rows))
    seconds["judge"] = round(time.monotonic() - clock, 1)
    return {
        "judged": judged, "token_f1_by_limit": by_limit(base, answers, args.max_new_tokens), "stage_seconds": seconds,
        "data": {key: value for key, value in data.summary.items() if isinstance(value, int | float | str | dict)},
        "training": dict(trained.summary), "report": str(report.path / "report.html"),
        **{key: read.get(key) for key in ("verdict", "test", "systems", "differences", "retention")},
    }


def lay_out(root: Path, num_rows: int) -> None:
    """The project folder: the pairs as they come, and the source pages as its documents."""
    source = common.data_folder() / "medquad"
    (root / "documents").mkdir(parents=True, exist_ok=True)
    for record in sorted((source / "raw_xml").glob("*.xml")):
        (root / "documents" / f"{record.stem}.html").write_text(page(record.read_text("utf-8")), "utf-8")
    rows = common.fixed_order(common.read_rows(source / "train.jsonl"), "question")[:num_rows]
    for name, kept in (("train", rows), ("test", common.read_rows(source / "test.jsonl"))):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        (root / f"{name}.jsonl").write_text(text, "utf-8")


def held_out(model: Path, count: int) -> list[dict[str, list[int]]]:
    """Test rows as tokens."""
    rows = common.fixed_order(common.read_rows(common.data_folder() / "medquad" / "test.jsonl"), "question")
    return _tokens(model, [(row["question"], row["answer"]) for row in rows[:count]])


def general(model: Path, count: int) -> list[dict[str, list[int]]]:
    """Human-written general instructions (self-instruct) as tokens; Luthier's own replay holds none of them."""
    rows = common.read_rows(common.data_folder() / "self_instruct_seeds" / "instructions.jsonl")
    rows = [row for row in common.fixed_order(rows, "id") if row["output"]]
    return _tokens(model, [common.instruction_pair(row) for row in rows[:count]])


def _tokens(model: Path, pairs: list[tuple[str, str]]) -> list[dict[str, list[int]]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    found = (common.tokenise(tokenizer, *pair, stop=tokenizer.eos_token, limit=LIMIT) for pair in pairs)
    return [row for row in found if row is not None]


def by_limit(model: Path, answers: list[dict[str, Any]], most: int) -> dict[str, dict[str, float]]:
    """Token-F1 of base and tuned with every answer cut after so many tokens, and the paired difference."""
    from transformers import AutoTokenizer

    from luthier.evaluate.metrics.token_f1 import token_f1

    tokenizer = AutoTokenizer.from_pretrained(model)
    said = {(row["system"], row["example"]): row for row in answers}
    examples = sorted({row["example"] for row in answers})
    found = {}
    for limit in [*(limit for limit in (32, 64, 96, 128, 192) if limit < most), most]:
        scores: dict[str, list[float]] = {}
        for system in ("base", "tuned"):
            rows = [said[system, example] for example in examples]
            cut = [tokenizer.decode(tokenizer(row["answer"], add_special_tokens=False)["input_ids"][:limit])
                   for row in rows]
            scores[system] = [token_f1(row["reference"], text) for row, text in zip(rows, cut, strict=True)]
        found[str(limit)] = common.mean_difference(scores["base"], scores["tuned"])
    return found


def goals(result: dict[str, Any]) -> dict[str, Any]:
    """Each goal with what was reached."""
    f1 = next((row for row in result["differences"] if row["metric"] == "token_f1" and row["system"] == "tuned"
               and row["against"] == "base"), None)
    loss, kept = result["judged"]["test"], result["judged"]["general"]
    rise = (result["retention"] or {}).get("token_loss", {}).get("relative_rise")
    return {
        "answer-token loss falls by 15 %": {"reached": loss["change"] <= GOALS["answer_loss_change"],
                                            "change": loss["change"], "low": loss["low"], "high": loss["high"]},
        "token-F1 rises, interval excludes 0": {"reached": f1 is not None and f1["low"] > 0, **(f1 or {})},
        "general loss rises by at most 5 %": {
            "reached": kept["change"] <= GOALS["general_loss_rise"] and (rise or 0) <= GOALS["general_loss_rise"],
            "self_instruct": kept["change"], "own_probe": rise},
        "at most 60 minutes": {"reached": result["minutes"] <= GOALS["minutes"], "minutes": result["minutes"]},
    }


def show(result: dict[str, Any]) -> None:
    print()
    for name, row in (("answer-token loss, test", result["judged"]["test"]),
                      ("token loss, self-instruct", result["judged"]["general"])):
        print(f"{name:28} {row['before']:.3f} -> {row['after']:.3f}  ({100 * row['change']:+.1f} %, "
              f"95 % {100 * row['low']:+.1f} to {100 * row['high']:+.1f}; n={row['n']})")
    for limit, row in result["token_f1_by_limit"].items():
        print(f"token-F1, answers cut at {limit:4}{row['before']:.3f} -> {row['after']:.3f}  ({row['change']:+.3f}, "
              f"95 % {row['low']:+.3f} to {row['high']:+.3f}; n={row['n']})")
    for row in result["differences"]:
        if row["system"] == "tuned" and row["against"] == "base":
            print(f"{row['metric']:28} {row['value']:+.3f}  [{row['low']:+.3f}, {row['high']:+.3f}]  n={row['n']}")
    print(f"verdict: {result['verdict']['sentence']}")
    for name, goal in result["goals"].items():
        print(f"  {'reached' if goal['reached'] else 'MISSED '}  {name}")
    print(f"{result['minutes']} minutes, {result['cpu_minutes']} CPU minutes: {result['stage_seconds']}")


if __name__ == "__main__":
    main()
