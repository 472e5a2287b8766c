"""Which protection against forgetting a project is proposed, and why: the rules of `luthier check`, each with what it
rests on. A person's own settings come before all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import yaml

from luthier.spec import Spec

if TYPE_CHECKING:
    from luthier.project.base import Project, ProjectSpec
    from luthier.store import Artifact

FEW = 20
"""Rows a class below which a frozen base model is proposed."""
MANY = 3
"""Trainings in a row from which on columns are worth their memory, where the task is named."""


class Protection(Spec):
    """What is known about forgetting in this project; `luthier check` proposes settings by it."""

    keep_data: bool = True
    """Whether rows of earlier trainings may be kept and trained on again. false refuses train.keep, replay of `past`
    rows, the regularizer `dark` and past rows in updates (watch.past must be 0)."""
    task_named: bool = False
    """Whether whoever asks always says which task is meant, such as which product a question is about; only the
    proposal of `luthier check` reads it."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rules look at."""

    task: str
    """Task type."""
    method: str
    """lora or full."""
    keep_data: bool = True
    task_named: bool = False
    several: bool = False
    """Several labels may apply to a row."""
    labels: int = 0
    """0 where the task has none, or nothing is prepared yet."""
    train_rows: int | None = None
    """None before `prepare`."""
    updates: int = 0
    """Releases so far; the next training is an update from the first one on."""
    new_labels: int = 0
    """Labels of the data that the live release does not have."""
    own: tuple[str, ...] = ()
    """Settings against forgetting that a person made."""

    @property
    def chat(self) -> bool:
        return self.task in ("assistant", "completion")

    @property
    def classes(self) -> bool:
        return self.task in ("classify", "image")


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One proposal."""

    rule: str
    sentence: str
    evidence: str
    settings: Mapping[str, Any]
    """Sections of luthier.yaml; empty where nothing has to be set."""

    def data(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people: the sentence with its evidence, then the YAML."""
        told = f"Against forgetting: {self.sentence}" + (f" ({self.evidence})." if self.evidence else ".")
        if not self.settings:
            return [told]
        text = yaml.safe_dump(dict(self.settings), sort_keys=False, default_flow_style=None, width=110)
        return [told, *(f"    {line}" for line in text.splitlines())]


@dataclass(frozen=True)
class Rule:
    """A proposal and when it is made; the first rule that fits is taken."""

    name: str
    fits: Callable[[Facts], bool]
    says: Callable[[Facts], str]
    settings: Callable[[Facts], Mapping[str, Any]]
    evidence: str


def _columns(facts: Facts) -> dict[str, Any]:
    return {"watch": {"past": 0.0, "removed": "keep", "train": {
        "strategy": {"kind": "progressive", "task": f"update {facts.updates}"}}}}


def _without_data(train: Mapping[str, Any]) -> dict[str, Any]:
    return {"watch": {"past": 0.0, "removed": "keep", "train": dict(train)}}


RULES = (
    Rule("own", lambda f: bool(f.own),
         lambda f: f"as you set it: {', '.join(f.own)}",
         lambda f: {}, ""),
    Rule("halfway, adapter", lambda f: f.chat and f.method == "lora",
         lambda f: "release the model halfway between the base and the trained one, the adapter at half its size; it "
                   "costs no training, and `luthier blend` shows other points",
         lambda f: {"blend": {"at": 0.5}},
         "benchmarks/forget_chat.py: 83 % of the gain at 35 % of the drift; learning without forgetting and "
         "general replay did not lower it; WiSE-FT, Wortsman 2022"),
    Rule("halfway, all weights", lambda f: f.chat,
         lambda f: "release the model halfway between the base and the trained one; it costs no training, and `luthier "
                   "blend` shows other points",
         lambda f: {"blend": {"at": 0.5}},
         "benchmarks/forget_chat.py: 69 % of the gain at 34 % of the drift; WiSE-FT, Wortsman 2022"),
    Rule("few rows", lambda f: f.classes and f.train_rows is not None and f.train_rows < FEW * max(f.labels, 1),
         lambda f: f"train the head alone: {f.train_rows} rows for {f.labels} labels are few, and a base model that "
                   "stands still forgets nothing",
         lambda f: {"train": {"plan": "head"}},
         "logistic regression on frozen MiniLM features reaches .929 on banking77"),
    Rule("first training", lambda f: f.updates == 0,
         lambda f: "nothing to protect yet; updates will mix in past rows of all classes" if f.keep_data else
                   "nothing to protect yet, and no rows may be kept; run check again before the first update",
         lambda f: {}, ""),
    Rule("many named tasks", lambda f: f.classes and not f.several and f.task_named and f.updates + 1 >= MANY,
         lambda f: f"give the next training a column of its own: with {f.updates} trainings before it and the task "
                   "always named, older tasks stay bit for bit",
         _columns, "progressive networks, Rusu 2016: backward transfer exactly 0"),
    Rule("past rows", lambda f: f.keep_data,
         lambda f: (f"mix past rows in, for {f.new_labels} labels are new: penalties and distillation alone do not "
                    "hold old classes" if f.new_labels else "mix past rows of all classes into every update"),
         lambda f: {"watch": {"past": 0.5}},
         "class-incremental CLINC150: replay .856, distillation .782, EWC .749, naive .487; Buzzega 2020"),
    Rule("new labels without data", lambda f: f.classes and not f.several and f.new_labels > 0,
         lambda f: f"give the {f.new_labels} new labels a column of their own: without past rows, penalties and "
                   "distillation alone do not hold old classes, and a router finds the column",
         _columns, "class-incremental CIFAR-10, Buzzega 2020; Rusu 2016"),
    Rule("distillation", lambda f: f.classes,
         lambda f: "distil from the live model while the update trains, which needs no past rows, and blend the two "
                   "afterwards",
         lambda f: {**_without_data({"regularizers": [{"kind": "lwf"}]}), "blend": {"at": "auto"}},
         "learning without forgetting, Li & Hoiem 2016; CLINC150 .782 against .487; new rows must resemble old ones"),
    Rule("near the old weights", lambda f: True,
         lambda f: "keep the weights near the live model's, which needs no past rows, and blend the two afterwards",
         lambda f: {**_without_data({"regularizers": [{"kind": "l2sp"}]}), "blend": {"at": "auto"}},
         "a tuned L2-SP ties EWC on permuted Fashion-MNIST, .757 and .749 against .580"),
)


def recommend(facts: Facts) -> Advice:
    """The proposal of the first rule that fits."""
    rule = next(rule for rule in RULES if rule.fits(facts))
    return Advice(rule=rule.name, sentence=rule.says(facts), evidence=rule.evidence, settings=rule.settings(facts))


def facts_of(project: Project, made: Mapping[str, Artifact]) -> Facts:
    """What the rules look at, from the project, its releases and what is prepared so far."""
    from luthier.prepare.labels import read_labels
    from luthier.release.base import list_releases

    spec, task = project.spec, project.spec.task
    prepared = made.get("prepare")
    labels = read_labels(prepared) if task.labelled and prepared is not None else ()
    name = spec.release.name or spec.name
    releases = [record for record in list_releases(project.releases) if record.name == name]
    live = next((record for record in releases if record.stage == "live"), None)
    known = set((live.labels or {}).get("names", ())) if live is not None else None
    return Facts(
        task=task.type, method=spec.adapt.dump()["method"]["kind"], keep_data=spec.protection.keep_data,
        task_named=spec.protection.task_named, several=task.multi_label, labels=len(labels),
        train_rows=int(prepared.summary["train"]) if prepared is not None else None, updates=len(releases),
        new_labels=len(set(labels) - known) if known else 0, own=own_settings(spec))


def own_settings(spec: ProjectSpec) -> tuple[str, ...]:
    """Settings against forgetting that stand in the project, in words."""
    from luthier.project.updating import Updating

    train, later = spec.train, spec.watch.train
    found = []
    if train.replays:
        found.append("train.replay: " + ", ".join(one.source for one in train.replays))
    if train.regularizers:
        found.append("train.regularizers: " + ", ".join(one.kind for one in train.regularizers))
    if train.strategy is not None and train.strategy.kind == "progressive":
        found.append("train.strategy: progressive")
    if train.plan.kind == "head":
        found.append("train.plan: head")
    if spec.blend.at is not None:
        found.append(f"blend.at: {spec.blend.at}")
    found += [f"watch.train.{name}" for name in ("replay", "regularizers", "strategy") if later.get(name)]
    if spec.watch.past != Updating().past and spec.protection.keep_data:
        found.append(f"watch.past: {spec.watch.past:g}")
    return tuple(found)


def refuse_kept(spec: ProjectSpec) -> None:
    """ValueError where rows would be kept, or trained on again, although `protection.keep_data` is false."""
    if spec.protection.keep_data:
        return
    later = spec.watch.train
    wrong = {
        "train.keep": spec.train.keep is not None,
        "train.replay of 'past'": any(one.source == "past" for one in spec.train.replays),
        "train.regularizers: dark": any(one.kind == "dark" for one in spec.train.regularizers),
        "watch.train.keep": bool(later.get("keep")),
        "watch.train.replay of 'past'": "past" in str(later.get("replay")),
        "watch.train.regularizers: dark": "dark" in str(later.get("regularizers")),
        f"watch.past: {spec.watch.past:g} (set it to 0)": spec.watch.past > 0,
    }
    found = [name for name, bad in wrong.items() if bad]
    if found:
        raise ValueError("protection.keep_data is false, so rows of earlier trainings are neither kept nor trained on "
                         f"again; remove {', '.join(found)}")
