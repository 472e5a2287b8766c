"""Prepare: from documents to clean passages and to examples with a frozen, leak-free split.

A maker turns documents into examples. Makers live in `luthier.prepare.makers`, one file each, and register at the
`MAKERS` seam; `prepare` runs them in the order of the project file, then splits, de-duplicates, checks for leaks and
writes the data card. Heavy libraries are imported by the code that runs, never by these declarations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, cast

from pydantic import Field

from luthier.errors import DataError, SpecError
from luthier.index.base import Index
from luthier.index.rag import Rag
from luthier.ingest.forgotten import read_forgotten
from luthier.plugins import Seam
from luthier.prepare.boilerplate import Boilerplate
from luthier.prepare.chunk import Chunk
from luthier.prepare.clean import Clean
from luthier.prepare.decontaminate import benchmark_inputs
from luthier.prepare.dedupe import Dedupe
from luthier.prepare.injection import Injection
from luthier.prepare.privacy.base import Privacy
from luthier.prepare.quality import Quality
from luthier.prepare.semantic import Semantic
from luthier.prepare.split import SplitBy
from luthier.prepare.versions import Versions
from luthier.prepare.volatility import TAG as VOLATILE
from luthier.prepare.volatility import Volatility, changes_of
from luthier.prepare.weak.base import Weak, refuse_misfit
from luthier.progress import Progress, Silent
from luthier.queues import ReviewItem
from luthier.spec import Spec
from luthier.store import Artifact, Cache, Content, Store
from luthier.task import Task
from luthier.types import (
    Document,
    Dropped,
    Example,
    Passage,
    Split,
    decode_example,
    decode_passage,
    digest_each,
    read_jsonl,
)

if TYPE_CHECKING:
    from luthier.index.base import Retriever
    from luthier.prepare.privacy.work import Guard

VERSION = 3

MAKERS = Seam("maker", package="luthier.prepare.makers")

OWN_SPLIT = "own-split"
"""Tag of an example whose `split` was given by the user's file: `prepare` keeps it instead of assigning one."""

TOGETHER = "together"
"""Key of `Example.groups`: examples without passages that share its value fall into one split (`pairs.group_by`)."""


@dataclass(frozen=True, kw_only=True)
class MakeContext:
    """What a maker may read.

    A maker leaves `Example.split` alone (unless the user's own data says it: tag `OWN_SPLIT`) and gives `origin` the
    passages it read: `prepare` assigns the split from them. The first passage is the source; an example whose
    passages lie in different splits is dropped. Examples without passages or documents are split by their question.
    """

    documents: Sequence[Document]
    """Cleaned documents in path order; only one for a maker that works per document. A span that cleaning removed
    stays with an empty text, so that the span numbers in `Passage.spans` are the source document's."""
    passages: Sequence[Passage]
    """Cleaned, chunked and de-duplicated passages of these documents, in reading order."""
    task: Task
    split_of: Callable[[str], Split]
    """Frozen split of a passage id; also of a document id where the split is by document."""
    seed: int
    root: Path
    """The project folder that relative paths in specs start from."""
    cache: Cache
    """For a maker's own expensive items (a teacher's answers); keys are hashes of all that a value depends on."""
    progress: Progress
    rag: Rag
    """How passages become a prompt, for grounded examples."""
    examples: Sequence[Example] = ()
    """What earlier makers made, splits assigned; empty for a maker that works per document."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Figures for the data card, such as `asked`, `supported`; numbers of per-document makers are summed. `tables`:
    a list of {title, columns, rows} that the card shows as tables."""
    review: list[ReviewItem] = field(default_factory=list)
    """What a person should look at; `prepare` writes it into the artifact's review.jsonl. Not for per-document makers,
    whose results are cached."""
    build_retriever: Callable[[Split | None], Retriever] | None = None
    store: Store | None = None
    """The project's store, for a maker that runs another stage (reading PDF files of labelled folders, say)."""

    def retriever(self, split: Split | None = None) -> Retriever:
        """Search over all passages, or over one split's only, built at the first call (hybrid as the project says).

        For a train prompt search `split="train"`: a test passage must not enter training even as a distractor.
        """
        if self.build_retriever is None:
            raise TypeError("a maker that searches must declare `uses_retriever = True` and `per_document = False`")
        return self.build_retriever(split)


def no_split(id: str) -> Split:
    """`MakeContext.split_of` for labelled data, whose rows are split after they are made."""
    raise KeyError(f"no split for '{id}': labelled rows are split after they are made")


class Maker(Protocol):
    """Makes examples from documents. A registered `Spec` whose fields are its settings.

    Class variables (plain `ClassVar`s, not fields): `per_document`, `uses_retriever`, `VERSION`; and, for a maker of
    labelled data, `tasks`: the task types that it reads data for. A maker without it is for assistant and completion.
    """

    kind: ClassVar[str]
    per_document: ClassVar[bool]
    """True: `make` is called once for each document and its result is cached by the document's content, so one
    changed document re-makes only its own examples. False: called once with everything."""
    uses_retriever: ClassVar[bool]
    """True: `context.retriever()` may be called (makers that are not per document only)."""
    VERSION: ClassVar[int]
    """Raised when the code changes what it makes."""

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """Yield examples, and what was refused with its reason. Deterministic from `context.seed`."""
        ...

    def inputs(self, root: Path) -> Mapping[str, str]:
        """What else the result depends on, by name: the hash of a pairs file, a teacher's fingerprint. Fast."""
        ...

    def dump(self) -> dict[str, Any]: ...


DEFAULT_MAKERS = ("faq", "table", "definition", "section", "unanswerable", "ground")


def default_makers() -> tuple[Maker, ...]:
    """Question–answer pairs found in the documents, then refusals, then the same with passages in the prompt."""
    return tuple(cast(Maker, MAKERS.get(kind)()) for kind in DEFAULT_MAKERS)


class Prepare(Spec):
    """How documents become passages and examples."""

    versions: Versions = Versions()
    """Of several versions of one document, which one counts."""
    languages: tuple[str, ...] = ()
    """Keep only passages in these languages, such as [en, de] (ISO 639 codes); empty keeps all."""
    boilerplate: Boilerplate = Boilerplate()
    """Removal of menus, footers and disclaimers that repeat across web pages and mails."""
    clean: Clean = Clean()
    """Repair of text: encoding, hyphenation, repeated headers and footers, white space."""
    privacy: Privacy = Privacy()
    """Personal data and secrets: found and reported, and taken out where you ask for it."""
    injection: Injection = Injection()
    """Instructions to the model that stand in documents: told in the data card, and left out on request."""
    chunk: Chunk = Chunk()
    """Cutting documents into passages along their structure."""
    dedupe: Dedupe = Dedupe()
    """Removal of exact and near duplicates among passages."""
    quality: Quality = Quality()
    """A score of each passage's text, and what is dropped for it."""
    semantic: Semantic = Semantic()
    """The search for passages that say the same in other words, for a person to decide."""
    decontaminate: tuple[str, ...] = ()
    """Benchmarks that no trained row may repeat: files or folders of yours (JSONL, CSV, Parquet, text), or names of
    what lies in the folder `benchmarks/` or in `$LUTHIER_BENCHMARKS`. Nothing is downloaded."""
    volatility: Volatility = Volatility()
    """Which documents change too often to be trained, and are searched only."""
    split: SplitBy = SplitBy()
    """Which passages may be trained on, and which are kept for validation and test."""
    makers: tuple[Annotated[Maker, MAKERS], ...] = Field(default_factory=default_makers)
    """What makes the examples, in this order; later makers may build on the examples of earlier ones."""
    weak: Weak = Weak()
    """classify: labels for rows that have none, by rules, likeness and models whose votes are weighed."""
    memory_mb: float = Field(default=512, ge=16)
    """About how much of the documents, passages and examples is held in memory (MiB). What is more lies on disk
    meanwhile, in the project's store, so there may be more of them than memory holds."""
    max_examples_per_document: int = Field(default=400, ge=1)
    """At most this many examples from one document, so that one long document does not drown the others; which
    ones stay is decided by a hash, evenly over its makers. The user's own pairs are never capped."""
    seed: int = 0
    """Changes which documents or passages fall into which split, and every sampled choice."""


_RAG, _INDEX = Rag(), Index()


def prepare(documents: Artifact | None, task: Task, spec: Prepare, *, store: Store, root: Path, rag: Rag = _RAG,
            index: Index = _INDEX, progress: Progress = Silent()) -> Artifact:
    """Clean, chunk, de-duplicate, split and make examples.

    The artifact holds `passages.jsonl`, `examples.jsonl`, `dropped.jsonl`, `splits.json`, `card.json` and `card.html`;
    its summary counts passages, examples by split, drops, and says whether the test set is disjoint by document or by
    passage. `index` says how makers search (only where one does). Raises DataError when nothing readable is left, or
    no train or test example could be made; SpecError when the makers are not for the task.

    For the labelled tasks (classify, tag, embed, image) the makers read the user's labelled data, `documents` may be
    None, there are no passages, and `labels.json` names the classes (see `luthier.prepare.labels`).
    """
    refuse_makers(task, spec.makers)
    refuse_misfit(task, spec.weak)
    if task.labelled:
        return _prepare_labelled(documents, task, spec, store=store, root=root, progress=progress)
    if documents is None:
        raise TypeError("prepare needs the artifact of ingest for the tasks assistant and completion")
    inputs: dict[str, Any] = {"documents": documents, "task": task.dump(), "rag": rag.dump()}
    inputs["makers"] = [[maker.VERSION, dict(maker.inputs(root))] for maker in spec.makers]
    if any(maker.uses_retriever for maker in spec.makers):
        inputs["index"] = index.identity(root)
    if gone := read_forgotten(root).rows_hash:
        inputs["forgotten"] = gone
    if spec.decontaminate:
        inputs["benchmarks"] = benchmark_inputs(spec.decontaminate, root)
    if meant := spec.semantic.inputs(root):
        inputs["semantic"] = meant
    guard = _guard(spec, root, store, inputs)
    changes = changes_of(documents, store) if spec.volatility.estimate else {}
    if changes:
        inputs["changes"] = changes

    def make(folder: Path) -> Mapping[str, Any]:
        from luthier.prepare.build import build

        return build(folder, documents, task, spec, rag=rag, index=index, store=store, root=root, progress=progress,
                     changes=changes, guard=guard)

    return store.build("prepare", version=VERSION, spec=spec, inputs=inputs, make=make)


def _prepare_labelled(documents: Artifact | None, task: Task, spec: Prepare, *, store: Store, root: Path,
                      progress: Progress) -> Artifact:
    from luthier.prepare import label_build
    from luthier.prepare.decisions import decisions_hash

    label_build.refuse_settings(spec)
    inputs = {"task": task.dump(), "makers": [[maker.VERSION, dict(maker.inputs(root))] for maker in spec.makers],
              **({"documents": documents} if documents is not None else {})}
    if decided := decisions_hash(root):
        inputs["decisions"] = decided
    if weak := spec.weak.inputs(root):
        inputs["weak"] = weak
    if gone := read_forgotten(root).rows_hash:
        inputs["forgotten"] = gone

    if spec.decontaminate:
        inputs["benchmarks"] = benchmark_inputs(spec.decontaminate, root)
    guard = _guard(spec, root, store, inputs)

    def make(folder: Path) -> Mapping[str, Any]:
        return label_build.build_labelled(folder, task, spec, documents=documents, store=store, root=root,
                                          progress=progress, guard=guard)

    return store.build("prepare", version=label_build.VERSION, spec=spec, inputs=inputs, make=make)


def _guard(spec: Prepare, root: Path, store: Store, inputs: dict[str, Any]) -> Guard | None:
    """The privacy step of this run; adds what it depends on beside the settings to `inputs`."""
    from luthier.prepare.privacy.work import open_guard, privacy_inputs

    guard = open_guard(spec.privacy, root, make_key=store.makes)
    if guard is not None and (depends := privacy_inputs(spec.privacy, root, guard.key)):
        inputs["privacy"] = depends
    return guard


def refuse_makers(task: Task, makers: Sequence[Maker]) -> None:
    """SpecError unless every maker is for the task: a labelled task needs makers of labelled data, and only those."""
    of_labels = {kind: tuple(getattr(cls, "tasks", ())) for kind, cls in MAKERS.kinds().items()}
    if not task.labelled:
        wrong = [maker.kind for maker in makers if getattr(maker, "tasks", ())]
        if wrong:
            raise SpecError(f"prepare.makers: '{wrong[0]}' reads labelled data, but task.type is '{task.type}'; name "
                            f"makers such as {', '.join(DEFAULT_MAKERS)} or pairs, or set task.type")
        return
    wrong = [maker.kind for maker in makers if task.type not in getattr(maker, "tasks", ())]
    if wrong or not makers:
        fit = [kind for kind, tasks in of_labels.items() if task.type in tasks]
        found = f"'{wrong[0]}' does not" if wrong else "none is named that does"
        raise SpecError(f"prepare.makers: the task '{task.type}' learns from labelled data, which {found} read; name a "
                        f"maker that does, such as {{kind: {fit[0]}, path: data/…}} (makers for it: {', '.join(fit)})")


def read_passages(artifact: Artifact) -> list[Passage]:
    """All passages, in the order of their documents' paths and of reading."""
    return [decode_passage(row) for row in read_jsonl(_file(artifact, "passages.jsonl"))]


def read_examples(artifact: Artifact, split: Split | None = None) -> list[Example]:
    """All examples, or one split's, in the artifact's fixed order."""
    rows = (decode_example(row) for row in read_jsonl(_file(artifact, "examples.jsonl")))
    return [example for example in rows if split is None or example.split == split]


def learned(artifact: Artifact) -> Content:
    """Prepared rows as an input of training, which counts by what training reads: the rows that are not about volatile
    documents, the labels, and how the test is disjoint. When only volatile documents change, a run stays as it is."""
    def parts() -> Iterator[str]:
        yield str(artifact.summary.get("disjoint", ""))
        with _file(artifact, "examples.jsonl").open(encoding="utf-8", errors="surrogatepass") as file:
            for line in file:
                if f'"{VOLATILE}"' not in line or VOLATILE not in json.loads(line)["tags"]:
                    yield line.strip()
        labels = artifact.path / "labels.json"
        yield labels.read_text("utf-8") if labels.is_file() else ""

    return Content(artifact, digest_each(parts()))


def read_dropped(artifact: Artifact) -> list[Dropped]:
    """What every step and maker refused, with reasons."""
    return [Dropped(**row) for row in read_jsonl(_file(artifact, "dropped.jsonl"))]


def _file(artifact: Artifact, name: str) -> Path:
    path = artifact.path / name
    if not path.is_file():
        raise DataError(f"{artifact.path} holds no {name}; it is a {artifact.stage} artifact, prepare's is needed")
    return path
