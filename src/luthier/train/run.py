"""One training run, from artifacts to the part folder: load, render, check the contract, fit, keep the best."""

from __future__ import annotations

import contextlib
import itertools
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luthier.errors import DataError, ModelError, UsageError
from luthier.prepare.base import read_examples
from luthier.progress import Progress
from luthier.store import Artifact, write_json
from luthier.train import attention, contract, objectives, runtime, streams
from luthier.train.average import Mean, averaged
from luthier.train.base import Found, Train
from luthier.train.batches import Layout, Order, TextFeed, collate
from luthier.train.continue_text import begin, pools, remember, restore_weights
from luthier.train.contract import check_groups, frozen_hash
from luthier.train.distil_tokens import TokenDistillation
from luthier.train.fit import Learner, fit
from luthier.train.leak import check_leak
from luthier.train.optim import MasterAdamW, rate
from luthier.train.past import FOLDER, check_start, save_past
from luthier.train.plans.all import All
from luthier.train.regularizers import Setting
from luthier.train.render import Rendered, render
from luthier.train.replay import PAST, counts
from luthier.train.seams import Watch
from luthier.types import Example


def run(folder: Path, model: Artifact, data: Artifact, spec: Train, *, root: Path, progress: Progress,
        watch: Watch | None = None, start: Artifact | None = None) -> dict[str, Any]:
    """Fill `folder` (continuing what an earlier, killed call left there); returns the summary. `start` is the train
    artifact of the model to go on from."""
    if start is not None:
        check_start(start, model)
    if spec.stages:
        from luthier.train.stages import run_stages

        return run_stages(folder, model, data, spec, root=root, progress=progress, watch=watch, start=start)
    with started(spec) as where:
        return TextRun(folder, model, read_splits(data), data, spec, root=root, where=where, progress=progress,
                       watch=watch, start=start.path if start is not None else None).go()


def probe(folder: Path, model: Artifact, data: Artifact, spec: Train,
          run: Callable[[Callable[[float], float]], Found], *, root: Path, progress: Progress) -> Found:
    """See `luthier.train.base.probe_rates`."""
    with started(spec) as where:
        one = TextRun(folder, model, read_splits(data), data, spec, root=root, where=where, progress=progress)
        one.render()
        one.prepare_learner()
        return run(updates(one.learner, one.rendered, one.order(), spec, one.model.groups))


@contextlib.contextmanager
def started(spec: Train) -> Iterator[runtime.Runtime]:
    """Threads, seeds and device of one training."""
    with runtime.settings(threads=spec.threads, deterministic=spec.deterministic, seed=spec.seed), \
            warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        where = runtime.start()
        if where.ranks > 1:
            raise UsageError(f"luthier trains in one process for now, but {where.ranks} were launched; start it "
                             "without torchrun or accelerate launch")
        yield where


def read_splits(data: Artifact) -> dict[str, list[Example]]:
    """Prepare's examples by split."""
    return {split: read_examples(data, split) for split in ("train", "validation", "test")}


def updates(learner: Learner, rows: Sequence[Any], order: Any, spec: Train, groups: Mapping[str, Sequence[str]]
            ) -> Callable[[float], float]:
    """A function that makes the next update in the order of training, at a given rate, and returns the loss before."""
    factors = spec.plan.factors([*groups], 0)
    learner.train_only({name: factor for group, factor in factors.items() for name in groups[group]})
    coming = (indices for epoch in itertools.count() for indices in order.epoch(epoch))
    count = itertools.count(1)

    def update(rate: float) -> float:
        rows_of_update = [rows[index] for index in next(coming)]
        return learner.update(rows_of_update, learning_rate=rate, step=next(count), epoch=0).loss

    return update


class TextRun:
    """The steps of a run in order; each method is one of them."""

    def __init__(self, folder: Path, model: Artifact, examples: dict[str, list[Example]], data: Artifact, spec: Train,
                 *, root: Path, where: runtime.Runtime, progress: Progress, watch: Watch | None = None,
                 start: Path | None = None):
        """`start` is the folder of the earlier run to go on from."""
        self.folder, self.spec, self.where, self.progress = folder, spec, where, progress
        self.examples, self.data, self.watch, self.root = examples, data, watch, root
        if not examples["train"]:
            raise DataError(f"{data.path} holds no train examples; check what prepare dropped, and why")
        self.begun = begin(model, start, seed=spec.seed, device=where.device,
                           dtype="" if spec.precision == "auto" else spec.precision)
        self.model = self.begun.model
        self.pools = pools(spec.replays, self.begun.past, examples["train"],
                           examples["validation"] + examples["test"], root=root, progress=progress)
        self.pool = [example for _, rows in self.pools for example in rows]
        self.lwf = self._lwf()
        self.contract = contract.Contract(folder)

    def _lwf(self) -> Any:
        """The regularizer that teaches tokens, where there is something to teach."""
        one = next((one for one in self.spec.regularizers if one.kind == "lwf"), None)
        if one is not None and self.begun.past is None and not self.pool:
            self.progress.say("  lwf has nothing to protect yet: training begins from a base model, and nothing is "
                              "replayed")
            return None
        return one

    def go(self, before: Callable[[TextRun], None] = lambda run: None) -> dict[str, Any]:
        """Train, and leave the best weights in the model. `before` sees the run when it is about to begin."""
        self.render()
        self.check_data()
        self.prepare_learner()
        self.check_updates()
        before(self)
        memory = self.fit()
        return self.finish(memory)

    def render(self) -> None:
        """Tokenise everything that will pass through the model."""
        own = len(self.examples["train"])
        self.whole = self._tokens(self.examples["train"] + self.pool)
        if self.lwf is not None:  # what is replayed is there to be kept; without it, the new rows must do
            self.whole = [replace(example, taught=at >= own or not self.pool) for at, example in enumerate(self.whole)]
        self.rendered = [example.cut(self.spec.max_length) for example in self.whole]
        self.validation = self.held_rows(self.examples["validation"])

    def _tokens(self, rows: Sequence[Example]) -> list[Rendered]:
        model = self.model
        return [render(model.tokenizer, row, stop_id=model.stop_ids[0], system=model.task.system) for row in rows]

    def held_rows(self, examples: Sequence[Example]) -> list[Rendered]:
        """As many as a validation measures, as the model sees them."""
        held = self._tokens(spread([*examples], self.spec.validation_size(self.model.task)))
        return [cut for example in held if (cut := example.cut(self.spec.max_length)).num_supervised]

    def check_data(self) -> None:
        """Points 1 to 4, 7 and 8: before the model computes anything."""
        spec, tokenizer, system = self.spec, self.model.tokenizer, self.model.task.system
        rows = self.examples["train"] + self.pool
        mask = contract.check_mask(self.whole, self.rendered)
        self.contract.add(
            contract.check_mask_text(tokenizer, rows, self.whole, system, stop_id=self.model.stop_ids[0]) or mask,
            contract.check_stop(tokenizer, self.whole, self.model.stop_ids),
            contract.check_template(tokenizer, rows, self.whole, self.model.template_note, system),
            contract.check_truncation(self.whole, self.rendered, max_length=spec.max_length,
                                      max_share=spec.max_truncated_share),
            check_leak(self.examples["train"] + [row for one, rows in self.pools if one.source == PAST for row in rows],
                       self.examples["validation"] + self.examples["test"],
                       disjoint=self.data.summary.get("disjoint", "document")),
            contract.check_labels(),
        )
        contract.write_preview(self.folder / "preview.html", tokenizer, self.rendered)
        self.contract.enforce()

    def prepare_learner(self) -> None:
        """Layout, attention, loss path, optimizer and penalties."""
        module, spec = self.model.module, self.spec
        bare = objectives.bare(module)
        if spec.recompute:
            bare.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            bare.enable_input_require_grads()
        self.probe = _probe(self.rendered, spec.pass_tokens)
        single = [collate([example], "none").to(self.where.device) for example in self.probe[:2]]
        with contract.in_float32(module) as exact:
            self.path = objectives.choose(module, single, tolerance=1e-5 if exact else 2e-2)
        packs = self.path.attention == attention.NAME
        layout: Layout = ("packed" if packs else "buckets") if spec.packing == "auto" else spec.packing
        parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        if not parameters:
            raise ModelError(f"{self.model.name} has no parameter that may train")
        optimizer = MasterAdamW(parameters, weight_decay=spec.weight_decay)
        if self.begun.folder is not None:
            restore_weights(optimizer, self.begun.folder)
        objective: Any = self.path.objective
        if self.lwf is not None:
            objective = TokenDistillation(objective, module, strength=self.lwf.strength,
                                          temperature=self.lwf.temperature)
        self.learner = Learner(module, objective, optimizer, self.where, feed=TextFeed(layout, spec.pass_tokens),
                               clip_norm=spec.clip_norm)
        if spec.packing == "auto" and layout == "packed" and self._packing().state == "violated":
            self.learner.feed.layout = "buckets"  # a family whose other layers mix neighbours, such as a convolution
        self.learner.penalties = {}
        for one in spec.regularizers:
            if one.teaches():
                continue
            if one.needs_past and self.begun.past is None:
                self.progress.say(f"  {one.kind} has nothing to protect yet: training begins from a base model")
            elif (penalty := one.bind(self.setting())) is not None:
                self.learner.penalties[one.kind] = penalty

    def setting(self) -> Setting:
        """What regularizers read. One row of its passes is one example: gradients of examples can be told apart."""
        own = len(self.examples["train"])
        return Setting(model=self.model, rows=self.rendered[:own], replayed=self.rendered[own:],
                       objective=self.path.objective, passes=TextFeed("buckets", self.spec.pass_tokens).passes,
                       past=self.begun.past, root=self.root, progress=self.progress, seed=self.spec.seed,
                       learning_rate=self.spec.peak_rate(self.model.method))

    def _packing(self) -> contract.Finding:
        return contract.check_packing(self.learner, self.probe)

    def check_updates(self) -> None:
        """Points 5, 6 and, in small, 10."""
        self.contract.add(self._packing(), contract.check_accumulation(
            self.learner, self.probe, longest=max(len(example.ids) for example in self.probe)))
        if self.spec.verify_resume and not (self.folder / streams.CHECKPOINT).exists():
            file = self.folder / "resume-check.safetensors"
            memory = streams.Memory()
            self.contract.add(contract.check_resume(
                self.learner, self.probe[:2], lambda: streams.save_checkpoint(file, self.learner, memory),
                lambda: streams.load_checkpoint(file, self.learner) and None))
            file.unlink(missing_ok=True)
        self.contract.enforce()

    def fit(self) -> streams.Memory:
        """The loop with its filters, from the beginning or from the last checkpoint."""
        spec, learner = self.spec, self.learner
        order = self.order()
        total = spec.epochs * order.updates_per_epoch
        total = min(total, spec.max_steps) if spec.max_steps else total
        warmup = round(total * spec.warmup_share)
        mean = Mean()
        peak = spec.peak_rate(self.model.method)
        every = spec.validate_every or max(1, order.updates_per_epoch // 2)
        checkpoint, best = self.folder / streams.CHECKPOINT, self.folder / streams.BEST
        frozen = frozen_hash(self.model.module)

        def measure() -> streams.Validation:
            loss = learner.evaluate(self.validation)
            return streams.Validation((loss,), loss)

        def keep_best() -> None:
            streams.write_tensors(best, learner.optimizer.weights(), {"step": memory.step})

        def begun() -> None:  # a new phase: the frozen weights are others now
            memory.frozen = self.frozen = frozen_hash(self.model.module)

        if checkpoint.exists():
            self.contract.recall(10)
            memory = streams.load_checkpoint(checkpoint, learner, mean)
            if memory.phase == 0 and memory.frozen != frozen and isinstance(spec.plan, All):
                raise ModelError(f"the base model changed since {checkpoint} was written; delete {self.folder}")
            self.progress.say(f"  continuing after update {memory.step} of {total}")
        else:
            memory = streams.Memory(frozen=frozen)
            if self.validation:
                found = measure()
                memory.best_loss = memory.first_loss = found.loss
                memory.best_score = [*found.score]
                keep_best()
        self.frozen, start = frozen, memory.step

        def save() -> None:
            streams.save_checkpoint(checkpoint, learner, memory, mean)

        steps = fit(learner, self.rendered, order, total=total, start=start,
                    rate=lambda step: rate(step, total=total, peak=peak, warmup=warmup, schedule=spec.schedule))
        steps = streams.counted(steps, memory)
        steps = self.moving(steps)
        if spec.average is not None:
            steps = averaged(steps, spec.average, mean, learner, total=total)
        if self.validation:
            steps = streams.validated(steps, memory, measure, keep_best, every=every, total=total)
        if spec.schedule == "plateau":
            steps = streams.lowered(steps, learner, memory, patience=spec.plateau_patience)
        steps = streams.planned(steps, spec.plan, learner, self.model.groups, memory, per_epoch=order.updates_per_epoch,
                                begun=begun)
        steps = streams.logged(steps, self.folder, start=start)
        if self.watch is not None:
            steps = streams.watched(steps, self.watch)
        steps = streams.shown(steps, self.progress, total=total, start=start)
        steps = streams.saved(steps, save, every_s=spec.checkpoint_every_s)
        if self.validation:
            steps = streams.patient(steps, memory, patience=spec.patience,
                                    last_phase=spec.plan.phases([*self.model.groups]) - 1)
        for _ in steps:
            pass
        if mean.count:  # also after an early stop
            learner.set_weights(mean.tensors)
            if self.validation:
                streams.judge(measure(), memory, memory.step, keep_best)
        if not self.validation:
            memory.best_step = memory.step
            keep_best()
        self.total = total
        return memory

    def order(self) -> Order:
        """Which examples form which update."""
        return Order(lengths=tuple(len(example.ids) for example in self.rendered),
                     pools=tuple(len(rows) for _, rows in self.pools),
                     replayed=tuple(counts([one for one, _ in self.pools], len(self.examples["train"]))),
                     batch_size=self.spec.update_size(self.model.task), seed=self.spec.seed,
                     layout=self.learner.feed.layout)

    def moving(self, steps: streams.Steps) -> streams.Steps:
        """Point 9 after the first update, also the first after a resume: what should move moved, nothing else did."""
        before: dict[str, torch.Tensor] | None = self.learner.optimizer.weights()
        for done in steps:
            if before is not None:
                self.contract.add(check_groups(self.model, before, self.learner, self.frozen, done.step,
                                               done.learning_rate))
                self.contract.enforce()
                before = None
            yield done

    def finish(self, memory: streams.Memory) -> dict[str, Any]:
        """Write the best weights in the method's format and sum the run up."""
        tensors, _ = streams.read_tensors(self.folder / streams.BEST)
        self.model.method.save(self.model.module, tensors, self.folder / "best")
        self.learner.optimizer.set_weights(tensors)
        with torch.no_grad():
            penalties = {kind: float(penalty()) for kind, penalty in self.learner.penalties.items()}
        self.remember()
        for name in (streams.CHECKPOINT, streams.BEST):
            (self.folder / name).unlink(missing_ok=True)
        summary = {
            "method": self.model.method.kind, "steps": memory.step, "planned_steps": self.total,
            "best_step": memory.best_step, "validation_before": memory.first_loss, "validation_best": memory.best_loss,
            "stopped_early": memory.step < self.total, "train_examples": len(self.examples["train"]),
            "validation_examples": len(self.validation), "replay_examples": len(self.pool),
            "replayed_per_epoch": {one.source: number for (one, _), number in zip(
                self.pools, self.order().replayed, strict=True)},
            "tokens": memory.tokens, "supervised_tokens": memory.supervised,
            "tokens_per_cpu_s": round(memory.tokens / max(memory.cpu_s, 1e-9), 1),
            "train_cpu_s": round(memory.cpu_s, 1), "train_s": round(memory.wall_s, 1),
            "peak_memory_bytes": runtime.peak_memory(), "layout": self.learner.feed.layout,
            "attention": self.path.attention,
            "loss_path": self.path.objective.kind, "fast_layers": list(self.path.swaps),
            "loss_difference": self.path.loss, "gradient_difference": self.path.gradient,
            "precision": str(next(self.model.module.parameters()).dtype).removeprefix("torch."),
            "learning_rate": self.spec.peak_rate(self.model.method),
            **({"penalties": penalties} if penalties else {}),
        }
        write_json(self.folder / "environment.json", environment(self.where))
        if memory.first_loss is not None and memory.best_step == 0:
            kept = "untrained weights" if self.begun.folder is None else "weights that training began with"
            summary["note"] = f"no update lowered the validation loss, so the {kept} were kept"
            self.progress.say(f"  {summary['note']}; check the data, or lower train.learning_rate")
        elif memory.best_loss is not None:
            self.progress.say(f"  validation loss {memory.first_loss:.3f} → {memory.best_loss:.3f} "
                              f"(best after update {memory.best_step} of {memory.step})")
        return summary


    def remember(self) -> None:
        """Write what the next training that begins from this model finds; the model has its final weights."""
        self.model.module.eval()

        def loss(example: Example) -> float:
            row = replace(self._tokens([example])[0].cut(self.spec.max_length), weight=1.0)
            return self.learner.evaluate([row]) if row.num_supervised else 0.0

        memory = remember(self.setting(), self.spec, examples=self.examples["train"], loss=loss)
        if memory:
            save_past(self.folder / FOLDER, **memory)


def spread(rows: list[Any], most: int) -> list[Any]:
    """At most `most` of them, evenly chosen."""
    if len(rows) <= most:
        return rows
    return [rows[at] for at in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _probe(examples: Sequence[Rendered], pass_tokens: int) -> list[Rendered]:
    """Up to four short but different examples on which the contract computes."""
    order = sorted(examples, key=lambda example: (len(example.ids), example.id))
    chosen = [order[round(share * (len(order) - 1))] for share in (0.0, 0.15, 0.3, 0.5)]
    return list({example.id: example for example in chosen}.values())


def environment(where: runtime.Runtime) -> dict[str, Any]:
    """What the run was computed with."""
    import accelerate
    import peft
    import transformers

    return {"python": platform.python_version(), "machine": platform.platform(), "torch": torch.__version__,
            "transformers": transformers.__version__, "peft": peft.__version__, "accelerate": accelerate.__version__,
            "threads": torch.get_num_threads(), **{key: str(value) for key, value in asdict(where).items()}}
