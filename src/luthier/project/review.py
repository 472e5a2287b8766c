"""`luthier review` for a project: its desk, and how far people are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from luthier.project.base import Project
from luthier.review.base import open_desk, review

if TYPE_CHECKING:
    from luthier.review.desk import Desk


def desk_of(project: Project) -> Desk:
    """Items and decisions of the project."""
    return open_desk(project.root, project.store, multi_label=project.spec.task.multi_label)


def serve_review(project: Project, *, port: int | None = None, by: str = "", queue: str | None = None) -> None:
    """Serve the page until it is stopped; `port` overrides `review.port`."""
    spec = project.spec.review if port is None else project.spec.review.but(port=port)
    review(desk_of(project), spec, sources=project.spec.ingest.sources, by=by, queue=queue, name=project.spec.name)


def status(desk: Desk, by: str) -> tuple[dict[str, Any], str]:
    """(JSON data, text): queues, agreement, what the next run changes, what could not be read."""
    from luthier.review.desk import changes, progress

    queues, agreed, told = progress(desk, by), [one.data() for one in desk.agreements()], changes(desk)
    problems = desk.now().problems
    lines = [f"{one['queue']:<12}{one['open']:>7,} open, {one['decided']:,} of {one['items']:,} decided"
             + (f", {one['earlier']:,} in earlier runs" if one["earlier"] else "")
             + (f", {one['conflicts']:,} in conflict" if one["conflicts"] else "")
             for one in queues if one["items"] or one["earlier"]]
    for one in agreed:
        kappa = "no kappa: both always say the same" if one["kappa"] is None else f"kappa {one['kappa']:.2f}"
        low, high = one["raw_interval"]
        lines.append(f"{one['queue']}: {' and '.join(name or '(no name)' for name in one['people'])} agree on "
                     f"{one['same']:,} of {one['n']:,} ({low:.0%} to {high:.0%}), {kappa}")
    if told:
        lines += ["What luthier run will now change:", *(f"  {line}" for line in told)]
    lines += [f"not read: {problem}" for problem in problems]
    return ({"queues": queues, "agreement": agreed, "changes": told, "problems": problems},
            "\n".join(lines) or "No stage has asked anything yet; run: luthier run")
