"""The training contract: what is checked, on the real tokenised batches, before the first update. Fails closed.

Every point is a finding with figures; `contract.txt` is the table a person reads, `contract.json` the same for
programs. A violated point stops training with a ContractError that names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from luthier.adapt.base import Model
from luthier.adapt.template import encode, render_text
from luthier.errors import ContractError
from luthier.store import write_json, write_text
from luthier.train.attention import rows_of
from luthier.train.batches import collate
from luthier.train.fit import Learner
from luthier.train.render import Rendered, messages_of
from luthier.train.runtime import free_memory, full_float32
from luthier.types import Example

NAMES = {
    1: "loss mask", 2: "stop token", 3: "template", 4: "truncation", 5: "packing", 6: "accumulation", 7: "leak",
    8: "labels", 9: "layer groups", 10: "resume",
}


@dataclass(frozen=True)
class Finding:
    """One point of the contract."""

    point: int
    state: Literal["kept", "violated", "does not apply"]
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return NAMES[self.point]


class Contract:
    """The findings of a run, written to its folder as they come."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.findings: dict[int, Finding] = {}
        file = folder / "contract.json"
        self.previous = file.read_text("utf-8") if file.is_file() else "[]"

    def add(self, *findings: Finding) -> None:
        self.findings |= {finding.point: finding for finding in findings}
        self.write()

    def write(self) -> None:
        ordered = [self.findings[point] for point in sorted(self.findings)]
        write_json(self.folder / "contract.json", [
            {"point": f.point, "name": f.name, "state": f.state, "text": f.text, "facts": dict(f.facts)}
            for f in ordered])
        marks = {"kept": "ok", "violated": "FAIL", "does not apply": "-"}
        lines = [f"{f.point:>2}  {f.name:<13} {marks[f.state]:<5} {f.text}" for f in ordered]
        write_text(self.folder / "contract.txt", "Training contract\n\n" + "\n".join(lines) + "\n")

    def recall(self, point: int) -> None:
        """Take a finding over from the run that this one continues."""
        with contextlib.suppress(OSError, ValueError):
            for row in json.loads(self.previous):
                if row["point"] == point:
                    self.add(Finding(point, row["state"], row["text"], row["facts"]))

    def enforce(self) -> None:
        """Raise ContractError when a point is violated."""
        broken = [f for f in self.findings.values() if f.state == "violated"]
        if broken:
            raise ContractError("; ".join(f"contract point {f.point} ({f.name}): {f.text}" for f in broken)
                                + f" (table: {self.folder / 'contract.txt'})")


def _finding(point: int, kept: bool, text: str, **facts: Any) -> Finding:
    return Finding(point, "kept" if kept else "violated", text, facts)


def check_mask(rendered: Sequence[Rendered], cut: Sequence[Rendered]) -> Finding:
    """Point 1: every example, after truncation, has a token that carries loss; the share is reported."""
    empty = [example.id for example in cut if not example.num_supervised]
    tokens, supervised = sum(len(e.ids) for e in cut), sum(e.num_supervised for e in cut)
    if empty:
        return _finding(1, False, f"{len(empty)} of {len(cut)} examples have no token left that carries loss, such as "
                        f"{', '.join(empty[:3])}; raise train.max_length or shorten their prompts", empty=empty[:50])
    return _finding(1, True, f"{supervised:,} of {tokens:,} tokens carry loss ({supervised / tokens:.0%}): exactly the "
                    f"answers of {sum(e.turns for e in cut):,} assistant turns and {sum(e.turns == 0 for e in cut):,} "
                    "plain texts", tokens=tokens, supervised=supervised, examples=len(cut))


def check_mask_text(tokenizer: Any, examples: Sequence[Example], rendered: Sequence[Rendered], system: str | None,
                    *, stop_id: int, limit: int = 256) -> Finding | None:
    """Point 1, read back: the supervised tokens of a conversation decode to what the template writes for its assistant
    turns, up to the stop token, and to nothing else. None when that holds."""
    stop = tokenizer.decode([stop_id])
    for example, found in zip(examples[:limit], rendered[:limit]):
        if isinstance(example.input, str):
            continue
        messages = messages_of(example, system)
        wanted = ""
        for index, message in enumerate(messages):
            if message.role == "assistant":
                before = render_text(tokenizer, messages[:index], prompt=True)
                turn = render_text(tokenizer, messages[: index + 1], prompt=False)[len(before):]
                wanted += turn[: turn.index(stop) + len(stop)] if stop in turn else turn
        text = tokenizer.decode([i for i, on in zip(found.ids, found.loss) if on], skip_special_tokens=False)
        if _squeeze(text) != _squeeze(wanted):
            return _finding(1, False, f"the tokens of example {example.id} that carry loss read {text[:80]!r} but its "
                            f"answers read {wanted[:80]!r}")
    return None


def _squeeze(text: str) -> str:
    return "".join(text.split())


def check_stop(tokenizer: Any, rendered: Sequence[Rendered], stop_ids: Sequence[int]) -> Finding:
    """Point 2: the closing token is a target of every assistant turn, and the first that serving stops on."""
    stop = tokenizer.convert_ids_to_tokens(stop_ids[0])
    for example in rendered:
        taught = sum(1 for i, on in zip(example.ids, example.loss) if on and i == stop_ids[0])
        if example.turns and taught != example.turns:
            return _finding(2, False, f"{stop} is a target {taught} times in the {example.turns} assistant turns of "
                            f"example {example.id}, so the model would not learn to stop", stop=stop)
    return _finding(2, True, f"{stop} closes and is learned in every assistant turn; serving stops on "
                    f"{', '.join(tokenizer.convert_ids_to_tokens(list(stop_ids)))}", stop_ids=list(stop_ids))


def check_template(tokenizer: Any, examples: Sequence[Example], rendered: Sequence[Rendered], note: str,
                   system: str | None, *, limit: int = 200) -> Finding:
    """Point 3: the prompt that serving would send has exactly the tokens that training saw before the answer."""
    checked = differ = 0
    for example, found in zip(examples[:limit], rendered[:limit]):
        if isinstance(example.input, str):
            continue
        prompt = encode(tokenizer, render_text(tokenizer, messages_of(example, system)[:-1], prompt=True))
        length = len(found.loss) - found.loss[::-1].index(False) if False in found.loss else 0
        checked += 1
        differ += tuple(prompt) != found.ids[:length]
    if differ and differ == checked:
        return _finding(3, False, f"the prompts that serving sends differ from those in training in all {checked} "
                        f"examples that were compared; template: {note}", checked=checked, differ=differ)
    return _finding(3, True, f"template: {note}; prompts as served equal prompts as trained in {checked - differ} of "
                    f"{checked} compared", checked=checked, differ=differ)


def check_truncation(rendered: Sequence[Rendered], cut: Sequence[Rendered], *, max_length: int,
                     max_share: float) -> Finding:
    """Point 4: examples cut and supervised tokens lost."""
    number = sum(len(a.ids) != len(b.ids) for a, b in zip(rendered, cut))
    before, after = sum(e.num_supervised for e in rendered), sum(e.num_supervised for e in cut)
    share = (before - after) / max(before, 1)
    text = (f"{number:,} of {len(cut):,} examples cut at {max_length} tokens; {before - after:,} of {before:,} "
            f"supervised tokens lost ({share:.1%}, allowed {max_share:.1%})")
    if share > max_share:
        text += "; raise train.max_length, or train.max_truncated_share if the loss is acceptable"
    return _finding(4, share <= max_share, text, cut=number, lost=before - after, share=share)


@contextlib.contextmanager
def in_float32(module: Any) -> Iterator[bool]:
    """Compute in float32 and go back to the very same bits: bfloat16 rounds so coarsely (2e-3 of a short probe's loss
    on the starter) that the rounding alone would hide a fault. Yields False, and changes nothing, where the machine
    lacks the memory."""
    low = [p for p in module.parameters() if p.dtype != torch.float32]
    if sum(4 * p.numel() for p in low) > 0.7 * free_memory(next(module.parameters()).device):
        yield False
        return
    kinds = [p.dtype for p in low]
    for parameter in low:  # parameters only: rotary frequencies are float32 buffers and must stay so
        parameter.data = parameter.data.float()
    try:
        with full_float32():
            yield True
    finally:
        for parameter, kind in zip(low, kinds):
            parameter.data = parameter.data.to(kind)
            parameter.grad = None


@torch.no_grad()
def check_packing(learner: Learner, probe: Sequence[Rendered], *, tolerance: float = 1e-4,
                  coarse: float = 2e-2) -> Finding:
    """Point 5: the probe's loss in the layout that trains equals the sum of its examples' losses alone (relative), in
    float32 and evaluation mode; the precision that trains stays within `coarse` of it."""
    if learner.feed.layout == "none":
        return Finding(5, "does not apply", "examples are not packed", {})
    learner.module.eval()
    training = _loss(learner, probe, learner.feed.layout)
    with in_float32(learner.module) as exact:
        alone = sum(_loss(learner, [example], "none") for example in probe)
        # the reversed order puts every example beside other neighbours
        together = [_loss(learner, order, learner.feed.layout) for order in (probe, [*reversed(probe)])]
        dtype = next(learner.module.parameters()).dtype
    limit = tolerance if exact else coarse
    difference = max(abs(found - alone) for found in together) / max(abs(alone), 1e-9)
    rounding = abs(training - alone) / max(abs(alone), 1e-9)
    low = str(next(learner.module.parameters()).dtype).removeprefix("torch.")
    dtype = str(dtype).removeprefix("torch.")
    text = (f"{learner.feed.layout} loss differs from the loss of the same {len(probe)} examples alone by "
            f"{difference:.1e} relative ({dtype}, limit {limit:.0e})")
    if low != dtype:
        text += f"; in {low} by {rounding:.1e} (limit {coarse:.0e})"
    return _finding(5, difference <= limit and rounding <= coarse, text, difference=difference, rounding=rounding,
                    tolerance=limit, dtype=dtype, layout=learner.feed.layout)


def _loss(learner: Learner, examples: Sequence[Rendered], layout: Any) -> float:
    batch = collate(examples, layout)
    with rows_of(batch.lengths):
        return float(learner.objective(batch.to(learner.runtime.device), 1.0))


def check_accumulation(learner: Learner, probe: Sequence[Any], *, longest: int, tolerance: float = 1e-5,
                       coarse: float = 5e-2) -> Finding:
    """Point 6: loss and gradient of an update in several passes equal those of the same update in one pass (relative,
    for losses below 1 nat absolute, since logits are rounded and not what is left of them; the gradient's norm of
    difference within 10 times `tolerance`). In float32 and without dropout. `longest` is the size in tokens of the
    largest example, which then fills a pass by itself."""
    with in_float32(learner.module) as exact:
        (whole, gradient, _), (parts, summed, number) = (
            _gradient(learner, probe, tokens) for tokens in (1 << 30, longest))
    limit = tolerance if exact else coarse
    by_loss = abs(whole - parts) / max(abs(whole), 1.0)
    by_gradient = float((gradient - summed).norm() / gradient.norm().clamp_min(1e-12))
    return _finding(6, max(by_loss, by_gradient / 10) <= limit,
                    f"an update in {number} passes equals the same in one: loss differs by {by_loss:.1e}, gradient by "
                    f"{by_gradient:.1e} relative (limits {limit:.0e}, {10 * limit:.0e})",
                    loss=by_loss, gradient=by_gradient, passes=number)


def _gradient(learner: Learner, probe: Sequence[Any], pass_tokens: int) -> tuple[float, torch.Tensor, int]:
    """Loss and gradient of one update with passes of a given size; the learner is left as it was."""
    before, training = learner.feed.pass_tokens, learner.module.train
    learner.module.train = lambda mode=True: training(False)  # without dropout, or the two would differ by chance
    learner.feed.pass_tokens = pass_tokens
    try:
        loss, _, passes = learner.gradients(probe)
        return loss, torch.cat([gradient.flatten() for gradient in learner.optimizer.gradients()]), len(passes)
    finally:
        learner.feed.pass_tokens = before
        del learner.module.train
        learner.optimizer.adam.zero_grad(set_to_none=True)


def check_labels() -> Finding:
    return Finding(8, "does not apply", "an assistant has no class labels", {})


def check_resume(learner: Learner, probe: Sequence[Any], save: Callable[[], None],
                 load: Callable[[], None]) -> Finding:
    """Point 10, in small: two updates in a row, and the same two with a save and a reload between, end bit-equal.

    Leaves weights, optimizer and random state as they were.
    """
    start = learner.state()
    start = {name: tensor.clone() for name, tensor in start.items()}
    random = torch.get_rng_state()

    def update() -> None:
        learner.update(probe, learning_rate=1e-3, step=0, epoch=0)

    update()
    save()
    update()
    straight = learner.weights()
    learner.load(start)
    load()
    update()
    resumed = learner.weights()
    learner.load(start)
    torch.set_rng_state(random)
    differ = [name for name in straight if not torch.equal(straight[name], resumed[name])]
    return _finding(10, not differ, "a run saved and resumed after one update ends with the same bits as one that was "
                    "not interrupted" if not differ else f"a resumed run ends with other weights, first in {differ[0]}",
                    differ=len(differ))


def frozen_hash(module: Any) -> str:
    """Hash of all parameters and buffers that must not change."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.requires_grad:
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def check_groups(model: Model, before: dict[str, torch.Tensor], learner: Learner, frozen: str,
                 step: int, rate: float) -> Finding:
    """Point 9: every layer group moved in the first update, and the frozen weights are bit-identical."""
    after = learner.optimizer.weights()
    rates = learner.optimizer.factors()
    shrink = {name: 1 - rate * rates[name] * decay for name, decay in learner.optimizer.decays().items()}
    moving = {name for name, old in before.items()  # weight decay alone shrinks a matrix that learns nothing
              if not torch.equal(after[name], old) and not torch.equal(after[name], old * shrink[name])}
    active = {group: names for group, names in model.groups.items() if any(rates[name] for name in names)}
    still = [group for group, names in active.items() if not any(name in moving for name in names)]
    moved = len(moving)
    facts = {"groups": len(model.groups), "moved": moved, "trainable": len(before), "step": step}
    if still:
        return Finding(9, "violated", f"update {step} moved nothing in {', '.join(still[:5])}; these weights "
                                "are meant to train", facts)
    if frozen_hash(model.module) != frozen or any(name in moving for name, factor in rates.items() if not factor):
        return Finding(9, "violated", f"update {step} changed weights that are frozen", facts)
    return Finding(9, "kept", f"update {step} moved all {len(active)} layer groups that learn "
                            f"({moved} of {len(before)} tensors); frozen weights are bit-identical", facts)


def write_preview(path: Path, tokenizer: Any, rendered: Sequence[Rendered], *, limit: int = 12) -> None:
    """A page with the tokens of some examples, coloured by whether they carry loss."""
    chosen = [rendered[round(index * (len(rendered) - 1) / max(1, min(limit, len(rendered)) - 1))]
              for index in range(min(limit, len(rendered)))]
    blocks = []
    for example in chosen:
        spans = []
        for token, on in zip(example.ids, example.loss):
            text = html.escape(tokenizer.decode([token], skip_special_tokens=False))
            text = text.replace("\n", "&#9166;\n")
            spans.append(f'<span class="{"on" if on else "off"}">{text}</span>')
        share = f"{example.num_supervised} of {len(example.ids)} tokens carry loss"
        blocks.append(f"<h2>{html.escape(example.id)} <small>{share}</small></h2><p>{''.join(spans)}</p>")
    write_text(path, PAGE.replace("BLOCKS", "\n".join(blocks)))


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>What the model learns from</title><style>
body{font:15px/1.6 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.4rem}h2{font-size:1rem;margin-top:2rem}small{font-weight:normal;color:#666}
p{white-space:pre-wrap;word-break:break-word;border:1px solid #ddd;border-radius:6px;padding:.8rem}
.on{background:#c9f0d3}.off{color:#777}.on:nth-child(even){background:#b7e6c4}
</style><h1>What the model learns from</h1>
<p><span class="on">Green tokens carry loss: the model learns to write them.</span>
<span class="off">Grey tokens are read only.</span></p>
BLOCKS
</html>
"""
