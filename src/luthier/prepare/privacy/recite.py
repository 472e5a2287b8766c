"""Values that were taken out, known by keyed hashes alone: whether a text holds one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from luthier.prepare.privacy.key import Key

_TOKEN = re.compile(r"[^\W_]+")
_LEAST = 6
_MOST_TOKENS = 12


class Taken:
    """The values behind the records of `privacy.jsonl`.

    A value counts from six letters and digits on; a name from two words on, for a first name says nothing about whom.
    Case, spaces and punctuation do not matter. A text is cut into words and every run of up to twelve words is hashed
    with the key, so the values themselves are not needed.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], key: Key):
        self.key = key
        self.by_hash: dict[str, Mapping[str, Any]] = {}
        for record in records:
            if "hash" in record and record["status"] not in ("allowed", "rejected") and record["chars"] >= _LEAST and \
                    (record["kind"] != "PERSON" or record["words"] >= 2):
                self.by_hash.setdefault(record["hash"], record)
        self._lengths = frozenset(record["chars"] for record in self.by_hash.values())

    def __len__(self) -> int:
        return len(self.by_hash)

    def find(self, text: str) -> Iterator[Mapping[str, Any]]:
        """The record of each value that stands in the text, once."""
        if not self._lengths:
            return
        tokens = [token.casefold() for token in _TOKEN.findall(text)]
        longest, seen = max(self._lengths), set()
        for at in range(len(tokens)):
            run = ""
            for token in tokens[at : at + _MOST_TOKENS]:
                run += token
                if len(run) > longest:
                    break
                if len(run) in self._lengths and run not in seen:
                    seen.add(run)
                    record = self.by_hash.get(self.key.hash(run))
                    if record is not None:
                        yield record
