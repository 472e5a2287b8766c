"""One training with TRL's SFTTrainer, measured; started by train_speed.py in TRL's own environment.

    .venv-trl/bin/python worker.py job.json result.json

The job holds the tokenised examples, the model folder, the recipe and what this configuration changes of SFTConfig's
and from_pretrained's defaults. CPU seconds are those of `trainer.train()` alone, user and system, all threads; the
model's loading and the dataset's preparation are outside.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(job_file: str, result_file: str) -> None:
    job = json.loads(Path(job_file).read_text("utf-8"))
    import torch
    import trl
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    recipe, out = job["recipe"], Path(job["adapter"])
    config = SFTConfig(**{
        "output_dir": str(out.with_name(out.name + "-trainer")), "use_cpu": True, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "seed": job["seed"], "num_train_epochs": 1,
        "per_device_train_batch_size": recipe["batch"], "learning_rate": recipe["lr"],
        "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": recipe["clip"], **job["config"],
    })
    trainer = SFTTrainer(
        model=job["model"], args=config, processing_class=AutoTokenizer.from_pretrained(job["model"]),
        train_dataset=Dataset.from_list([{"input_ids": r["ids"], "labels": r["labels"]} for r in job["examples"]]),
        peft_config=LoraConfig(r=recipe["rank"], lora_alpha=recipe["alpha"], lora_dropout=0.0,
                               target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    fed = _count(trainer)
    began, wall = cpu_seconds(), time.monotonic()
    trainer.train()
    spent, wall = cpu_seconds() - began, time.monotonic() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    trainer.model.save_pretrained(out)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    Path(result_file).write_text(json.dumps({
        "cpu_s": spent, "wall_s": wall, "peak_gib": peak, "updates": trainer.state.global_step, **fed,
        "train_loss": losses[-1] if losses else trainer.state.log_history[-1].get("train_loss"),
        "versions": {"trl": trl.__version__, "torch": torch.__version__},
    }), "utf-8")


def _count(trainer) -> dict[str, int]:
    """Wrap the collator, so that the result says what the model was really fed."""
    fed = {"fed_tokens": 0, "fed_targets": 0, "batches": 0}
    inner = trainer.data_collator

    def collate(rows):
        batch = inner(rows)
        fed["fed_tokens"] += int(batch["input_ids"].numel())
        fed["fed_targets"] += int((batch["labels"] != -100).sum())
        fed["batches"] += 1
        return batch

    trainer.data_collator = collate
    return fed


if __name__ == "__main__":
    main(*sys.argv[1:])
