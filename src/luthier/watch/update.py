"""`update`: from what changed to a new live release, or to the reasons against it.

Everything heavy is an artifact of the store, found again by what it was made from. So a call after a kill goes on where
the killed one was, and a call after nothing changed does nothing. What was decided stands in the release's history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from luthier.errors import GateRefused, UsageError
from luthier.evaluate.base import evaluate, read_report
from luthier.ingest.base import read_documents
from luthier.ingest.forgotten import Forgotten, read_forgotten
from luthier.prepare.base import read_dropped, read_examples
from luthier.progress import Progress, Silent
from luthier.project.base import Project
from luthier.release import folder as on_disk
from luthier.release.base import FITTING, ReleaseRecord, Succession, read_release, release
from luthier.release.gate import System
from luthier.spec import parse
from luthier.store import Artifact, canonical
from luthier.train.base import Train, train
from luthier.types import digest
from luthier.watch.champion import Champion, beginning, open_champion
from luthier.watch.changelog import write_changelog
from luthier.watch.changes import Changes, find_changes
from luthier.watch.compare import Sides, compare, read_compare
from luthier.watch.data import update_rows, whole_data
from luthier.watch.gate import Decision, judge

EVENT = "update"
"""Event of the release's history: an update that was promoted, refused, or waits for a person."""
STATES = {"promote": "promoted", "refuse": "refused", "ask": "pending"}

State = Literal["nothing", "promoted", "refused", "pending"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an update came to."""

    state: State
    sentence: str
    """For a person, one line."""
    champion: str
    """The release that was live before, NAME/VERSION."""
    release: Path | None = None
    """The release folder that is live now, where one was promoted."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """`counts` of rows and `documents` by what happened to them."""
    checks: tuple[Mapping[str, Any], ...] = ()
    """Every check of the gate, with its sentence."""
    again: bool = False
    """It was decided by an earlier call: nothing was done now."""

    def data(self) -> dict[str, Any]:
        return {"state": self.state, "sentence": self.sentence, "champion": self.champion, "again": self.again,
                "release": str(self.release) if self.release else None, "changes": dict(self.changes),
                "checks": [dict(check) for check in self.checks]}

    def text(self) -> str:
        marks = {"passed": "✓", "failed": "✗", "unsure": "?", "not applicable": "–"}
        lines = [f"  {marks[check['outcome']]} {check['name']}: {check['sentence']}" for check in self.checks]
        return "\n".join([*lines, self.sentence])


def update(project: Project, *, progress: Progress = Silent(), approve: str | None = None,
           reject: str | None = None, force: bool = False) -> Outcome:
    """Bring the live release up to date with the present documents and rows.

    `approve` and `reject` name the person who decides an update that waits; `force` promotes in spite of the gates,
    which is recorded (`luthier forget --force`). Raises UsageError when nothing is live yet or nothing waits.
    """
    champion = open_champion(project)
    made, project = _prepared(project, champion, progress)
    forgotten = read_forgotten(project.root)
    changes = _changes(project, champion, made)
    one = _Update(project, champion, made, changes, forgotten, progress)
    progress.say(f"since {champion.record.label}: {changes.sentence()}")
    if one.nothing:
        if approve or reject:
            raise UsageError("nothing changed since the live release was made, so no update waits for a decision")
        if (parent := one.unrecorded()) is not None:
            before = open_champion(project, parent)
            return _Update(project, before, made, _changes(project, before, made), forgotten, progress).late(champion)
        return one.outcome("nothing", f"Nothing to do: {one.nothing}; {champion.record.label} stays live.")
    known = one.decided()
    if reject:
        return one.reject(known, reject)
    if approve and (known is None or known["state"] != "pending"):
        raise UsageError("no update waits for approval" + (f": this one is {known['state']}" if known else
                                                           "; make one with: luthier update"))
    if known is not None and not approve and not force:
        return one.repeated(known)
    return one.go(approve or "", force=force)


def _prepared(project: Project, champion: Champion, progress: Progress) -> tuple[dict[str, Artifact], Project]:
    """Ingest and prepare; the project with the way of splitting that the live release was tested with."""
    made: dict[str, Artifact] = {}
    labelled = project.spec.task.labelled
    project.make("ingest", made, progress=Silent() if labelled else progress)
    project.make("prepare", made, progress=progress)
    by = champion.data.summary.get("disjoint")
    split = project.spec.prepare.split
    if not labelled and split.by == "auto" and made["prepare"].summary["disjoint"] != by:
        spec = project.spec.but(prepare=project.spec.prepare.but(split=split.but(by=by)))
        project = replace(project, spec=spec)  # the folder grew over the limit of `auto`: the old test stays the test
        project.make("prepare", made, progress=progress)
    return made, project


def _changes(project: Project, champion: Champion, made: Mapping[str, Artifact]) -> Changes:
    prepared = made["prepare"]
    return find_changes(
        read_examples(champion.data), read_examples(prepared), dropped=read_dropped(prepared), root=project.root,
        old_documents=champion.read_documents(), new_documents=read_documents(made["ingest"]))


class _Update:
    """One update, step by step."""

    def __init__(self, project: Project, champion: Champion, made: dict[str, Artifact], changes: Changes,
                 forgotten: Forgotten, progress: Progress):
        self.project, self.champion, self.made, self.changes = project, champion, made, changes
        self.forgotten, self.progress = forgotten, progress
        self.spec = project.spec
        self.folder = project.releases / champion.record.name
        settings = {name: getattr(self.spec, name).dump() for name in ("task", "adapt", "train", "blend", "evaluate",
                                                                       "release", "rag", "index")}
        watch = {name: value for name, value in self.spec.watch.dump().items()
                 if name in ("start", "removed", "past", "least_past", "train", "gate")}
        self.key = digest(canonical([champion.record.key, made["prepare"].id, settings, watch]))

    @property
    def nothing(self) -> str:
        """Why there is nothing to do; empty where there is something."""
        changes = self.changes
        if changes.nothing:
            return "no document and no row changed"
        fresh = changes.of("new", "changed")
        learned = [example for example in read_examples(self.made["prepare"]) if example.id in fresh
                   and example.split == "train"]
        gone = [example for example in changes.removed if example.split != "test"]
        if not learned and not gone and self.spec.task.labelled:
            return f"{changes.sentence()}, but no row to learn from came, changed or went"
        return ""

    def outcome(self, state: State, sentence: str, **more: Any) -> Outcome:
        told = {"counts": self.changes.counts(), "documents": {kind: list(paths) for kind, paths in
                                                               self.changes.documents.items()}}
        return Outcome(state=state, sentence=sentence, champion=self.champion.record.label, changes=told, **more)

    def decided(self) -> dict[str, Any] | None:
        """The last decision about exactly this content and these settings."""
        found = [row for row in on_disk.read_history(self.folder) if row["event"] == EVENT
                 and row.get("key") == self.key]
        return found[-1] if found else None

    def record(self, state: State, checks: tuple[Mapping[str, Any], ...], **more: Any) -> None:
        """Write a decision down, once."""
        with on_disk.locked(self.folder):
            known = self.decided()
            if known is None or known["state"] != state:
                on_disk.append(self.folder, EVENT, key=self.key, state=state, champion=self.champion.record.version,
                               checks=list(checks), **more)

    def repeated(self, known: Mapping[str, Any]) -> Outcome:
        if known["state"] == "pending":
            sentence = ("Waits for a decision: luthier update --approve \"YOUR NAME\", or --reject \"YOUR NAME\"; "
                        f"{self.champion.record.label} stays live.")
        elif known["state"] == "promoted":  # and rolled back since, or another release was made live
            sentence = (f"This content was released as version {known['version']} before, and "
                        f"{self.champion.record.label} was made live again since; nothing is done until something "
                        "changes.")
        else:
            by = f" by {known['rejected_by']}" if known.get("rejected_by") else ""
            sentence = (f"This content was refused{by} on {known['at'][:10]} and is not tried again until something "
                        f"changes; {self.champion.record.label} stays live.")
        state: State = "nothing" if known["state"] == "promoted" else known["state"]
        return self.outcome(state, sentence, checks=tuple(known["checks"]), again=True)

    def unrecorded(self) -> Path | None:
        """What the live release replaced, where the update that made it was killed before it wrote that down."""
        record = self.champion.record
        parent = self.folder / record.parent.rpartition("/")[2]
        if not record.parent or self.champion.compare is None or not (parent / on_disk.RECORD).is_file():
            return None
        told = any(row["event"] == EVENT and row.get("version") == record.version
                   for row in on_disk.read_history(self.folder))
        return None if told else parent

    def late(self, made: Champion) -> Outcome:
        """Write down that `made` was promoted in place of this update's champion."""
        assert made.compare is not None
        checks = tuple(check.dump() for check in judge(read_compare(made.compare), self.spec.watch.gate).checks)
        return self.told(made.record, checks)

    def told(self, record: ReleaseRecord, checks: tuple[Mapping[str, Any], ...]) -> Outcome:
        self.record("promoted", checks, version=record.version, approved_by=record.approved_by)
        return self.outcome("promoted", f"{record.label} is live and replaces {self.champion.record.label}; what "
                            f"changed: {record.folder / 'changes.html'}", checks=checks, release=record.folder)

    def reject(self, known: Mapping[str, Any] | None, name: str) -> Outcome:
        if known is None or known["state"] != "pending":
            raise UsageError("no update waits for a decision; make one with: luthier update")
        self.record("refused", tuple(known["checks"]), rejected_by=name)
        return self.outcome("refused", f"Rejected by {name}; {self.champion.record.label} stays live, and this content "
                            "is not tried again until something changes.", checks=tuple(known["checks"]))

    def go(self, approved_by: str, *, force: bool) -> Outcome:
        """Train, test, compare, decide."""
        whole = whole_data(self.made["prepare"], self.champion.data, self.changes, task=self.spec.task,
                           store=self.project.store, root=self.project.root)
        if not self.spec.task.labelled and self.made["prepare"].summary["passages"]:
            self.progress.say("[index]", stage="index")
            self.project.make("index", self.made, progress=self.progress)
        self.project.make("adapt", self.made, progress=self.progress)
        run, why = self.trained(whole)
        sides = self.tested(whole, run)
        self.progress.say("[compare]", stage="compare")
        compared = compare(sides, self.project, progress=self.progress)
        decision = judge(read_compare(compared), self.spec.watch.gate)
        checks = tuple(check.dump() for check in decision.checks)
        if decision.verdict == "refuse" and not force:
            return self.refused(decision.sentence, checks)
        if decision.verdict == "ask" and not force and not approved_by:
            self.record("pending", checks)
            return self.outcome("pending", f"Not live yet: {decision.sentence}. Look at {compared.path}, then: luthier "
                                "update --approve \"YOUR NAME\", or --reject \"YOUR NAME\"; "
                                f"{self.champion.record.label} stays live.", checks=checks)
        return self.promoted(sides, compared, decision, checks, approved_by, why, force=force)

    def trained(self, whole: Artifact) -> tuple[Artifact, str]:
        """(the challenger's run; how it was trained, for a person)."""
        start, why = beginning(self.champion, model=self.made["adapt"], changes=self.changes, project=self.project,
                               forgotten=self.forgotten)
        spec, store, root = self.spec, self.project.store, self.project.root
        self.progress.say("[train]", stage="train")
        settings = spec.train
        data = whole
        if start is not None:
            fresh = self.changes.of("new", "changed")
            if not any(example.id in fresh and example.split == "train" for example in read_examples(whole)):
                why = "no row to train on came or changed, so the live model's weights stay"
                self.progress.say(f"  {why}")
                return self.champion.run, why
            settings = parse(Train, {**spec.train.dump(), **spec.watch.train}, source="watch.train", local=root)
            data = update_rows(whole, spec.watch, seed=settings.seed, store=store)
            why += f", on {data.summary['new_rows']} new or changed rows and {data.summary['past_rows']} past ones"
        else:
            why = f"from the base model, on all rows: {why}"
        self.progress.say(f"  {why}")
        run = train(self.made["adapt"], data, settings, store=store, root=root, progress=self.progress, start=start)
        self.project.remember("train", run)
        if start is not None and run.summary.get("best_step") == 0:
            why += "; no update was better on the validation rows, so the weights are the live model's"
        if spec.blend.at is not None:
            from luthier.blend.base import blend

            self.progress.say("[blend]", stage="blend")
            run = blend(run, model=self.made["adapt"], data=whole, spec=spec.blend, store=store, root=root,
                        retention=spec.evaluate.retention, progress=self.progress)
        return run, why

    def tested(self, whole: Artifact, run: Artifact) -> Sides:
        """The report about the challenger, and what it would be released as."""
        spec = self.spec
        self.progress.say("[evaluate]", stage="evaluate")
        report = evaluate(data=whole, index=self.made.get("index"), model=self.made["adapt"], run=run, task=spec.task,
                          rag=spec.rag, spec=spec.evaluate, store=self.project.store, root=self.project.root,
                          progress=self.progress)
        self.project.remember("evaluate", report)
        choice: System = read_report(report)["verdict"]["choice"] if spec.release.system == "auto" \
            else spec.release.system
        if choice not in FITTING.get(spec.task.type, ("tuned", "tuned_retrieval", "retrieval")):
            choice = "tuned"  # what cannot be released is refused by the release's own gate, with the reason
        return Sides(champion=self.champion, data=whole, model=self.made["adapt"], run=run, report=report,
                     index=self.made.get("index"), choice=choice)

    def refused(self, why: str, checks: tuple[Mapping[str, Any], ...]) -> Outcome:
        self.record("refused", checks, why=why)
        return self.outcome("refused", f"Not released: {why}; {self.champion.record.label} stays live.", checks=checks)

    def promoted(self, sides: Sides, compared: Artifact, decision: Decision, checks: tuple[Mapping[str, Any], ...],
                 approved_by: str, how: str, *, force: bool) -> Outcome:
        spec = self.spec.release.but(name=self.champion.record.name)
        if approved_by:
            spec = spec.but(approved_by=approved_by)
        if force and not spec.force_reason:
            spec = spec.but(force_reason=f"update forced: {decision.sentence}")

        def attach(part: Path, version: int) -> None:
            write_changelog(part, label=f"{spec.name}/{version}", compared=read_compare(compared), data=sides.data,
                            decision=decision, how=how, approved_by=approved_by)

        self.progress.say("[release]", stage="release")
        try:
            folder = release(report=sides.report, run=sides.run, model=sides.model, index=sides.index, data=sides.data,
                             task=self.spec.task, rag=self.spec.rag, spec=spec, store=self.project.store,
                             releases=self.project.releases, force=force, root=self.project.root,
                             progress=self.progress,
                             after=Succession(parent=self.champion.record.label, compare=compared, attach=attach))
        except GateRefused as error:
            return self.refused(str(error), checks)
        record = read_release(folder)
        if record.stage != "live":  # made by an earlier call, and rolled back before that call could write it down
            return self.repeated({"state": "promoted", "version": record.version, "checks": checks})
        return self.told(record, checks)
