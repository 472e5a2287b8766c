"""One fit of a labelled task, from a job to the best model: rows, contract, head, loop, best weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from luthier.adapt.backbones.base import Row
from luthier.adapt.network import HEAD, LabelModel
from luthier.errors import ModelError
from luthier.models.generate import compute_dtype
from luthier.train import contract, runtime, streams
from luthier.train.augments import Augment, Setting, ready
from luthier.train.average import Mean, averaged
from luthier.train.base import Found
from luthier.train.fit import Learner, StepDone, fit
from luthier.train.labelled import checks, kept
from luthier.train.labelled.base import Fitted, Job
from luthier.train.labelled.feed import LabelFeed, LabelOrder, balanced_draw
from luthier.train.labelled.gap import measure_gap
from luthier.train.labelled.objective import columns_of, objective_of
from luthier.train.labelled.pool import features_of, learns_head_only
from luthier.train.labelled.remember import remember
from luthier.train.labelled.score import LOWER, validate
from luthier.train.labelled.warm import as_rows, can_warm, warm_head
from luthier.train.optim import MasterAdamW, rate
from luthier.train.plans import trained
from luthier.train.regularizers import Setting as Bound
from luthier.train.run import spread, updates


def fit_once(job: Job) -> Fitted:
    """Fit once, continuing what an earlier, killed call left in the job's folder. ContractError as `train`."""
    found = kept.recall(job) if job.keep else None
    return _Fit(job).go() if found is None else found


def probe_once(job: Job, run: Callable[[Callable[[float], float]], Found]) -> Found:
    """See `luthier.train.base.probe_rates`. The head begins at random: one that is right already hides the rate."""
    one = _Fit(job.but(warm=False))
    one.read()
    one.check_data()
    one.prepare()
    return run(updates(one.learner, one.rows, one.order(), job.spec, one.groups))


class _Fit:
    """The steps of one fit, in order."""

    def __init__(self, job: Job):
        self.job, self.spec = job, job.spec
        job.folder.mkdir(parents=True, exist_ok=True)
        self.contract = contract.Contract(job.folder)
        self.where = runtime.start()
        self.model = job.open(job.seed)
        network, task = self.model.module, self.model.task
        if self.where.ranks > 1:
            raise ModelError(f"luthier trains in one process for now, but {self.where.ranks} were launched")
        low = self.spec.precision != "float32" and task.type != "image"
        self.precision = compute_dtype("auto") if low and self.spec.precision == "auto" else \
            torch.bfloat16 if self.spec.precision == "bfloat16" else torch.float32
        network.to(self.where.device)
        groups = {group: [name for name in names if network.get_parameter(name).requires_grad]
                  for group, names in self.model.groups.items()}
        self.groups = {group: names for group, names in groups.items() if names}
        if not self.groups:
            raise ModelError(f"{self.model.name} has no parameter that may train")
        self.learning = trained(self.spec.plan, [*self.groups])
        self.head_only = learns_head_only(job, self.model)
        self.peak = self.spec.peak_rate(self.model.method, task, head_only=self.learning == {HEAD})

    def go(self) -> Fitted:
        self.read()
        self.check_data()
        self.prepare()
        memory = self.fit()
        return self.finish(memory)

    def read(self) -> None:
        """Rows with their targets, and features where the backbone stands still."""
        job = self.job
        self.train = [*job.train, *job.replay]
        self.rows = [row.but(part=job.part_of.get(row.id, "")) for row in self.model.rows(self.train)]
        self.known = [row.target for row in self.rows]
        """The labels themselves, whatever soft labels stand in for them."""
        if job.soft:
            self.rows = [row.but(target=np.asarray(job.soft[row.id], dtype=np.float32)) if row.id in job.soft else row
                         for row in self.rows]
        if job.teacher is not None:
            self.rows = [row.but(teacher=np.asarray(job.teacher.logits[row.id], dtype=np.float32)) for row in self.rows]
        self.held = spread(list(job.validation), self.spec.validation_size(self.model.task))
        self.held_rows = [row.but(part=job.part_of.get(row.id, "")) for row in self.model.rows(self.held)]

    def check_data(self) -> None:
        job, model = self.job, self.model
        self.contract.add(
            checks.check_targets(self.rows, model.task.type), *checks.does_not_apply(model),
            checks.check_cut(model, self.train, self.rows, max_share=self.spec.max_truncated_share),
            checks.check_row_leak(job.train, [*job.validation, *job.test], root=job.root) if job.look_for_leaks else
            contract.Finding(7, "does not apply", "looked for once, before the rows were divided further", {}),
            checks.check_class_labels(model, job.train, [*job.validation, *job.test],
                                      learned=self._learned()) if job.check_labels else
            contract.Finding(8, "does not apply", "looked for once, before the rows were divided by task", {}))
        self.contract.enforce()

    def _learned(self) -> tuple[str, ...]:
        """Outputs that the model had learned when training began from it."""
        past = self.job.past
        return () if past is None else past.labels or past.open().labels

    def prepare(self) -> None:
        """The head's beginning, the learner, and points 5, 6 and 10."""
        job, spec, model = self.job, self.spec, self.model
        network = model.module
        counted = [at for at, row in enumerate(self.rows) if row.weight > 0]  # the others would make empty updates
        self.rows, self.train = [self.rows[at] for at in counted], [self.train[at] for at in counted]
        self.known = [self.known[at] for at in counted]
        pool = {example.id for example in job.replay}
        self.num_pool = sum(example.id in pool for example in self.train[len(self.train) - len(pool):]) if pool else 0
        if job.replay and (spec.replay is None or self.num_pool >= len(self.rows)):
            raise ModelError("replay needs train.replay and at least one new row beside the replayed ones")
        low = self.precision != torch.float32
        self.exact = {name: value.detach().clone() for name, value in network.named_parameters()} if low else {}
        """The float32 weights, where the network computes with rounded ones."""
        network.to(self.precision)
        network.head.to(torch.float32)
        self.warmed: float | None = None
        resumes = (job.folder / streams.CHECKPOINT).exists()
        warms = job.warm and can_warm(model) and not resumes
        if self.head_only or warms:
            found = features_of(job, model, [*self.rows, *self.held_rows])
            mine, theirs = found[: len(self.rows)], found[len(self.rows):]
            if warms:
                self.warmed = warm_head(model, mine, self.rows, theirs, self.held_rows,
                                        parts={name: columns_of(model, names) for name, names in job.parts.items()},
                                        only=None if job.warm_labels is None else columns_of(model, job.warm_labels))
            if self.head_only:
                self.rows, self.held_rows = as_rows(self.rows, mine), as_rows(self.held_rows, theirs)
                network.to(torch.float32)
        parameters = {name: network.get_parameter(name) for group in self.learning for name in self.groups[group]}
        parameters = {name: value for name, value in network.named_parameters() if name in parameters}
        for name, value in network.named_parameters():  # no gradients for what never learns
            value.requires_grad_(name in parameters)
        optimizer = MasterAdamW(parameters, weight_decay=spec.weight_decay, spared=self._spared())
        if self.exact:
            head = {id(value) for value in network.head.parameters()}
            optimizer.set_weights({name: value.detach().float() if id(value) in head else self.exact[name]
                                   for name, value in parameters.items()})
        feed = LabelFeed(model.processor, model.task, len(model.labels), spec.pass_tokens, seed=job.seed,
                         augments=self._augments(), mix=spec.mix,
                         examples={e.id: e for e in self.train} if spec.augments else {})
        self.learner = Learner(network, objective_of(model, job, self.rows), optimizer, self.where, feed=feed,
                               clip_norm=spec.clip_norm)
        self._protect(feed)
        small = checks.probe(self.rows)
        self.contract.add(checks.check_padding(self.learner, small), self._accumulation(small))
        if spec.verify_resume and not resumes:
            file = job.folder / "resume-check.safetensors"
            self.contract.add(contract.check_resume(
                self.learner, small[:2], lambda: streams.save_checkpoint(file, self.learner, streams.Memory()),
                lambda: streams.load_checkpoint(file, self.learner) and None))
            file.unlink(missing_ok=True)
        self.contract.enforce()

    def setting(self, passes: Callable[[Sequence[Row]], Sequence[Any]]) -> Bound:
        """What regularizers read."""
        job, own = self.job, len(self.rows) - self.num_pool
        parts = {name: columns_of(self.model, names) for name, names in job.parts.items()}
        return Bound(model=self.model, rows=self.rows[:own], replayed=self.rows[own:], passes=passes, past=job.past,
                     examples=self.train, objective=self.learner.objective,
                     columns=lambda row: parts.get(row.part), parts=parts, root=job.root, learning_rate=self.peak,
                     progress=job.progress, seed=job.seed)

    def _protect(self, feed: LabelFeed) -> None:
        """Bind the regularizers: penalties on the weights, and what their teachers answer to the rows."""
        setting, active = self.setting(feed.passes), []
        for one in self.spec.regularizers if self.job.protect else ():
            if one.needs_past and self.job.past is None:
                self.job.progress.say(f"  {one.kind} has nothing to protect yet: training begins from a base model")
                continue
            active.append(one)
        self.learner.penalties = {}
        taught: dict[str, Mapping[str, np.ndarray]] = {}
        for one in active:
            penalty = one.bind(setting)
            if penalty is not None:
                self.learner.penalties[one.kind] = penalty
            if answers := one.teach(setting):
                taught[one.kind] = answers
        if taught:
            self.rows = [row.but(told=told) if (told := {kind: np.asarray(answers[row.id], dtype=np.float32)
                                                         for kind, answers in taught.items() if row.id in answers})
                         else row for row in self.rows]

    def _spared(self) -> list[str]:
        """The output layer decays only where every output takes part in some row's loss: weight decay would wear away
        the rows of classes that nothing is learned of."""
        used = {label for row in self.rows for label in self.job.parts.get(row.part, self.model.labels)}
        return [] if used >= {*self.model.labels} else [f"head.{len(self.model.module.head) - 1}.weight"]

    def _augments(self) -> Sequence[Augment]:
        texts = [str(example.input) for example in self.job.train] if self.model.task.type != "image" else []
        return ready(self.spec.augments, Setting(root=self.job.root, model=self.model, texts=texts,
                                                 cache=self.job.cache, progress=self.job.progress))

    def _accumulation(self, small: Sequence[Row]) -> contract.Finding:
        if self.model.task.type in ("embed", "image") or self.head_only or len(small) < 2:
            return contract.Finding(6, "does not apply", "every update goes through the model in one pass", {})
        with _still(self.learner):
            return contract.check_accumulation(self.learner, small, longest=max(row.size for row in small))

    def fit(self) -> streams.Memory:
        """The loop with its filters, from the beginning or from the last checkpoint."""
        job, spec, learner, model = self.job, self.spec, self.learner, self.model
        order = self.order()
        total = spec.epochs * order.updates_per_epoch
        self.total = total = min(total, spec.max_steps) if spec.max_steps else total
        last = total if job.stop_after is None else min(total, job.stop_after)
        phases = spec.plan.phases([*self.groups])
        warmup = round(total * spec.warmup_share)
        every = spec.validate_every or max(1, order.updates_per_epoch // 2)
        checkpoint, best = job.folder / streams.CHECKPOINT, job.folder / streams.BEST
        mean, watch = Mean(), checks.GroupWatch(model, self.groups)

        def keep_best() -> None:
            streams.write_tensors(best, learner.weights(), {"step": memory.step})

        if checkpoint.exists():
            self.contract.recall(10)
            memory = streams.load_checkpoint(checkpoint, learner, mean)
            job.progress.say(f"  continuing after update {memory.step} of {total}")
        else:
            memory = streams.Memory()
            torch.manual_seed(job.seed)  # dropout must not depend on what ran before in this process
            if self.held_rows:
                found = self.measure()
                memory.first_loss = found.loss
                streams.judge(found, memory, 0, keep_best)
        start = memory.step

        def save() -> None:
            streams.save_checkpoint(checkpoint, learner, memory, mean)

        def begun() -> None:
            if watch.before and (slipped := watch.close(memory.step)):
                self.contract.add(slipped)
                self.contract.enforce()
            watch.begin(learner)

        steps: Iterator[StepDone] = fit(learner, self.rows, order, total=last, start=start, rate=lambda step: rate(
            step, total=total, peak=self.peak, warmup=warmup, schedule=spec.schedule))
        steps = streams.counted(steps, memory)
        steps = self._moving(steps, watch)
        if spec.average is not None:
            steps = averaged(steps, spec.average, mean, learner, total=total)
        if self.held_rows:
            steps = streams.validated(steps, memory, self.measure, keep_best, every=every, total=last)
        if spec.schedule == "plateau":
            steps = streams.lowered(steps, learner, memory, patience=spec.plateau_patience)
        steps = streams.planned(steps, spec.plan, learner, self.groups, memory, per_epoch=order.updates_per_epoch,
                                begun=begun)
        steps = streams.logged(steps, job.folder, start=start)
        if job.watch is not None:
            steps = streams.watched(steps, job.watch)
        steps = streams.shown(steps, job.progress, total=last, start=start)
        steps = streams.saved(steps, save, every_s=spec.checkpoint_every_s)
        if self.held_rows:
            steps = streams.patient(steps, memory, patience=spec.patience, last_phase=phases - 1)
        for _ in steps:
            pass
        if watch.before and (slipped := watch.close(memory.step)):
            self.contract.add(slipped)
            self.contract.enforce()
        self.averaged = self._average(memory, mean, keep_best) if spec.average is not None else None
        if not self.held_rows:
            memory.best_step = memory.step
            keep_best()
        return memory

    def _average(self, memory: streams.Memory, mean: Mean, keep_best: Callable[[], None]) -> dict[str, Any]:
        """Put the mean of the weights in; kept where it is the best on the validation rows, or there are none."""
        if not mean.count:
            self.job.progress.say("  training stopped before weights were averaged; train.average.start comes too late")
            return {"weights": 0, "used": False}
        self.learner.set_weights(mean.tensors)
        if not self.held_rows:
            return {"weights": mean.count, "used": True}
        found = self.measure()
        used = streams.judge(found, memory, memory.step, keep_best)
        return {"weights": mean.count, "used": used, "loss": found.loss, **found.values}

    def order(self) -> LabelOrder:
        """Which rows form which update."""
        task, spec, own = self.model.task, self.spec, self.rows[: len(self.rows) - self.num_pool]
        draw = balanced_draw(own, multi_label=task.multi_label) if spec.sampling == "balanced" else None
        return LabelOrder(tuple(row.size for row in self.rows), spec.update_size(task), self.job.seed, draw,
                          num_pool=self.num_pool, share=spec.replays[0].share if spec.replays else 0.0)

    def _moving(self, steps: Iterator[StepDone], watch: checks.GroupWatch) -> Iterator[StepDone]:
        for done in steps:
            found = watch.check(done.step)
            if found is not None:
                self.contract.add(found)
                self.contract.enforce()
            yield done

    def measure(self) -> streams.Validation:
        """The task's metric and the loss on the validation rows."""
        value, loss, _ = validate(self.model, self.held, self.held_rows, parts=self.job.parts)
        metric = self.model.task.metric
        worse = value if metric in LOWER else -value
        score = (loss,) if self.spec.best_by == "loss" else (worse, loss)
        return streams.Validation(score, loss, {metric: value})

    def finish(self, memory: streams.Memory) -> Fitted:
        """Put the best weights back in float32, score both sides, sum up."""
        job, model, learner = self.job, self.model, self.learner
        tensors, _ = streams.read_tensors(job.folder / streams.BEST)
        penalties = self._penalties(tensors)
        kept.put(model, {**self.exact, **tensors})
        model.module.requires_grad_(False).eval()
        model = model.but(fingerprint="")
        value = loss = logits = None
        if self.held_rows:
            held = self.held_rows
            if len(self.held) < len(job.validation):  # only a part was measured while training
                held = [row.but(part=job.part_of.get(row.id, "")) for row in model.rows(job.validation)]
            value, loss, logits = validate(model, job.validation, held, parts=job.parts)
        metric = model.task.metric
        summary = {
            "method": model.method.kind, "plan": self.spec.plan.kind, "steps": memory.step, "planned_steps": self.total,
            "best_step": memory.best_step, "validation_before": memory.first_loss, "validation_best": loss,
            "validation": None if value is None else {
                "metric": metric, "value": value, "better": "lower" if metric in LOWER else "higher",
                "n": len(job.validation)},
            "stopped_early": memory.step < self.total, "train_examples": len(self.rows),
            "validation_examples": len(self.held_rows), "tokens": memory.tokens,
            "examples_per_cpu_s": round(memory.supervised / max(memory.cpu_s, 1e-9), 1),
            "train_cpu_s": round(memory.cpu_s, 1), "train_s": round(memory.wall_s, 1),
            "peak_memory_bytes": runtime.peak_memory(), "learning_rate": self.peak, "warm_start": self.warmed,
            "cached_features": self.head_only, "precision": str(self.precision).removeprefix("torch."),
            "average": self.averaged,
            "gap": None if value is None else measure_gap(
                model, self.train, [row.but(target=known) for row, known in zip(self.rows, self.known)],
                validation=value, n_validation=len(job.validation), seed=job.seed, parts=job.parts),
            **({"replayed_rows": self.num_pool} if self.num_pool else {}),
            **({"penalties": penalties} if penalties else {}),
        }
        learner.optimizer.adam.state.clear()
        found = Fitted(model=model, value=value, loss=loss, logits=logits, summary=summary, memory=self._memory(model))
        if job.keep:
            kept.keep(job, tensors, found)
        for name in (streams.CHECKPOINT, streams.BEST):
            (job.folder / name).unlink(missing_ok=True)
        return found


    def _penalties(self, best: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """What each penalty on the weights comes to at the best ones, in nats, in the precision that trained."""
        if not self.learner.penalties:
            return {}
        self.learner.set_weights(best)
        with torch.no_grad():
            return {kind: float(penalty()) for kind, penalty in self.learner.penalties.items()}

    def _memory(self, model: LabelModel) -> Mapping[str, Any] | None:
        """What the next training that begins from this model finds: stored rows, and what regularizers remember."""
        spec, job = self.spec, self.job
        if spec.keep is None and not spec.regularizers:
            return None
        self.model = model
        feed = LabelFeed(model.processor, model.task, len(model.labels), spec.pass_tokens, seed=job.seed)
        self.learner.objective = objective_of(model, job, self.rows)
        return remember(self.setting(feed.passes), spec, examples=self.train[: len(self.rows) - self.num_pool])


@contextlib.contextmanager
def _still(learner: Learner) -> Iterator[None]:
    """Every learned weight takes part while the contract compares gradients, whatever phase comes first."""
    before = {name: parameter.requires_grad for name, parameter in learner.optimizer.parameters.items()}
    for parameter in learner.optimizer.parameters.values():
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for name, parameter in learner.optimizer.parameters.items():
            parameter.requires_grad_(before[name])
