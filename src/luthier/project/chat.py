"""`luthier chat`: ask a release from the terminal, with the prompts that were evaluated and that the server uses."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import UsageError
from luthier.project.base import Project
from luthier.release.folder import read_release
from luthier.serve.answer import Assistant, Prompt
from luthier.types import Message


@dataclass(frozen=True)
class Answer:
    """What came back, and the passages that stood in the prompt."""

    model: str
    text: str
    prompt: Prompt
    seconds: float

    def data(self) -> dict[str, Any]:
        return {"model": self.model, "answer": self.text, "citations": self.prompt.citations(self.text),
                "seconds": round(self.seconds, 2)}

    def text_with_sources(self) -> str:
        sources = [f"  [{n}] {passage.citation}" for n, passage in enumerate(self.prompt.passages, start=1)]
        return "\n".join([self.text, *sources])


class Asking:
    """A release opened for one caller in this process."""

    def __init__(self, project: Project, folder: Path, *, system: str | None):
        from luthier.index.base import open_index
        from luthier.models.generate import LocalChat, load_module

        record = read_release(folder)
        if record.labels is not None:
            raise UsageError(f"release {record.label} gives labels and does not chat; ask it with: luthier predict")
        if record.template is None:
            raise UsageError(f"release {record.label} continues text and does not chat; use the server's "
                             "/v1/completions")
        self.system = system.replace("-", "_") if system else record.choice
        if self.system not in record.systems:
            raise UsageError(f"release {record.label} has no '{system}'; it offers: {', '.join(record.systems)}")
        retriever = open_index(folder / "index", root=project.root) if "retrieval" in self.system else None
        self.assistant = Assistant(record, retriever)
        module, tokenizer = load_module(record.weights(self.system, root=project.root), dtype=record.dtype)
        tokenizer.chat_template = record.template
        self.chat = LocalChat(module, tokenizer, record.stop_ids)
        self.name, self.limit = record.name, project.spec.serve.max_output_tokens

    def ask(self, conversation: list[Message]) -> Answer:
        prompt = self.assistant.prompt(self.system, conversation)  # type: ignore[arg-type]
        reply = self.chat.complete([prompt.messages], max_new_tokens=self.limit)[0]
        return Answer(f"{self.name}:{self.system.replace('_', '-')}", reply.text.strip(), prompt, reply.seconds)


def answer(project: Project, folder: Path, question: str, *, system: str | None = None) -> Answer:
    """One question, one answer. UsageError for an empty question or a system that the release does not have."""
    if not question.strip():
        raise UsageError("the question is empty")
    return Asking(project, folder, system=system).ask([Message(role="user", content=question)])


def converse(project: Project, folder: Path, *, system: str | None = None) -> None:
    """Ask until end of input (Ctrl-D). Without a terminal, every line of standard input is a question of its own."""
    asking = Asking(project, folder, system=system)
    terminal = sys.stdin.isatty()
    if terminal:
        print(f"Talking to {asking.name}:{asking.system.replace('_', '-')}. Ctrl-D ends.", file=sys.stderr)
    history: list[Message] = []
    while True:
        try:
            line = input("\n> " if terminal else "")
        except EOFError:
            return
        if not line.strip():
            continue
        asked = [*(history if terminal else []), Message(role="user", content=line)]
        found = asking.ask(asked)
        history = [*asked, Message(role="assistant", content=found.text)]
        print(found.text_with_sources(), flush=True)
