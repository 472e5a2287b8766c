"""`luthier data browse`: every example and every drop of the prepared data with its lineage, as one page.

The page needs no network and no server: the rows stand in it as JSON, and a small script filters and pages them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from luthier.index.rag import bare_question
from luthier.prepare.formats._flat import lineage
from luthier.project.base import Project
from luthier.project.data import file_or_row, opened
from luthier.project.places import Places, said
from luthier.store import write_text
from luthier.types import Dropped, Example, Passage

MOST = 20_000
"""Rows that a page holds; about 20 MB, which browsers filter in well under a second."""
_TEXT = 600


@dataclass(frozen=True)
class Browsed:
    """A written page."""

    path: Path
    examples: int
    dropped: int
    left_out: int
    """Rows that did not fit into the page."""

    def data(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path)}

    def text(self) -> str:
        more = (f"\n{self.left_out:,} more rows did not fit (--count); look for them with: luthier data find"
                if self.left_out else "")
        return f"{self.examples:,} examples and {self.dropped:,} dropped items, each with its source: {self.path}{more}"


def browse(project: Project, to: Path | None = None, *, count: int = MOST) -> Browsed:
    """Write the page, by default to `.luthier/lineage.html`. At most `count` rows; of more, drops get at most half."""
    import jinja2
    from markupsafe import Markup

    artifact, content = opened(project, what="dropped")
    places = Places(project, artifact)
    passages = {one.id: one for one in opened(project, what="passages")[1].others() if isinstance(one, Passage)}
    where = {id: [one.citation, said(places.of(one))] for id, one in passages.items()}
    summary = artifact.summary
    total = int(summary["examples"])
    kept_most = max(count - int(summary["dropped"]), count // 2)
    rows = [_example(example, content, where) for example in islice(content.examples(), kept_most)]
    known = sorted({*places.paths.values(), *(doc for row in rows for doc in row["d"])}, key=len, reverse=True)
    paths = {**{id: one.path for id, one in passages.items()}, **places.paths}
    drops = [_dropped(drop, known, paths) for drop in islice(_drops(content.others()), count - len(rows))]
    left_out = total - len(rows) + int(summary["dropped"]) - len(drops)
    used = {id for row in rows for id in row["p"]}
    data = {"rows": rows + drops, "passages": {id: place for id, place in where.items() if id in used}}
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     undefined=jinja2.StrictUndefined)
    page = environment.get_template("browse.html.j2").render(
        name=project.spec.name, artifact=artifact.id, examples=len(rows), dropped=len(drops), left_out=left_out,
        data=Markup(_embedded(data)))
    path = to if to is not None else project.state / "lineage.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return Browsed(path, len(rows), len(drops), left_out)


def _embedded(data: Any) -> str:
    """JSON that may stand in a script element: no `</script>` and no comment can begin in it."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _example(example: Example, content: Any, where: dict[str, list[str]]) -> dict[str, Any]:
    told = lineage(example, content)
    answer = example.target
    if answer is None and (example.labels is not None or example.spans is not None):
        answer = ", ".join(example.labels or (f"{tag.label}: {str(example.input)[tag.start:tag.end]}"
                                              for tag in example.spans or ()))
    turns = [] if isinstance(example.input, str) else [turn for turn in example.input if turn.role != "system"]
    earlier = "\n".join(f"{turn.role}: {turn.content}" for turn in turns[:-1])
    return {"k": example.split, "i": example.id, "s": example.origin.step, "m": example.origin.maker,
            "o": example.origin.where, "d": told["documents"] or [file_or_row(example)],
            "q": _short(example.image or bare_question(example.question)), "a": _short(answer or ""),
            "w": _short(earlier),
            "e": _short(example.origin.evidence), "t": list(example.tags),
            "p": [id for id in example.origin.passages if id in where]}


def _drops(records: Iterable[Any]) -> Iterator[Dropped]:
    return (one for one in records if isinstance(one, Dropped))


def _dropped(drop: Dropped, known: list[str], paths: dict[str, str]) -> dict[str, Any]:
    source = source_of(drop, known, paths)
    return {"k": "dropped", "i": drop.item, "s": drop.step, "r": drop.reason, "o": drop.detail,
            "d": [source] if source else [], "q": _short(bare_question(drop.text)), "a": "", "e": "", "t": [], "p": []}


def source_of(drop: Dropped, known: Iterable[str], paths: dict[str, str]) -> str:
    """The file that a dropped item comes from: by its id, or by the path that its id or detail begins with."""
    from luthier.prepare.labels import file_of

    if drop.item in paths:
        return paths[drop.item]
    for text in (drop.item, drop.detail):
        found = next((path for path in known if text.startswith(path)), "")
        if found:
            return found
    row = file_of(drop.item)
    if row != drop.item:
        return row
    place = drop.detail.partition(": ")[0]
    return file_of(place) if file_of(place) != place else ""


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
