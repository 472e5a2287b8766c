"""Vocabulary extension: words of the user's field that the tokenizer cuts to pieces become tokens of their own.

A new token begins as the mean of its pieces' embeddings (Gee et al. 2022, "Fast Vocabulary Transfer", EMNLP industry
track), so that nothing is unlearned before training, texts get shorter, and each word has a vector that can learn.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from luthier.errors import ModelError
from luthier.spec import Spec

if TYPE_CHECKING:
    from luthier.adapt.backbones.text import TextBackbone

WORD = re.compile(r"[^\W\d_][\w-]*\w")


class Vocabulary(Spec):
    """Words that become tokens of their own (tasks classify, tag and embed)."""

    add: tuple[str, ...] = ()
    """These words."""
    file: str | None = None
    """A text file with one word a line, relative to the project folder."""
    auto: int = Field(default=0, ge=0)
    """As many of the commonest words of the train texts that the tokenizer cuts to at least `min_pieces`."""
    min_pieces: int = Field(default=3, ge=2)
    """Pieces that make a word worth a token (`auto`)."""
    min_count: int = Field(default=5, ge=1)
    """Times that a word must occur in the train texts (`auto`); a rarer one would hardly learn."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.add or self.file or self.auto):
            raise ValueError("adds nothing; give `add`, `file` or `auto`")
        if any(not word or word.split() != [word] for word in self.add):
            raise ValueError("every entry of `add` must be one word without spaces")
        return self

    def read(self, root: Path) -> Vocabulary:
        """The same with the file's words in `add`. ModelError for a file that cannot be read or holds no words."""
        if self.file is None:
            return self
        path = root / self.file
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"adapt.vocabulary.file: {path} cannot be read: {error}") from None
        words = [line.strip() for line in lines if line.strip()]
        several = next((at for at, line in enumerate(lines, 1) if len(line.split()) > 1), None)
        if several is not None or not words:
            where = f"line {several} holds more than one word" if several else "it holds no words"
            raise ModelError(f"adapt.vocabulary.file: {path} must have one word a line, and {where}")
        return self.but(add=tuple(dict.fromkeys([*self.add, *words])), file=None)

    def words(self, tokenizer: Any, texts: Iterable[str]) -> tuple[str, ...]:
        """The words that become tokens: `add`, then `auto`, without those that are one token already."""
        found = {word: None for word in self.add if len(pieces(tokenizer, word)) > 1}
        if self.auto:
            lower = _lowers(tokenizer)
            counts = Counter(word.lower() if lower else word for text in texts for word in WORD.findall(text))
            common = (word for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
                      if count >= self.min_count and word not in found
                      and len(pieces(tokenizer, word)) >= self.min_pieces)
            found |= {word: None for word, _ in zip(common, range(self.auto))}
        return tuple(found)


def pieces(tokenizer: Any, word: str) -> list[int]:
    """Ids of a word's pieces inside a text."""
    before = tokenizer("a", add_special_tokens=False)["input_ids"]
    return tokenizer(f"a {word}", add_special_tokens=False)["input_ids"][len(before):]


def extend(backbone: TextBackbone, words: Sequence[str]) -> None:
    """Make each word one token that begins as the mean of its pieces' embeddings; everything else stays, bit by bit."""
    import torch
    from tokenizers import AddedToken

    tokenizer, model = backbone.processor.tokenizer, backbone.model
    parts = [pieces(tokenizer, word) for word in words]
    # where a piece carries the space before it, so does the word
    spaced = any(mark in piece for piece in tokenizer.tokenize("a b") for mark in ("Ġ", "▁"))
    tokenizer.add_tokens([AddedToken(word, single_word=True, lstrip=spaced, normalized=True) for word in words])
    before = model.get_input_embeddings().weight.detach().clone()
    if len(tokenizer) > len(before):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        for word, ids in zip(words, parts):
            weight[tokenizer.convert_tokens_to_ids(word)] = before[ids].float().mean(0).to(weight.dtype)
    backbone.added = tuple(words)


def _lowers(tokenizer: Any) -> bool:
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str("A") == "a"
