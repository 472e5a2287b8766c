"""The data card: what was kept and dropped and why, who made the examples, and what to be careful about.

`card.json` holds every figure; `card.html` is one self-contained page (no script, no network) for a person to judge
the data by, with samples beside their sources.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.index.rag import bare_question
from luthier.index.tokens import estimate_tokens
from luthier.prepare.admit import content_words
from luthier.prepare.injection import warnings as injection_warnings
from luthier.prepare.privacy.report import warnings as privacy_warnings
from luthier.prepare.split import Splits
from luthier.prepare.text import words
from luthier.prepare.volatility import Going
from luthier.store import write_json, write_text
from luthier.types import Document, Dropped, Example, Passage

if TYPE_CHECKING:
    from luthier.prepare.base import Prepare

SPLITS = ("train", "validation", "test")
ORIGINS = {
    "human": "written by a person: your own pairs",
    "document": "a question and its answer that stand in a document",
    "rule": "put together by a rule from a document's text",
    "teacher": "written by a model, then checked",
}
_STEPS = ("injection", "versions", "reading", "boilerplate", "clean", "privacy", "chunk", "language", "quality",
          "dedupe", "semantic")
_OF_PASSAGES = _STEPS[_STEPS.index("chunk"):]
_ROWS = 40  # documents listed in the page; card.json lists all


def write_card(folder: Path, summary: Mapping[str, Any], *, documents: Sequence[Document],
               passages: Sequence[Passage], examples: Sequence[Example], dropped: Sequence[Dropped], splits: Splits,
               notes: Mapping[str, Mapping[str, Any]], spec: Prepare, goings: Mapping[str, Going] | None = None,
               privacy: Mapping[str, Any] | None = None, injection: Mapping[str, Any] | None = None,
               sift: Mapping[str, Any] | None = None) -> None:
    """Write `card.json` and `card.html`."""
    data = card_data(summary, documents=documents, passages=passages, examples=examples, dropped=dropped,
                     splits=splits, notes=notes, spec=spec, goings=goings, privacy=privacy, injection=injection,
                     sift=sift)
    write_json(folder / "card.json", data)
    write_text(folder / "card.html", render(data))


def card_data(summary: Mapping[str, Any], *, documents: Sequence[Document], passages: Sequence[Passage],
              examples: Sequence[Example], dropped: Sequence[Dropped], splits: Splits,
              notes: Mapping[str, Mapping[str, Any]], spec: Prepare, goings: Mapping[str, Going] | None = None,
              privacy: Mapping[str, Any] | None = None, injection: Mapping[str, Any] | None = None,
              sift: Mapping[str, Any] | None = None
              ) -> dict[str, Any]:
    """Every figure of the card as JSON-ready data."""
    reasons: dict[str, Counter[str]] = {}
    for drop in dropped:
        reasons.setdefault(drop.step, Counter())[drop.reason] += 1
    dropped_documents = {drop.item for drop in dropped if drop.step in ("clean", "chunk")}
    kept = {"boilerplate": len(documents),
            "clean": len(documents) - sum(document.id in dropped_documents for document in documents)}
    kept["privacy"], kept["versions"], kept["reading"] = kept["clean"], len(documents), len(documents)
    kept["injection"] = len(documents) + sum(reasons.get("versions", Counter()).values())
    rest = len(passages)
    for step in reversed(_OF_PASSAGES):
        kept[step] = rest
        rest += sum(reasons.get(step, Counter()).values())
    made = Counter(example.origin.step for example in examples)
    names = dict.fromkeys([*notes, *made, *(step for step in reasons if step not in _STEPS)])
    data: dict[str, Any] = {
        "summary": dict(summary),
        "steps": [{"step": step, "kept": kept[step], "unit": "passages" if step in _OF_PASSAGES else "documents",
                   "dropped": dict(reasons.get(step, Counter()).most_common())} for step in _STEPS],
        "makers": [{
            "maker": name, "kept": made[name],
            **{split: sum(e.split == split and e.origin.step == name for e in examples) for split in SPLITS},
            "dropped": dict(reasons.get(name, Counter()).most_common()), "notes": dict(notes.get(name, {})),
        } for name in names],
        "origins": [{"origin": origin, "meaning": meaning, "count": count, "share": count / max(1, len(examples))}
                    for origin, meaning in ORIGINS.items()
                    if (count := sum(e.origin.maker == origin for e in examples))],
        "tags": dict(Counter(tag for example in examples for tag in example.tags).most_common()),
        "documents": _coverage(documents, passages, examples, splits),
        "volatility": [going.dump() for _, going in sorted((goings or {}).items())],
        "lengths": {
            "passages": _histogram([estimate_tokens(passage.headed) for passage in passages], "estimated tokens"),
            "questions": _histogram([len(bare_question(e.question).split()) for e in examples if e.target is not None],
                                    "words"),
            "answers": _histogram([len(e.target.split()) for e in examples if e.target is not None], "words"),
        },
        "samples": _samples(examples, passages, spec.seed),
        "dropped_samples": _dropped_samples(dropped), "privacy": dict(privacy or {}),
        "injection": dict(injection or {}), "sift": dict(sift or {}),
    }
    data["warnings"] = [*warnings(data, examples, splits), *privacy_warnings(data["privacy"]),
                        *injection_warnings(data["injection"])]
    return data


def warnings(data: Mapping[str, Any], examples: Sequence[Example], splits: Splits) -> list[str]:
    """What a careful person would point out, most serious first."""
    said: list[str] = []
    summary = data["summary"]
    total = len(examples)
    if summary["test"] < 30:
        said.append(f"The test set has only {summary['test']} examples: differences between systems will rarely be "
                    "certain. Add documents or pairs, or raise prepare.split.test.")
    if summary["train"] < 50:
        said.append(f"There are only {summary['train']} training examples: expect a change of style, not of knowledge.")
    if 0 < summary["documents"] < 5:
        said.append(f"Everything comes from {_count(summary['documents'], 'document')}: the result may not carry over "
                    "to others.")
    if splits.by == "passage" and splits.of_passage:
        said.append("The split is by passage: test questions are about passages that were not trained on, but other "
                    "passages of the same documents were. Split by document (from 20 documents on) proves more.")
    unread = sum(sum(step["dropped"].values()) for step in data["steps"] if step["step"] == "reading")
    if unread:
        said.append(f"{_count(unread, 'piece')} of text from scans and handwriting {'was' if unread == 1 else 'were'} "
                    "left out, because nobody has looked at what the machine read; see them with: luthier review")
    listed = data["documents"]
    with_passages = sum(row["passages"] for row in listed)
    covered = sum(row["covered"] for row in listed)
    if with_passages and any(e.origin.documents for e in examples) and covered < with_passages / 2:
        said.append(f"Only {covered} of {with_passages} passages ({covered / with_passages:.0%}) led to an example; "
                    "what the others say is not trained. A teacher (maker `synthesize`) or your own pairs would help.")
    looks = [row["path"] for row in data["volatility"] if row["looks"] and not row["volatile"]]
    if looks:
        said.append(f"{_count(len(looks), 'document')} that {'looks' if len(looks) == 1 else 'look'} volatile (dates, "
                    f"prices, phone numbers) will be trained: {', '.join(looks[:3])}{', …' if len(looks) > 3 else ''}. "
                    "What changes is better searched: declare it under prepare.volatility.patterns.")
    if not any(origin["origin"] == "human" for origin in data["origins"]):
        said.append("No question was written by a person: the report will tell how well the assistant answers "
                    "questions made from the documents, which may differ from what your users ask.")
    asked = [words(bare_question(example.question))[:3] for example in examples if example.target is not None]
    if len(asked) >= 20:
        (start, times), = Counter(" ".join(first) for first in asked).most_common(1)
        if times > 0.4 * len(asked):
            said.append(f"{times / len(asked):.0%} of the questions begin with “{start}”: they are made from a "
                        "template, so the model may learn the template.")
    teacher = sum(example.origin.maker == "teacher" for example in examples)
    if teacher > total / 2:
        said.append(f"{teacher / total:.0%} of the examples were written by a model; its faults are learned with them. "
                    "Read the samples below.")
    conflicts = sum(1 for row in data["dropped_samples"] for drop in row["samples"]
                    if drop["detail"].endswith("which has another answer"))
    if conflicts:
        said.append("Some dropped questions were asked before with another answer; the documents may contradict each "
                    "other (see duplicate-question among the dropped).")
    leaks = sum(count for row in data["makers"] for reason, count in row["dropped"].items()
                if reason.startswith("leak-"))
    if leaks > 0.1 * (total + leaks):
        said.append(f"{leaks} examples were dropped because they repeat validation or test text: the documents share "
                    "much wording.")
    sources = Counter(content_words(e) for e in examples if e.split == "test" and e.target is not None)
    if sources and len(sources) < 0.7 * sum(sources.values()):
        said.append("Many test questions differ in a word or two only; the effective size of the test set is smaller "
                    "than its count.")
    return said


def _coverage(documents: Sequence[Document], passages: Sequence[Passage], examples: Sequence[Example],
              splits: Splits) -> list[dict[str, Any]]:
    used = {id for example in examples for id in example.origin.passages}
    number: Counter[str] = Counter()
    for example in examples:
        number.update(set(example.origin.documents))
    rows = []
    for document in documents:
        inside = [passage for passage in passages if passage.path == document.path]
        rows.append({
            "path": document.path, "title": document.title, "passages": len(inside),
            "covered": sum(passage.id in used for passage in inside), "examples": number[document.id],
            "splits": {name: count for name in SPLITS
                       if (count := sum(splits.of_passage[passage.id] == name for passage in inside))},
        })
    return rows


def _histogram(values: Sequence[int], unit: str) -> dict[str, Any]:
    """Up to 24 equal bins to the 99th percentile, the last one open."""
    if not values:
        return {"unit": unit, "n": 0, "bins": [], "median": None, "p95": None, "max": None}
    ordered = sorted(values)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]  # noqa: E731
    top = max(1, at(0.99))
    width = max(1, -(-(top + 1) // 24))
    counts = Counter(min(value, top) // width for value in ordered)
    return {"unit": unit, "n": len(ordered), "median": at(0.5), "p95": at(0.95), "max": ordered[-1],
            "bins": [{"from": slot * width, "to": (slot + 1) * width - 1, "count": counts[slot]}
                     for slot in range(top // width + 1)]}


def _samples(examples: Sequence[Example], passages: Sequence[Passage], seed: int, each: int = 3
             ) -> list[dict[str, Any]]:
    place = {passage.id: passage for passage in passages}
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.origin.step, []).append(example)
    shown = []
    for step, inside in groups.items():
        picked = sorted(inside, key=lambda e: hashlib.sha256(f"card\0{seed}\0{e.id}".encode()).digest())[:each]
        for example in picked:
            source = place.get(example.origin.passages[0]) if example.origin.passages else None
            shown.append({
                "id": example.id, "maker": step, "origin": example.origin.maker, "split": example.split,
                "tags": list(example.tags), "question": bare_question(example.question)[:2000],
                "answer": None if example.target is None else example.target[:2000],
                "source": example.origin.where or (source.citation if source else ""),
                "passage": source.text[:1500] if source else "", "evidence": example.origin.evidence,
            })
    return shown


def _dropped_samples(dropped: Sequence[Dropped], each: int = 3) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[Dropped]] = {}
    for drop in dropped:
        groups.setdefault((drop.step, drop.reason), []).append(drop)
    return [{"step": step, "reason": reason, "count": len(inside),
             "samples": [{"detail": drop.detail, "text": drop.text} for drop in inside[:each]]}
            for (step, reason), inside in sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def render(data: Mapping[str, Any]) -> str:
    """The card as one HTML page."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = lambda value: f"{value:.0%}"
    environment.filters["figure"] = _figure
    environment.globals.update(splits=SPLITS, rows=_ROWS, highlight=_highlight, bars=_bars)
    return environment.get_template("card.html.j2").render(**data)


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _bars(histogram: Mapping[str, Any], width: int = 300, height: int = 88) -> list[dict[str, Any]]:
    """Rectangles of a histogram in SVG units."""
    bins = histogram["bins"]
    most = max((one["count"] for one in bins), default=0) or 1
    step = width / max(1, len(bins))
    return [{"x": round(at * step, 2), "width": round(max(1.0, step - 1.5), 2), "count": one["count"],
             "height": round(one["count"] / most * height, 2), "y": round(height - one["count"] / most * height, 2),
             "label": f"{one['from']} to {one['to']} {histogram['unit']}: {one['count']}"}
            for at, one in enumerate(bins)]


def _highlight(passage: str, evidence: str) -> Any:
    """The passage with the evidence marked, escaped."""
    from markupsafe import Markup, escape

    at = passage.find(evidence) if evidence else -1
    if at < 0:
        return escape(passage)
    end = at + len(evidence)
    return Markup("{}<mark>{}</mark>{}").format(passage[:at], passage[at:end], passage[end:])
