"""From a row in one of the usual formats to a conversation: OpenAI chat, ShareGPT, Alpaca, two columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from luthier.prepare.makers._words import word_set
from luthier.types import Message, Role, Split

Format = Literal["openai", "sharegpt", "alpaca", "columns"]

QUESTIONS = ("question", "prompt", "instruction", "query", "user", "human", "request", "input", "q", "frage", "problem",
             "ask", "anfrage")
ANSWERS = (
    "answer",
    "completion",
    "response",
    "output",
    "reply",
    "assistant",
    "gpt",
    "target",
    "a",
    "antwort",
    "solution",
    "chosen_response",
    "ideal",
)
TURNS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat")
_ROLES: dict[str, Role] = {
    **dict.fromkeys(word_set("user human prompter customer client question"), "user"),
    **dict.fromkeys(word_set("assistant gpt chatgpt bot model ai agent answer bard llm"), "assistant"),
    **dict.fromkeys(word_set("system developer"), "system"),
}
_TOOLS = word_set("tool function observation function_call tool_call function_response tool_response ipython")
SPLITS: dict[str, Split] = {
    **dict.fromkeys(word_set("train training"), "train"),
    **dict.fromkeys(word_set("validation valid val dev development eval"), "validation"),
    **dict.fromkeys(word_set("test testing"), "test"),
}


@dataclass(frozen=True)
class Pair:
    """A conversation that ends with an answer."""

    turns: tuple[Message, ...]
    """From the optional system message to the last user turn."""
    answer: str


@dataclass(frozen=True)
class Problem:
    reason: str
    detail: str


def turns_key(row: Mapping[str, Any]) -> str | None:
    """The field that holds a list of turns, if one does."""
    return next((name for name in row if name.strip().lower() in TURNS and _turns(row[name]) is not None), None)


def _turns(value: Any) -> list[Any] | None:
    if isinstance(value, str) and value.lstrip().startswith("["):  # a conversation in a CSV cell
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, list) and value and all(isinstance(turn, Mapping) for turn in value) else None


def detect(rows: Sequence[Mapping[str, Any]]) -> Format | None:
    """The format of most of the rows, by their fields; None when none fits."""
    votes: dict[Format, int] = {}
    for row in rows:
        found = _detect(row)
        if found:
            votes[found] = votes.get(found, 0) + 1
    return max(votes, key=lambda name: votes[name]) if votes else None


def _detect(row: Mapping[str, Any]) -> Format | None:
    key = turns_key(row)
    if key is not None:
        first = (_turns(row[key]) or [{}])[0]
        return "sharegpt" if "from" in first or "value" in first else "openai"
    names = {name.strip().lower() for name in row}
    if "instruction" in names and names & {"output", "response", "answer", "completion"}:
        return "alpaca"
    question, answer = columns_of(row)
    return "columns" if question and answer else None


def columns_of(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The row's question and answer columns by their usual names; two columns without such names, in order."""
    by_name = {re.sub(r"[\s_-]+", "_", name.strip().lower()): name for name in row if isinstance(name, str)}
    answer = next((by_name[name] for name in ANSWERS if name in by_name), None)
    question = next((by_name[name] for name in QUESTIONS if name in by_name and by_name[name] != answer), None)
    if question and answer:
        return question, answer
    names = [name for name in row if isinstance(name, str) and name.strip().lower() not in ("id", "split")]
    if len(names) == 2 and not (question or answer):
        return names[0], names[1]
    if len(names) == 2:
        other = next(name for name in names if name not in (question, answer))
        return question or other, answer or other
    return question, answer


def read_pair(row: Mapping[str, Any], format: Format, question: str | None, answer: str | None) -> Pair | Problem:
    """The row as a conversation, or what is wrong with it."""
    if format in ("openai", "sharegpt"):
        key = turns_key(row)
        if key is None:
            return Problem("missing-column", f"no list of turns under {', '.join(TURNS[:3])}; fields: {_names(row)}")
        turns = list(_turns(row[key]) or [])
        if isinstance(row.get("system"), str) and row["system"].strip():
            turns.insert(0, {"role": "system", "content": row["system"]})
        return conversation(turns)
    if format == "alpaca":
        return _alpaca(row, question, answer)
    for name in (question, answer):
        if name is None or name not in row:
            return Problem("missing-column", f"no field '{name}'; fields: {_names(row)}")
    assert question is not None and answer is not None
    if isinstance(row[question], list) or isinstance(row[answer], list):  # prompt and completion as lists of turns
        parts = [row[question], row[answer]]
        roles = ("user", "assistant")
        turns = [turn for part, role in zip(parts, roles)
                 for turn in (part if isinstance(part, list) else [{"role": role, "content": part}])]
        if not all(isinstance(turn, Mapping) for turn in turns):
            return Problem("not-text", "question and answer must be text or lists of turns")
        return conversation(turns)
    return _single(row[question], row[answer], row.get("system"))


def _single(question: Any, answer: Any, system: Any = None) -> Pair | Problem:
    for name, value in (("question", question), ("answer", answer)):
        if value is None or (isinstance(value, float) and value != value):
            return Problem(f"empty-{name}", f"the {name} is missing")
        if isinstance(value, Mapping | list | bool):
            return Problem("not-text", f"the {name} is a {type(value).__name__}, not a text")
        if not str(value).strip():
            return Problem(f"empty-{name}", f"the {name} is empty")
    head = (Message(role="system", content=system.strip()),) if isinstance(system, str) and system.strip() else ()
    return Pair((*head, Message(role="user", content=str(question).strip())), str(answer).strip())


def _alpaca(row: Mapping[str, Any], question: str | None, answer: str | None) -> Pair | Problem:
    by_name = {name.strip().lower(): name for name in row}
    asked = question or by_name.get("instruction")
    told = answer or next((by_name[name] for name in ("output", "response", "answer", "completion") if name in by_name),
                          None)
    if asked is None or told is None or asked not in row or told not in row:
        return Problem("missing-column", f"Alpaca rows have instruction and output; fields: {_names(row)}")
    text = row[asked]
    extra = row.get(by_name.get("input", ""))
    if isinstance(text, str) and isinstance(extra, str) and extra.strip() and extra.strip().lower() not in (
            "<noinput>", "noinput", "n/a"):
        text = f"{text.strip()}\n\n{extra.strip()}"
    pair = _single(text, row[told], row.get("system"))
    history = row.get("history")
    if isinstance(pair, Problem) or not history:
        return pair
    if not all(isinstance(turn, list | tuple) and len(turn) == 2 and all(isinstance(t, str) and t.strip() for t in turn)
               for turn in history):
        return Problem("role-order", "history must be a list of [question, answer]")
    before = [
        message
        for asked, told in history
        for message in (Message(role="user", content=asked.strip()), Message(role="assistant", content=told.strip()))
    ]
    head = [turn for turn in pair.turns if turn.role == "system"]
    return Pair((*head, *before, pair.turns[-1]), pair.answer)


def conversation(turns: Sequence[Mapping[str, Any]]) -> Pair | Problem:
    """Turns of any of the usual shapes: role/content or from/value, with the usual names for the roles."""
    read: list[Message] = []
    for number, turn in enumerate(turns, 1):
        name = turn.get("role", turn.get("from"))
        if not isinstance(name, str):
            return Problem("unknown-role", f"turn {number} has no role; fields: {_names(turn)}")
        if name.strip().lower() in _TOOLS or turn.get("tool_calls") or turn.get("function_call"):
            return Problem("tool-calls", f"turn {number} calls a tool; tool use cannot be learned yet")
        role = _ROLES.get(name.strip().lower())
        if role is None:
            return Problem("unknown-role", f"turn {number} has the role '{name}'; known: {', '.join(sorted(_ROLES))}")
        content = _content(turn.get("content", turn.get("value", turn.get("text"))))
        if content is None:
            return Problem("not-text", f"turn {number} is not text")
        if role == "assistant" and turn.get("weight") == 0:
            return Problem("zero-weight", f"turn {number} has weight 0; every answer here would be learned")
        if not content.strip():
            if role == "system":
                continue
            return Problem("empty-answer" if role == "assistant" else "empty-question", f"turn {number} is empty")
        read.append(Message(role=role, content=content.strip()))
    spoken = [message.role for message in read if message.role != "system"]
    if any(message.role == "system" for message in read[1:]):
        return Problem("role-order", "a system message stands after the first turn")
    if not spoken or spoken[-1] != "assistant":
        return Problem("no-answer", "the conversation does not end with an answer")
    if any(role != ("user", "assistant")[number % 2] for number, role in enumerate(spoken)):
        return Problem(
            "role-order", f"user and assistant must take turns, starting with user; found {', '.join(spoken[:6])}"
        )
    return Pair(tuple(read[:-1]), read[-1].content)


def _content(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part.get("text") if part.get("type", "text") in ("text", "input_text", "output_text") else None
                 for part in value if isinstance(part, Mapping)]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(value) else None
    return None


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(str(name) for name in row) or "none"
