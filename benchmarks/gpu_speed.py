"""Training speed on one GPU: Luthier against TRL's SFTTrainer, at its defaults and at its best packing setting.

    python benchmarks/gpu_speed.py --tokenizer FOLDER [--shapes 135m 1b] [--rounds 3]      # TRL beside Luthier

Models of the size of SmolLM2-135M and of Llama 3.2 1B with random weights (a speed needs no trained ones), MedQuAD
examples of at most 512 tokens, 16 an update, loss on the answers only, LoRA r=16 on all linear layers, bf16, one pass.
All systems run in one process, one after the other, in alternating order; the first round warms up and is not counted.
Reported: real (unpadded) tokens per second of the training loop, peak GPU memory of the loop, and the loss that each
reaches on held-out rows, judged by one evaluator.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import torch
from train_speed import LIMIT, Bench

from luthier.progress import Silent

RECIPE = {"batch": 16, "lr": 2e-4, "clip": 1.0, "rank": 16, "alpha": 32}
_PLAIN = {"gradient_checkpointing": False}
TRL: dict[str, dict[str, Any]] = {
    "trl-defaults": {},
    "trl-no-checkpointing": _PLAIN,
    "trl-packing": {**_PLAIN, "packing": True, "max_length": 512, "per_device_train_batch_size": 5},
}
"""What each compared configuration changes of SFTConfig's defaults (besides the recipe). 16 examples hold about 2,500
tokens, which are five rows of 512."""
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8},
}


def make_model(shape: str, tokenizer: Path, out: Path) -> Path:
    """A folder with random weights of a shape, and the tokenizer."""
    import shutil

    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(tokenizer, out)
    given = json.loads((tokenizer / "config.json").read_text())
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], vocab_size=given["vocab_size"], bos_token_id=given.get("bos_token_id"),
                         eos_token_id=given.get("eos_token_id"), tie_word_embeddings=True, max_position_embeddings=2048)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(out)
    return out


class Clock:
    """A `Progress` that notes the seconds inside every bar."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def track(self, what: str, total: float | None, *, unit: str = "", done: float = 0) -> Iterator[Any]:
        began = settled()
        with Silent().track(what, total) as bar:
            yield bar
        self.seconds[what] = self.seconds.get(what, 0.0) + settled() - began

    def say(self, message: str, **fields: Any) -> None:
        pass


def settled() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def luthier(model: Path, bench: Any, out: Path) -> float:
    """Seconds of the loop of one `train` through the public API."""
    from luthier.adapt.base import Adapt, adapt
    from luthier.adapt.lora import LoRA
    from luthier.store import Store
    from luthier.task import Task
    from luthier.train.base import Train, train
    from luthier.types import Example, Message, Origin, write_jsonl

    store, clock = Store(out / "store"), Clock()
    rows = [Example(id=f"{number:05d}", input=(Message(role="user", content=question),), target=answer,
                    origin=Origin(maker="human", step="pairs"))
            for number, (question, answer) in enumerate(bench.pairs)]
    data = store.build("prepare", version=0, spec={}, inputs={},
                       make=lambda folder: {"examples": write_jsonl(folder / "examples.jsonl", rows)})
    made = adapt(Task(), Adapt(model=str(model), method=LoRA(rank=RECIPE["rank"], alpha=RECIPE["alpha"])), store=store,
                 root=out)
    spec = Train(epochs=1, batch_size=RECIPE["batch"], learning_rate=RECIPE["lr"], schedule="constant", warmup_share=0,
                 weight_decay=0, clip_norm=RECIPE["clip"], max_length=LIMIT, seed=0)
    run = train(made, data, spec, store=store, root=out, progress=clock)
    (out / "adapter").symlink_to(run.path / "best")
    return clock.seconds["train"]


def trl(model: Path, bench: Any, out: Path, config: dict[str, Any]) -> float:
    """Seconds of `SFTTrainer.train()`."""
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    settings = {"output_dir": str(out / "trainer"), "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
                "seed": 0, "num_train_epochs": 1, "per_device_train_batch_size": RECIPE["batch"],
                "learning_rate": RECIPE["lr"], "lr_scheduler_type": "constant", "weight_decay": 0.0,
                "max_grad_norm": RECIPE["clip"], "bf16": torch.cuda.is_available(),
                "use_cpu": not torch.cuda.is_available(), "model_init_kwargs": {"dtype": "bfloat16"}, **config}
    trainer = SFTTrainer(
        model=str(model), args=SFTConfig(**settings), processing_class=AutoTokenizer.from_pretrained(str(model)),
        train_dataset=Dataset.from_list([{"input_ids": r["ids"], "labels": r["labels"]} for r in bench.examples]),
        peft_config=LoraConfig(r=RECIPE["rank"], lora_alpha=RECIPE["alpha"], lora_dropout=0.0,
                               target_modules="all-linear", task_type="CAUSAL_LM"))
    began = settled()
    trainer.train()
    spent = settled() - began
    trainer.model.save_pretrained(out / "adapter")
    return spent


def judge(model: Path, adapter: Path | None, rows: list[dict[str, list[int]]]) -> float:
    """Loss on held-out rows in fp32, by plain transformers and PEFT, on whatever device there is."""
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    module: Any = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        module = PeftModel.from_pretrained(module, str(adapter))
    module.to(device).eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            logits = module(input_ids=torch.tensor([row["ids"]], device=device), use_cache=False).logits[0, :-1]
            labels = torch.tensor(row["labels"][1:], device=device)
            total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=common.IGNORED,
                                                             reduction="sum"))
            count += int((labels != common.IGNORED).sum())
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json and config.json")
    parser.add_argument("--shapes", nargs="+", default=["135m", "1b"], choices=[*SHAPES])
    parser.add_argument("--systems", nargs="+", default=["luthier", *TRL], choices=["luthier", *TRL])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--save", default="gpu_speed", help="name of the result's file")
    given = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    result: dict[str, Any] = {"benchmark": "gpu_speed", "device": device, "machine": common.machine(), "recipe": RECIPE}
    for shape in given.shapes:
        with tempfile.TemporaryDirectory(prefix="gpu_speed.") as name:
            folder = Path(name)
            model = make_model(shape, given.tokenizer, folder / "model")
            result[shape] = compare(model, folder, given)
            print(f"written to {common.save(given.save, result)}", flush=True)


def compare(model: Path, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(folder, num_examples=given.examples, num_held_out=40, seed=0, model=str(model))
    runs: dict[str, list[dict[str, float]]] = {system: [] for system in given.systems}
    print(f"{model}: {len(bench.examples)} examples, {bench.tokens} tokens; held-out loss before: "
          f"{judge(model, None, bench.held_out):.4f}")
    for number in range(given.rounds + 1):
        for system in given.systems if number % 2 == 0 else reversed(given.systems):
            out = folder / f"{system}-{number}"
            out.mkdir()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            seconds = luthier(model, bench, out) if system == "luthier" else trl(model, bench, out, TRL[system])
            peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
            gc.collect()
            run = {"tokens_per_s": bench.tokens / seconds, "peak_gib": peak,
                   "held_out_loss": judge(model, out / "adapter", bench.held_out)}
            print(f"  round {number}: {system:13} {run['tokens_per_s']:9,.0f} tokens/s, {peak:.2f} GiB, held-out loss "
                  f"{run['held_out_loss']:.4f}", flush=True)
            if number:
                runs[system].append(run)
    ratios = {system: common.spread([a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(runs["luthier"], found)])
              for system, found in runs.items() if system != "luthier"}
    for system, ratio in ratios.items():
        print(f"  Luthier is {ratio['median']:.2f} x as fast as {system} ({ratio['min']:.2f}-{ratio['max']:.2f})")
    return {"examples": len(bench.examples), "tokens": bench.tokens, "runs": runs, "luthier_over": ratios}


if __name__ == "__main__":
    main()
