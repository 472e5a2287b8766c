"""How much each source says, how far sources agree, and how right they and the combined labels are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from luthier.index.recall import wilson
from luthier.prepare.weak.base import Source, Weak
from luthier.prepare.weak.combine import Combined, Truth


def figures(sources: Sequence[tuple[Source, str]], labels: Sequence[str], truth: Truth, found: Combined, spec: Weak, *,
            made: int, waiting: int, learn: int) -> dict[str, Any]:
    """JSON-ready. Coverage, overlaps and conflicts are shares of the rows without a label; accuracies are measured on
    rows that people labelled, the model's own by models that did not know the row's label."""
    open_rows = [at for at, one in enumerate(truth) if one is None]
    told = [at for at, one in enumerate(truth) if one is not None]
    spoken = [{at for at, vote in enumerate(source.votes) if vote} for source, _ in sources]
    rows = []
    for number, (source, made_by) in enumerate(sources):
        own = [at for at in open_rows if at in spoken[number]]
        others = [other for place, (other, _) in enumerate(sources) if place != number]
        overlap = sum(any(other.votes[at] for other in others) for at in own)
        conflict = sum(any(other.votes[at] and not set(other.votes[at]) & set(source.votes[at]) for other in others)
                       for at in own)
        total = max(1, len(open_rows))
        rows.append({
            "source": source.name, "made_by": made_by, "votes": len(own), "coverage": len(own) / total,
            "overlaps": overlap / total, "conflicts": conflict / total,
            "labels": len({label for vote in source.votes for label in vote}),
            "estimated": float(found.accuracy[number]),
            "measured": measured([at for at in told if source.votes[at]],
                                 lambda at, source=source: right(source.votes[at], truth[at], found.multi_label)),
        })
    spoke = [at for at in told if found.spoke[at]]
    kept = [at for at in spoke if _sure(found, at) >= spec.min_probability]
    given = [at for at in open_rows if found.spoke[at] and found.sure[at] >= spec.min_probability]
    return {
        "rows": waiting, "labelled": made, "voted": sum(bool(found.spoke[at]) for at in open_rows),
        "coverage": made / max(1, waiting), "human": len(told), "human_learned_from": learn,
        "combine": spec.combine, "min_probability": spec.min_probability, "temperature": found.temperature,
        "expected": float(np.mean([found.sure[at] for at in given])) if given else None,
        "measured": {**measured(kept, lambda at: right(_answer(found, at, labels), truth[at], True)),
                     "coverage": len(kept) / max(1, len(told))},
        "measured_all": measured(spoke, lambda at: right(_answer(found, at, labels), truth[at], True)),
        "majority_all": measured(spoke, lambda at: right(found.majority[at], truth[at], True)),
        "classes": [{"label": label, "labelled": count} for label, count in
                    Counter(label for at in given for label in found.best[at]).most_common()],
        "sources": rows,
    }


def right(vote: Sequence[str], truth: set[str] | None, whole: bool) -> bool:
    """Whether a vote is right: exactly the true labels, or, of a source that may name several, one of them."""
    return truth is not None and (set(vote) == truth if whole else bool(truth & set(vote)))


def measured(rows: Sequence[int], is_right: Callable[[int], bool]) -> dict[str, Any]:
    """Share of right answers with its 95 % interval (Wilson) and n."""
    hits = sum(is_right(at) for at in rows)
    low, high = wilson(hits, len(rows))
    return {"accuracy": hits / len(rows) if rows else None, "low": low, "high": high, "n": len(rows)}


def _answer(found: Combined, at: int, labels: Sequence[str]) -> tuple[str, ...]:
    said = found.crossed[at]
    if said is None:
        return ()
    if found.multi_label:
        return tuple(label for label, chance in zip(labels, said) if chance >= 0.5)
    return (labels[int(said.argmax())],)


def _sure(found: Combined, at: int) -> float:
    said = found.crossed[at]
    if said is None:
        return 0.0
    return float(np.maximum(said, 1 - said).min() if found.multi_label else said.max())


def share(found: Mapping[str, Any]) -> str:
    """`83 % (n 60, 72 to 90 %)` for a person."""
    if not found["n"]:
        return "not measured"
    return f"{found['accuracy']:.0%} (n {found['n']:,}, {found['low']:.0%} to {found['high']:.0%})"


def line(data: Mapping[str, Any]) -> str:
    """One line for the terminal."""
    return (f"  weak labels: {data['labelled']:,} of {data['rows']:,} rows without a label; accuracy on rows that "
            f"people labelled: {share(data['measured'])}")


def warnings(data: Mapping[str, Any]) -> list[str]:
    """What a careful person would say about these labels."""
    found = []
    if data["human"] < 50:
        found.append(f"Only {data['human']} rows that people labelled tell how right the weak labels are; label 50 or "
                     "more (luthier label, luthier review) before you trust the figures.")
    measured, expected = data["measured"], data["expected"]
    if measured["n"] >= 20 and expected is not None and measured["high"] is not None and expected > measured["high"]:
        found.append(f"The weak labels believe to be right in {expected:.0%} of the rows, but on rows that people "
                     f"labelled they are in {share(measured)}.")
    silent = [row["source"] for row in data["sources"] if not row["votes"]]
    if silent:
        found.append(f"{len(silent)} sources of weak labels never voted: {', '.join(silent[:6])}"
                     + (f" and {len(silent) - 6} more" if len(silent) > 6 else "") + ".")
    bad = [row["source"] for row in data["sources"] if row["measured"]["n"] >= 10 and row["measured"]["high"] < 0.5]
    if bad:
        found.append(f"Sources that are wrong more often than right: {', '.join(bad[:6])}. Mend or remove them.")
    if data["validation"]:
        found.append(f"No person labelled a validation row, so {data['validation']:,} weakly labelled rows stand in "
                     "for them: training is steered by labels that may be wrong.")
    return found
