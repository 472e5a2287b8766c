"""`luthier data`: look into what `prepare` made: counts, rows that hold a text, and what was dropped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from luthier.errors import UsageError
from luthier.prepare.formats._flat import lineage
from luthier.prepare.formats.base import Content, What
from luthier.project.base import Project
from luthier.store import Artifact
from luthier.task import Task
from luthier.types import Dropped, Example, Passage, Split, read_jsonl


def opened(project: Project, *, what: What = "examples", split: Split | None = None) -> tuple[Artifact, Content]:
    """The newest artifact of `prepare`, and what can be read of it."""
    from luthier.prepare.export import content_of

    artifact = project.artifact("prepare")
    task = Task.model_validate(artifact.inputs["task"])
    return artifact, content_of(artifact, task, root=project.root, what=what, split=split)


def summary(project: Project, count: int = 3) -> dict[str, Any]:
    """Counts by split, step, document and label, the reasons of drops, and the first rows of each split."""
    artifact, content = opened(project)
    splits: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    shown: dict[str, list[dict[str, Any]]] = {}
    for example in content.examples():
        splits[example.split] += 1
        steps[example.origin.step] += 1
        tags.update(example.tags)
        labels.update(example.labels or (tag.label for tag in example.spans or ()))
        told = lineage(example, content)
        documents.update(told["documents"] or [file_or_row(example)])
        if len(shown.setdefault(example.split, [])) < count:
            shown[example.split].append(row_of(example, content))
    drops: Counter[str] = Counter(f"{row['step']}: {row['reason']}" for row in read_jsonl(artifact.path /
                                                                                          "dropped.jsonl"))
    return {"prepare": artifact.id, "folder": str(artifact.path), "task": content.task.type,
            "splits": dict(splits), "steps": dict(steps.most_common()), "tags": dict(tags.most_common()),
            "labels": dict(labels.most_common()), "sources": dict(documents.most_common()),
            "dropped": dict(drops.most_common()), "rows": shown}


def file_or_row(example: Example) -> str:
    """The source of an example that comes from no document: the user's file."""
    from luthier.prepare.labels import file_of

    return file_of(example.origin.where) if example.origin.where else example.origin.step


def find(project: Project, text: str, *, split: Split | None = None, count: int = 20) -> dict[str, Any]:
    """Examples, passages and drops that hold a text, case aside; at most `count` of each are shown, all are counted.

    UsageError for an empty text.
    """
    wanted = " ".join(text.casefold().split())
    if not wanted:
        raise UsageError("there is nothing to look for; name a text: luthier data find TEXT")
    _, content = opened(project, split=split)
    found: dict[str, Any] = {"text": text}
    for kind, rows in (("examples", _examples(content, wanted)),
                       ("passages", _others(opened(project, what="passages")[1], wanted)),
                       ("dropped", _others(opened(project, what="dropped")[1], wanted))):
        if split is not None and kind != "examples":
            continue
        some = list(islice(rows, count))
        found[kind] = {"count": len(some) + sum(1 for _ in rows), "rows": some}
    return found


def dropped(project: Project, *, step: str | None = None, reason: str | None = None, count: int = 50
            ) -> dict[str, Any]:
    """What a step or maker refused: counts of every reason, and the first `count` rows of those asked for.

    UsageError for a step or reason that nothing was dropped by.
    """
    artifact, content = opened(project, what="dropped")
    counts: Counter[tuple[str, str]] = Counter()
    rows: list[dict[str, Any]] = []
    matching = 0
    for drop in content.others():
        assert isinstance(drop, Dropped)
        counts[drop.step, drop.reason] += 1
        if (step is None or drop.step == step) and (reason is None or drop.reason == reason):
            matching += 1
            if len(rows) < count:
                rows.append(vars(drop))
    if counts and not matching:
        known = ", ".join(f"{a}: {b}" for (a, b), _ in counts.most_common(12))
        raise UsageError(f"nothing was dropped by {' and '.join(filter(None, (step, reason)))}; there are: {known}")
    return {"prepare": artifact.id, "count": matching, "rows": rows,
            "reasons": [{"step": a, "reason": b, "count": n} for (a, b), n in counts.most_common()]}


def said(example: Example) -> str:
    """All that an example says: the whole conversation, the text, its answer or labels."""
    before = [example.input] if isinstance(example.input, str) else [turn.content for turn in example.input]
    return "\n".join([*before, example.target or "", *(example.labels or ()), example.image, *example.negatives])


def row_of(example: Example, content: Content) -> dict[str, Any]:
    """An example for showing: what it says, shortened, and where it comes from."""
    told = lineage(example, content)
    answer = example.target if example.target is not None else ", ".join(
        example.labels or tuple(f"{tag.label}: {str(example.input)[tag.start:tag.end]}" for tag in example.spans or ()))
    return {"id": example.id, "split": example.split, "step": example.origin.step, "origin": example.origin.where,
            "question": (example.image or _last_question(example))[:300], "answer": answer[:300],
            "documents": told["documents"], "page": told["page"]}


def _last_question(example: Example) -> str:
    from luthier.index.rag import bare_question

    return bare_question(example.question)


def _examples(content: Content, wanted: str) -> Iterator[dict[str, Any]]:
    for example in content.examples():
        if wanted in " ".join(said(example).casefold().split()):
            yield row_of(example, content)


def _others(content: Content, wanted: str) -> Iterator[dict[str, Any]]:
    for record in content.others():
        words = record.headed if isinstance(record, Passage) else f"{record.item} {record.detail} {record.text}"
        if wanted in " ".join(words.casefold().split()):
            if isinstance(record, Passage):
                yield {"id": record.id, "origin": record.citation, "text": record.text[:300]}
            else:
                yield vars(record)


def text_of_summary(data: Mapping[str, Any]) -> str:
    lines = [f"prepare {data['prepare']} ({data['task']})", f"folder: {data['folder']}", ""]
    for name in ("splits", "steps", "tags", "labels", "sources", "dropped"):
        counts = data[name]
        if counts:
            lines.append(f"{name}: {sum(counts.values()):,}" if name in ("splits", "dropped") else f"{name}:")
            lines += [f"  {count:7,}  {key}" for key, count in islice(counts.items(), 20)]
            lines += [f"           and {len(counts) - 20:,} more"] if len(counts) > 20 else []
    for split, rows in data["rows"].items():
        lines += ["", f"{split}:", *(line for row in rows for line in _lines(row))]
    return "\n".join([*lines, "", "Every row with its lineage: luthier data browse"])


def _lines(row: Mapping[str, Any]) -> list[str]:
    page = f", page {row['page']}" if row["page"] and "page" not in row["origin"] else ""
    return [f"  {row['id']}  {row['split']}, {row['step']}, {row['origin']}{page}",
            f"    {_short(row['question'])}", *([f"    → {_short(row['answer'])}"] if row["answer"] else [])]


def text_of_found(data: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for kind in ("examples", "passages", "dropped"):
        if kind not in data:
            continue
        found = data[kind]
        lines.append(f"{kind}: {found['count']:,}")
        for row in found["rows"]:
            if kind == "examples":
                lines += _lines(row)
            elif kind == "passages":
                lines += [f"  {row['id']}  {row['origin']}", f"    {_short(row['text'])}"]
            else:
                lines += _drop_lines(row)
        if found["count"] > len(found["rows"]):
            lines.append(f"  and {found['count'] - len(found['rows']):,} more (--count)")
    return "\n".join(lines)


def text_of_dropped(data: Mapping[str, Any]) -> str:
    total = sum(one["count"] for one in data["reasons"])
    if not total:
        return "nothing was dropped"
    lines = [f"{total:,} dropped:"]
    lines += [f"  {one['count']:7,}  {one['step']}: {one['reason']}" for one in data["reasons"]]
    lines += ["", *(line for row in data["rows"] for line in _drop_lines(row))]
    more = data["count"] - len(data["rows"])
    return "\n".join(lines + ([f"  and {more:,} more (--count), or all with: luthier data browse"] if more else []))


def _drop_lines(row: Mapping[str, Any]) -> list[str]:
    detail = f" ({row['detail']})" if row["detail"] else ""
    return [f"  {row['item']}  {row['step']}: {row['reason']}{detail}",
            *([f"    {_short(row['text'])}"] if row["text"] else [])]


def _short(text: str, most: int = 110) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
