"""Merge an adapter into its base and write one plain Hugging Face folder, checked against silent mistakes.

Peers have exported the untouched base (LlamaFactory#9051) and merges that answer differently (LlamaFactory#10596).
Here the folder is read back: its weights must differ from the base's, and its logits must equal those of base plus
adapter on a probe.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from luthier.adapt.base import Model, load_module, open_base, quiet, read_facts
from luthier.adapt.template import PROBE, encode, render_text
from luthier.errors import ContractError, ModelError
from luthier.store import Artifact, tell_disk_trouble, write_json


def export_merged(run: Artifact, model: Artifact, folder: Path, dtype: Literal["float32", "bfloat16"] = "float32",
                  ) -> dict[str, Any]:
    """Write config, safetensors in `dtype`, tokenizer, chat template and generation settings (stop tokens) to `folder`.

    Merging happens in float32. Returns figures: `changed` (share of tensors that differ from the base),
    `max_logit_difference` (float32, merged against base + adapter on a probe prompt), `rounding_difference` (the
    written `dtype` against float32). Raises ModelError when the result is the base model, or is not base + adapter.
    A run whose best weights are the untrained ones (best step 0) is the base model by its own account and passes.
    """
    import torch

    base = open_base(model, dtype="float32")
    probe = torch.tensor([_probe_ids(base)])
    before = {name: tensor.clone() for name, tensor in base.module.state_dict().items()}
    tuned = base.method.restore(base.module, run.path / "best").eval()
    with torch.no_grad():
        wanted = tuned(input_ids=probe).logits.float()
    merged = base.method.merge(tuned).eval()
    with torch.no_grad():
        found = merged(input_ids=probe).logits.float()
    difference = float((wanted - found).abs().max())
    limit = 1e-3 * max(1.0, float(wanted.abs().max()))
    if difference > limit:
        raise ModelError(f"merging run {run.id} changed its answers: logits differ by {difference:.2e} (limit "
                         f"{limit:.0e}); the adapter cannot be merged faithfully")
    merged.to({"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype])
    write_folder(merged, base, folder)

    again = load_module(folder, source=str(folder), dtype=dtype)
    state = again.state_dict()
    changed = [name for name, tensor in before.items()
               if name in state and not torch.equal(tensor.to(state[name].dtype), state[name])]
    if not changed and run.summary.get("best_step") != 0:
        raise ModelError(f"the export of run {run.id} at {folder} equals the base model: the adapter was lost; "
                         "delete it and export again")
    written = merged.state_dict()
    lost = [name for name in written if name in state and not torch.equal(written[name], state[name])]
    if lost or set(state) != set(before):
        raise ModelError(f"the export of run {run.id} at {folder} does not read back as it was written "
                         f"({(lost or sorted(set(state) ^ set(before)))[0]})")
    with torch.no_grad():
        rounded = again(input_ids=probe).logits.float()
    return {"changed": len(changed) / len(before), "max_logit_difference": difference,
            "rounding_difference": float((rounded - wanted).abs().max()), "dtype": dtype}


def write_folder(module: Any, model: Model, folder: Path) -> None:
    """A Hugging Face folder that serves alone: weights, tokenizer, template, stop tokens."""
    with quiet(), tell_disk_trouble(folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
        module.generation_config.eos_token_id = list(model.stop_ids)
        if model.tokenizer.pad_token_id is not None:
            module.generation_config.pad_token_id = model.tokenizer.pad_token_id
        module.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        facts = read_facts(model.artifact)
        write_json(folder / "luthier.json", {key: facts[key] for key in (
            "source", "fingerprint", "task", "stop_ids", "template_note", "method")})


def check_stops(folder: Path, stop_ids: tuple[int, ...]) -> None:
    """Contract point 2 on the serving side: the folder's generation settings stop on the trained stop token."""
    settings = json.loads((folder / "generation_config.json").read_text("utf-8"))
    found = settings.get("eos_token_id")
    found = [found] if isinstance(found, int) else found or []
    if stop_ids[0] not in found:
        raise ContractError(f"contract point 2 (stop token): {folder}/generation_config.json stops on {found}, but the "
                            f"model was trained to stop with {stop_ids[0]}; export it again")


def _probe_ids(model: Model) -> list[int]:
    if model.tokenizer.chat_template:
        return encode(model.tokenizer, render_text(model.tokenizer, PROBE, prompt=False))
    return list(model.tokenizer("The key is under the mat.")["input_ids"])
