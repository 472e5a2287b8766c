"""TF-IDF of words (1 to 2) and of letters (2 to 5, within words), as scikit-learn's vectorisers compute it, without
scikit-learn: a served model needs neither it nor a pickle of its objects.

The definitions are those of `TfidfVectorizer(sublinear_tf=True)` with the analysers `word` and `char_wb`: small
letters, 1 + ln(count) times the inverse document frequency, and every half of the vector brought to length 1.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from luthier.errors import ModelError
from luthier.store import write_json

WORDS, LETTERS = (1, 2), (2, 5)
"""Shortest and longest run of words, and of letters."""
TOKEN = r"(?u)\b\w+\b"
FILE, WEIGHTS = "ngrams.json", "ngrams.safetensors"
_TOKEN, _SPACES = re.compile(TOKEN), re.compile(r"\s\s+")


def word_runs(text: str) -> Iterator[str]:
    """Runs of one and two words of a text in small letters."""
    words = _TOKEN.findall(text)
    yield from words
    for first, second in itertools.pairwise(words):
        yield f"{first} {second}"


def letter_runs(text: str) -> Iterator[str]:
    """Runs of two to five letters within words that have a space on either side; a shorter word counts whole, once."""
    for word in _SPACES.sub(" ", text).split():
        padded = f" {word} "
        for size in range(LETTERS[0], LETTERS[1] + 1):
            yield padded[:size]
            for start in range(1, len(padded) - size + 1):
                yield padded[start : start + size]
            if size >= len(padded):
                break


class Ngrams:
    """A vocabulary of runs of words and of letters, with how rare each is."""

    def __init__(self, words: Sequence[str], letters: Sequence[str], word_idf: np.ndarray, letter_idf: np.ndarray):
        """Runs in the order of the columns, words before letters; inverse document frequencies float64 of both."""
        self.words, self.letters = tuple(words), tuple(letters)
        self.idf = np.concatenate([word_idf, letter_idf]).astype(np.float64)
        self._words = {run: at for at, run in enumerate(self.words)}
        self._letters = {run: at for at, run in enumerate(self.letters, len(self.words))}

    @property
    def columns(self) -> int:
        return len(self.words) + len(self.letters)

    def read(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """(columns int64, values float32) of the runs of a text that are known; two empty arrays where none is."""
        small = text.lower()
        halves = [self._half(runs, places) for runs, places in ((word_runs(small), self._words),
                                                                (letter_runs(small), self._letters))]
        return np.concatenate([half[0] for half in halves]), np.concatenate([half[1] for half in halves])

    def _half(self, runs: Iterator[str], places: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        counts = Counter(places[run] for run in runs if run in places)
        columns = np.fromiter(counts, dtype=np.int64, count=len(counts))
        values = (1 + np.log(np.fromiter(counts.values(), dtype=np.float64, count=len(counts)))) * self.idf[columns]
        length = math.sqrt(float(values @ values))
        return columns, (values / length if length else values).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write the runs as JSON, and how rare they are as safetensors."""
        from safetensors.numpy import save_file

        write_json(folder / FILE, {"words": list(self.words), "letters": list(self.letters)})
        save_file({"idf": self.idf}, folder / WEIGHTS)

    @classmethod
    def restore(cls, folder: Path) -> Ngrams:
        """An equal vocabulary from what `save` wrote; ModelError where the files do not fit each other."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            told = json.loads((folder / FILE).read_text("utf-8"))
            words, letters, idf = told["words"], told["letters"], load_file(folder / WEIGHTS)["idf"]
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelError(f"{folder / FILE} and {WEIGHTS} cannot be read ({error}); release the model again"
                             ) from None
        if len(idf) != len(words) + len(letters):
            raise ModelError(f"{folder / FILE} has {len(words) + len(letters)} runs and {WEIGHTS} {len(idf)} figures; "
                             "release the model again")
        return cls(words, letters, idf[: len(words)], idf[len(words) :])
