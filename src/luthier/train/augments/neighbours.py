"""Swaps with near words of a word embedding (Wang & Yang 2015, "That's so annoying!!!")."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from luthier.errors import DataError, ModelError
from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS, Setting
from luthier.train.augments._words import WORD, cased, change_words

if TYPE_CHECKING:
    import numpy as np

MARKS = ("▁", "Ġ")
"""What a tokenizer puts before a token that begins a word; WordPiece marks the others, with ##."""


@register(AUGMENTS, "neighbours")
class Neighbours(Spec):
    """Replaces words by words of similar use: neighbours in a file of word vectors, or among the input embeddings of
    the model itself. They are used alike, which is not always the same as meaning alike."""

    reads: ClassVar[Literal["text", "image"]] = "text"

    path: str = ""
    """Word vectors in the text format of Word2Vec or GloVe (a word and its numbers a line); empty: the model's own."""
    share: float = Field(default=0.1, ge=0, le=1)
    """Probability of each word to be replaced."""
    near: int = Field(default=5, ge=1, le=50)
    """How many nearest words are drawn from."""
    least: float = Field(default=0.5, ge=-1, le=1)
    """Smallest cosine of a word that may stand in; words without one are left alone."""

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The hash of the vectors; the model's own belong to the model."""
        from luthier.models.sources import file_hash

        return {"neighbours": file_hash(_file(root, self.path))} if self.path else {}

    def bind(self, setting: Setting) -> BoundNeighbours:
        """Find the neighbours of every word of the texts, once."""
        wanted = {match[0].lower() for text in setting.texts for match in WORD.finditer(text)}
        words, vectors = read_vectors(_file(setting.root, self.path)) if self.path else own_vectors(setting.model)
        return BoundNeighbours(self, nearest(words, vectors, wanted, near=self.near, least=self.least))


class BoundNeighbours:
    """`neighbours` with the near words of each."""

    kind: ClassVar[str] = "neighbours"
    reads: ClassVar[Literal["text", "image"]] = "text"

    def __init__(self, spec: Neighbours, near: Mapping[str, list[str]]):
        self.spec, self.near = spec, near

    def dump(self) -> dict[str, Any]:
        return self.spec.dump()

    def apply(self, data: str, rng: np.random.Generator) -> str:
        def choose(word: str) -> str:
            drawn = rng.random()
            choices = self.near.get(word.lower(), ())
            return cased(choices[int(drawn * len(choices))], word) if choices else word

        return change_words(data, self.spec.share, rng, choose)


def nearest(words: list[str], vectors: np.ndarray, wanted: set[str], *, near: int, least: float
            ) -> dict[str, list[str]]:
    """The `near` words with the highest cosine, of every wanted word that has a vector; `vectors` is
    float32 [words, width]."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.maximum(lengths, 1e-9)
    places = [at for at, word in enumerate(words) if word in wanted]
    found = {}
    for start in range(0, len(places), 512):
        part = places[start : start + 512]
        cosines = units[part] @ units.T
        cosines[np.arange(len(part)), part] = -2
        top = np.argsort(-cosines, axis=1, kind="stable")[:, :near]
        for row, (at, best) in enumerate(zip(part, top)):
            close = [words[other] for other in best if cosines[row, other] >= least]
            if close:
                found[words[at]] = close
    return found


def read_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    """Words and vectors float32 [words, width] of a file in text format; words with signs are left out. DataError names
    the line that does not fit."""
    import numpy as np

    words: list[str] = []
    rows: list[np.ndarray] = []
    seen: set[str] = set()
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            word, _, rest = line.rstrip("\n").partition(" ")
            if number == 1 and len(rest.split()) == 1:
                continue  # Word2Vec's first line: how many words, how many numbers
            if not WORD.fullmatch(word) or word.lower() in seen:
                continue
            try:
                row = np.array(rest.split(), dtype=np.float32)
            except ValueError:
                raise DataError(f"{path}:{number}: what follows '{word[:40]}' is not a list of numbers") from None
            if not len(row) or (rows and len(row) != len(rows[0])):
                raise DataError(f"{path}:{number}: '{word[:40]}' has {len(row)} numbers, the words before it "
                                f"{len(rows[0]) if rows else 'some'}")
            seen.add(word.lower())
            words.append(word.lower())
            rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no word vectors; each line is a word and its numbers, with spaces between")
    return words, np.stack(rows)


def own_vectors(model: Any) -> tuple[list[str], np.ndarray]:
    """The input embeddings of all tokens that are whole words. Their common mean is taken off: it says nothing."""
    network: Any = getattr(model.module.backbone, "model", None)
    if not hasattr(network, "get_input_embeddings"):
        raise ModelError(f"train.augments.neighbours: {model.name} has no word embeddings; name a file of word vectors "
                         "as its path")
    table = network.get_input_embeddings().weight.detach().float().cpu().numpy()
    vocabulary = model.processor.tokenizer.get_vocab()
    marked = any(token.startswith(MARKS) for token in vocabulary)
    chosen: dict[str, int] = {}
    for token, at in sorted(vocabulary.items(), key=lambda item: item[1]):
        word = token[1:] if token.startswith(MARKS) else "" if marked else token
        if len(word) > 1 and at < len(table) and WORD.fullmatch(word):
            chosen.setdefault(word.lower(), at)
    vectors = table[[*chosen.values()]]
    return [*chosen], vectors - vectors.mean(0)


def _file(root: Path, path: str) -> Path:
    found = root / path
    if not found.is_file():
        raise DataError(f"train.augments.neighbours.path: there is no file {found}; leave it out to use the model's "
                        "own embeddings")
    return found
