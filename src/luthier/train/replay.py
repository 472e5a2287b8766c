"""Replay: general instructions mixed into training, so that tuning does not overwrite what the base could do.

Published: 1 % rehearsal keeps nearly all skills (Scialom et al. 2022).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import Field

from luthier.errors import DataError
from luthier.models.sources import file_hash
from luthier.spec import Spec
from luthier.types import Example, Message, Origin

BUILTIN = Path(__file__).parent / "data" / "general.jsonl"


class Replay(Spec):
    """General instructions mixed into the train examples against forgetting."""

    share: float = Field(default=0.1, gt=0, lt=1)
    """Share of every epoch's examples that is replayed; each epoch takes other ones."""
    source: str = "builtin"
    """`builtin` (general instructions that ship with Luthier), `past` (the rows that the model kept from which training
    begins, see train.keep), or a JSON-lines file with the fields instruction and response, relative to the project
    folder."""

    def path(self, root: Path) -> Path:
        return BUILTIN if self.source == "builtin" else root / self.source

    def identity(self, root: Path) -> str:
        """Hash of the rows, for the artifact's id."""
        try:
            return file_hash(self.path(root))
        except OSError as error:
            raise DataError(f"train.replay.source '{self.source}' cannot be read: {error.strerror}") from None

    def count(self, num_own: int) -> int:
        """Replayed examples per epoch beside `num_own` of the user's."""
        return max(1, round(num_own * self.share / (1 - self.share)))

    def read(self, root: Path) -> list[Example]:
        """The pool, in file order. Raises DataError with the line of a bad row."""
        path, found = self.path(root), []
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                instruction, response = str(row["instruction"]).strip(), str(row["response"]).strip()
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{path}:{number}: a replay row needs the fields instruction and response") from None
            if not instruction or not response:
                raise DataError(f"{path}:{number}: a replay row has an empty instruction or response")
            found.append(Example(
                id="replay-" + hashlib.sha256(line.encode()).hexdigest()[:12], target=response,
                input=(Message(role="user", content=instruction),), tags=("replay",),
                origin=Origin(maker="human", step="replay", where=f"{path.name}:{number}"),
            ))
        if not found:
            raise DataError(f"{path} holds no replay rows")
        return found
