"""What a release of an assistant or a completion model holds: merged weights that were checked, the index, the card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.errors import ContractError, DataError, ModelError
from luthier.models.sources import resolve
from luthier.progress import Progress
from luthier.release.base import Parts, Release, blended
from luthier.release.card import model_card
from luthier.release.gate import TUNED, System
from luthier.store import Artifact, Store, write_json
from luthier.types import read_jsonl


def make_parts(part: Path, *, choice: System, run: Artifact, model: Artifact, index: Artifact | None, data: Artifact,
               spec: Release, store: Store, lineage: dict[str, str], root: Path, progress: Progress) -> Parts:
    """Tuned weights and index of an assistant or a completion model."""
    facts = json.loads((model.path / "adapt.json").read_text("utf-8"))
    base = _base(facts, part, spec, root)
    tuned, parity = _export(part, choice=choice, run=run, model=model, data=data, spec=spec, base=base["at"],
                            progress=progress)
    if index is not None:
        _copy_index(index, part / "index")
    record = {
        "systems": _systems(with_index=index is not None, with_tuned=tuned["present"]),
        "base": {name: value for name, value in base.items() if name != "at"}, "tuned": tuned,
        "encoder": _encoder(part / "index"), "template": facts["template"], "stop_ids": list(facts["stop_ids"]),
    }
    lower = parity["agreement"] if parity is not None and spec.dtype != "float32" and choice in TUNED else None
    return Parts(record=record, agreement=lower, card=lambda record, found: model_card(
        record, found, _made_from(run, data, store, lineage), parity, base["at"]))


def _base(facts: Mapping[str, Any], part: Path, spec: Release, root: Path) -> dict[str, Any]:
    """The base model as it was tested; ModelError if its files changed since."""
    source = resolve(facts["source"], root=Path(facts.get("root", root)))
    if source.fingerprint != facts["fingerprint"]:
        raise ModelError(f"the base model '{facts['source']}' at {source.folder} changed since it was tested; "
                         "run `luthier run` again")
    at = source.folder
    if spec.base_weights == "copied":
        at = part / "base"
        shutil.copytree(source.folder, at, copy_function=shutil.copyfile,
                        ignore=lambda _, names: {name for name in names if name.startswith(".")})
    return {"source": facts["source"], "folder": str(source.folder), "fingerprint": source.fingerprint,
            "name": facts["name"], "bundled": spec.base_weights == "copied", "at": at}


def _export(part: Path, *, choice: System, run: Artifact, model: Artifact, data: Artifact, spec: Release, base: Path,
            progress: Progress) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Merge and check the tuned weights; tells whether they are there, and what parity found."""
    chosen = choice in TUNED
    if not chosen and spec.tuned_weights == "passed":
        return {"present": False, "passed": False, "why": f"the release is '{choice}'; tuned_weights is 'passed'"}, None
    from luthier.prepare.base import read_examples
    from luthier.release.parity import export_checked, probes

    examples = [example for split in ("test", "validation", "train") for example in probes(read_examples(data, split))]
    if not examples:
        raise DataError("there are no examples to probe the exported model with; run `luthier prepare` again")
    try:
        parity = export_checked(run, model, part / "model", base=base, dtype=spec.dtype, examples=examples,
                                num_probes=spec.probes, max_new_tokens=spec.probe_tokens, progress=progress)
    except ContractError as error:
        if chosen:
            raise
        shutil.rmtree(part / "model", ignore_errors=True)  # the released system does not need them
        progress.say(f"  the tuned weights are left out: {error}")
        return {"present": False, "passed": False, "why": str(error)}, None
    progress.say(f"  parity: {parity.sentence}")
    write_json(part / "parity.json", parity.dump())
    why = "" if chosen else f"the test chose '{choice}'"
    return {"present": True, "passed": chosen, "why": why}, parity.dump()


def _copy_index(index: Artifact, to: Path) -> None:
    bookkeeping = {"spec.json", "inputs.json", "DONE"}  # the store's own files, which mean nothing outside of it
    shutil.copytree(index.path, to, copy_function=shutil.copyfile,
                    ignore=lambda at, names: bookkeeping & set(names) if Path(at) == index.path else set())


def _systems(*, with_index: bool, with_tuned: bool) -> list[System]:
    """What can be served: the base always, retrieval where there is an index, tuned where there are weights."""
    found: list[System] = ["base"]
    if with_index:
        found.append("retrieval")
    if with_tuned:
        found.append("tuned")
    if with_tuned and with_index:
        found.append("tuned_retrieval")
    return found


def _encoder(index: Path) -> dict[str, Any]:
    if not index.is_dir():
        return {"source": None, "fingerprint": None}
    told = json.loads((index / "index.json").read_text("utf-8"))
    words = told["spec"].get("mode") == "keywords"
    return {"source": None if words else told["spec"]["encoder"], "fingerprint": told.get("encoder")}


def _made_from(run: Artifact, data: Artifact, store: Store, lineage: Mapping[str, str]) -> dict[str, Any]:
    """Plain sentences about documents, examples and training, for the model card."""
    lines = []
    ingested = store.find("ingest", lineage.get("ingest", "/").partition("/")[2])
    if ingested is not None and (ingested.path / "documents.jsonl").is_file():
        rows = list(read_jsonl(ingested.path / "documents.jsonl"))
        media = sorted({str(row["path"]).rpartition(".")[2].lower() for row in rows})
        lines.append(f"{len(rows)} documents ({', '.join(media)}): {lineage['ingest']}")
    counts: dict[tuple[str, str], int] = {}
    for row in read_jsonl(data.path / "examples.jsonl"):
        place = row["split"], row["origin"]["maker"]
        counts[place] = counts.get(place, 0) + 1
    makers = {"human": "written by people", "document": "found in the documents", "rule": "made by rules from them",
              "teacher": "written by a model"}
    for split in ("train", "validation", "test"):
        parts = [f"{count} {makers.get(maker, maker)}" for (at, maker), count in sorted(counts.items()) if at == split]
        total = sum(count for (at, _), count in counts.items() if at == split)
        if parts:
            lines.append(f"{total} {split} examples ({', '.join(parts)}): {lineage['prepare']}")
    losses = [run.summary.get(name) for name in ("validation_before", "validation_best")]
    gain = f", validation loss {losses[0]:.3f} → {losses[1]:.3f}" if None not in losses else ""
    steps = run.summary.get("steps")
    lines.append(f"training: {steps if steps is not None else 'an unrecorded number of'} steps{gain}: "
                 f"{lineage['train']}")
    return {"lines": [*lines, *blended(run)]}
