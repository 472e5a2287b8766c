"""What the benchmark scripts share: real data, one fp32 evaluator, CPU seconds, the machine, results on disk."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import resource
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
IGNORED = -100


def data_folder() -> Path:
    """The folder of real data sets: `$LUTHIER_DATA`, or `shared/data` beside the checkout."""
    explicit = os.environ.get("LUTHIER_DATA")
    folder = Path(explicit) if explicit else HERE.parent.parent / "shared" / "data"
    if not (folder / "medquad" / "train.jsonl").is_file():
        raise SystemExit(f"no MedQuAD at {folder / 'medquad'}; set LUTHIER_DATA to the folder that holds medquad/")
    return folder


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def fixed_order(rows: Sequence[dict[str, Any]], key: str, *, salt: str = "luthier-bench") -> list[dict[str, Any]]:
    """The rows in an order that depends on their own content alone, so that a subset is the same everywhere."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"{salt}|{row[key]}".encode()).hexdigest())


def instruction_pair(row: dict[str, Any]) -> tuple[str, str]:
    """Prompt and answer of a self-instruct row: the instruction, then its input where there is one."""
    prompt = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
    return prompt, row["output"]


def tokenise(tokenizer: Any, prompt: str, answer: str, *, stop: str, limit: int) -> dict[str, list[int]] | None:
    """Token ids of one chat turn and its labels (the answer and its stop token); None when over `limit` tokens."""
    head = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True,
                                         tokenize=False)
    before = tokenizer(head, add_special_tokens=False)["input_ids"]
    after = tokenizer(answer.strip() + stop, add_special_tokens=False)["input_ids"]
    if len(before) + len(after) > limit:
        return None
    return {"ids": before + after, "labels": [IGNORED] * len(before) + after}


class Loss(NamedTuple):
    """Of one example, in nats."""

    total: float
    count: int
    """Tokens that carry loss."""


def losses(model: str | Path, adapter: str | Path | None, examples: Sequence[dict[str, list[int]]]) -> list[Loss]:
    """Loss of every example, in fp32 with plain transformers and PEFT: the same judge for every system."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    module = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        module = PeftModel.from_pretrained(module, str(adapter))
    module.eval()
    found = []
    with torch.no_grad():
        for row in examples:  # one at a time: no padding, hence nothing to get wrong
            logits = module(input_ids=torch.tensor([row["ids"]]), use_cache=False).logits[0, :-1]
            labels = torch.tensor(row["labels"][1:])
            total = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()
            found.append(Loss(total, int((labels != IGNORED).sum())))
    return found


def mean_loss(found: Sequence[Loss]) -> float:
    """Mean over all tokens that carry loss."""
    return sum(loss.total for loss in found) / sum(loss.count for loss in found)


def relative_change(before: Sequence[Loss], after: Sequence[Loss], *, seed: int = 0,
                    resamples: int = 2000) -> dict[str, float]:
    """Mean token loss before and after on the same examples; the relative change with a paired bootstrap interval
    (95 %, examples drawn with replacement)."""
    chance = random.Random(seed)
    rows = range(len(before))
    drawn = []
    for _ in range(resamples):
        some = chance.choices(rows, k=len(before))
        drawn.append(mean_loss([after[i] for i in some]) / mean_loss([before[i] for i in some]) - 1)
    drawn.sort()
    return {"before": mean_loss(before), "after": mean_loss(after),
            "change": mean_loss(after) / mean_loss(before) - 1, "low": drawn[int(0.025 * resamples)],
            "high": drawn[int(0.975 * resamples)], "n": len(before)}


def mean_difference(before: Sequence[float], after: Sequence[float], *, seed: int = 0,
                    resamples: int = 2000) -> dict[str, float]:
    """Means of one score per example, and their difference with a paired bootstrap interval (95 %)."""
    chance, n = random.Random(seed), len(before)
    gains = [b - a for a, b in zip(before, after, strict=True)]
    drawn = sorted(sum(chance.choices(gains, k=n)) / n for _ in range(resamples))
    return {"before": sum(before) / n, "after": sum(after) / n, "change": sum(gains) / n,
            "low": drawn[int(0.025 * resamples)], "high": drawn[int(0.975 * resamples)], "n": n}


def cpu_seconds() -> float:
    """User and system time of this process so far, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_gib() -> float:
    """Largest resident set of this process so far, in GiB (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def spread(values: Sequence[float]) -> dict[str, float]:
    """Smallest, median and largest of repeated measurements."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, memory, versions."""
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")),
                platform.processor() or "unknown")
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"processor": name, "cores": os.cpu_count(), "memory_gib": round(pages / 2**30, 1),
            "bf16": "avx512_bf16" in info or "amx_bf16" in info, "python": platform.python_version(),
            **{package: of(package) for package in ("luthier", "torch", "transformers", "peft", "accelerate")}}


def save(name: str, result: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path
