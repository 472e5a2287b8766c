"""Chat templates: which one a model has, which one it is given, and which token ends its turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luthier.errors import ModelError
from luthier.types import Message

# A base model is given ChatML headers, but its own end-of-text token closes every turn: that token was learned in
# pre-training, while a fresh <|im_end|> would start with an embedding that no adapter on the layers can teach.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

PROBE = (Message(role="user", content="Where is the key?"), Message(role="assistant", content="Under the mat."))


def as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def render_text(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> str:
    """The conversation as the template writes it; `prompt` adds the header of the assistant's next turn.

    Raises jinja2.TemplateError where the template refuses the conversation (an unknown role, two users in a row…).
    """
    return tokenizer.apply_chat_template(as_dicts(messages), tokenize=False, add_generation_prompt=prompt)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of template text: the template already wrote the special tokens, so none is added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def turn_end(tokenizer: Any) -> int | None:
    """Id of the token with which the chat template closes an assistant's turn; None where it writes none."""
    before = render_text(tokenizer, PROBE[:1], prompt=True)
    full = render_text(tokenizer, PROBE, prompt=False)
    if not full.startswith(before):
        # a template may strip or add on the last turn: look behind the answer instead
        before = full[: full.rindex(PROBE[1].content)] if PROBE[1].content in full else full
    tail = full[len(before):]
    if PROBE[1].content not in tail:
        return None
    ids = encode(tokenizer, tail[tail.rindex(PROBE[1].content) + len(PROBE[1].content):])
    special = {*tokenizer.all_special_ids, *(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)}
    return ids[0] if ids and ids[0] in special else None


def choose_template(tokenizer: Any, wanted: str | None, *, name: str) -> tuple[str, str]:
    """The template to use and a note for the person. `wanted` is Jinja text, or None for the model's own."""
    own = tokenizer.chat_template
    if wanted is not None:
        return wanted, "the template named in the project replaces the model's own" if own else "the project's template"
    if isinstance(own, str) and own.strip():
        return own, "the model's own"
    if tokenizer.eos_token is None:
        raise ModelError(f"model '{name}' has neither a chat template nor an end-of-text token, so it cannot learn "
                         "where an answer ends; choose another model or give it an eos_token in tokenizer_config.json")
    return CHATML, (f"{name} is a base model without a chat template; it was given a ChatML-style one whose turns end "
                    f"with its own {tokenizer.eos_token}")
