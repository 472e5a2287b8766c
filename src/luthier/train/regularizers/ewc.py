"""Elastic weight consolidation (Kirkpatrick et al. 2017): weights that mattered for earlier tasks are held in place.

The penalty is strength / 2 · sum of F_i (θ_i - θ*_i)², where F is the diagonal of the Fisher information of what was
learned before and θ* the weights that it was learned with. Half the sum is, to second order, the divergence in nats
per row between what the earlier model said and what this one says, so strength weighs a nat of the old against a nat
of the new. `online` keeps one running importance (Schwarz et al. 2018), `offline` one for each task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from luthier.errors import ModelError, SpecError
from luthier.plugins import register
from luthier.task import Task
from luthier.train.regularizers import REGULARIZERS, Regularizer, Setting

if TYPE_CHECKING:
    import torch

    from luthier.train.past import Past
    from luthier.train.regularizers import Penalty
    from luthier.train.regularizers._fisher import Way
    from luthier.train.regularizers._weights import Drift, Weight

Tensors = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What one earlier training, or several together, left behind, by weight name."""

    fisher: Tensors
    anchor: Tensors = field(default_factory=dict)
    """Weights it was learned with; those that are missing are the weights that this training begins from."""


@register(REGULARIZERS, "ewc")
class EWC(Regularizer):
    """Elastic weight consolidation: holds the weights that mattered for what was learned before."""

    needs_past = True

    strength: float = Field(default=1000.0, ge=0)
    """What a nat (of divergence from the earlier model's answers, as estimated from the weights) costs, in nats of the
    new task's loss; useful values span 100 to 1,000,000. 0 is no penalty, but importances are still saved."""
    fisher: Literal["sampled", "exact", "empirical"] = "sampled"
    """How a row's importance is measured: with labels that the model draws (`sampled`, one gradient a row), with the
    expectation over all labels (`exact`, one gradient for each class and row, for classes only), or with the row's own
    label (`empirical`, which is too small where the model is always right)."""
    samples: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Train rows, drawn from the seed, on which importance is measured after training, one by one; `auto` is 500, and
    100 for the tasks assistant and completion, whose rows hold many tokens."""
    mode: Literal["online", "offline"] = "online"
    """`online` adds importances up and holds to the weights that training begins from; `offline` keeps the importances
    and the weights of every task, and holds to all of them (its memory grows with each)."""
    decay: float = Field(default=1.0, ge=0, le=1)
    """What earlier importances are multiplied by when new ones are added (online only); below 1, old tasks fade."""

    @model_validator(mode="after")
    def _decays_online(self) -> EWC:
        if self.mode == "offline" and self.decay != 1:
            raise ValueError("ewc.decay belongs to mode: online; every task keeps its own importances offline")
        return self

    def refuse_misfits(self, task: Task) -> None:
        if self.fisher == "exact" and task.type not in ("classify", "image", "embed"):
            raise SpecError(f"train.regularizers: ewc cannot sum over all labels of the task '{task.type}'; set "
                            "fisher: sampled")

    def bind(self, setting: Setting) -> Penalty | None:
        import torch

        from luthier.train.regularizers._weights import drifts

        if not self.strength or setting.past is None:
            return None
        moved = [*drifts(setting.model.module)]
        earlier = self._folded(self._earlier(setting, setting.past, [drift.weight for drift in moved]))
        pulls = [pull for drift in moved if (pull := _pull(earlier, drift)) is not None]
        if not pulls:
            raise ModelError(
                f"ewc does not know which weights of {setting.model.name} matter: the training that made it saved no "
                "importances for what trains now, and kept no rows to measure them on. Train it once more with ewc "
                "among train.regularizers, or with train.keep, and begin from that; or remove ewc"
            )
        self._tell(setting, pulls, of=len(moved))

        def penalty() -> torch.Tensor:
            total = torch.zeros((), dtype=torch.float32)
            for pull in pulls:
                total = total + pull().cpu()
            return self.strength * total

        return penalty

    def remember(self, setting: Setting) -> Tensors:
        from luthier.train.regularizers._fisher import estimate

        weights = _remembered(setting.model)
        found = estimate(setting.model, setting.rows, weights, self._way(setting), **_progress(setting))
        earlier = [] if setting.past is None else self._earlier(setting, setting.past, weights)
        if self.mode == "online":
            old = next((one.fisher for one in self._folded(earlier)), {})
            return {f"fisher/{name}": value.cpu() for name, value in _sum(old, found, decay=self.decay).items()}
        now = Learned(fisher=found, anchor={w.name: w.value() for w in weights if w.name in found})
        return {f"{at}/{part}/{name}": value.cpu() for at, one in enumerate([*earlier, now])
                for part, tensors in (("fisher", one.fisher), ("anchor", one.anchor))
                for name, value in tensors.items()}

    def _folded(self, earlier: Sequence[Learned]) -> Sequence[Learned]:
        """Online: all of them as one, held to the weights that training begins from."""
        if self.mode == "offline" or not earlier:
            return earlier
        total = earlier[0].fisher
        for one in earlier[1:]:
            total = _sum(total, one.fisher, decay=self.decay)
        return [Learned(fisher=total)]

    def _earlier(self, setting: Setting, past: Past, weights: Sequence[Weight]) -> list[Learned]:
        """What earlier trainings left, fitted to the outputs of now; what they did not measure is measured on the rows
        that they kept."""
        from luthier.train.regularizers._fisher import estimate
        from luthier.train.regularizers._weights import all_weights

        known = _read(past.kept.get(self.kind, {}))
        unknown = {weight.name for weight in weights} - {name for one in known for name in one.fisher}
        if unknown and past.rows:
            before = past.open()
            before.module.to(weights[0].base.device)
            theirs = [weight for weight in all_weights(before.module) if weight.name in unknown]
            rows = _as_rows(before, past.rows, setting)
            fisher = estimate(before, rows, theirs, self._way(setting, old=True), **_progress(setting))
            known.append(Learned(fisher=fisher, anchor={w.name: w.value() for w in theirs if w.name in fisher}))
        return [_fitted(one, setting, past) for one in known]

    def _way(self, setting: Setting, *, old: bool = False) -> Way:
        from luthier.train.regularizers._fisher import Way

        chunked = getattr(setting.objective, "kind", "") == "chunked"
        samples = self.samples if self.samples != "auto" else 500 if setting.model.task.labelled else 100
        way = Way(labels=self.fisher, samples=samples, seed=setting.seed, chunked=chunked)
        return way if old else replace(way, columns=setting.columns)  # they are places among the outputs of now

    def _tell(self, setting: Setting, pulls: Sequence[_Pull], *, of: int) -> None:
        """How hard the penalty holds, in nats: what one step of the full learning rate in every number would cost."""
        if setting.progress is None:
            return
        said = f"  ewc holds {len(pulls)} of {of} weight matrices and vectors that train"
        if setting.learning_rate:
            rate, stiffest = setting.learning_rate, max(pull.curvature() for pull in pulls)
            cost = self.strength * rate**2 * sum(pull.step_cost() for pull in pulls)
            stiff = self.strength * rate * stiffest
            said += (f"; a step of the full learning rate in all of them costs {cost:.2g} nats, and learning rate x "
                     f"strength x largest importance is {stiff:.2g}"
                     + (" (from 2 on, the stiffest swing by a step)" if stiff >= 2 else ""))
            if cost >= 1:
                said += (f". The new task will hardly be learned; try strength {self.strength * 0.1 / cost:.1g}, where "
                         "such a step costs 0.1 nats")
        setting.progress.say(said)


class _Pull:
    """1/2 · sum of F (change + gap)² + rest: the earlier tasks' parabolas of one weight, which add up to one."""

    def __init__(self, drift: Drift, fisher: torch.Tensor, gap: torch.Tensor | None, rest: float):
        turned = drift.weight.transposed
        self.drift, self.rest = drift, rest
        self.fisher = fisher.t().contiguous() if turned else fisher
        self.gap = gap.t().contiguous() if gap is not None and turned else gap

    def __call__(self) -> torch.Tensor:
        if self.drift.weight.pairs:
            from luthier.train.regularizers._product import product_pull

            return product_pull(*self.drift.factors(), self.fisher, self.gap) + self.rest
        change = self.drift.change()
        if self.gap is not None:
            change = change + self.gap
        return 0.5 * (self.fisher * change.square()).sum() + self.rest

    def curvature(self) -> float:
        """Largest second derivative (LoRA: a bound for it along B, at the A of now)."""
        if not self.drift.weight.pairs:
            return float(self.fisher.max())
        return max(scale**2 * float((self.fisher @ _squares(a, 0)).max()) for scale, a, _ in self.drift.weight.pairs)

    def step_cost(self) -> float:
        """What a step of size 1 in every number that trains adds to the parabola at its bottom (LoRA: a step of random
        signs, on average)."""
        if not self.drift.weight.pairs:
            return 0.5 * float(self.fisher.sum())
        return 0.5 * sum(scale**2 * (float((self.fisher @ _squares(a, 0)).sum())
                                     + float((self.fisher.t() @ _squares(b, 1)).sum()))
                         for scale, a, b in self.drift.weight.pairs)


def _squares(factor: torch.Tensor, dim: int) -> torch.Tensor:
    from luthier.train.regularizers._weights import wide

    return wide(factor.detach()).square().sum(dim)


def _pull(earlier: Sequence[Learned], drift: Drift) -> _Pull | None:
    """What holds one weight; None where nothing is known of it."""
    import torch

    weight = drift.weight
    known = [one for one in earlier if weight.name in one.fisher]
    if not known:
        return None
    start = weight.value()
    fishers = [one.fisher[weight.name].to(start) for one in known]
    if any(fisher.shape != start.shape for fisher in fishers):
        raise ModelError(f"ewc remembers {weight.name} as {list(fishers[0].shape)} numbers, and it has "
                         f"{list(start.shape)} now; begin from another model, or remove ewc")
    total = torch.stack(fishers).sum(0)
    if not any(weight.name in one.anchor for one in known):
        return _Pull(drift, total, None, 0.0)
    gaps = []
    for one in known:
        anchor = one.anchor.get(weight.name, start).to(start)
        if not weight.pairs or all(begin is None for begin in drift.starts):  # the start is rounded like the module
            anchor = anchor.to(weight.base.dtype).to(start)
        gaps.append(start - anchor)
    mean = sum(fisher * gap for fisher, gap in zip(fishers, gaps)) / total.clamp_min(torch.finfo(total.dtype).tiny)
    rest = sum(float((fisher.double() * (gap - mean).double().square()).sum()) for fisher, gap in zip(fishers, gaps))
    return _Pull(drift, total, mean if bool(mean.any()) else None, rest / 2)


def _sum(old: Tensors, new: Tensors, *, decay: float) -> dict[str, torch.Tensor]:
    """decay · old + new, for the names of either."""
    found = {name: decay * value for name, value in old.items()}
    for name, value in new.items():
        found[name] = value if name not in found else found[name].to(value) + value
    return found


def _read(kept: Tensors) -> list[Learned]:
    """What `remember` returned, in either mode."""
    parts: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    for key, value in kept.items():
        first, _, rest = key.partition("/")
        task, part, name = (0, first, rest) if not first.isdigit() else (int(first), *rest.split("/", 1))
        parts.setdefault((task, part), {})[name] = value
    return [Learned(fisher=parts[task, "fisher"], anchor=parts.get((task, "anchor"), {}))
            for task in sorted({task for task, _ in parts})]


def _fitted(one: Learned, setting: Setting, past: Past) -> Learned:
    """The rows of the output layer brought to the order of the labels of now; a new label's have no importance."""
    if not setting.model.task.labelled or past.labels == setting.model.labels:
        return one
    top = f"head.{len(setting.model.module.head) - 1}."

    def placed(tensors: Tensors) -> dict[str, torch.Tensor]:
        return {name: _placed(value, past.labels, setting.model.labels) if name.startswith(top) else value
                for name, value in tensors.items()}

    return Learned(fisher=placed(one.fisher), anchor=placed(one.anchor))


def _placed(value: torch.Tensor, old: Sequence[str], new: Sequence[str]) -> torch.Tensor:
    places = {label: at for at, label in enumerate(old)}
    found = value.new_zeros((len(new), *value.shape[1:]))
    for at, label in enumerate(new):
        if label in places:
            found[at] = value[places[label]]
    return found


def _remembered(model: Any) -> list[Weight]:
    """The weights that a later training of the same kind changes: those that LoRA stands beside and those that train by
    themselves, or all of them. What requires gradients does not tell it of a labelled task's finished model."""
    from luthier.train.regularizers._weights import all_weights

    weights = all_weights(model.module)
    if model.task.labelled:
        own = [w for w in weights if w.pairs or not w.name.startswith("backbone.")]
        return own if any(w.pairs for w in weights) else weights
    return [w for w in weights if w.trains] or [w for w in weights if w.pairs] or weights


def _as_rows(model: Any, examples: Sequence[Any], setting: Setting) -> Sequence[Any]:
    """Stored examples as the earlier model reads them."""
    if model.task.labelled:
        return model.rows(examples)
    from luthier.train.render import render

    longest = max((len(row.ids) for row in setting.rows), default=0)  # stored rows are not cut, and those of now are
    rows = [render(model.tokenizer, example, stop_id=model.stop_ids[0], system=model.task.system)
            for example in examples]
    rows = [row.cut(longest) if longest else row for row in rows]
    return [row for row in rows if row.num_supervised]


def _progress(setting: Setting) -> dict[str, Any]:
    return {} if setting.progress is None else {"progress": setting.progress}
