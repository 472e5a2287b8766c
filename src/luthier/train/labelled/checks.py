"""The training contract for labelled tasks: the same points, on the rows and tensors that will train."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luthier.adapt.backbones.base import Row
from luthier.adapt.network import HEAD, IGNORED, LabelModel
from luthier.train.contract import Finding, _finding
from luthier.train.fit import Learner
from luthier.types import Example


def does_not_apply(model: LabelModel) -> list[Finding]:
    """Points that belong to written answers."""
    stop = "nothing is generated, so no stop token is learned"
    return [Finding(2, "does not apply", stop, {}),
            Finding(3, "does not apply", f"the task '{model.task.type}' has no chat template", {})]


def check_targets(rows: Sequence[Row], task: str) -> Finding:
    """Point 1: every row has a target that carries loss, and a positive weight."""
    bare = [row.id for row in rows if row.target is None]
    if task == "tag":
        bare += [row.id for row in rows if row.target is not None and not (row.target != IGNORED).any()]
    weightless = [row.id for row in rows if row.weight <= 0]
    if bare:
        return _finding(1, False, f"{len(bare)} of {len(rows)} train rows have nothing to learn from, such as "
                        f"{', '.join(bare[:3])}; give them a label, or mark them as unlabelled", empty=bare[:50])
    if len(weightless) == len(rows):
        return _finding(1, False, "every train row has weight 0", empty=weightless[:50])
    tokens = sum(int((row.target != IGNORED).sum()) for row in rows) if task == "tag" else 0
    what = f"{tokens:,} tokens of {len(rows):,} texts carry loss, all but special ones" if task == "tag" else \
        f"{len(rows):,} rows carry loss, each through its own label"
    return _finding(1, True, what + (f"; {len(weightless)} rows have weight 0" if weightless else ""), rows=len(rows))


def check_cut(model: LabelModel, examples: Sequence[Example], rows: Sequence[Row], *, max_share: float) -> Finding:
    """Point 4: texts that were cut at the processor's limit, and how many of their tokens were lost (for tags: how many
    tags)."""
    processor: Any = model.processor
    if not hasattr(processor, "lengths"):
        return Finding(4, "does not apply", "images are resized, and nothing is cut off beyond the frame", {})
    near = [at for at, row in enumerate(rows) if row.size >= processor.max_length]
    whole = processor.lengths([str(examples[at].input) for at in near]) if near else []
    cut = sum(length > processor.max_length for length in whole)
    lost = sum(max(0, length - processor.max_length) for length in whole)
    total = sum(row.size for row in rows) + lost
    share = lost / max(total, 1)
    if model.task.type == "tag":
        tags = sum(len(example.spans or ()) for example in examples)
        gone = 0
        for at in near:
            end = max((e for _, e in processor.offsets(examples[at].input)), default=0)
            gone += sum(tag.end > end for tag in examples[at].spans or ())
        share = gone / max(tags, 1)
        text = f"{cut:,} of {len(rows):,} texts cut at {processor.max_length} tokens; {gone:,} of {tags:,} tags lost"
    else:
        text = f"{cut:,} of {len(rows):,} texts cut at {processor.max_length} tokens; {lost:,} of {total:,} tokens lost"
    text += f" ({share:.1%}, allowed {max_share:.1%})"
    if share > max_share:
        text += ("; raise train.max_length (the model reads at most what it was made for), split the texts, or raise "
                 "train.max_truncated_share if the loss is acceptable")
    return _finding(4, share <= max_share, text, cut=cut, lost=lost, share=share)


def check_class_labels(model: LabelModel, train: Sequence[Example], held: Sequence[Example], *,
                       learned: Sequence[str] = ()) -> Finding:
    """Point 8: every label occurs in train, or is among those that the model `learned` before (names of its outputs),
    and no held-out row has one that does not."""
    if model.task.type == "embed":
        return Finding(8, "does not apply", "matching texts have no class labels", {})
    counts = Counter(label for example in train for label in names_of(example))
    wanted = [label for label in dict.fromkeys(name.partition("-")[2] if model.task.type == "tag" else name
                                               for name in model.labels) if label]
    before = {name.partition("-")[2] if model.task.type == "tag" else name for name in learned}
    absent = [label for label in wanted if not counts[label] and label not in before]
    unseen = sorted({label for example in held for label in names_of(example)} - set(counts) - before)
    if unseen:
        where = next(e.origin.where for e in held if unseen[0] in names_of(e))
        return _finding(8, False, f"held-out rows have {len(unseen)} labels that no train row has, such as "
                        f"'{unseen[0]}' ({where}); add train rows for them or remove these rows", unseen=unseen)
    if absent:
        return _finding(8, False, f"{len(absent)} of {len(wanted)} labels have no train row: {', '.join(absent[:5])}; "
                        "add rows or take them out of task.labels", absent=absent)
    ordered = counts.most_common()
    if resting := [label for label in wanted if not counts[label]]:
        return _finding(8, True, f"{len(wanted) - len(resting)} of {len(wanted)} labels occur in train; the model "
                        f"learned the others before, such as '{resting[0]}'", counts=dict(counts))
    return _finding(8, True, f"all {len(wanted)} labels occur in train, from {ordered[-1][1]:,} times "
                    f"('{ordered[-1][0]}') to {ordered[0][1]:,} ('{ordered[0][0]}')", counts=dict(counts))


def check_row_leak(train: Sequence[Example], held: Sequence[Example], *, root: Path) -> Finding:
    """Point 7: no held-out row shares a document or a group with train, nor repeats its text or image (by the rule that
    `prepare` removes them by)."""
    from luthier.prepare.label_split import near_repeats
    from luthier.train.labelled.replayed import content_of, origins

    seen = {origin for example in train for origin in origins(example)}
    by_origin = [example for example in held if seen & origins(example)]
    if by_origin:
        return _finding(7, False, f"{len(by_origin)} held-out rows come from a document or group that is also trained "
                        f"on, such as {by_origin[0].origin.where}; run prepare again", by_origin=len(by_origin))

    same = {content_of(example, root): example for example in held}
    copies = [(at, same[found], 1.0, "same") for at, example in enumerate(train)
              if (found := content_of(example, root)) in same]
    copies = copies or list(near_repeats([*enumerate(train)], held))
    if copies:
        at, other, share, _ = copies[0]
        return _finding(7, False, f"{len(copies)} train rows repeat held-out ones, such as {train[at].origin.where}, "
                        f"{share:.0%} of which is {other.origin.where}; run prepare again or remove them",
                        by_text=len(copies))
    return _finding(7, True, f"none of the {len(held):,} validation and test rows shares its document, group or words "
                    "with a train row", held=len(held))


def names_of(example: Example) -> tuple[str, ...]:
    """The labels that an example carries."""
    if example.spans is not None:
        return tuple(tag.label for tag in example.spans)
    return example.labels or ()


@torch.no_grad()
def check_padding(learner: Learner, rows: Sequence[Row], *, tolerance: float = 1e-4, coarse: float = 5e-2) -> Finding:
    """Point 5: rows of different lengths in one padded batch have the loss that they have alone (relative, float32)."""
    from luthier.train.contract import in_float32

    if learner.feed.task.type == "embed":
        return Finding(5, "does not apply", "each query is judged against the other rows' texts", {})
    learner.module.eval()
    with in_float32(learner.module) as exact:
        alone = sum(_loss(learner, [row]) for row in rows)
        together = _loss(learner, rows)
    limit = tolerance if exact else coarse
    difference = abs(together - alone) / max(abs(alone), 1e-9)
    return _finding(5, difference <= limit, f"{len(rows)} rows in one batch have the loss that they have alone, within "
                    f"{difference:.1e} relative (limit {limit:.0e})", difference=difference, tolerance=limit)


def _loss(learner: Learner, rows: Sequence[Row]) -> float:
    whole, learner.feed.pass_tokens = learner.feed.pass_tokens, 1 << 30
    try:
        return sum(float(learner.objective(batch.to(learner.runtime.device), 1.0))
                   for batch in learner.feed.passes(rows))
    finally:
        learner.feed.pass_tokens = whole


class GroupWatch:
    """Point 9, in every phase of a plan: the groups that should move move, the others stay bit-identical, buffers
    included (a batch norm's running figures)."""

    def __init__(self, model: LabelModel, groups: Mapping[str, Sequence[str]]):
        self.network, self.groups = model.module, groups
        self.before: dict[str, str] = {}
        self.active: frozenset[str] = frozenset()
        self.masters: Mapping[str, torch.Tensor] = {}
        self.fresh = False
        self.moved: dict[str, int] = {}

    def begin(self, learner: Learner) -> None:
        """A phase begins: remember what every group looks like."""
        self.masters = learner.optimizer.masters
        factors = learner.optimizer.factors()
        self.active = frozenset(group for group, names in self.groups.items() if any(factors.get(n) for n in names))
        self.before = self.hashes()
        self.fresh = True

    def hashes(self) -> dict[str, str]:
        """Content of every layer group."""
        tensors = dict(self.network.named_parameters())
        buffers = dict(self.network.named_buffers())
        modules = {module: name for name, module in self.network.named_modules()}
        found = {}
        for group, names in self.groups.items():
            sum_ = hashlib.blake2b(digest_size=16)
            own = [] if group == HEAD else [modules[module] for module in self.network.backbone.modules_of(group)]
            inside = sorted(name for name in buffers if name.rpartition(".")[0] in own)
            # the float32 masters too: a small step may round to the same bfloat16 weight
            masters = [self.masters[name] for name in names
                       if name in self.masters and self.masters[name] is not tensors[name]]
            for tensor in (*(tensors[name] for name in names), *masters, *(buffers[name] for name in inside)):
                sum_.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            found[group] = sum_.hexdigest()
        return found

    def check(self, step: int) -> Finding | None:
        """After the first update of a phase; None for later ones."""
        if not self.fresh:
            return None
        self.fresh = False
        now = self.hashes()
        still = [group for group in self.active if now[group] == self.before[group]]
        slipped = [group for group in now if group not in self.active and now[group] != self.before[group]]
        if still:
            return _finding(9, False, f"update {step} moved nothing in {', '.join(still[:5])}, which should learn now")
        if slipped:
            return _finding(9, False, f"update {step} changed {', '.join(slipped[:5])}, which is frozen")
        self.moved[f"from update {step}"] = len(self.active)
        told = ", ".join(f"{count} of {len(now)} {when}" for when, count in self.moved.items())
        return _finding(9, True, f"layer groups that learn move and frozen ones are bit-identical: {told}",
                        phases=dict(self.moved))

    def close(self, step: int) -> Finding | None:
        """At the end of a phase: the frozen groups are still what they were. None when they are."""
        now = self.hashes()
        slipped = [group for group in now if group not in self.active and now[group] != self.before.get(group)]
        return _finding(9, False, f"{', '.join(slipped[:5])} changed while frozen, before update {step}") if slipped \
            else None


def probe(rows: Sequence[Row], most: int = 4) -> list[Row]:
    """A few rows of different sizes."""
    order = sorted(range(len(rows)), key=lambda at: (rows[at].size, rows[at].id))
    places: Iterable[int] = dict.fromkeys(order[round(share * (len(order) - 1))] for share in np.linspace(0, 0.6, most))
    return [rows[at] for at in places]
