"""Label Studio's JSON: tasks with `data`, `predictions` (what is proposed) and `annotations` (what people decided), and
the labelling configuration (XML) that shows them. Format: labelstud.io/guide/task_format and /guide/predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from luthier.queues import Decided, ReviewItem
from luthier.review.exchange import Said, Taken
from luthier.review.items import pair_of, proposed_labels

SETTINGS = ".config.xml"
"""Ending of the file with the labelling configuration (project settings, Labeling Interface, Code)."""
VERDICTS = ("accept", "edit", "reject")
Rows = Sequence[tuple[ReviewItem, Sequence[Decided]]]


def records(rows: Rows, multi_label: bool) -> list[dict[str, Any]]:
    """The tasks. `completed_by` is written for people whose name is an e-mail address (Label Studio refuses annotations
    of people it does not know, so invite them first); the name itself stands in the result's `meta`."""
    return [{
        "id": number,
        "data": {"luthier_id": item.id, "queue": item.queue, "text": item.text, "context": item.context,
                 "where": item.where, "reason": item.reason, "confidence": item.confidence, **_pair(item)},
        "predictions": [{"model_version": "luthier", "score": item.confidence,
                         "result": _result(item, "accept", None, f"p{number}")}],
        "annotations": [_annotation(item, one, f"{number}-{at}") for at, one in enumerate(said, 1)],
    } for number, (item, said) in enumerate(rows, 1)]


def settings(queue: str, items: Sequence[ReviewItem], multi_label: bool) -> str:
    """The labelling configuration of a queue."""
    lines = ["<View>", '  <Header value="$where"/>', '  <Text name="reason" value="$reason"/>']
    if queue != "corrections":
        lines.append('  <Text name="context" value="$context"/>')
    lines.append('  <Text name="text" value="$text"/>')
    names = list(dict.fromkeys(one for item in items for one in (*item.choices, *_proposals(item))))
    if queue in ("labels", "privacy", "duplicates"):
        several = "multiple" if queue == "labels" and multi_label else "single"
        lines += [f'  <Choices name="value" toName="text" choice="{several}">',
                  *(f"    <Choice value={quoteattr(name)}/>" for name in names), "  </Choices>"]
    elif queue == "pairs":
        lines += [f'  <Header value="{name.title()}"/>\n  <TextArea name="{name}" toName="text" value="${name}" '
                  'maxSubmissions="1" editable="true" rows="3"/>' for name in ("question", "answer")]
    else:
        lines.append('  <TextArea name="value" toName="text" value="$text" maxSubmissions="1" editable="true"/>')
    lines += ['  <Choices name="verdict" toName="text" choice="single">',
              *(f'    <Choice value="{name}"/>' for name in VERDICTS), "  </Choices>", "</View>"]
    return "\n".join(lines) + "\n"


def decisions(tasks: Sequence[Any], taken: Taken, people: set[str]) -> Iterator[Said]:
    """What the annotations say. Skipped ones (`was_cancelled`) are no decision."""
    for number, task in enumerate(tasks, 1):
        place = f"task {number}"
        data = task.get("data") if isinstance(task, Mapping) else None
        data = data if isinstance(data, Mapping) else {}
        id = data.get("luthier_id")
        if not isinstance(id, str):
            taken.refuse("without-id", f"{place}: `data` holds no luthier_id")
            continue
        for one in task.get("annotations") or ():
            if not isinstance(one, Mapping) or one.get("was_cancelled"):
                continue
            said = _read(one, data)
            if said is None:
                taken.refuse("no-decision", f"{place}: the annotation has neither a verdict nor a value")
            else:
                yield Said(place, str(data.get("queue") or ""), id, *said)


def _read(annotation: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, Any, str] | None:
    """(verdict, value, person) of an annotation."""
    told: dict[str, list[str]] = {}
    by = ""
    for result in annotation.get("result") or ():
        value = result.get("value") if isinstance(result, Mapping) else None
        if isinstance(value, Mapping):
            found = value.get("choices") or value.get("text") or []
            told[str(result.get("from_name"))] = [found] if isinstance(found, str) else [str(one) for one in found]
            by = by or str((result.get("meta") or {}).get("by") or "")
    verdict = next(iter(told.get("verdict", ())), "")
    if verdict not in VERDICTS:
        verdict = ""
    queue = data.get("queue")
    value: Any = None
    if queue == "pairs":
        parts = {name: "\n".join(told.get(name, [])) or str(data.get(name) or "") for name in ("question", "answer")}
        value = parts if "question" in told or "answer" in told else None
    elif "value" in told:
        value = told["value"] if queue == "labels" else "\n".join(told["value"])
    if not verdict and value is None:
        return None
    return verdict, value, _person(annotation.get("completed_by")) or by


def _person(completed_by: Any) -> str:
    """A user's e-mail address, or number where that is all that the export tells."""
    if isinstance(completed_by, Mapping):
        return str(completed_by.get("email") or completed_by.get("username") or completed_by.get("id") or "")
    return f"label-studio:{completed_by}" if isinstance(completed_by, int | str) and completed_by != "" else ""


def _annotation(item: ReviewItem, one: Decided, id: str) -> dict[str, Any]:
    made: dict[str, Any] = {"result": _result(item, one.verdict, one.value, f"a{id}", by=one.by),
                            "was_cancelled": False, "ground_truth": one.settles}
    if "@" in one.by:
        made["completed_by"] = {"email": one.by}
    return made


def _result(item: ReviewItem, verdict: str, value: Any, id: str, *, by: str = "") -> list[dict[str, Any]]:
    """Regions for the verdict and, unless it is a rejection, the value."""
    def region(name: str, type: str, texts: Sequence[str]) -> dict[str, Any]:
        key = "choices" if type == "choices" else "text"
        return {"id": f"{id}-{name}", "from_name": name, "to_name": "text", "type": type, "value": {key: list(texts)},
                **({"meta": {"by": by}} if by else {})}

    made = [region("verdict", "choices", [verdict])]
    if verdict == "reject":
        return made
    if item.queue == "pairs":
        pair = value if isinstance(value, Mapping) else pair_of(item)
        return [*made, *(region(name, "textarea", [pair[name]]) for name in ("question", "answer"))]
    if item.queue == "corrections":
        read = value if isinstance(value, str) else str(item.proposal or item.text)
        return [*made, region("value", "textarea", [read])]
    chosen = ([value] if isinstance(value, str) else list(value)) if value else _proposals(item)
    return [*made, *([region("value", "choices", chosen)] if chosen else [])]


def _proposals(item: ReviewItem) -> list[str]:
    return proposed_labels(item) if item.queue in ("labels", "privacy", "duplicates") else []


def _pair(item: ReviewItem) -> dict[str, str]:
    return pair_of(item) if item.queue == "pairs" else {}
