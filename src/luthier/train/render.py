"""Examples as token ids, with one flag per token: does it carry loss?

A conversation is rendered turn by turn: the prompt up to the header of an assistant's turn exactly as serving sends
it, then the answer with the template's closing token. Nothing is searched for in the token stream, so a response
marker can neither be missed nor match inside a text (unsloth#11321).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError

from luthier.adapt.template import encode, render_text
from luthier.errors import ContractError, DataError
from luthier.types import Example, Message


@dataclass(frozen=True, slots=True)
class Rendered:
    """One example as the model sees it."""

    id: str
    ids: tuple[int, ...]
    loss: tuple[bool, ...]
    """loss[i]: token i is a target, predicted from the tokens before it. Never true for i = 0."""
    weight: float = 1.0
    turns: int = 1
    """Number of assistant turns; 0 for plain text."""
    taught: bool = False
    """Its supervised tokens are also learned from what an earlier model says there (token-level distillation)."""

    @property
    def num_supervised(self) -> int:
        return sum(self.loss)

    def cut(self, max_length: int) -> Rendered:
        """The first `max_length` tokens: the prompt and the beginning of the answer stay."""
        if len(self.ids) <= max_length:
            return self
        return replace(self, ids=self.ids[:max_length], loss=self.loss[:max_length])


def messages_of(example: Example, system: str | None) -> list[Message]:
    """The conversation with its answer; the task's system message leads where the example brings none."""
    if isinstance(example.input, str):
        raise TypeError("a text example has no messages")
    if example.target is None:
        raise DataError(f"example {example.id} ({example.origin.where or example.origin.step}) is a conversation "
                        "without an answer; give it a target")
    found = [*example.input, Message(role="assistant", content=example.target)]
    if system and found[0].role != "system":
        found.insert(0, Message(role="system", content=system))
    return found


def render(tokenizer: Any, example: Example, *, stop_id: int, system: str | None = None) -> Rendered:
    """Token ids and loss flags of an example.

    Conversation: exactly the tokens of every assistant turn, closing token included, carry loss. Text: every token but
    the first, and an end token. Text with a target: the target's tokens and the end token. Raises ContractError where
    the template refuses the conversation, rewrites earlier turns, or does not close an answer with `stop_id`.
    """
    if isinstance(example.input, str):
        return _render_text(tokenizer, example, stop_id)
    messages = messages_of(example, system)
    ids: list[int] = []
    loss: list[bool] = []
    done, turns = "", 0
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = _template(tokenizer, messages[:index], example, prompt=True)
        after = _template(tokenizer, messages[: index + 1], example, prompt=False)
        if not (before.startswith(done) and after.startswith(before)):
            raise ContractError(
                f"contract point 3 (template): the chat template rewrites earlier text of example {example.id} when a "
                f"turn is added (turn {index + 1}), so training would see another prompt than serving sends; use a "
                "template that only appends, or keep one answer per conversation"
            )
        answer = encode(tokenizer, after[len(before):])
        closings = [at for at, token in enumerate(answer) if token == stop_id]
        if len(closings) != 1:
            stop = tokenizer.convert_ids_to_tokens(stop_id)
            found = "does not close the answer" if not closings else "stands inside the answer's text"
            raise ContractError(
                f"contract point 2 (stop token): {stop} {found} in turn {index + 1} of example {example.id} "
                f"({example.origin.where or example.origin.step}); "
                + ("fix the chat template" if not closings else "remove it from the text")
            )
        prompt = encode(tokenizer, before[len(done):])
        ids += prompt + answer
        loss += [False] * len(prompt) + [at <= closings[0] for at in range(len(answer))]
        done, turns = after, turns + 1
    end = len(loss) - loss[::-1].index(True)  # what follows the last answer teaches nothing
    if not any(token for token in loss[1:end]) or loss[0]:
        raise ContractError(f"contract point 3 (template): the prompt of example {example.id} is empty")
    return Rendered(example.id, tuple(ids[:end]), tuple(loss[:end]), example.weight, turns)


def _render_text(tokenizer: Any, example: Example, stop_id: int) -> Rendered:
    assert isinstance(example.input, str)
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else stop_id
    ids = list(tokenizer(example.input)["input_ids"])
    while ids and ids[-1] == end:  # some tokenizers append it by themselves
        ids.pop()
    if example.target is None:
        return Rendered(example.id, (*ids, end), (False, *[True] * len(ids)), example.weight, 0)
    target = encode(tokenizer, example.target)
    if not ids:
        raise DataError(f"example {example.id} has an empty input")
    return Rendered(example.id, (*ids, *target, end), (*[False] * len(ids), *[True] * (len(target) + 1)),
                    example.weight, 0)


def _template(tokenizer: Any, messages: list[Message], example: Example, *, prompt: bool) -> str:
    try:
        return render_text(tokenizer, messages, prompt=prompt)
    except TemplateError as error:
        raise ContractError(f"contract point 3 (template): the chat template refuses example {example.id} "
                            f"({example.origin.where or example.origin.step}): {error}") from None
