"""A scripted teacher and passages: what the tests of synthesis share."""

from __future__ import annotations

import json
from typing import Any

from luthier.models.base import Completion
from luthier.types import Passage

STEPS = ("To replace the filter, proceed as follows:\n1. Switch the pump off.\n2. Open the grey cover.\n"
         "3. Pull the filter out.")
LIST = "Visitors must bring:\n- a passport\n- the invitation letter\n- safety shoes"
ROOM = "The boardroom on floor 4 seats 12 people and has a projector with a wireless adapter."


class Teacher:
    """Answers by what stands in the prompt: the first key that does."""

    name = "scripted"

    def __init__(self, replies: dict[str, str], otherwise: str = "NOT IN THE TEXT"):
        self.replies, self.otherwise, self.prompts = replies, otherwise, []

    def complete(self, prompts: Any, **_: Any) -> list[Completion]:
        texts = [prompt[-1].content for prompt in prompts]
        self.prompts += texts
        return [Completion(text=next((said for mark, said in self.replies.items() if mark in text), self.otherwise),
                           num_prompt_tokens=50, num_tokens=20, finish="stop", seconds=0.1) for text in texts]


def passage(text: str, title: str = "Guide", id: str = "p", **changes: Any) -> Passage:
    return Passage(**{"id": id, "document": "d", "path": "guide.md", "title": title, "heading": (), "text": text,
                      "spans": (0, 1), **changes})


def hall(n: int) -> str:
    return f"Hall {n} of the north site holds {n + 20} machines."


def halls(count: int) -> list[str]:
    return ["# Halls", *[piece for n in range(count) for piece in (f"## Hall {n}", hall(n))]]


def about_hall(n: int) -> str:
    return pair(f"How many machines does hall {n} hold?", hall(n))


def pair(question: str, answer: str, **more: str) -> str:
    return json.dumps({"question": question, "answer": answer, **more})
