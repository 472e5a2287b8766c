"""The systems under test: prompts, answers, losses and latency of one model, each remembered by what it depends on.

Base and tuned model are opened only when something is not in the cache yet, one at a time, and the answers of a
killed evaluation are found again: the cache is written every `CHUNK` questions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier.evaluate.loss import Loss, Row, last_run, token_losses
from luthier.models.base import Completion
from luthier.progress import Progress, Silent
from luthier.store import Cache, canonical
from luthier.types import Example, Message, Origin, digest

if TYPE_CHECKING:
    from luthier.models.generate import LocalChat

VERSION = 2
CHUNK = 16
TOO_LONG = "too_long"
"""`finish` of a question whose prompt leaves no room for an answer in the model's context."""


@dataclass(frozen=True)
class Answer:
    text: str
    num_tokens: int
    finish: str
    seconds: float
    """Share of the batch's wall time."""
    cpu_seconds: float


@dataclass(frozen=True)
class Latency:
    """Single requests, one after the other."""

    seconds: tuple[float, ...]
    tokens: tuple[int, ...]
    generating: tuple[float, ...]
    """Seconds spent in the model, retrieval left out."""
    cpu_seconds: tuple[float, ...]
    """CPU time of each request, retrieval included: steadier than seconds on a machine that others use too."""
    weights_mb: float
    """Megabytes of the model's weights in memory."""


class Opened:
    """A model in memory, ready to answer and to be scored."""

    def __init__(self, model: Any):
        import torch

        from luthier.models.generate import LocalChat

        self.module = model.module.to("cuda") if torch.cuda.is_available() else model.module
        self.tokenizer, self.task, self.stop_id = model.tokenizer, model.task, model.stop_ids[0]
        self.chat: LocalChat = LocalChat(self.module, model.tokenizer, model.stop_ids, name=model.name)

    def fits(self, messages: Sequence[Message], max_new_tokens: int) -> bool:
        from luthier.models.generate import context_length, encode_prompt

        room = context_length(self.module)
        return room is None or len(encode_prompt(self.tokenizer, messages)) + max_new_tokens <= room

    def go_on(self, texts: Sequence[str], max_new_tokens: int) -> list[str]:
        from luthier.models.generate import context_length

        room = context_length(self.module)
        rows = [self.tokenizer(text)["input_ids"] for text in texts]
        fits = [bool(row) and (room is None or len(row) + max_new_tokens <= room) for row in rows]
        asked = [row for row, fit in zip(rows, fits, strict=True) if fit]
        done = iter(self.chat.complete_tokens(asked, max_new_tokens=max_new_tokens) if asked else [])
        return [next(done).text if fit else "" for fit in fits]

    def row(self, example: Example) -> Row:
        from luthier.train.render import render

        rendered = render(self.tokenizer, example, stop_id=self.stop_id, system=self.task.system)
        return Row(rendered.ids, last_run(rendered.loss) if example.target is not None else rendered.loss)

    def losses(self, examples: Sequence[Example], *, progress: Progress, what: str,
               without_stop: bool = False) -> list[Loss]:
        rows = [self.row(example) for example in examples]
        if without_stop:
            rows = [Row(row.ids, _drop_last(row.mask)) for row in rows]
        return token_losses(self.module, rows, progress=progress, what=what)

    @property
    def weights_mb(self) -> float:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.module.parameters()) / 1e6


def _drop_last(mask: Sequence[int | bool]) -> list[bool]:
    """The mask without its last scored token (the stop token)."""
    kept = [bool(one) for one in mask]
    last = next((i for i in range(len(kept) - 1, -1, -1) if kept[i]), None)
    if last is not None:
        kept[last] = False
    return kept


class Subject:
    """One model under test (base or tuned), opened at the first question that the cache cannot answer."""

    def __init__(self, key: str, open: Callable[[], Opened], cache: Cache, progress: Progress = Silent()):
        """`key` identifies weights, template and stop tokens: equal keys give equal answers."""
        self.key, self._open, self.cache, self.progress = key, open, cache, progress
        self._opened: Opened | None = None

    @property
    def opened(self) -> Opened:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def close(self) -> None:
        """Free the model's memory."""
        import gc

        self._opened = None
        gc.collect()

    def _key(self, what: str, *parts: Any) -> str:
        return digest(canonical([VERSION, what, self.key, *parts]), length=40)

    def _get(self, key: str) -> Any:
        found = self.cache.get(key)
        return None if found is None else json.loads(found)

    def _put(self, key: str, value: Any) -> None:
        self.cache.put(key, json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))

    def answers(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, what: str) -> list[Answer]:
        """Greedy answers in order, generated longest prompt first in chunks of `CHUNK`."""
        keys = [self._key("answer", _plain(prompt), max_new_tokens) for prompt in prompts]
        found = {key: Answer(**value) for key in keys if (value := self._get(key)) is not None}
        todo = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
        order = sorted(todo, key=lambda key: -sum(len(message.content) for message in todo[key]))
        with self.progress.track(what, len(set(keys)), unit="answers", done=len(found)) as bar:
            for at in range(0, len(order), CHUNK):
                chunk = order[at : at + CHUNK]
                for key, answer in zip(chunk, self._generate([todo[key] for key in chunk], max_new_tokens),
                                       strict=True):
                    found[key] = answer
                    self._put(key, answer.__dict__)
                bar.advance(len(chunk))
        return [found[key] for key in keys]

    def _generate(self, prompts: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        fitting = [self.opened.fits(prompt, max_new_tokens) for prompt in prompts]
        asked = [prompt for prompt, fits in zip(prompts, fitting, strict=True) if fits]
        began, cpu = time.monotonic(), time.process_time()
        done = iter(self.opened.chat.complete(asked, max_new_tokens=max_new_tokens) if asked else [])
        share = 1 / max(len(asked), 1)
        seconds, cpu_seconds = (time.monotonic() - began) * share, (time.process_time() - cpu) * share
        return [_answer(next(done), seconds, cpu_seconds) if fits else Answer("", 0, TOO_LONG, 0.0, 0.0)
                for fits in fitting]

    def continuations(self, texts: Sequence[str], *, max_new_tokens: int, what: str) -> list[str]:
        """How the model goes on from plain texts, without a chat template; '' where a text leaves no room for it."""
        keys = [self._key("continuation", text, max_new_tokens) for text in texts]
        found = {key: value for key in keys if (value := self._get(key)) is not None}
        todo = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        order = sorted(todo, key=lambda key: -len(todo[key]))
        with self.progress.track(what, len(set(keys)), unit="texts", done=len(found)) as bar:
            for at in range(0, len(order), CHUNK):
                chunk = order[at : at + CHUNK]
                said = self.opened.go_on([todo[key] for key in chunk], max_new_tokens)
                for key, text in zip(chunk, said, strict=True):
                    found[key] = text
                    self._put(key, text)
                bar.advance(len(chunk))
        return [found[key] for key in keys]

    def losses(self, examples: Sequence[Example], *, what: str, without_stop: bool = False) -> list[Loss]:
        """Loss of each example's target (its whole text where it has none), in order."""
        keys = [self._key("loss", _plain(example.input), example.target, without_stop) for example in examples]
        found = {key: Loss(*value) for key in keys if (value := self._get(key)) is not None}
        todo = {key: example for key, example in zip(keys, examples, strict=True) if key not in found}
        order = sorted(todo, key=lambda key: -len(str(todo[key].input)))
        if order:
            with self.progress.track(what, len(set(keys)), unit="texts", done=len(found)) as bar:
                for at in range(0, len(order), 4 * CHUNK):
                    chunk = order[at : at + 4 * CHUNK]
                    measured = self.opened.losses([todo[key] for key in chunk], progress=Silent(), what=what,
                                                  without_stop=without_stop)
                    for key, loss in zip(chunk, measured, strict=True):
                        found[key] = loss
                        self._put(key, list(loss))
                    bar.advance(len(chunk))
        return [found[key] for key in keys]

    def latency(self, prompts: Sequence[Callable[[], Sequence[Message]]], *, max_new_tokens: int, what: str,
                system: str) -> Latency:
        """Time single requests; each prompt is a function, so that what it takes to make it (retrieval) counts.

        One request beforehand warms the model up. The result is kept with the question texts as its key.
        """
        made = [list(prompt()) for prompt in prompts]  # also warms the retriever
        key = self._key("latency", system, [_plain(prompt) for prompt in made], max_new_tokens)
        known = self._get(key)
        if known is not None:
            return Latency(tuple(known["seconds"]), tuple(known["tokens"]), tuple(known["generating"]),
                           tuple(known["cpu_seconds"]), known["weights_mb"])
        ready = [prompt for prompt, messages in zip(prompts, made, strict=True)
                 if self.opened.fits(messages, max_new_tokens)]
        seconds, tokens, generating, cpu_seconds = [], [], [], []
        with self.progress.track(what, len(ready), unit="requests") as bar:
            if ready:
                self.opened.chat.complete([made[0]], max_new_tokens=4)
            for prompt in ready:
                began, cpu = time.monotonic(), time.process_time()
                messages = prompt()
                middle = time.monotonic()
                completion = self.opened.chat.complete([messages], max_new_tokens=max_new_tokens)[0]
                seconds.append(time.monotonic() - began)
                generating.append(time.monotonic() - middle)
                cpu_seconds.append(time.process_time() - cpu)
                tokens.append(completion.num_tokens)
                bar.advance(1)
        measured = Latency(tuple(seconds), tuple(tokens), tuple(generating), tuple(cpu_seconds),
                           self.opened.weights_mb)
        self._put(key, measured.__dict__)
        return measured


def _answer(completion: Completion, seconds: float, cpu_seconds: float) -> Answer:
    return Answer(completion.text.strip(), completion.num_tokens, completion.finish, seconds, cpu_seconds)


def _plain(prompt: Sequence[Message] | str) -> Any:
    return prompt if isinstance(prompt, str) else [[message.role, message.content] for message in prompt]


def chat_example(question: str, answer: str, *, system: str | None, id: str = "") -> Example:
    """A one-turn example, for probes that are not part of the test set."""
    asked = Message(role="user", content=question)
    messages = (Message(role="system", content=system), asked) if system else (asked,)
    return Example(id=id or digest(question, answer), input=messages, target=answer,
                   origin=Origin(maker="human", step="probe"))
