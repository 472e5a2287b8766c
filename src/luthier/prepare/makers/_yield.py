"""The figures of a synthesis: how many passed what, how the documents are covered, what it took, and what to think of
the teacher."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext
    from luthier.prepare.makers._calls import Asker
    from luthier.prepare.makers._judge import Judge, Judged
    from luthier.prepare.makers.synthesize import Synthesize


def note(spec: Synthesize, context: MakeContext, judge: Judge, judged: Sequence[Judged], *, teacher: Asker,
         reader: Asker | None, rows: Sequence[dict[str, Any]], weak: bool, seconds: float) -> None:
    """Write the figures and tables into `context.notes`, and say the table and a warning where one is due."""
    asked, read, kept = judge.total("asked"), judge.total("parsed"), judge.total("kept")
    notes = context.notes
    notes |= {"teacher": spec.named, "style": "sentence" if spec.small else "pairs", "reader": spec.reading,
              "passages": sum(row["asked"] for row in rows), "asked": asked, "parsed": read}
    for name in ("well_formed", "retrieved", "supported", "quoted", "new", "kept", "unsure"):
        notes[name] = judge.total(name)
    for name in ("retrieved", "supported"):
        notes[f"{name}_rate"] = round(judge.total(name) / read, 3) if read else 0.0
    held = [one for one in judged if one.candidate.kind != "unanswerable"]
    notes["grounded_rate"] = round(sum(bool(one.evidence) and one.supported and one.reason not in (
        "no-span", "one-sided") for one in held) / len(held), 3) if held else 0.0
    notes["yield"] = round(kept / asked, 3) if asked else 0.0
    askers = [teacher, *([reader] if reader is not None else [])]
    notes |= {"calls": sum(one.calls for one in askers), "calls_now": sum(one.asked for one in askers),
              "tokens": sum(one.tokens for one in askers),
              "teacher_seconds": round(sum(one.seconds for one in askers), 1), "seconds": round(seconds, 1)}
    hard = Counter(one.difficulty for one in judged if not one.reason)
    notes["difficulty"] = ", ".join(f"{name} {hard[name]}" for name in ("easy", "medium", "hard"))
    empty = sum(not row["kept"] for row in rows)
    notes["documents_without"] = empty
    notes["tables"] = [judge.table(), {
        "title": "Coverage by document (questions kept; begin, middle, end: thirds of the document)",
        "columns": [*rows[0]] if rows else [], "rows": [[*row.values()] for row in rows]}]
    for line in table_lines(notes["tables"][0]):
        context.progress.say(f"  {line}")
    if notes.get("for_review"):
        context.progress.say(f"  synthesize: {notes['for_review']} pairs wait for a person; decide with: luthier "
                             "review --queue pairs")
    if asked and notes["yield"] < spec.min_yield:
        notes["warning"] = (
            f"The teacher {notes['teacher']} was asked for {asked} questions and {kept} passed the checks "
            f"({notes['yield']:.0%}); " + (
                "it is too weak: no more was asked, nothing of it is trained, and what passed waits for a person "
                "(queue pairs). The other makers carry on; " if weak else "") +
            "a larger teacher, or your own pairs, would give more.")
        context.progress.say(f"  synthesize: {notes['warning']}")


def table_lines(table: dict[str, Any]) -> list[str]:
    """A table for the terminal, columns that are zero all over left out."""
    columns, rows = table["columns"], table["rows"]
    shown = [at for at in range(len(columns)) if at == 0 or any(row[at] for row in rows)]
    cells = [[columns[at].replace("_", " ") for at in shown], *(
        [f"{row[at]:.0%}" if isinstance(row[at], float) else str(row[at]) for at in shown] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(shown))]
    return ["  ".join(cell.ljust(width) if at == 0 else cell.rjust(width)
                      for at, (cell, width) in enumerate(zip(row, widths))) for row in cells] if rows else []


def surely_below(hits: int, of: int, share: float) -> bool:
    """Whether a rate is below `share`: the upper end of its 95 % interval is (Wilson 1927)."""
    if not of:
        return False
    z = 1.96
    rate = hits / of
    centre = rate + z * z / (2 * of)
    reach = z * math.sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    return (centre + reach) / (1 + z * z / of) < share
