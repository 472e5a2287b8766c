"""Point 11 of the contract: the exported model answers probe prompts as the trained one does.

What goes wrong elsewhere without anybody noticing: a merge into rounded weights, an export of the base instead of the
tuned model, another chat template or stop token in the exported folder. So the trained model (base + adapter, float32)
and the folder, loaded afresh from disk, answer the same prompts; greedy answers must be the same tokens and the logits
must agree as far as float32 arithmetic allows. A folder in bfloat16 is another model: its distance is measured and
bounded by the gate.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luthier.errors import ContractError, DataError, ModelError
from luthier.progress import Progress, Silent
from luthier.task import Task
from luthier.types import Example, Message, digest

if TYPE_CHECKING:
    import torch

    from luthier.store import Artifact

TOLERANCE = 2e-4
"""Greatest logit difference in float32, relative to the largest logit. Merging W + BA changes the order of sums;
measured on the starter: 2e-6 (8 answers, 249 tokens)."""


@dataclass(frozen=True)
class Answers:
    """What one model says to the probe prompts."""

    prompts: list[list[int]]
    tokens: list[list[int]]
    """Greedy answers."""
    logits: list[torch.Tensor]
    """Per prompt [len(trained answer), vocabulary], float32: the model's logits along the trained model's answer."""
    texts: list[str]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The comparison, as parity.json holds it."""

    dtype: str
    num_prompts: int
    num_tokens: int
    """Tokens of the trained model's answers, on which everything below stands."""
    identical_answers: int
    near_ties: int
    """Answers that part at two tokens whose logits are closer than the measured rounding difference."""
    agreement: float
    """Share of the tokens that the exported model would choose as well, given the same text before."""
    max_logit_difference: float
    max_logit: float
    changed_tensors: int
    num_tensors: int
    """Weight matrices and vectors of the export, and how many of them differ from the base model's."""
    bfloat16: dict[str, float] | None = None
    """Agreement and logit difference when the float32 export computes in bfloat16, as a server may choose to."""
    answers: list[dict[str, str]] = field(default_factory=list)
    """The prompts' last 200 characters and both answers."""

    def dump(self) -> dict[str, Any]:
        return dict(self.__dict__)

    @property
    def sentence(self) -> str:
        exact = (f"{self.identical_answers} of {self.num_prompts} probe answers are the same tokens"
                 + (f" ({self.near_ties} part at a tie)" if self.near_ties else ""))
        return (f"{exact}, {self.agreement:.1%} of {self.num_tokens} tokens agree, largest logit difference "
                f"{self.max_logit_difference:.2g} of {self.max_logit:.3g}; {self.changed_tensors} of "
                f"{self.num_tensors} tensors differ from the base")


def probes(examples: Iterable[Example]) -> list[Example]:
    """The examples in an order that a hash of their ids fixes: the same data gives the same first few."""
    return sorted(examples, key=lambda example: digest("probe", example.id))


def prompt_ids(tokenizer: Any, task: Task, example: Example) -> list[int]:
    """The tokens before an example's answer, as serving would send them."""
    from luthier.models.generate import encode_prompt

    if isinstance(example.input, str):
        words = example.input.split()
        text = " ".join(words[: max(1, min(48, len(words) // 2))])  # a completion model continues the first half
        return tokenizer(text)["input_ids"]
    messages = example.input
    if task.system and messages[0].role != "system":
        messages = (Message(role="system", content=task.system), *messages)
    return encode_prompt(tokenizer, messages)


def ask(module: Any, tokenizer: Any, stop_ids: Sequence[int], prompts: Sequence[Sequence[int]], *,
        max_new_tokens: int, along: Sequence[Sequence[int]] | None = None, progress: Progress = Silent(),
        what: str = "parity") -> Answers:
    """Greedy answers to `prompts`, and the logits along the answers `along` (the model's own if left out)."""
    from luthier.models.generate import LocalChat

    said = LocalChat(module, tokenizer, stop_ids).complete_tokens(prompts, max_new_tokens=max_new_tokens,
                                                                  progress=progress, what=what)
    tokens = [list(one.tokens) for one in said]
    return Answers(prompts=[list(prompt) for prompt in prompts], tokens=tokens, texts=[one.text for one in said],
                   logits=logits_along(module, prompts, tokens if along is None else along))


def logits_along(module: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
                 ) -> list[torch.Tensor]:
    """Logits [tokens, vocabulary] that predict each answer token, one prompt at a time, so that no padding mixes in."""
    import torch

    module.eval()
    found = []
    with torch.inference_mode():
        for prompt, answer in zip(prompts, answers):
            ids = torch.tensor([[*prompt, *answer]], device=next(module.parameters()).device)
            logits = module(input_ids=ids).logits[0, len(prompt) - 1:-1]
            found.append(logits.float().cpu())
    return found


def compare(trained: Answers, exported: Answers, *, dtype: str, changed: tuple[int, int],
            bfloat16: list[torch.Tensor] | None = None, prompts: Sequence[str] = ()) -> Parity:
    """Measure the distance of two models' answers; ContractError where a float32 export is not the trained model."""
    pairs = list(zip(trained.tokens, exported.tokens))
    gap, peak, agreement = _distance(trained, exported.logits)
    ties = [number for number, (mine, theirs) in enumerate(pairs) if mine != theirs
            and _tied(trained.logits[number], mine, theirs, gap)]
    parity = Parity(
        dtype=dtype, num_prompts=len(pairs), num_tokens=sum(len(mine) for mine, _ in pairs),
        identical_answers=sum(mine == theirs for mine, theirs in pairs), near_ties=len(ties), agreement=agreement,
        max_logit_difference=gap, max_logit=peak, changed_tensors=changed[0], num_tensors=changed[1],
        bfloat16=None if bfloat16 is None else _lower(trained, bfloat16),
        answers=[{"prompt": prompt[-200:], "trained": mine, "exported": theirs}
                 for prompt, mine, theirs in zip(prompts, trained.texts, exported.texts)],
    )
    if changed[0] == 0:
        raise ContractError(
            f"parity (point 11): all {changed[1]} tensors of the exported model equal the base model's, so the export "
            "does not hold what was learned; train again, or look for a training that changed nothing"
        )
    if dtype == "float32":
        parted = [number for number, (mine, theirs) in enumerate(pairs) if mine != theirs and number not in ties]
        if gap > TOLERANCE * peak or parted:
            worst = f" (probe {parted[0] + 1}: trained {trained.texts[parted[0]]!r:.80}, " \
                    f"exported {exported.texts[parted[0]]!r:.80})" if parted else ""
            raise ContractError(
                f"parity (point 11): the exported model is not the trained one: {len(parted)} of {len(pairs)} greedy "
                f"answers differ, largest logit difference {gap:.3g} (allowed {TOLERANCE * peak:.3g}){worst}; "
                "release again from the training's own artifact"
            )
    return parity


def _distance(trained: Answers, other: Sequence[torch.Tensor]) -> tuple[float, float, float]:
    """Largest logit difference, largest logit, and share of tokens that both choose."""
    gap = max(float((mine - theirs).abs().max()) for mine, theirs in zip(trained.logits, other))
    peak = max(float(mine.abs().max()) for mine in trained.logits)
    same = sum(int((mine.argmax(-1) == theirs.argmax(-1)).sum()) for mine, theirs in zip(trained.logits, other))
    return gap, peak, same / sum(len(mine) for mine in trained.logits)


def _lower(trained: Answers, logits: Sequence[torch.Tensor]) -> dict[str, float]:
    gap, _, agreement = _distance(trained, logits)
    return {"agreement": agreement, "max_logit_difference": gap}


def _tied(logits: torch.Tensor, mine: Sequence[int], theirs: Sequence[int], gap: float) -> bool:
    """Whether two answers part at tokens that the trained model finds equally likely within rounding."""
    at = next((place for place, (a, b) in enumerate(zip(mine, theirs)) if a != b), None)
    if at is None:  # one answer is the beginning of the other: it ended without a stop token, which is no tie
        return False
    return float(logits[at, mine[at]] - logits[at, theirs[at]]) <= 2 * gap <= 2 * TOLERANCE * float(logits.abs().max())


def changed_tensors(exported: Path, base: Path) -> tuple[int, int]:
    """How many of the export's tensors differ from the base's, and how many it has.

    Compared in the export's number format, so that rounding alone is no change. A tensor that the base lacks counts
    as changed.
    """
    import torch
    from safetensors import safe_open

    where: dict[str, Path] = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            where |= dict.fromkeys(stored.keys(), file)
    changed = total = 0
    for file in sorted(exported.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 (a safe_open handle cannot be iterated)
                total += 1
                known = name if name in where else name.partition(".")[2]  # hub files of GPT-2 lack the prefix
                if known not in where:
                    changed += 1
                    continue
                tensor = stored.get_tensor(name)
                with safe_open(where[known], framework="pt") as other:
                    old = other.get_tensor(known)
                changed += tensor.shape != old.shape or not torch.equal(tensor, old.to(tensor.dtype))
    return changed, total


def export_checked(run: Artifact, model: Artifact, folder: Path, *, base: Path, dtype: Literal["float32", "bfloat16"],
                   examples: Iterable[Example], num_probes: int, max_new_tokens: int,
                   progress: Progress = Silent()) -> Parity:
    """Export the weights of a run into `folder`, load that folder afresh and compare it with the trained model.

    The first `num_probes` examples whose prompt leaves room for the answer are asked. `base` is the base model's
    folder. Raises ContractError when the export is not the trained model.
    """
    import torch

    from luthier.adapt.export import export_merged
    from luthier.models.generate import context_length, load_module, stop_tokens
    from luthier.train.base import open_tuned

    trained = open_tuned(run, model, dtype="float32")
    task, stop_ids, tokenizer = trained.task, trained.stop_ids, trained.tokenizer
    room = context_length(trained.module)
    chosen: list[tuple[Example, list[int]]] = []
    for example in examples:
        ids = prompt_ids(tokenizer, task, example)
        if ids and (room is None or len(ids) + max_new_tokens <= room):
            chosen.append((example, ids))
        if len(chosen) == num_probes:
            break
    if not chosen:
        raise DataError(f"no example leaves room for {max_new_tokens} tokens of answer in the model's context of "
                        f"{room}; lower release.probe_tokens")
    prompts = [ids for _, ids in chosen]
    before = ask(trained.module, tokenizer, stop_ids, prompts, max_new_tokens=max_new_tokens, progress=progress,
                 what="probe the trained model")
    del trained  # one model in memory at a time
    gc.collect()
    try:
        export_merged(run, model, folder, dtype=dtype)
    except ModelError as error:  # the base and the run were opened above, so this is about the export itself
        raise ContractError(f"parity (point 11): {error}") from None
    module, tokenizer = load_module(folder, dtype=dtype, device="cpu")
    for example, ids in chosen:
        if prompt_ids(tokenizer, task, example) != ids:
            raise ContractError(f"parity (point 11): the tokenizer or chat template exported to {folder} turns the "
                                f"probe prompt {example.question[-80:]!r} into other tokens than the trained model's")
    if stop_ids[0] not in stop_tokens(module, tokenizer):
        raise ContractError(f"parity (point 11): the model exported to {folder} does not stop on token {stop_ids[0]}, "
                            "which ends the answers that it was trained on")
    after = ask(module, tokenizer, stop_ids, prompts, max_new_tokens=max_new_tokens, along=before.tokens,
                progress=progress, what="probe the exported model")
    lower = None
    if dtype == "float32":  # a server may compute in bfloat16 where the processor does: say how far away that is
        lower = logits_along(module.to(torch.bfloat16), prompts, before.tokens)
    return compare(before, after, dtype=dtype, changed=changed_tensors(folder, base), bfloat16=lower,
                   prompts=[example.question for example, _ in chosen])
