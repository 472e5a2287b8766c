"""Back-translation (Sennrich et al. 2016; Xie et al. 2020, UDA) through a model that the user names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS, Setting

if TYPE_CHECKING:
    import numpy as np

VERSION = 1
_ASK = "Translate the text into {language}. Answer with the translation only.\n\n{text}"


@register(AUGMENTS, "back_translation")
class BackTranslation(Spec):
    """Replaces texts by what remains of them after a translation into another language and back. Your texts are sent to
    the address that you name, once each; what came back is kept in the store."""

    reads: ClassVar[Literal["text", "image"]] = "text"

    base_url: str = Field(min_length=1)
    """Address of an OpenAI-compatible endpoint, such as http://localhost:8000/v1. There is none by default."""
    model: str = Field(min_length=1)
    """The endpoint's name of the model."""
    api_key_env: str | None = None
    """Environment variable that holds the endpoint's key; null where it needs none."""
    language: str = Field(default="English", min_length=1)
    """The language of your texts."""
    through: tuple[str, ...] = Field(default=("German",), min_length=1)
    """Languages to go through; each gives one wording of every text, drawn alike."""
    chance: float = Field(default=0.5, ge=0, le=1)
    """Probability of a text to be replaced each time it is seen."""
    max_new_tokens: int = Field(default=512, ge=16)
    """Longest translation; one that is cut off is not used."""

    def bind(self, setting: Setting) -> BoundBackTranslation:
        """Translate what the store does not hold yet. ModelError when the endpoint fails."""
        wordings: dict[str, list[str]] = {}
        for language in self.through:
            there = self._translate([*dict.fromkeys(setting.texts)], language, setting)
            back = self._translate([*dict.fromkeys(there.values())], self.language, setting)
            for text, between in there.items():
                found = back.get(between, "")
                if found and found != text:
                    wordings.setdefault(text, []).append(found)
        return BoundBackTranslation(self, wordings)

    def _translate(self, texts: list[str], language: str, setting: Setting) -> dict[str, str]:
        """Text → translation, for those that got a whole one."""
        from luthier.models.endpoint import EndpointChat
        from luthier.types import Message, digest

        def key(text: str) -> str:
            return digest("translation", str(VERSION), self.base_url, self.model, str(self.max_new_tokens), language,
                          text, length=40)

        found = {text: json.loads(kept) for text in texts if (kept := setting.cache.get(key(text))) is not None}
        new = [text for text in texts if text not in found and text.strip()]
        chat = EndpointChat(self.base_url, self.model, self.api_key_env)
        for start in range(0, len(new), 64):  # in parts, so that a stopped run keeps what was answered
            part = new[start : start + 64]
            prompts = [(Message(role="user", content=_ASK.format(language=language, text=text)),) for text in part]
            answers = chat.complete(prompts, max_new_tokens=self.max_new_tokens, progress=setting.progress,
                                    what=f"translate into {language}")
            for text, answer in zip(part, answers):
                found[text] = answer.text.strip() if answer.finish == "stop" else ""
                setting.cache.put(key(text), json.dumps(found[text]).encode())
        return {text: translation for text, translation in found.items() if translation}


class BoundBackTranslation:
    """`back_translation` with the wordings that came back."""

    kind: ClassVar[str] = "back_translation"
    reads: ClassVar[Literal["text", "image"]] = "text"

    def __init__(self, spec: BackTranslation, wordings: Mapping[str, list[str]]):
        self.spec, self.wordings = spec, wordings

    def dump(self) -> dict[str, Any]:
        return self.spec.dump()

    def apply(self, data: str, rng: np.random.Generator) -> str:
        """A text that was not there when it was bound (changed by an earlier augmentation) stays as it is: put this one
        first."""
        hit, drawn = rng.random(2)
        choices = self.wordings.get(data, ())
        return choices[int(drawn * len(choices))] if choices and hit < self.spec.chance else data
