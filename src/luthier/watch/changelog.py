"""`changes.md` and `changes.html` of a release: what came, what was learned, and what got better or worse.

Both are for a person, and say the same. They begin with what decided, and end with the matrix of all releases so far on
all data so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from luthier.store import Artifact, write_text
from luthier.watch.compare import NEW, OLD
from luthier.watch.data import read_described
from luthier.watch.gate import Decision

SHOWN = 12
"""Flips and changed rows of each kind; all of them are in the comparison's outcomes.jsonl."""
WIDTH = 160
_STYLE = Path(__file__).parents[1] / "evaluate" / "report.css"


@dataclass(frozen=True)
class Table:
    """Column heads and rows of text."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = str | list[str] | Table
"""A paragraph, a list, or a table."""


def write_changelog(folder: Path, *, label: str, compared: Mapping[str, Any], data: Artifact, decision: Decision,
                    how: str, approved_by: str = "") -> None:
    """Write both files; `label` is the new release's name."""
    sections = list(_sections(label, compared, read_described(data), decision, how, approved_by))
    title = f"{label}: what changed since {compared['champion']['release']}"
    write_text(folder / "changes.md", _markdown(title, sections))
    write_text(folder / "changes.html", _html(title, sections))


def _sections(label: str, compared: Mapping[str, Any], told: Mapping[str, Any], decision: Decision, how: str,
              approved_by: str) -> Iterator[tuple[str, list[Block]]]:
    marks = {"passed": "passed", "failed": "FAILED", "unsure": "unsure", "not applicable": "–"}
    approved = f" Approved by {approved_by}." if approved_by else ""
    yield "In short", [
        f"{told['sentence'][:1].upper()}{told['sentence'][1:]}. {_score(compared, OLD, 'old')} "
        f"{_score(compared, NEW, 'new')}".strip(),
        f"How it was trained: {how}.", f"{decision.sentence[:1].upper()}{decision.sentence[1:]}.{approved}"]
    yield "Why it was released", [Table(("check", "outcome", "what was found"), [
        (check.name, marks[check.outcome], check.sentence) for check in decision.checks])]
    yield "What came, changed and went", _changes(told)
    flips = compared["flips"]
    yield "Answers that flipped", [
        f"{flips['num_better']} test rows are answered rightly now and were not before; {flips['num_worse']} are "
        "answered wrongly now and were right before.",
        *_flipped("Better", flips["better"], flips["num_better"], compared, label),
        *_flipped("Worse", flips["worse"], flips["num_worse"], compared, label)]
    if compared.get("contradicted", {}).get("rows"):
        rows = compared["contradicted"]["rows"]
        yield "New rows whose label the earlier model doubts", [
            f"{compared['contradicted']['contradicted']} of {compared['contradicted']['sure']} that it was sure of; "
            "look at them, they may be wrong.",
            Table(("where", "text", "label", "earlier model"), [
                (row["where"], _short(row["text"]), row["label"], f"{row['champion']} ({row['probability']:.2f})")
                for row in rows[:SHOWN]])]
    yield "All releases on all data so far", [
        f"{compared['metrics'][compared['metric']]['label']} on the test rows of each data, as each release was "
        "measured when it was new or the live one; n is the number of rows.", _matrix(label, compared)]


def _score(compared: Mapping[str, Any], part: str, word: str) -> str:
    found = compared["sets"][part]
    one = found["metrics"].get(compared["metric"])
    if one is None:
        return f"There are no {word} test rows."
    name = compared["metrics"][compared["metric"]]["label"]
    return (f"{name} on the {word} test rows: {one['champion']['value']:.3f} before, {one['challenger']['value']:.3f} "
            f"now (n = {found['n']}).")


def _changes(told: Mapping[str, Any]) -> list[Block]:
    found: list[Block] = []
    lines = [f"{kind}: {', '.join(paths[:SHOWN])}" + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
             for kind, paths in told["documents"].items() if paths]
    if lines:
        found += ["Documents:", lines]
    files = [f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items() if kind != "kept")
             for name, counts in told["files"].items()]
    if files:
        found += ["Rows, by where they come from:", files[:SHOWN * 2]]
    if told["changed"]:
        found.append(Table(("changed row", "text", "was", "is"), [
            (row["where"], _short(row["text"]), _short(row["was"]), _short(row["is"])) for row in
            told["changed"][:SHOWN]]))
    if told["replaced"]:
        found.append(f"{told['replaced']} rows are no longer given by documents that changed.")
    return found or ["Nothing but what is said above."]


def _flipped(word: str, rows: Sequence[Mapping[str, Any]], count: int, compared: Mapping[str, Any], label: str
             ) -> list[Block]:
    if not rows:
        return []
    earlier = compared["champion"]["release"]
    heads = ("where", "text", "right", earlier, label)
    more = f" (the first {SHOWN} of {count})" if count > SHOWN else ""
    return [f"{word}{more}:", Table(heads, [
        (f"{row['where']}" + (" (new)" if row.get("new") else ""), _short(row["text"]),
         *(_said(row[side]) for side in ("right", "champion", "challenger"))) for row in rows[:SHOWN]])]


def _said(value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    return _short(", ".join(" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in items
                            if one is not None) or "nothing")


def _short(text: str) -> str:
    plain = " ".join(str(text).split())
    return plain if len(plain) <= WIDTH else plain[: WIDTH - 1] + "…"


def _matrix(label: str, compared: Mapping[str, Any]) -> Table:
    names = compared["batches"]

    def cell(values: Mapping[str, Any], name: str) -> str:
        one = values.get(name)
        return "–" if one is None else f"{one['value']:.3f} (n = {one['n']})"

    return Table(("release", *names), [(row["release"] or label, *(cell(row["values"], name) for name in names))
                                       for row in compared["matrix"]])


def _markdown(title: str, sections: Sequence[tuple[str, list[Block]]]) -> str:
    lines = [f"# {title}", ""]
    for head, blocks in sections:
        lines += [f"## {head}", ""]
        for block in blocks:
            if isinstance(block, Table):
                lines += [f"| {' | '.join(map(_cell, block.heads))} |", f"|{' --- |' * len(block.heads)}",
                          *(f"| {' | '.join(map(_cell, row))} |" for row in block.rows), ""]
            elif isinstance(block, list):
                lines += [*(f"- {line}" for line in block), ""]
            else:
                lines += [block, ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _html(title: str, sections: Sequence[tuple[str, list[Block]]]) -> str:
    parts = []
    for head, blocks in sections:
        inner = "".join(_html_block(block) for block in blocks)
        parts.append(f"<section><h2>{escape(head)}</h2>{inner}</section>")
    return (f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>{escape(title)}</title><style>{_STYLE.read_text('utf-8')}"
            "table{width:100%;border-collapse:collapse;font-size:14px;margin:8px 0 14px}"
            "td,th{text-align:left;vertical-align:top;padding:5px 10px 5px 0;border-top:1px solid var(--line)}"
            f"</style><main><header><h1>{escape(title)}</h1></header>{''.join(parts)}</main></html>\n")


def _html_block(block: Block) -> str:
    if isinstance(block, Table):
        head = "".join(f"<th>{escape(cell)}" for cell in block.heads)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}' for cell in row)}" for row in block.rows)
        return f"<div style='overflow-x:auto'><table><tr>{head}{rows}</table></div>"
    if isinstance(block, list):
        return f"<ul>{''.join(f'<li>{escape(line)}' for line in block)}</ul>"
    return f"<p>{escape(block)}</p>"
