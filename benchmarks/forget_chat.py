"""Proof on real data: what a chat model gains and forgets, full and LoRA, with and without protection.

    python benchmarks/forget_chat.py --seeds 0                # about 25 CPU minutes at 100 tokens a second (fp32)
    python benchmarks/forget_chat.py                          # three seeds; a finished arm is not run again
    python benchmarks/forget_chat.py --rows 16 --held 8 --general 8 --choices 8 --points 0.5 --arms none,lwf \\
        --methods lora --seeds 0 --name forget_chat_smoke     # some minutes: does it run?

The starter learns MedQuAD's pairs (short ones, so that a seed fits into minutes on a CPU). Arms: `none`; `replay`
(general instructions that ship with Luthier); `l2sp` (a pull to the base's weights); `lwf` (replay, and what the base
says at the replayed tokens is learned too). `--default` names what Luthier recommends, an arm or a point on its way
from the base. EWC needs a task that the model was tuned on before, so it has nothing to hold here.

Measured on rows that no arm trains on: the loss per answer token of MedQuAD's test pairs (the gain), of self-instruct's
human-written instructions and of Luthier's own probe (the rise), of texts that the untouched starter wrote to
self-instruct's prompts (drawn at temperature 1), and the share of PIQA's questions answered rightly, each choice by its
log-probability per byte. Answers of people can become likelier by tuning on any answers of people, so their loss may
fall while much is forgotten; the rise on the base's own texts is, in the mean, KL(base ‖ tuned) per token, which cannot
fall below 0. Both are shown. The Pareto table holds every arm and the weights between the base and the
trained model (`luthier blend`, WiSE-FT; with LoRA a smaller adapter), and says which points are beaten by another.

What has to hold: the default keeps at least 80 % of the gain of `none` at 40 % of its rise or less, mean over seeds,
for each of the two rises that there is.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common
from assistant_documents import page

GOALS = {"gain_kept": 0.8, "rise_left": 0.4}
ARMS = ("none", "replay", "l2sp", "lwf")
PROBES = ("domain", "general", "own_probe", "written")
RISES = ("general", "written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="training rows (default 64)")
    parser.add_argument("--limit", type=int, default=144, help="most tokens of a row, in training and tests")
    parser.add_argument("--held", type=int, default=24, help="MedQuAD test rows judged")
    parser.add_argument("--general", type=int, default=24, help="rows of each general probe")
    parser.add_argument("--choices", type=int, default=20, help="PIQA questions")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--methods", default="lora,full")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--points", default="0.5", help="shares of the way from the base that are also measured")
    parser.add_argument("--swept", default="none,lwf", help="arms whose way is measured")
    parser.add_argument("--default", default="none 0.5", help="the arm, or point on its way, that is recommended")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--lora-rate", type=float, default=2e-3)
    parser.add_argument("--full-rate", type=float, default=5e-5)
    parser.add_argument("--replay", type=float, default=0.1, help="share of every epoch")
    parser.add_argument("--lwf", type=float, default=1.0, help="strength of lwf")
    parser.add_argument("--l2sp", type=float, default=0.1, help="strength of l2sp")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--folder", type=Path, default=common.HERE / "work" / "forget_chat")
    parser.add_argument("--name", default="forget_chat", help="of the result file")
    args = parser.parse_args()
    bench = Bench(args)
    seeds: dict[str, Any] = {}
    for seed in (int(seed) for seed in args.seeds.split(",")):
        began, cpu = time.monotonic(), common.cpu_seconds()
        seeds[str(seed)] = bench.seed(seed)
        seeds[str(seed)] |= {"minutes": round((time.monotonic() - began) / 60, 1),
                             "cpu_minutes": round((common.cpu_seconds() - cpu) / 60, 1)}
        result = {"benchmark": "forget_chat", "machine": common.machine(),
                  "settings": {key: value for key, value in vars(args).items() if key not in ("folder", "name")},
                  "base": bench.base(), "seeds": seeds}
        result["summary"] = summary(result)
        result |= {"goals": goals(result), "pareto": pareto(result)}
        common.save(args.name, result)  # after every seed
        print(f"seed {seed}: {seeds[str(seed)]['cpu_minutes']} CPU minutes")
    show(result)
    print(f"written to benchmarks/results/{args.name}.json")


class Bench:
    """The rows, the store, and what has been measured so far."""

    def __init__(self, args: argparse.Namespace):
        from luthier.ingest.base import ingest
        from luthier.models.sources import resolve
        from luthier.prepare.base import Prepare, prepare
        from luthier.prepare.makers.pairs import Pairs
        from luthier.prepare.split import SplitBy
        from luthier.store import Store
        from luthier.task import Task

        self.args, self.root = args, args.folder.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.store, self.task = Store(self.root / "store"), Task(metric="token_f1")
        self.tokenizer = _tokenizer(resolve("starter:chat").folder)
        medquad = common.data_folder() / "medquad"
        for name, most in (("train", args.rows), ("test", args.held)):
            rows = self._short(common.read_rows(medquad / f"{name}.jsonl"), most)
            (self.root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        source = min((medquad / "raw_xml").glob("*.xml"))
        (self.root / "page.html").write_text(page(source.read_text("utf-8")), "utf-8")  # prepare wants a document
        self.data = prepare(ingest([self.root / "page.html"], store=self.store), self.task, Prepare(
            makers=(Pairs(path="train.jsonl", group_by="focus"), Pairs(path="test.jsonl", split="test")),
            split=SplitBy(test=0, validation=0.1)), store=self.store, root=self.root)
        self.probes = self._probes()
        self.probes["written"] = self._written([question for question, _ in self.probes["general"]])
        self.questions = self._questions()

    def _short(self, rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
        """The first rows, in a fixed order, of at most `limit` tokens."""
        found = []
        for row in common.fixed_order(rows, "question"):
            if len(found) < most and common.tokenise(self.tokenizer, row["question"], row["answer"],
                                                     stop=self.tokenizer.eos_token, limit=self.args.limit):
                found.append(row)
        return found

    def _probes(self) -> dict[str, list[tuple[str, str]]]:
        """Question and answer by probe."""
        from luthier.evaluate.retention import Retention, load_instructions

        data, args = common.data_folder(), self.args
        own = load_instructions(Retention(max_items=max(args.general, 10)), self.root)[: args.general]
        human = [common.instruction_pair(row) for row in common.fixed_order(common.read_rows(
            data / "self_instruct_seeds" / "instructions.jsonl"), "id") if row["output"]]
        human = [pair for pair in human if common.tokenise(self.tokenizer, *pair, stop=self.tokenizer.eos_token,
                                                           limit=args.limit)]
        return {"domain": [(row["question"], row["answer"]) for row in common.read_rows(self.root / "test.jsonl")],
                "general": human[: args.general],
                "own_probe": [(row["instruction"], row["response"]) for row in own]}

    def _written(self, prompts: Sequence[str]) -> list[tuple[str, str]]:
        """Each prompt with what the untouched starter writes, its own distribution's draw of at most 48 tokens."""
        from luthier.adapt.base import open_base
        from luthier.evaluate.systems import Opened
        from luthier.types import Message

        file = self.root / f"written-{len(prompts)}.json"
        if not file.is_file():
            chat = Opened(open_base(self._adapted("lora"))).chat
            answers = chat.complete([[Message(role="user", content=prompt)] for prompt in prompts], max_new_tokens=48,
                                    temperature=1.0, seed=0)
            file.write_text(json.dumps([answer.text for answer in answers]), "utf-8")
        return [(prompt, text) for prompt, text in zip(prompts, json.loads(file.read_text("utf-8")), strict=True)
                if text.strip()]

    def _questions(self) -> list[dict[str, Any]]:
        from luthier.evaluate.retention import Retention, load_choices

        file = common.data_folder() / "piqa_valid" / "valid.jsonl"
        return load_choices(Retention(choices=str(file), max_items=max(self.args.choices, 10)), self.root
                            )[: self.args.choices]

    def base(self) -> dict[str, Any]:
        """The figures of the untouched starter."""
        from luthier.adapt.base import open_base

        return self._measured("base", lambda: open_base(self._adapted("lora")))

    def seed(self, seed: int) -> dict[str, Any]:
        """Every arm and the points between, for one seed."""
        from luthier.train.base import open_tuned, train

        found: dict[str, Any] = {}
        base = self.base()
        for method in self.args.methods.split(","):
            model = self._adapted(method)
            for arm in self.args.arms.split(","):
                run = train(model, self.data, self._spec(method, arm, seed), store=self.store, root=self.root)
                name = f"{method} {arm}"
                found[name] = {**self._against(base, self._measured(run.id, partial(open_tuned, run, model))),
                               "training": {key: run.summary[key] for key in (
                                   "steps", "best_step", "tokens", "train_cpu_s", "validation_before",
                                   "validation_best", "replayed_per_epoch")}}
                print(f"  {name:13} domain {100 * found[name]['domain']['change']:+.1f} %  general "
                      f"{100 * found[name]['general']['change']:+.2f} %  own texts "
                      f"{100 * found[name]['written']['change']:+.2f} %", flush=True)
                if arm in self.args.swept.split(","):
                    for share in (float(share) for share in self.args.points.split(",") if share):
                        figures = self._measured(f"{run.id} {share}", partial(self._between, run, model, share))
                        found[f"{name} {share:g}"] = {**self._against(base, figures), "share": share}
        return {"arms": found}

    def _adapted(self, method: str) -> Any:
        from luthier.adapt.base import Adapt, adapt
        from luthier.adapt.full import Full
        from luthier.adapt.lora import LoRA

        how: Any = Full() if method == "full" else LoRA(rank=self.args.rank, alpha=2 * self.args.rank)
        return adapt(self.task, Adapt(method=how, dtype=self.args.dtype), store=self.store, root=self.root)

    def _spec(self, method: str, arm: str, seed: int) -> Any:
        from luthier.train.base import Replay, Train
        from luthier.train.regularizers.l2sp import L2SP
        from luthier.train.regularizers.lwf import LearningWithoutForgetting

        args = self.args
        guards: dict[str, tuple[Any, ...]] = {
            "l2sp": (L2SP(strength=args.l2sp),), "lwf": (LearningWithoutForgetting(strength=args.lwf),)}
        return Train(epochs=args.epochs, seed=seed, max_length=512, verify_resume=False,
                     learning_rate=args.full_rate if method == "full" else args.lora_rate,
                     replay=Replay(share=args.replay) if arm in ("replay", "lwf") else None,
                     regularizers=guards.get(arm, ()))

    def _between(self, run: Any, model: Any, share: float) -> Any:
        """The weights `share` of the way from the base to the trained model."""
        from luthier.train.blends import RUN, START
        from luthier.train.blends._adapters import AdapterSpace
        from luthier.train.blends._space import FullSpace

        space: Any = (FullSpace if model.spec["method"]["kind"] == "full" else AdapterSpace)(run, model, None, {})
        return space.open({START: 1 - share, RUN: share})

    def _measured(self, key: str, open: Any) -> dict[str, Any]:
        """Losses of every probe's rows and whether each choice was right, kept on disk."""
        import torch

        from luthier.evaluate.retention import choose
        from luthier.evaluate.systems import chat_example

        settings = [PROBES, self.args.held, self.args.general, self.args.choices, self.args.limit, self.args.dtype]
        cache = self.store.cache("forget_chat")
        name = common.hashlib.sha256(json.dumps([key, settings]).encode()).hexdigest()[:32]
        if (kept := cache.get(name)) is not None:
            return json.loads(kept)
        torch.set_num_threads(1)
        subject = Scored(open())
        found: dict[str, Any] = {
            probe: [list(loss) for loss in subject.losses([chat_example(*pair, system=None) for pair in pairs],
                                                          without_stop=probe == "written")]  # they are cut
            for probe, pairs in self.probes.items()}
        found["right"] = choose(subject, self.questions, None, key)  # type: ignore[arg-type]
        cache.put(name, json.dumps(found).encode())
        return found

    def _against(self, base: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
        """Relative change of each loss and change of the choices, paired by row."""
        found: dict[str, Any] = {probe: common.relative_change(
            [common.Loss(*loss) for loss in base[probe]], [common.Loss(*loss) for loss in now[probe]])
            for probe in PROBES}
        found["choices"] = common.mean_difference([float(one) for one in base["right"]],
                                                  [float(one) for one in now["right"]])
        return found


class Scored:
    """An opened model with the two questions that the probes ask."""

    def __init__(self, model: Any):
        from luthier.evaluate.systems import Opened

        self.opened = Opened(model)

    def losses(self, examples: Sequence[Any], *, what: str = "", without_stop: bool = False) -> list[Any]:
        from luthier.progress import Silent

        return self.opened.losses(examples, progress=Silent(), what=what, without_stop=without_stop)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds with a 95 % interval by Student's t; no interval from one seed."""
    n = len(values)
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}.get(n, 1.96)
    half = t * statistics.stdev(values) / math.sqrt(n) if n > 1 else None
    mean = statistics.fmean(values)
    return {"mean": mean, "low": None if half is None else mean - half, "high": None if half is None else mean + half,
            "seeds": n}


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Every arm's changes, mean over seeds."""
    seeds = [one["arms"] for one in result["seeds"].values()]
    return {arm: {probe: mean_of([seed[arm][probe]["change"] for seed in seeds]) for probe in (*PROBES, "choices")}
            for arm in seeds[0]}


def goals(result: dict[str, Any]) -> dict[str, Any]:
    """What the default keeps of the gain of `none`, and how much of each rise is left."""
    found, told = result["summary"], {}
    for method in result["settings"]["methods"].split(","):
        none, default = found.get(f"{method} none"), found.get(f"{method} {result['settings']['default']}")
        for probe in RISES if none is not None and default is not None else ():
            gain, rise = -none["domain"]["mean"], none[probe]["mean"]
            kept = -default["domain"]["mean"] / gain if gain > 0 else None
            left = default[probe]["mean"] / rise if rise > 0 else None
            told[f"{method}, {probe}"] = {
                "gain_unprotected": gain, "rise_unprotected": rise, "gain_kept": kept, "rise_left": left,
                "reached": None if left is None else
                kept is not None and kept >= GOALS["gain_kept"] and left <= GOALS["rise_left"]}
    return told


def pareto(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """By method: every arm and blend, and whether another one beats it on both the domain and the base's own texts."""
    from luthier.blend.front import Point, dominated

    tables = {}
    for method in result["settings"]["methods"].split(","):
        rows = [{"arm": "base", "domain": 0.0, "general": 0.0, "written": 0.0, "choices": 0.0}]
        rows += [{"arm": arm.removeprefix(f"{method} "), **{probe: one[probe]["mean"] for probe in
                                                            ("domain", "general", "written", "choices")}}
                 for arm, one in result["summary"].items() if arm.startswith(f"{method} ")]
        worse = dominated([Point(0.0, -row["domain"], -row["written"]) for row in rows])
        tables[method] = [{**row, "dominated": beaten} for row, beaten in zip(rows, worse, strict=True)]
    return tables


def show(result: dict[str, Any]) -> None:
    for method, rows in result["pareto"].items():
        print(f"\n{method:18} domain loss  general loss  own texts    PIQA")
        for row in sorted(rows, key=lambda row: row["domain"]):
            print(f"  {row['arm']:16} {100 * row['domain']:+9.2f} %  {100 * row['general']:+10.2f} %  "
                  f"{100 * row['written']:+7.2f} %  "
                  f"{100 * row['choices']:+5.1f}{'  beaten' if row['dominated'] else ''}")
    print()
    for name, goal in result["goals"].items():
        if goal["reached"] is None:
            print(f"  no rise   {name}: unprotected training forgot nothing here ({goal['rise_unprotected']:+.2%})")
            continue
        kept = "nothing was gained" if goal["gain_kept"] is None else f"{goal['gain_kept']:.0%} of the gain is kept"
        print(f"  {'reached' if goal['reached'] else 'MISSED '}   {name}: with {result['settings']['default']} {kept} "
              f"at {goal['rise_left']:.0%} of the rise (goal: {GOALS['gain_kept']:.0%} or more at "
              f"{GOALS['rise_left']:.0%} or less)")


if __name__ == "__main__":
    main()
