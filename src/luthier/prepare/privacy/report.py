"""What was found where: `privacy.jsonl`, a section of the data card, a line of the run, and questions for a person."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.prepare.privacy.base import KINDS, Privacy
from luthier.prepare.privacy.recite import Taken
from luthier.prepare.privacy.work import Guard
from luthier.progress import Progress
from luthier.queues import ReviewItem, read_review, write_review
from luthier.store import write_bytes
from luthier.types import Example, Passage, write_jsonl

FILE = "privacy.jsonl"
_ROWS, _PLACES, _SAMPLES = 20, 60, 6


def write_privacy(folder: Path, guard: Guard | None, texts: Iterable[tuple[str, str]], progress: Progress
                  ) -> dict[str, Any]:
    """Write the files of the step into the artifact and say a line; returns the card's section, empty where privacy is
    off. `texts` are (where, text) of everything that goes on, to look for what was taken out elsewhere."""
    if guard is None:
        return {}
    guard.finish()
    write_jsonl(folder / FILE, (_public(record, guard) for record in guard.records))
    other = [item for item in read_review(folder) if item.queue != "privacy"]
    asked = questions(guard.records, guard.spec)
    if asked or other:
        write_review(folder, [*other, *asked])
    left = _left(guard, texts) if guard.spec.rewrites else []
    section = card_section(guard, asked=len(asked), left=left)
    if guard.spec.map_file and guard.surrogates is not None:
        _write_map(guard)
    for line in said(section):
        progress.say(line)
    if guard.key is not None and guard.key.made is not None:
        progress.say(f"  privacy: a new key was made in {guard.key.made}; keep a copy, another key gives other "
                     f"pseudonyms")
    return section


def questions(records: Iterable[Mapping[str, Any]], spec: Privacy) -> list[ReviewItem]:
    """One item for each value that is unsure, however often it stands; the least certain first.

    `text` holds the masked value, for it is written into labels/privacy.jsonl, which is made for git; the sentence is
    in `context`.
    """
    groups: dict[str, Mapping[str, Any]] = {}
    number: Counter[str] = Counter()
    kinds = tuple(KINDS)
    for record in records:
        if record["kind"] not in kinds:
            kinds = (*kinds, record["kind"])
        if "ask" in record:
            number[record["id"]] += 1
            known = groups.get(record["id"])
            if known is None or record["confidence"] < known["confidence"]:
                groups[record["id"]] = record
    doing = {"report": "nothing is changed", "refuse": "what holds it is left out until somebody decides"}.get(
        spec.mode, "it is taken out until somebody rejects it")
    items = []
    for id, first in groups.items():
        value, sentence = first["ask"]
        times = f", {number[id]} times" if number[id] > 1 else ""
        items.append(ReviewItem(
            queue="privacy", id=id, text=f"{first['kind']} {first['masked']}", proposal=first["kind"], choices=kinds,
            confidence=first["confidence"], where=first["where"], path=first["path"], page=first["page"],
            context=sentence,
            reason=f"“{value}” may be personal data ({first['rule']}){times}; {doing}. Accept: it is. Reject: it "
                   f"is not, "
                   "here and wherever it stands. Edit: the right kind.",
            notes={"rule": first["rule"], "places": number[id]}))
    return sorted(items, key=lambda item: (item.confidence, item.id))


def card_section(guard: Guard, *, asked: int, left: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts by kind and by document, and masked samples, JSON-ready."""
    kinds: dict[str, _Kind] = defaultdict(_Kind)
    documents: dict[str, Counter[str]] = defaultdict(Counter)
    statuses: Counter[str] = Counter()
    decided = 0
    for record in guard.records:
        statuses[record["status"]] += 1
        decided += record["by_person"]
        if record["status"] not in ("allowed", "rejected"):
            kinds[record["kind"]].take(record)
            documents[_source(record)][record["kind"]] += 1
    ordered = sorted(kinds.items(), key=lambda one: (-one[1].count, one[0]))
    return {
        "mode": guard.spec.mode, "found": sum(kind.count for kind in kinds.values()),
        "unsure": sum(kind.unsure for kind in kinds.values()), "questions": asked,
        "kinds": [{"kind": name, "meaning": KINDS.get(name, "a kind of your own"), "count": kind.count,
                   "values": len(kind.values), "documents": len(kind.sources), "unsure": kind.unsure,
                   "rules": dict(kind.rules.most_common()), "samples": [*kind.samples]} for name, kind in ordered],
        "documents": [{"source": source, "count": sum(counts.values()), "kinds": dict(counts.most_common())}
                      for source, counts in sorted(documents.items(), key=lambda one: (-sum(one[1].values()), one[0]))],
        "statuses": dict(statuses.most_common()), "decided": decided,
        "left": list(left)[:_PLACES], "left_count": len(left), "notes": list(guard.scanner.notes),
        "recognizers": [recognizer.kind for recognizer in guard.spec.recognizers],
    }


@dataclass
class _Kind:
    """What was found of one kind."""

    count: int = 0
    unsure: int = 0
    values: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    rules: Counter[str] = field(default_factory=Counter)
    samples: dict[str, None] = field(default_factory=dict)

    def take(self, record: Mapping[str, Any]) -> None:
        self.count += 1
        self.unsure += not record["sure"]
        self.values.add(record["id"])
        self.sources.add(_source(record))
        self.rules[record["rule"]] += 1
        if len(self.samples) < _SAMPLES:
            self.samples.setdefault(record["masked"])


def said(section: Mapping[str, Any]) -> list[str]:
    """What a run prints."""
    lines = [f"  privacy: {note}" for note in section["notes"]]
    if not section["found"]:
        return [*lines, f"  privacy ({section['mode']}): nothing found"]
    named = ", ".join(f"{row['count']:,} {row['kind']}" for row in section["kinds"][:6])
    more = f" and {len(section['kinds']) - 6} more kinds" if len(section["kinds"]) > 6 else ""
    did = {"report": "left as they are; take them out with prepare.privacy.mode: redact or pseudonymise",
           "redact": "redacted", "pseudonymise": "pseudonymised",
           "refuse": f"redacted, or left out with their paragraph or row ({section['statuses'].get('refused', 0):,})"}
    lines.append(f"  privacy ({section['mode']}): {named}{more} in {len(section['documents']):,} documents and rows, "
                 f"{did[section['mode']]}")
    if section["questions"]:
        lines.append(f"  privacy: {section['questions']:,} values are unsure; decide with: luthier review --queue "
                     f"privacy")
    if section["left_count"]:
        lines.append(f"  privacy: {section['left_count']:,} places still hold a value that was taken out "
                     f"elsewhere, see the "
                     "data card")
    return lines


def warnings(section: Mapping[str, Any]) -> list[str]:
    """What the data card says on top."""
    if not section:
        return []
    found = []
    if section["mode"] == "report" and section["found"]:
        named = ", ".join(f"{row['count']:,} {row['kind']}" for row in section["kinds"][:5])
        found.append(f"Personal data or secrets were found and left as they are ({named}); a model can learn them "
                     f"by heart. "
                     "prepare.privacy.mode: redact or pseudonymise takes them out.")
    if section["left_count"]:
        found.append(f"{section['left_count']:,} places still hold a value that was taken out elsewhere (see "
                     f"Personal data); "
                     "no rule saw it there.")
    return [*found, *(f"Privacy: {note}" for note in section["notes"])]


def texts_of(passages: Sequence[Passage], examples: Sequence[Example]) -> Iterable[tuple[str, str]]:
    """(where, text) of everything that training and search read."""
    for passage in passages:
        yield passage.citation, passage.headed
    for example in examples:
        where = example.origin.where or example.id
        if isinstance(example.input, str):
            yield where, example.input
        else:
            for turn in example.input[-1:] if example.origin.passages else example.input:
                yield where, turn.content
        if example.target:
            yield where, example.target


def _left(guard: Guard, texts: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Places where a value stands that was taken out elsewhere."""
    if guard.key is None:
        return []
    taken = Taken(guard.records, guard.key)
    kept = {record["hash"] for record in guard.records if "hash" in record} & {
        guard.key.hash(value) for value in guard.spec.allow}
    found, seen = [], set()
    for where, text in texts:
        for record in taken.find(text):
            if record["hash"] not in kept and (where, record["hash"]) not in seen:
                seen.add((where, record["hash"]))
                found.append({"where": where, "kind": record["kind"], "masked": record["masked"],
                              "taken": record["where"]})
    return found


def _public(record: Mapping[str, Any], guard: Guard) -> dict[str, Any]:
    """A record without the raw text, and without the id of a question that nobody is asked: it is a hash without a
    key, by which a short value could be guessed."""
    hidden = {"ask", "id"} if guard.spec.rewrites and "ask" not in record else {"ask"}
    return {name: value for name, value in record.items() if name not in hidden}


def _source(record: Mapping[str, Any]) -> str:
    return record["path"] or record["where"] or record["item"]


def _write_map(guard: Guard) -> None:
    import json

    assert guard.surrogates is not None and guard.spec.map_file is not None
    file = guard.root / Path(guard.spec.map_file).expanduser()
    known: dict[tuple[str, str], str] = {}
    if file.is_file():  # documents that are unchanged come from the cache and are not looked at again
        for line in file.read_text("utf-8").splitlines():
            row = json.loads(line)
            known[row["kind"], row["value"]] = row["pseudonym"]
    known |= guard.surrogates.given
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"kind": kind, "value": value, "pseudonym": made}, ensure_ascii=False)
             for (kind, value), made in sorted(known.items())]
    write_bytes(file, ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
    file.chmod(0o600)
