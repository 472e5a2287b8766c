"""`release`: judge a tested system by the gate, export and check it, and put it into a versioned folder for `serve`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from luthier.errors import GateRefused, SpecError, StoreError
from luthier.index.rag import Rag
from luthier.progress import Progress, Silent
from luthier.release import folder as on_disk
from luthier.release.folder import (
    ReleaseRecord,
    list_releases,
    live_release,
    promote,
    read_history,
    read_release,
    rollback,
)
from luthier.release.gate import UNTUNED, Check, Gate, System, failed
from luthier.spec import Spec
from luthier.store import Artifact, Store, _sync, _sync_tree, canonical, tell_disk_trouble, write_json, write_text
from luthier.task import Task
from luthier.types import digest

__all__ = ["Check", "Gate", "Release", "ReleaseRecord", "Succession", "list_releases", "live_release", "promote",
           "read_history", "read_release", "release", "released_as", "rollback"]

VERSION = 1
LABEL_SYSTEMS: tuple[System, ...] = ("tuned", *UNTUNED)
"""What can be released where a task has labels."""
FITTING: Mapping[str, tuple[System, ...]] = {
    "classify": ("tuned", "features", "tfidf"), "image": ("tuned", "features", "pixels"), "tag": ("tuned",),
    "embed": ("tuned", "base"),
}
"""The same by task."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a kind of task puts into the release folder."""

    record: Mapping[str, Any]
    """Its part of release.json: systems, base, tuned, encoder, template, stop_ids, and for labels `labels`."""
    agreement: float | None
    """What parity measured for weights in lower precision; None where there are none."""
    card: Callable[[Mapping[str, Any], Mapping[str, Any]], str]
    """The model card's text, from the whole record and the report."""


class Release(Spec):
    """What is released, under which name, and what it must have shown."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    """Name of the release: letters, digits, '-' and '_'; null takes the project's."""
    gate: Gate = Gate()
    """What the test must have shown."""
    system: Literal["auto", "tuned", "tuned_retrieval", "retrieval", "features", "tfidf", "pixels", "base"] = "auto"
    """System that the release stands for; `auto` takes the verdict's choice. Tasks with labels: `tuned`; classify and
    image: `features` (the untouched base model with a logistic regression on its features); classify: `tfidf`, image:
    `pixels` (logistic regressions without a base model); embed: `base` (the untouched encoder)."""
    tuned_weights: Literal["always", "passed"] = "always"
    """`always` also exports tuned weights that were not chosen, marked as not passed, so that people can compare them
    in the server; `passed` leaves them out."""
    base_weights: Literal["referenced", "copied"] = "referenced"
    """`copied` puts a copy of the base model into the release, so that the folder works where the source is missing."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the exported weights; bfloat16 halves the folder and is then a slightly different model, whose
    distance is measured and bounded by the gate."""
    probes: int = Field(default=8, ge=1, le=200)
    """Test prompts that trained and exported model must answer alike."""
    probe_tokens: int = Field(default=32, ge=1, le=1024)
    """Greatest length of those answers, in tokens."""
    approved_by: str = ""
    """Person who approves the release; recorded, and asked for where the gate's approval is `required`."""
    thresholds: Literal["half", "fitted"] = "half"
    """classify: when a label is given, where a text may have several or there are only two: at a probability of 0.5, as
    the report measures, or at the threshold that costs least on the validation rows (evaluate.labels.costs)."""
    onnx: bool = False
    """Also write model.onnx, checked against the released model (tasks with labels; needs the extra `onnx`)."""
    force_reason: str = ""
    """Why a release that the gate refuses is wanted all the same; recorded together with --force."""

    def refuse_misfits(self, task: Task) -> None:
        """SpecError for a setting that the task cannot honour."""
        labelled = task.labelled
        wrong = {
            "onnx": self.onnx and not labelled,
            "thresholds": self.thresholds != "half" and (task.type != "classify"),
            "system": self.system not in ("auto", *FITTING.get(task.type, ("tuned", "tuned_retrieval", "retrieval"))),
            "base_weights": self.base_weights == "copied" and labelled,  # the folder holds the whole model anyway
            "tuned_weights": self.tuned_weights == "passed" and labelled,
        }
        for field, bad in wrong.items():
            if bad:
                raise SpecError(f"release.{field} = {getattr(self, field)!r} does not apply to the task '{task.type}'; "
                                "remove it")


@dataclass(frozen=True, kw_only=True)
class Succession:
    """What a release that updates another one adds to its folder."""

    parent: str
    """The release that it replaces, NAME/VERSION."""
    compare: Artifact
    """The comparison with it; part of the lineage."""
    attach: Callable[[Path, int], None]
    """Writes further files into the release folder, given that and the version."""


def release(*, report: Artifact, run: Artifact, model: Artifact, index: Artifact | None, data: Artifact, task: Task,
            rag: Rag, spec: Release, store: Store, releases: Path, force: bool = False, root: Path | None = None,
            progress: Progress = Silent(), after: Succession | None = None) -> Path:
    """Put the tested system into `<releases>/<name>/<version>/` and make it live; returns that folder.

    The same inputs give the same folder again, without loading a model, and leave a rollback in place. A failed check
    is GateRefused with every failed check and its numbers: nothing is promoted, the history records it. `force`
    releases all the same and records who, why and which checks failed. ContractError (exported model is not the
    trained one) cannot be forced. `index` None (a project without documents) leaves the retrieval systems out; `after`
    names the release that this one updates.
    """
    home = Path.cwd() if root is None else root
    if not spec.name:
        raise SpecError("release.name: a release needs a name; write one, such as 'assistant'")
    spec.refuse_misfits(task)
    folder = releases / spec.name
    wanted = {key: value for key, value in spec.dump().items() if key != "force_reason"}
    lineage = _lineage(report=report, run=run, model=model, index=index, data=data, after=after)
    key = digest(canonical([VERSION, wanted, lineage, task.dump(), rag.dump()]))
    known = on_disk.find_key(folder, key)
    if known is not None and on_disk.was_live(known) and on_disk.settled(folder):
        return known
    with on_disk.locked(folder), tell_disk_trouble(releases):
        on_disk.settle(folder)
        known = on_disk.find_key(folder, key)
        if known is None:
            known = _make(folder, key=key, lineage=lineage, report=report, run=run, model=model, index=index, data=data,
                          task=task, rag=rag, spec=spec, store=store, force=force, root=home, progress=progress,
                          after=after)
        if not on_disk.was_live(known):  # new, or made by a call that was killed before it went live
            _note_released(known)
            promote(known)
    record = read_release(known)
    progress.say(f"  {record.label} is live, {released_as(known)}"
                 + (f"; forced by {record.forced['by']}" if record.forced else "; it passed its gate"))
    return known


def released_as(folder: Path) -> str:
    """What a release folder's release stands for, in words that end a run."""
    record = read_release(folder)
    told = f"released as {record.choice.replace('_', ' + ')}"
    if record.labels is None or record.choice == "tuned":
        return told
    try:
        verdict = json.loads((folder / "report.json").read_text("utf-8"))["verdict"]["choice"]
    except (OSError, ValueError, KeyError):
        return told
    return f"{told}: tuning is not worth it here" if verdict == record.choice else told


def _make(folder: Path, *, key: str, lineage: dict[str, str], report: Artifact, run: Artifact, model: Artifact,
          index: Artifact | None, data: Artifact, task: Task, rag: Rag, spec: Release, store: Store, force: bool,
          root: Path, progress: Progress, after: Succession | None) -> Path:
    """Judge, export, check and rename; returns the finished folder (not yet live)."""
    found = _read_report(report)
    choice: System = found["verdict"]["choice"] if spec.system == "auto" else spec.system
    if task.labelled and force and choice not in LABEL_SYSTEMS:
        choice = "tuned"  # what a person who overrules the gate wants; the record tells which checks failed
    checks = spec.gate.judge(found, choice, approved_by=spec.approved_by)
    if failed(checks) and not force:  # before any weight is loaded
        _refuse(folder, key, choice, checks, found)
    for old in folder.glob("*.part"):
        shutil.rmtree(old)
    version = on_disk.next_version(folder)
    part = folder / f"{version}.part"
    part.mkdir(parents=True)
    try:
        if task.labelled:
            from luthier.release.labels import make_parts

            made = make_parts(part, choice=choice, report=report, found=found, run=run, model=model, data=data,
                              task=task, spec=spec, store=store, root=root, lineage=lineage, progress=progress)
        else:
            from luthier.release.assistant import make_parts as make_assistant

            made = make_assistant(part, choice=choice, run=run, model=model, index=index, data=data, spec=spec,
                                  store=store, lineage=lineage, root=root, progress=progress)
        checks = spec.gate.judge(found, choice, approved_by=spec.approved_by, agreement=made.agreement)
        if failed(checks) and not force:
            _refuse(folder, key, choice, checks, found)
        for name in ("report.json", "report.html"):
            if (report.path / name).is_file():
                shutil.copyfile(report.path / name, part / name)
        record = {
            "name": spec.name, "version": version, "choice": choice,
            "forced": _forced(checks, spec) if failed(checks) else None, "approved_by": spec.approved_by,
            "created": on_disk.now(), "task": task.dump(), "rag": rag.dump(), "dtype": spec.dtype, "lineage": lineage,
            "gate": [check.dump() for check in checks], "key": key, **made.record,
            **({"parent": after.parent} if after else {}),
        }
        card = made.card(record, found)
        write_text(part / "MODEL_CARD.md", card)
        if after is not None:
            after.attach(part, version)
        write_json(part / on_disk.RECORD, {**record, "files": on_disk.hash_files(part)})
        _sync_tree(part)
        os.replace(part, folder / str(version))
        _sync(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)  # a kill leaves it, and the next call removes it
        raise
    return folder / str(version)


def _note_released(folder: Path) -> None:
    """Write into the history, once, that a release was made."""
    record = read_release(folder)
    if not any(row["event"] == "released" and row["version"] == record.version for row in read_history(folder.parent)):
        on_disk.append(folder.parent, "released", version=record.version, choice=record.choice, key=record.key,
                       forced=bool(record.forced), failed=[check["name"] for check in record.gate
                                                           if check["outcome"] == "failed"])



def _read_report(report: Artifact) -> dict[str, Any]:
    try:
        found = json.loads((report.path / "report.json").read_text("utf-8"))
        for name in ("verdict", "test", "metric", "systems", "differences"):
            found[name]
        return found
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{report.path / 'report.json'} cannot be used ({error}); delete {report.path} and evaluate "
                         "again") from None


def _refuse(folder: Path, key: str, choice: System, checks: list[Check], report: Mapping[str, Any]) -> None:
    wrong = failed(checks)
    told = [row for row in read_history(folder) if row["event"] in ("refused", "released")]
    if not told or (told[-1]["event"], told[-1]["key"]) != ("refused", key):  # asking twice is one event
        on_disk.append(folder, "refused", key=key, choice=choice, failed=[check.dump() for check in wrong])
    count = len([check for check in checks if check.outcome != "not applicable"])
    raise GateRefused("\n".join([
        f"the gate refuses '{folder.name}' ({choice.replace('_', ' + ')}): {len(wrong)} of {count} checks failed",
        *(f"  {check.name}: {check.sentence}" for check in wrong),
        f"Verdict: {report['verdict']['sentence']}",
        "Nothing was released. Improve the data or the training, change release.gate, or release all the same with "
        "--force (recorded).",
    ]))


def _forced(checks: list[Check], spec: Release) -> dict[str, Any]:
    return {"by": on_disk.person(), "reason": spec.force_reason, "failed": [check.dump() for check in failed(checks)]}







def _lineage(*, report: Artifact, run: Artifact, model: Artifact, index: Artifact | None, data: Artifact,
             after: Succession | None) -> dict[str, str]:
    """Stage to `stage/id`, the documents' artifact included; an update's data names prepare's that it is made from."""
    compared = after.compare if after is not None else None
    found = {one.stage: f"{one.stage}/{one.id}" for one in (data, index, model, run, report, compared)
             if one is not None}
    if data.stage != "prepare" and "data" in data.inputs:
        found = {"prepare": str(data.inputs["data"]), **found}
    if run.stage == "blend":
        found["train"] = str(run.inputs["run"])
    documents = next((value for value in data.inputs.values() if str(value).startswith("ingest/")), None)
    return {"ingest": str(documents), **found} if documents else found



def blended(run: Artifact) -> list[str]:
    """For the model card, of a run that is a blend: what stands between training and these weights."""
    if run.stage != "blend":
        return []
    told = run.summary
    old = told["old"]
    change = f", old skill {old['trained']:.3f} → {old['blend']:.3f}" if old else ""
    return [f"after training: the blend at a = {told['at']:g} ({told['method']}) of the way from the model that "
            f"training began from to the trained one; new skill {told['new']['trained']:.3f} → "
            f"{told['new']['blend']:.3f}{change} on validation rows: blend/{run.id}"]
