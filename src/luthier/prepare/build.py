"""The work behind `prepare`: documents through the steps, passages to the makers, examples into the frozen split."""

from __future__ import annotations

import itertools
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from luthier.errors import DataError
from luthier.index.base import Index, Retriever, build_retriever
from luthier.index.rag import Rag
from luthier.ingest.forgotten import read_forgotten
from luthier.prepare import chunk, clean, injection, language, sift, volatility
from luthier.prepare.admit import Admission, cap, content_words, drop_leaks, in_split_order
from luthier.prepare.base import OWN_SPLIT, TOGETHER, MakeContext, Maker, Prepare
from luthier.prepare.card import write_card
from luthier.prepare.decontaminate import drop_benchmarks
from luthier.prepare.forgotten_rows import drop_forgotten
from luthier.prepare.privacy.report import texts_of, write_privacy
from luthier.prepare.privacy.work import Guard
from luthier.prepare.split import Splits
from luthier.prepare.steps import Kept, StepContext
from luthier.prepare.unread import drop_unread
from luthier.prepare.volatile_rows import with_volatile
from luthier.progress import Progress, passing
from luthier.queues import read_review, write_review
from luthier.shelf import Again, Memory, Sink, view
from luthier.store import Artifact, Cache, Store, canonical, write_json
from luthier.task import Task
from luthier.types import (
    Document,
    Dropped,
    Example,
    Passage,
    Split,
    decode_document,
    decode_example,
    decode_passage,
    digest,
    encode,
    read_jsonl,
    write_jsonl,
)


def build(folder: Path, artifact: Artifact, task: Task, spec: Prepare, *, rag: Rag, index: Index, store: Store,
          root: Path, progress: Progress, changes: Mapping[str, int] | None = None, guard: Guard | None = None
          ) -> dict[str, Any]:
    """Fill the artifact's folder; returns its summary. `changes`: path → how often a document changed so far.

    Everything that is trained is made from the stable documents alone, as if there were no others; the volatile ones
    give passages for the index and, by themselves, test questions (`luthier.prepare.volatility`).
    """
    memory = Memory(spec.memory_mb, folder)
    documents = _by_path(artifact, memory)
    if not documents and all(maker.per_document for maker in spec.makers):  # the user's own pairs need no documents
        raise DataError("there are no readable documents to prepare; see why with: luthier show ingest")
    documents, injected, refused = spec.injection.judge(documents, memory)
    dropped = memory.drops()
    dropped.extend(refused)
    documents, sifted = sift.documents_of(documents, spec, dropped, memory)
    cache = store.cache("prepare")
    ctx = StepContext(task=task, seed=spec.seed, progress=progress, memory=memory)
    if guard is not None:
        guard.records = memory.rows()
    goings = volatility.judge(documents, spec.volatility, changes or {})
    moving = {path for path, going in goings.items() if going.volatile}
    still = view(documents, (at for at, one in enumerate(documents) if one.path not in moving)) if moving else documents
    cleaned, read = read_passages_of(still, spec, ctx, cache, dropped, guard)
    read = sift.passages_of(read, documents, spec, sifted, dropped)
    passages = sift.one_of_each(read, spec, sifted, dropped, ctx=ctx, root=root, cache=store.cache("embeddings"))
    splits = spec.split.assign(passages, seed=spec.seed, memory=memory)

    def search(split: Split | None) -> Retriever:
        inside = [p for p in passages if split is None or splits.of_passage[p.id] == split]
        return build_retriever(inside, index, language=index.language or task.language,
                               cache=store.cache("embeddings"), root=root, progress=progress)

    context = MakeContext(documents=cleaned, passages=passages, task=task, split_of=splits, seed=spec.seed, root=root,
                          cache=cache, progress=progress, rag=rag)
    examples, notes = make_examples(spec, context, splits, _remember(search), dropped, memory, guard)
    examples = cap(examples, spec.max_examples_per_document, spec.seed, dropped)
    examples = drop_leaks(examples, passages, splits, dropped, memory, progress)
    examples = drop_benchmarks(examples, spec.decontaminate, root, dropped, memory)
    examples = language.with_groups(examples, documents, memory)
    if moving:
        changing = view(documents, (at for at, one in enumerate(documents) if one.path in moving))
        others, read = read_passages_of(changing, spec, ctx, cache, dropped, guard)
        read = sift.passages_of(read, documents, spec, sifted, dropped)
        volatile, repeats = volatility.drop_repeats(passages, read, spec.dedupe, ctx)
        dropped.extend(repeats)
        splits = volatility.held_out(splits, volatile)
        examples = with_volatile(examples, volatile, others, spec, context, splits, dropped, notes, memory)
        passages = volatility.together(passages, volatile, memory)
        cleaned = sorted([*cleaned, *others], key=lambda document: document.path)
    examples = in_split_order(examples, passages)
    counts = Counter(example.split for example in examples)
    if not counts["train"] and len(moving) == len(documents) > 0:
        raise DataError("every document is volatile, so there is nothing to train on; declare stable ones under "
                        "prepare.volatility.patterns, add your own pairs, or serve the base model with the index alone")
    _refuse_empty(counts, examples, passages, splits, dropped, spec)

    drops = guard.clean_drops(dropped, memory) if guard is not None else dropped
    sift.write_superseded(folder, sifted)
    if context.review or sifted.review:
        write_review(folder, [*read_review(folder), *sifted.review, *context.review])
    privacy = write_privacy(folder, guard, texts_of(passages, examples), progress)
    write_jsonl(folder / "passages.jsonl", passages)
    write_jsonl(folder / "examples.jsonl", examples)
    write_jsonl(folder / "dropped.jsonl", drops)
    write_json(folder / "splits.json", {
        "by": splits.by, "passages": dict(splits.of_passage),
        "documents": {d.path: splits.of_document[d.id] for d in cleaned if d.id in splits.of_document},
    })
    summary = {
        "documents": len(documents), "passages": len(passages), "examples": len(examples),
        "train": counts["train"], "validation": counts["validation"], "test": counts["test"],
        "dropped": len(drops), "disjoint": splits.by, "language": task.language,
        "volatile": len(moving), "superseded": len(sifted.superseded), "injections": len(injected),
        "personal_data": privacy.get("found", 0),
        "test_hash": digest(*sorted(example.id for example in examples if example.split == "test")),
    }
    write_card(folder, summary, documents=documents, passages=passages, examples=examples, dropped=drops,
               splits=splits, notes=notes, spec=spec, goings=goings, privacy=privacy,
               injection=injection.summed(injected, spec.injection.mode), sift=sifted.card())
    return summary


def _by_path(artifact: Artifact, memory: Memory) -> Sequence[Document]:
    documents = memory.documents()
    documents.extend(decode_document(row) for row in read_jsonl(artifact.path / "documents.jsonl"))
    paths = [document.path for document in documents]
    return view(documents, sorted(range(len(paths)), key=paths.__getitem__))


def read_passages_of(documents: Sequence[Document], spec: Prepare, ctx: StepContext, cache: Cache,
                     dropped: Sink[Dropped], guard: Guard | None = None
                     ) -> tuple[Sequence[Document], Sequence[Passage]]:
    """Clean, look for personal data, and chunk, each document by itself and remembered by its content."""
    settings = canonical([clean.VERSION, chunk.VERSION, spec.clean.dump(), spec.chunk.dump(),
                          guard.identity if guard is not None else ""])
    cleaned, passages, read = ctx.memory.documents(), ctx.memory.passages(), ctx.memory.documents()
    read.extend(_kept(drop_unread(documents), dropped))
    with ctx.progress.track("clean and chunk", len(read), unit="documents") as bar:
        for document in _kept(spec.boilerplate.apply(read, ctx), dropped):
            row = _cached(cache, digest("chunks", settings, encode(document), length=40),
                          lambda document=document: _chunk(document, spec, ctx, guard))
            cleaned.extend(decode_document(found) for found in row["documents"])
            passages.extend(decode_passage(found) for found in row["passages"])
            dropped.extend(Dropped(**found) for found in row["dropped"])
            if guard is not None:
                guard.records.extend(row["privacy"])
            bar.advance()
    return cleaned, passages


def _chunk(document: Document, spec: Prepare, ctx: StepContext, guard: Guard | None) -> dict[str, Any]:
    dropped: list[Dropped] = []
    documents = list(_kept(spec.clean.apply([document], ctx), dropped))
    found: list[dict[str, Any]] = []
    if guard is not None:
        documents, found, gone = guard.documents(documents)
        dropped += gone
    passages = list(_kept(spec.chunk.apply(documents, ctx), dropped))
    return {"documents": [asdict(found) for found in documents], "passages": [asdict(found) for found in passages],
            "dropped": [asdict(found) for found in dropped], "privacy": found}


def _kept(results: Iterable[Kept[Any] | Dropped], dropped: Sink[Dropped]) -> Iterator[Any]:
    for found in results:
        if isinstance(found, Dropped):
            dropped.append(found)
        else:
            yield found.item


def make_examples(spec: Prepare, context: MakeContext, splits: Splits, search: Callable[[Split | None], Retriever],
                  dropped: Sink[Dropped], memory: Memory, guard: Guard | None = None
                  ) -> tuple[Sequence[Example], dict[str, dict[str, Any]]]:
    """Run the makers in order; what one yields is split and freed of repeats before the next one sees it. Personal data
    is looked for in rows of the user's own; those made from passages are made from clean ones."""
    admission, forgotten = Admission(dropped, memory), read_forgotten(context.root)
    notes: dict[str, dict[str, Any]] = {}
    for number, maker in enumerate(spec.makers):
        said: dict[str, Any] = {}
        count = itertools.count()
        made = _made(run_maker(maker, context, admission.examples, search, said), count, dropped)
        raw, kept = memory.examples(), memory.examples()
        raw.extend(drop_forgotten(made, forgotten, dropped, root=context.root))
        with passing(context.progress, "look for personal data", raw, len(raw)) as rows:
            if guard is not None:
                rows = guard.examples(rows, dropped, system=context.task.system,
                                      clean=lambda example: bool(example.origin.passages))
                rows = drop_forgotten(rows, forgotten, dropped, root=context.root)
            kept.extend(injection.defused(example) for example in rows)
        del raw
        notes[maker.kind if maker.kind not in notes else f"{maker.kind} {number + 1}"] = said
        admission.add(_assign(kept, spec, splits, dropped))
        context.progress.say(f"  {maker.kind}: {next(count)} examples made")
    return admission.examples, notes


def _made(found: Iterable[Example | Dropped], count: Iterator[int], dropped: Sink[Dropped]) -> Iterator[Example]:
    for one in found:
        if isinstance(one, Dropped):
            dropped.append(one)
        else:
            next(count)
            yield one


def run_maker(maker: Maker, context: MakeContext, examples: Sequence[Example],
              search: Callable[[Split | None], Retriever] | None, said: dict[str, Any]) -> Iterator[Example | Dropped]:
    """What a maker makes of everything, or of one document after the other; its figures are added to `said`."""
    if not maker.per_document:
        yield from maker.make(replace(context, examples=examples, notes=said,
                                      build_retriever=search if maker.uses_retriever else None))
        return
    inside: dict[str, array[int]] = {}
    for at, passage in enumerate(context.passages):
        inside.setdefault(passage.path, array("q")).append(at)
    base = canonical([maker.dump(), maker.VERSION, dict(maker.inputs(context.root)), context.task.dump(),
                      context.rag.dump(), context.seed])
    with context.progress.track(f"make: {maker.kind}", len(context.documents), unit="documents") as bar:
        for document in context.documents:
            passages = [context.passages[at] for at in inside.get(document.path, ())]
            split = [context.split_of(passage.id) for passage in passages]
            key = digest("make", base, encode(document), *map(encode, passages), *split, length=40)
            row = _cached(context.cache, key,
                          lambda document=document, passages=passages: _make(maker, context, document, passages))
            for name, value in row["notes"].items():
                number = isinstance(value, int | float) and not isinstance(value, bool)
                said[name] = said.get(name, 0) + value if number else value
            for kind, found in row["made"]:
                yield decode_example(found) if kind == "example" else Dropped(**found)
            bar.advance()


def _make(maker: Maker, context: MakeContext, document: Document, passages: Sequence[Passage]) -> dict[str, Any]:
    alone = replace(context, documents=(document,), passages=tuple(passages), examples=(), notes={})
    made = [["example" if isinstance(found, Example) else "dropped", asdict(found)] for found in maker.make(alone)]
    return {"made": made, "notes": alone.notes}


def _assign(made: Sequence[Example], spec: Prepare, splits: Splits, dropped: Sink[Dropped]) -> Iterator[Example]:
    """Give each example the split of what it was made from, and its final id."""
    def is_free(example: Example) -> bool:
        return not example.origin.passages and OWN_SPLIT not in example.tags

    # A group stays together; otherwise questions that mean the same do.
    names = Again(lambda: (f"new\0{example.groups.get(TOGETHER) or content_words(example)}"
                           for example in made if is_free(example)))
    of_free = spec.split.each(names, seed=spec.seed)
    for example in made:
        example = replace(example, id=example_id(example), split=next(of_free) if is_free(example) else example.split)
        if example.origin.passages and OWN_SPLIT not in example.tags:
            found = {splits.of_passage.get(passage) for passage in example.origin.passages}
            reason = "unknown-passage" if None in found else "spans-splits" if len(found) > 1 else ""
            if reason:
                dropped.append(Dropped(item=example.id, step=example.origin.step, reason=reason,
                                       detail=example.origin.where, text=example.question[:300]))
                continue
            example = replace(example, split=splits.of_passage[example.origin.passages[0]])
        elif example.origin.documents and splits.by == "document" and OWN_SPLIT not in example.tags:
            example = replace(example, split=splits.of_document.get(example.origin.documents[0], example.split))
        yield example


def example_id(example: Example) -> str:
    """Hash of what the example says and where it comes from: the same in every run that makes it."""
    said = example.input if isinstance(example.input, str) else canonical([asdict(turn) for turn in example.input])
    return digest("example", example.origin.step, said, example.target or "", *example.origin.passages,
                  *(() if example.origin.passages else (example.origin.where,)))


def _cached(cache: Cache, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    made = make()
    text = json.dumps(made, ensure_ascii=False).encode("utf-8", "surrogatepass")
    cache.put(key, text)
    return json.loads(text)  # what a cached run would give, tuples read as lists


def _remember(make: Callable[[Split | None], Retriever]) -> Callable[[Split | None], Retriever]:
    made: dict[Split | None, Retriever] = {}

    def give(split: Split | None) -> Retriever:
        if split not in made:
            made[split] = make(split)
        return made[split]

    return give


def _refuse_empty(counts: Mapping[str, int], examples: Sequence[Example], passages: Sequence[Passage], splits: Splits,
                  dropped: Iterable[Dropped], spec: Prepare) -> None:
    if counts["train"] and counts["test"]:
        return
    reasons = Counter(f"{drop.step}: {drop.reason}" for drop in dropped).most_common(4)
    why = "; dropped: " + ", ".join(f"{count} × {reason}" for reason, count in reasons) if reasons else ""
    inside = Counter(splits.of_passage.values())
    if not passages:
        raise DataError(f"no text was left after cleaning and chunking{why}; check the documents with: luthier show "
                        "ingest")
    if not examples:
        raise DataError(f"no examples could be made from {len(passages)} passages{why}; add your own pairs (maker "
                        "'pairs'), or a teacher (maker 'synthesize')")
    lacking = "train" if not counts["train"] else "test"
    raise DataError(
        f"no {lacking} examples: all {len(examples)} examples fall into "
        f"{' and '.join(name for name in ('train', 'validation', 'test') if counts[name])} "
        f"(split by {splits.by}; {inside[lacking]} of {len(passages)} passages are for {lacking}){why}; add documents, "
        f"set 'by: passage' or another share in prepare.split (now test {spec.split.test:g}), or change prepare.seed"
    )
