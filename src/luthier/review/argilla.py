"""Argilla's records as JSON (`dataset.records.to_json` and `from_json` of its SDK, 2.x): `fields`, `suggestions` by
question, `responses` by question with the user's UUID; and the settings that go with them (`rg.Settings.from_json`)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from luthier.queues import Decided, ReviewItem
from luthier.review.exchange import Said, Taken
from luthier.review.items import pair_of, proposed_labels

SETTINGS = ".settings.json"
VERDICTS = ("accept", "edit", "reject")
PEOPLE = uuid.uuid5(uuid.NAMESPACE_URL, "luthier:people")
Rows = Sequence[tuple[ReviewItem, Sequence[Decided]]]


def user_id(by: str) -> str:
    """Argilla knows people by UUID: the same name gets the same one, so that our own export finds back to the name."""
    return str(uuid.uuid5(PEOPLE, by))


def records(rows: Rows, multi_label: bool) -> list[dict[str, Any]]:
    """The records. A person's last decision counts: Argilla has one response of a user to a question."""
    made = []
    for item, said in rows:
        responses: dict[str, list[dict[str, Any]]] = {}
        for one in {one.by: one for one in said}.values():
            for question, value in _answers(item, one.verdict, one.value, multi_label).items():
                responses.setdefault(question, []).append({"value": value, "user_id": user_id(one.by)})
        made.append({
            "id": item.id,
            "fields": {"text": item.text, "context": item.context or "–", "reason": item.reason or "–"},
            "metadata": {"queue": item.queue, "where": item.where, "confidence": item.confidence},
            "suggestions": {question: {"value": value, "score": None if isinstance(value, list) else item.confidence,
                                       "agent": "luthier"}
                            for question, value in _answers(item, "accept", None, multi_label).items()},
            "responses": responses, "vectors": {}, "_server_id": None})
    return made


def settings(queue: str, items: Sequence[ReviewItem], multi_label: bool) -> str:
    """Fields, questions and metadata, as `rg.Settings` writes them."""
    names = list(dict.fromkeys(one for item in items for one in (*item.choices, *_proposals(item))))

    def text(name: str) -> dict[str, Any]:
        return {"name": name, "title": name.title(), "description": None, "required": False,
                "settings": {"type": "text", "use_markdown": False}}

    def label(name: str, options: Sequence[str], *, required: bool, several: bool = False) -> dict[str, Any]:
        shown = {"options_order": "natural"} if several else {}
        return {"name": name, "title": name.title(), "description": None, "required": required, "settings": {
            "type": "multi_label_selection" if several else "label_selection", **shown,
            "options": [{"value": one, "text": one, "description": None} for one in options],
            "visible_options": min(max(3, len(options)), 20) if len(options) >= 3 else None}}

    questions = [label("verdict", VERDICTS, required=True)]
    if queue == "pairs":
        questions += [text("question"), text("answer")]
    elif queue == "corrections" or len(names) < 2:
        questions.append(text("value"))
    else:
        questions.append(label("value", names, required=False, several=queue == "labels" and multi_label))
    fields = [{"name": name, "title": name.title(), "description": None, "required": name == "text",
               "settings": {"type": "text", "use_markdown": False}} for name in ("text", "context", "reason")]
    metadata = [{"name": name, "title": name.title(), "visible_for_annotators": True, "settings": {"type": type}}
                for name, type in (("queue", "terms"), ("where", "terms"), ("confidence", "float"))]
    return json.dumps({"guidelines": None, "allow_extra_metadata": True, "fields": fields, "questions": questions,
                       "metadata": metadata, "vectors": []}, ensure_ascii=False, indent=1) + "\n"


def decisions(rows: Sequence[Any], taken: Taken, people: set[str]) -> Iterator[Said]:
    """What the responses say; drafts and discarded ones are no decision."""
    names = {user_id(name): name for name in people}
    for number, record in enumerate(rows, 1):
        place = f"record {number}"
        id = record.get("id") if isinstance(record, Mapping) else None
        if not isinstance(id, str) or not id:
            taken.refuse("without-id", place)
            continue
        queue = str((record.get("metadata") or {}).get("queue") or "")
        said: dict[str, dict[str, Any]] = {}
        for question, answers in (record.get("responses") or {}).items():
            for one in answers if isinstance(answers, list) else ():
                if isinstance(one, Mapping) and one.get("status", "submitted") == "submitted":
                    said.setdefault(str(one.get("user_id") or ""), {})[question] = one.get("value")
        for person, told in said.items():
            verdict = told.get("verdict") if told.get("verdict") in VERDICTS else ""
            value: Any = told.get("value")
            if queue == "pairs":
                suggested = record.get("suggestions") or {}
                parts = {name: told.get(name) or (suggested.get(name) or {}).get("value")
                         for name in ("question", "answer")}
                value = parts if "question" in told or "answer" in told else None
            elif queue == "labels" and isinstance(value, str):
                value = [value]
            if verdict or value is not None:
                yield Said(place, queue, id, str(verdict), value, names.get(person, person))
            else:
                taken.refuse("no-decision", f"{place}: the response has neither a verdict nor a value")


def _answers(item: ReviewItem, verdict: str, value: Any, multi_label: bool) -> dict[str, Any]:
    """Question → answer."""
    made: dict[str, Any] = {"verdict": verdict}
    if verdict == "reject":
        return made
    if item.queue == "pairs":
        pair = value if isinstance(value, Mapping) else pair_of(item)
        return {**made, "question": pair["question"], "answer": pair["answer"]}
    if item.queue == "labels":
        labels = [value] if isinstance(value, str) else list(value) if value else proposed_labels(item)
        if multi_label:
            return {**made, "value": labels}
        return {**made, **({"value": labels[0]} if labels else {})}
    return {**made, "value": value if isinstance(value, str) else str(item.proposal or item.text)}


def _proposals(item: ReviewItem) -> list[str]:
    return proposed_labels(item) if item.queue in ("labels", "privacy", "duplicates") else []
