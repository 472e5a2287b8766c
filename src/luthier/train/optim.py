"""AdamW with float32 master weights, warm-up, schedules and clipping.

Parameters may be bfloat16 for speed; what the optimizer changes is their float32 copy, because an update smaller than
1/256 of a bfloat16 weight would vanish. Gradients of an update's passes are summed in float32 too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

Schedule = Literal["constant", "linear", "cosine", "one_cycle", "plateau"]


def rate(step: int, *, total: int, peak: float, warmup: int, schedule: Schedule) -> float:
    """Learning rate of update `step` (from 0) of `total`: a linear climb over `warmup` updates, then the schedule down
    to zero after the last update. The first update already learns. `one_cycle` climbs from a 25th of the peak over 30 %
    of the updates and falls along a cosine to 4e-6 of it (Smith & Topin 2018; equal to torch's OneCycleLR with its
    defaults); `plateau` stays at the peak here, a filter of the stream lowers it."""
    if schedule == "one_cycle":
        top = 0.3 * total - 1
        if step <= top:
            return _cosine(peak / 25, peak, step / top if top else 1.0)
        return _cosine(peak, peak * 4e-6, (step - top) / max(total - 1 - top, 1e-9))
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if schedule in ("constant", "plateau"):
        return peak
    left = 1 - (step - warmup) / max(1, total - warmup)
    return peak * (left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))


class MasterAdamW:
    """torch's AdamW over float32 masters of named parameters; weight decay spares norms and biases, and those named in
    `spared`."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, weight_decay: float, spared: Sequence[str] = (),
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        self.parameters = dict(parameters)
        self.masters = {
            name: parameter if parameter.dtype == torch.float32
            else parameter.detach().to(torch.float32).clone().requires_grad_(True)
            for name, parameter in self.parameters.items()
        }
        rest = {name for name, master in self.masters.items() if master.ndim < 2 or name in spared}
        groups = [{"params": [master for name, master in self.masters.items() if (name in rest) == free],
                   "weight_decay": 0.0 if free else weight_decay} for free in (False, True)]
        fused = all(master.device.type == "cpu" for master in self.masters.values())  # one walk over memory, not ten
        self.adam = torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=betas, eps=eps,
                                      fused=fused)

    def set_factors(self, factors: Mapping[str, float]) -> None:
        """Each parameter learns at the rate times its factor; one without a factor stands still. Moments are kept."""
        decays = self.decays()
        groups: dict[tuple[float, float], list[torch.Tensor]] = {}
        for name, master in self.masters.items():
            groups.setdefault((decays[name], factors.get(name, 0.0)), []).append(master)
        kept = {key: value for key, value in self.adam.param_groups[0].items()
                if key not in ("params", "weight_decay", "factor")}
        self.adam.param_groups = [{**kept, "params": masters, "weight_decay": decay, "factor": factor}
                                  for (decay, factor), masters in sorted(groups.items(), key=lambda item: item[0])]

    def gather(self) -> None:
        """Move the gradients of one pass from the parameters to their masters."""
        for name, parameter in self.parameters.items():
            master = self.masters[name]
            if master is parameter or parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.to(torch.float32)
            else:
                master.grad.add_(parameter.grad)
            parameter.grad = None

    def fill(self) -> None:
        """Zero gradients where no pass of this rank reached a master, so that all ranks sum the same tensors."""
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)

    def decays(self) -> dict[str, float]:
        """Weight decay of every parameter."""
        found = {id(parameter): group["weight_decay"] for group in self.adam.param_groups
                 for parameter in group["params"]}
        return {name: found[id(master)] for name, master in self.masters.items()}

    def factors(self) -> dict[str, float]:
        """Factor of the learning rate of every parameter; 0 for a frozen one."""
        found = {id(parameter): group.get("factor", 1.0) for group in self.adam.param_groups
                 for parameter in group["params"]}
        return {name: found[id(master)] for name, master in self.masters.items()}

    def gradients(self) -> list[torch.Tensor]:
        return [master.grad for master in self.masters.values() if master.grad is not None]

    def clip(self, limit: float) -> float:
        """Scale all gradients to a common norm of at most `limit` (0: leave them); returns the norm before."""
        norm = torch.nn.utils.get_total_norm(self.gradients())
        if limit > 0:
            torch.nn.utils.clip_grads_with_norm_(self.masters.values(), limit, norm)
        return float(norm)

    def step(self, learning_rate: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = learning_rate * group.get("factor", 1.0)
            if not group["lr"]:  # a frozen weight is not even touched
                for master in group["params"]:
                    master.grad = None
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the parameters that compute."""
        for name, parameter in self.parameters.items():
            if self.masters[name] is not parameter:
                parameter.copy_(self.masters[name])

    @torch.no_grad()
    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of the float32 weights."""
        return {name: master.detach().clone().cpu() for name, master in self.masters.items()}

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, master in self.masters.items():
            master.copy_(weights[name])
        self.publish()

    def state(self) -> dict[str, torch.Tensor]:
        """Masters and moments as flat tensors, for a checkpoint."""
        flat = {f"weight/{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for key, value in self.adam.state.get(master, {}).items():
                flat[f"{key}/{name}"] = value
        return flat

    @torch.no_grad()
    def load(self, flat: Mapping[str, torch.Tensor]) -> None:
        self.set_weights({name: flat[f"weight/{name}"] for name in self.masters})
        self.adam.state.clear()
        self.adam.zero_grad(set_to_none=True)
        for name, master in self.masters.items():
            if f"step/{name}" in flat:
                # laid out in memory as the weight is (channels last, say): the fused step walks over both alike
                moments = {key: torch.empty_like(master, requires_grad=False).copy_(flat[f"{key}/{name}"])
                           for key in ("exp_avg", "exp_avg_sq")}
                self.adam.state[master] = {"step": flat[f"step/{name}"].clone().cpu(), **moments}
