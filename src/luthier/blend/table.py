"""The Pareto table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text_of(table: Mapping[str, Any]) -> str:
    """Lines: what is measured, one line for every blend, and the proposal."""
    new, old = table["new"], table["old"]
    lines = [f"new skill: {new['metric']}, {new['better']} is better ({new['where']}, n = {new['n']:,})",
             f"old skill: {old['metric']}, {old['better']} is better ({old['where']}, n = {old['n']:,})" if old else
             "old skill: nothing old is known, so only new skill is compared"]
    for member in table["members"]:
        joined = "in the soup" if member["joined"] else "left out: the score would fall"
        lines.append(f"run {member['run']}: new {member['new']:.4f}, {joined}")
    lines += ["", f"{'a':>5}  {'new':>9}" + (f"  {'old':>9}  {'bend':>7}" if old else "")]
    for row in table["points"]:
        figures = f"{row['share']:5.2f}  {row['new']:9.4f}"
        if old:
            distance = "" if row["distance"] is None else f"{row['distance']:+.3f}"
            figures += f"  {row['old']:9.4f}  {distance:>7}"
        note = "  ← proposed" if row["share"] == table["knee"] else "  dominated" if row["dominated"] else ""
        lines.append(figures + note)
    lines += ["", f"Proposed: a = {table['knee']:g}: {table['why']}."]
    if new["n"] < 100 or (old and old["n"] < 100):
        lines.append("Fewer than 100 rows on a side: figures that differ by little may differ by chance.")
    return "\n".join(lines)
