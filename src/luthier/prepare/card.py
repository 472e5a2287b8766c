"""The data card: what was kept and dropped and why, who made the examples, and what to be careful about.

`card.json` holds every figure; `card.html` is one self-contained page (no script, no network) for a person to judge
the data by, with samples beside their sources.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
_SAMPLES = 3  # of each maker, and of each reason
_STARTS = 20_000
_ROWS = 40  # documents listed in the page; card.json lists all


def write_card(folder: Path, summary: Mapping[str, Any], *, documents: Sequence[Document],
               passages: Sequence[Passage], examples: Sequence[Example], dropped: Iterable[Dropped], splits: Splits,
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
              examples: Sequence[Example], dropped: Iterable[Dropped], splits: Splits,
              notes: Mapping[str, Mapping[str, Any]], spec: Prepare, goings: Mapping[str, Going] | None = None,
              privacy: Mapping[str, Any] | None = None, injection: Mapping[str, Any] | None = None,
              sift: Mapping[str, Any] | None = None
              ) -> dict[str, Any]:
    """Every figure of the card as JSON-ready data."""
    reasons: dict[str, Counter[str]] = {}
    broken: set[str] = set()
    for drop in dropped:
        reasons.setdefault(drop.step, Counter())[drop.reason] += 1
        if drop.step in ("clean", "chunk"):
            broken.add(drop.item)
    kept = {"boilerplate": len(documents),
            "clean": len(documents) - (sum(document.id in broken for document in documents) if broken else 0)}
    kept["privacy"], kept["versions"], kept["reading"] = kept["clean"], len(documents), len(documents)
    kept["injection"] = len(documents) + sum(reasons.get("versions", Counter()).values())
    rest = len(passages)
    for step in reversed(_OF_PASSAGES):
        kept[step] = rest
        rest += sum(reasons.get(step, Counter()).values())
    seen = Seen(spec.seed)
    for at, example in enumerate(examples):
        seen.take(at, example)
    made = seen.made
    names = dict.fromkeys([*notes, *(step for step, _ in made), *(step for step in reasons if step not in _STEPS)])
    data: dict[str, Any] = {
        "summary": dict(summary),
        "steps": [{"step": step, "kept": kept[step], "unit": "passages" if step in _OF_PASSAGES else "documents",
                   "dropped": dict(reasons.get(step, Counter()).most_common())} for step in _STEPS],
        "makers": [{
            "maker": name, "kept": sum(made[name, split] for split in SPLITS),
            **{split: made[name, split] for split in SPLITS},
            "dropped": dict(reasons.get(name, Counter()).most_common()), "notes": dict(notes.get(name, {})),
        } for name in names],
        "origins": [{"origin": origin, "meaning": meaning, "count": count, "share": count / max(1, len(examples))}
                    for origin, meaning in ORIGINS.items() if (count := seen.origins[origin])],
        "tags": dict(seen.tags.most_common()),
        "documents": _coverage(documents, passages, seen, splits),
        "volatility": [going.dump() for _, going in sorted((goings or {}).items())],
        "lengths": {
            "passages": _histogram(array("q", (estimate_tokens(passage.headed) for passage in passages)),
                                   "estimated tokens"),
            "questions": _histogram(seen.questions, "words"), "answers": _histogram(seen.answers, "words"),
        },
        "samples": _samples(examples, seen, passages),
        "dropped_samples": _dropped_samples(dropped), "privacy": dict(privacy or {}),
        "injection": dict(injection or {}), "sift": dict(sift or {}),
    }
    data["warnings"] = [*warnings(data, seen, splits), *privacy_warnings(data["privacy"]),
                        *injection_warnings(data["injection"])]
    return data


class Seen:
    """What the card counts, of one example after the other: there may be more of them than memory holds."""

    def __init__(self, seed: int):
        self._seed = seed
        self.made: Counter[tuple[str, str]] = Counter()
        """By step and split."""
        self.origins: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.used: set[str] = set()
        """Ids of the passages that led to an example."""
        self.of_document: Counter[str] = Counter()
        self.questions, self.answers = array("q"), array("q")
        """Lengths in words."""
        self.samples: dict[str, list[tuple[bytes, int]]] = {}
        """By step: the three with the least hash, with their numbers."""
        self.tested: set[bytes] = set()
        self.asked_in_test = 0
        self._starts: Counter[str] = Counter()

    def take(self, at: int, example: Example) -> None:
        step = example.origin.step
        self.made[step, example.split] += 1
        self.origins[example.origin.maker] += 1
        self.tags.update(example.tags)
        self.used.update(example.origin.passages)
        self.of_document.update(set(example.origin.documents))
        place = hashlib.sha256(f"card\0{self._seed}\0{example.id}".encode()).digest()
        self.samples[step] = sorted([*self.samples.get(step, []), (place, at)])[:_SAMPLES]
        if example.target is None:
            return
        question = bare_question(example.question)
        self.questions.append(len(question.split()))
        self.answers.append(len(example.target.split()))
        self._starts[" ".join(words(question)[:3])] += 1
        if len(self._starts) > _STARTS:  # what few begin with cannot become what 40 % begin with
            self._starts = Counter(dict(self._starts.most_common(_STARTS // 2)))
        if example.split == "test":
            self.asked_in_test += 1
            self.tested.add(hashlib.blake2b(content_words(example).encode("utf-8", "surrogatepass"),
                                            digest_size=8).digest())

    @property
    def start(self) -> tuple[str, int]:
        """The three words that most questions begin with, and how many do."""
        return next(iter(self._starts.most_common(1)), ("", 0))


def warnings(data: Mapping[str, Any], seen: Seen, splits: Splits) -> list[str]:
    """What a careful person would point out, most serious first."""
    said: list[str] = []
    summary = data["summary"]
    total = sum(seen.origins.values())
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
    if with_passages and seen.of_document and covered < with_passages / 2:
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
    asked = len(seen.questions)
    if asked >= 20:
        start, times = seen.start
        if times > 0.4 * asked:
            said.append(f"{times / asked:.0%} of the questions begin with “{start}”: they are made from a "
                        "template, so the model may learn the template.")
    teacher = seen.origins["teacher"]
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
    if seen.tested and len(seen.tested) < 0.7 * seen.asked_in_test:
        said.append("Many test questions differ in a word or two only; the effective size of the test set is smaller "
                    "than its count.")
    return said


def _coverage(documents: Sequence[Document], passages: Sequence[Passage], seen: Seen, splits: Splits
              ) -> list[dict[str, Any]]:
    inside: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    split: Counter[tuple[str, str]] = Counter()
    for passage in passages:
        inside[passage.path] += 1
        covered[passage.path] += passage.id in seen.used
        split[passage.path, splits.of_passage[passage.id]] += 1
    return [{
        "path": document.path, "title": document.title, "passages": inside[document.path],
        "covered": covered[document.path], "examples": seen.of_document[document.id],
        "splits": {name: split[document.path, name] for name in SPLITS if split[document.path, name]},
    } for document in documents]


def _histogram(values: Sequence[int], unit: str) -> dict[str, Any]:
    """Up to 24 equal bins to the 99th percentile, the last one open."""
    if not values:
        return {"unit": unit, "n": 0, "bins": [], "median": None, "p95": None, "max": None}
    ordered = np.sort(np.asarray(values))
    at = lambda share: int(ordered[min(len(ordered) - 1, int(share * len(ordered)))])  # noqa: E731
    top = max(1, at(0.99))
    width = max(1, -(-(top + 1) // 24))
    counts = np.bincount(np.minimum(ordered, top) // width, minlength=top // width + 1)
    return {"unit": unit, "n": len(ordered), "median": at(0.5), "p95": at(0.95), "max": int(ordered[-1]),
            "bins": [{"from": slot * width, "to": (slot + 1) * width - 1, "count": int(counts[slot])}
                     for slot in range(top // width + 1)]}


def _samples(examples: Sequence[Example], seen: Seen, passages: Sequence[Passage]) -> list[dict[str, Any]]:
    picked = [(step, examples[at]) for step, inside in seen.samples.items() for _, at in inside]
    wanted = {example.origin.passages[0] for _, example in picked if example.origin.passages}
    place = {passage.id: passage for passage in passages if passage.id in wanted}
    shown = []
    for step, example in picked:
        source = place.get(example.origin.passages[0]) if example.origin.passages else None
        shown.append({
            "id": example.id, "maker": step, "origin": example.origin.maker, "split": example.split,
            "tags": list(example.tags), "question": bare_question(example.question)[:2000],
            "answer": None if example.target is None else example.target[:2000],
            "source": example.origin.where or (source.citation if source else ""),
            "passage": source.text[:1500] if source else "", "evidence": example.origin.evidence,
        })
    return shown


def _dropped_samples(dropped: Iterable[Dropped]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[Dropped]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for drop in dropped:
        counts[drop.step, drop.reason] += 1
        inside = groups.setdefault((drop.step, drop.reason), [])
        if len(inside) < _SAMPLES:
            inside.append(drop)
    return [{"step": step, "reason": reason, "count": counts[step, reason],
             "samples": [{"detail": drop.detail, "text": drop.text} for drop in inside]}
            for (step, reason), inside in sorted(groups.items(), key=lambda pair: (-counts[pair[0]], pair[0]))]


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
