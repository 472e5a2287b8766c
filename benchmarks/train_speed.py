"""Training speed: Luthier's general path against TRL's SFTTrainer, at its defaults and at its best packing setting.

    benchmarks/trl_env/setup.sh                # once: TRL in an environment of its own
    python benchmarks/train_speed.py           # about 25 minutes on one core

Same model (starter:chat), same MedQuAD examples of at most 512 tokens, tokenised once, 8 examples an update, loss on
the answers only, LoRA r=16 on all linear layers, same learning rate, one pass. One configuration per process, in
alternating order, one thread. Reported: real (unpadded) tokens per CPU second of the training loop, peak resident
memory of the whole process, and the held-out loss of what was trained, judged in fp32 by one evaluator.

`--survey` tries TRL's other settings once each: that is how `trl-packing` was chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common

from luthier.progress import Silent

TRL_PYTHON = common.HERE / "trl_env" / ".venv-trl" / "bin" / "python"
RECIPE = {"batch": 8, "lr": 2e-4, "clip": 1.0, "rank": 16, "alpha": 32}
LIMIT = 512
"""Most tokens of an example; no row of MedQuAD is longer, so nothing is cut."""

_PLAIN = {"gradient_checkpointing": False}
_FLAT = {**_PLAIN, "padding_free": True, "max_length": None}
_PACKED = {**_PLAIN, "packing": True, "per_device_train_batch_size": 1}
_SHORT = {**_PACKED, "max_length": 512, "gradient_accumulation_steps": 3}
_BF16 = {"model_init_kwargs": {"dtype": "bfloat16"}}

TRL = {
    "trl-defaults": {},
    "trl-packing": _SHORT,
}
"""What each compared configuration changes of SFTConfig's defaults (besides the recipe)."""
SURVEY = {
    "defaults": {},
    "no checkpointing": _PLAIN,
    "no checkpointing, batches of like length, bf16 weights": {**_PLAIN, **_BF16,
                                                               "train_sampling_strategy": "group_by_length"},
    "the 8 examples flattened into one row": _FLAT,
    "the 8 examples flattened into one row, bf16 weights": {**_FLAT, **_BF16},
    "packed to 1024, 1 row an update": _PACKED,
    "packed to 1024, 1 row an update, bf16 weights": {**_PACKED, **_BF16},
    "packed to 1024, 1 row an update, eager attention": {
        **_PACKED, "model_init_kwargs": {"attn_implementation": "eager"}},
    "packed to 512, 3 rows an update": _SHORT,
    "packed to 512, 3 rows an update, bf16 weights": {**_SHORT, **_BF16},
    "packed to 320, 4 rows an update": {**_SHORT, "max_length": 320, "gradient_accumulation_steps": 4},
}
"""An update of 8 examples holds about 1,260 tokens; packed rows come as near to that as whole rows can."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times that every system is measured (default 3)")
    parser.add_argument("--examples", type=int, default=64, help="training examples, 8 an update (default 64)")
    parser.add_argument("--held-out", type=int, default=40, help="test rows the evaluator judges (default 40)")
    parser.add_argument("--systems", nargs="+", default=["luthier", *TRL], choices=["luthier", *TRL])
    parser.add_argument("--survey", action="store_true", help="measure TRL's other settings once each instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", nargs=2, metavar=("JOB", "RESULT"), help=argparse.SUPPRESS)
    parser.add_argument("--judge", nargs=2, metavar=("JOB", "RESULT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return luthier_worker(*map(Path, args.worker))
    if args.judge:
        return judge(*map(Path, args.judge))
    if not TRL_PYTHON.is_file() and set(args.systems) != {"luthier"}:
        raise SystemExit(f"TRL is not installed; run: {common.HERE / 'trl_env' / 'setup.sh'}")
    with tempfile.TemporaryDirectory(prefix="train_speed.") as folder:
        bench = Bench(Path(folder), num_examples=args.examples, num_held_out=args.held_out, seed=args.seed)
        if args.survey:
            survey(bench)
        else:
            compare(bench, args.systems, args.rounds)


class Bench:
    """The examples, tokenised once, and one subprocess per measurement."""

    def __init__(self, folder: Path, *, num_examples: int, num_held_out: int, seed: int, model: str = ""):
        from transformers import AutoTokenizer

        from luthier.models.sources import resolve

        self.folder, self.seed = folder, seed
        self.model = model or str(resolve("starter:chat").folder)
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        data = common.data_folder() / "medquad"
        self.pairs, self.examples = self._take(tokenizer, data / "train.jsonl", num_examples)
        _, self.held_out = self._take(tokenizer, data / "test.jsonl", num_held_out)
        self.tokens = sum(len(row["ids"]) for row in self.examples)
        self.targets = sum(label != common.IGNORED for row in self.examples for label in row["labels"])
        self.judged: dict[str, float] = {}

    @staticmethod
    def _take(tokenizer: Any, file: Path, count: int) -> tuple[list[list[str]], list[dict[str, list[int]]]]:
        pairs, rows = [], []
        for row in common.fixed_order(common.read_rows(file), "question"):
            tokens = common.tokenise(tokenizer, row["question"], row["answer"], stop=tokenizer.eos_token, limit=LIMIT)
            if tokens is not None and len(rows) < count:
                pairs.append([row["question"], row["answer"].strip()])
                rows.append(tokens)
        return pairs, rows

    def measure(self, system: str, config: dict[str, Any] | None, tag: str) -> dict[str, Any]:
        """One training in a process of its own; `config` is what changes SFTConfig, None for Luthier."""
        adapter = self.folder / f"{tag}-adapter"
        job = {"system": system, "model": self.model, "recipe": RECIPE, "seed": self.seed, "adapter": str(adapter)}
        job |= {"pairs": self.pairs} if config is None else {"examples": self.examples, "config": config}
        worker = [sys.executable, __file__, "--worker"] if config is None else \
            [str(TRL_PYTHON), str(common.HERE / "trl_env" / "worker.py")]
        result = self._process(worker, job, tag)
        result["tokens_per_cpu_s"] = self.tokens / result["cpu_s"]
        result["held_out_loss"] = self._judge(adapter, tag)
        return result

    def _process(self, command: list[str], job: dict[str, Any], tag: str) -> dict[str, Any]:
        files = self.folder / f"{tag}.job.json", self.folder / f"{tag}.result.json"
        files[0].write_text(json.dumps(job), "utf-8")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
               "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "hf")}
        done = subprocess.run([*command, *map(str, files)], env=env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{tag} failed:\n{done.stderr[-3000:]}")
        return json.loads(files[1].read_text("utf-8"))

    def _judge(self, adapter: Path | None, tag: str) -> float:
        """Equal weights are judged once: a deterministic system gives the same file every round."""
        key = "base"
        if adapter is not None:
            import hashlib

            key = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
        if key not in self.judged:
            job = {"model": self.model, "adapter": str(adapter) if adapter else None, "examples": self.held_out}
            self.judged[key] = self._process([sys.executable, __file__, "--judge"], job, f"{tag}-judge")["loss"]
        return self.judged[key]

    def base_loss(self) -> float:
        return self._judge(None, "base")


def compare(bench: Bench, systems: list[str], rounds: int) -> None:
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
    print(f"{len(bench.examples)} examples, {bench.tokens} tokens, {bench.targets} with loss; {rounds} rounds")
    base = bench.base_loss()
    for number in range(rounds):
        for system in systems if number % 2 == 0 else reversed(systems):  # alternate, so that drift hits all alike
            run = bench.measure(system, TRL.get(system), f"{system}-{number}")
            runs[system].append(run)
            print(f"  round {number + 1}: {system:13} {run['tokens_per_cpu_s']:6.1f} tokens/CPU-s, "
                  f"{run['peak_gib']:.2f} GiB, held-out loss {run['held_out_loss']:.4f}", flush=True)
    result = {"benchmark": "train_speed", "recipe": RECIPE, "machine": common.machine(), "threads": 1,
              "examples": len(bench.examples), "tokens": bench.tokens, "tokens_with_loss": bench.targets,
              "held_out_rows": len(bench.held_out), "base_held_out_loss": base,
              "trl": {name: TRL[name] for name in systems if name in TRL}, **summarise(runs), "runs": runs}
    show(result)
    print(f"written to {common.save('train_speed', result)}")


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Spread of each system over its rounds; ratios are taken within a round, where machine noise is shared."""
    systems = {name: {"tokens_per_cpu_s": common.spread([run["tokens_per_cpu_s"] for run in rounds]),
                      "peak_gib": common.spread([run["peak_gib"] for run in rounds]),
                      "held_out_loss": common.spread([run["held_out_loss"] for run in rounds])}
               for name, rounds in runs.items()}
    ratios = {name: common.spread([ours["tokens_per_cpu_s"] / theirs["tokens_per_cpu_s"]
                                   for ours, theirs in zip(runs["luthier"], rounds, strict=True)])
              for name, rounds in runs.items() if name != "luthier" and "luthier" in runs}
    losses = [run["held_out_loss"] for rounds in runs.values() for run in rounds]
    return {"systems": systems, "luthier_over": ratios, "held_out_loss_disagreement": max(losses) / min(losses) - 1}


def show(result: dict[str, Any]) -> None:
    print(f"\n{'system':14}{'tokens/CPU-s (min median max)':>32}{'peak GiB':>10}{'held-out':>10}{'luthier is':>24}")
    for name, found in result["systems"].items():
        speed, ratio = found["tokens_per_cpu_s"], result["luthier_over"].get(name)
        times = f"{ratio['median']:.2f} x ({ratio['min']:.2f}-{ratio['max']:.2f})" if ratio else ""
        print(f"{name:14}{speed['min']:>14.1f}{speed['median']:>9.1f}{speed['max']:>9.1f}"
              f"{found['peak_gib']['median']:>10.2f}{found['held_out_loss']['median']:>10.4f}{times:>24}")
    print(f"held-out loss before: {result['base_held_out_loss']:.4f}; the systems disagree by "
          f"{100 * result['held_out_loss_disagreement']:.2f} % (at most 1 % makes the comparison fair)")


def survey(bench: Bench) -> None:
    found = {}
    for number, (name, config) in enumerate(SURVEY.items()):
        run = found[name] = bench.measure("trl", config, f"survey-{number}")
        print(f"{run['tokens_per_cpu_s']:6.1f} tokens/CPU-s {run['peak_gib']:5.2f} GiB  {run['updates']:3d} updates  "
              f"held-out {run['held_out_loss']:.4f}  {name}", flush=True)
    path = common.save("train_speed_trl_settings", {
        "benchmark": "train_speed --survey", "recipe": RECIPE, "machine": common.machine(), "tokens": bench.tokens,
        "settings": SURVEY, "runs": found})
    print(f"written to {path}")


def judge(job_file: Path, result_file: Path) -> None:
    job = json.loads(job_file.read_text("utf-8"))
    loss = common.mean_loss(common.losses(job["model"], job["adapter"], job["examples"]))
    result_file.write_text(json.dumps({"loss": loss}), "utf-8")


class Meter:
    """A `Progress` that says nothing and notes the CPU seconds inside every bar: `train`'s own public seam."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}

    @contextlib.contextmanager
    def track(self, what: str, total: float | None, *, unit: str = "", done: float = 0) -> Iterator[Any]:
        began = common.cpu_seconds()
        with Silent().track(what, total) as bar:
            yield bar
        self.cpu_s[what] = self.cpu_s.get(what, 0.0) + common.cpu_seconds() - began

    def say(self, message: str, **fields: Any) -> None:
        pass


def luthier_worker(job_file: Path, result_file: Path) -> None:
    """One `train` through the public API, on the same pairs; the loop's CPU seconds are those inside its bar."""
    import torch

    from luthier.adapt.base import Adapt, adapt
    from luthier.adapt.lora import LoRA
    from luthier.store import Store
    from luthier.task import Task
    from luthier.train.base import Train, train
    from luthier.types import Example, Message, Origin, write_jsonl

    job = json.loads(job_file.read_text("utf-8"))
    torch.set_num_threads(1)
    recipe, root = job["recipe"], Path(job["adapter"]).with_suffix(".project")
    store, meter = Store(root / "store"), Meter()
    rows = [Example(id=f"{number:05d}", input=(Message(role="user", content=question),), target=answer,
                    origin=Origin(maker="human", step="pairs"))
            for number, (question, answer) in enumerate(job["pairs"])]
    # written as `prepare` writes them, so that exactly these rows are trained on, none dropped or held out
    data = store.build("prepare", version=0, spec={}, inputs={"job": job_file.name},
                       make=lambda folder: {"examples": write_jsonl(folder / "examples.jsonl", rows)})
    model = adapt(Task(), Adapt(model=job["model"], method=LoRA(rank=recipe["rank"], alpha=recipe["alpha"])),
                  store=store, root=root)
    spec = Train(epochs=1, batch_size=recipe["batch"], learning_rate=recipe["lr"], schedule="constant", warmup_share=0,
                 weight_decay=0, clip_norm=recipe["clip"], max_length=LIMIT, threads=1, seed=job["seed"])
    began = common.cpu_seconds()
    run = train(model, data, spec, store=store, root=root, progress=meter)
    whole = common.cpu_seconds() - began
    shutil.copytree(run.path / "best", job["adapter"])
    result_file.write_text(json.dumps({
        "cpu_s": meter.cpu_s["train"], "whole_call_cpu_s": whole, "peak_gib": common.peak_gib(),
        "updates": run.summary["steps"], "fed_tokens": run.summary["tokens"],
        "fed_targets": run.summary["supervised_tokens"], "summary": dict(run.summary)}, default=str), "utf-8")


if __name__ == "__main__":
    main()
