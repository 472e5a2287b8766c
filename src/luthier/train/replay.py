"""Replay: rows seen again, so that tuning does not overwrite what the model could do: general instructions, rows that
an earlier training kept, or both, each at its own share.

Published: 1 % rehearsal keeps nearly all skills (Scialom et al. 2022).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import core_schema

from luthier.errors import DataError
from luthier.models.sources import file_hash
from luthier.spec import Nested, Spec
from luthier.types import Example, Message, Origin

BUILTIN = Path(__file__).parent / "data" / "general.jsonl"
PAST = "past"


class Replay(Spec):
    """Rows mixed into the train examples against forgetting."""

    share: float = Field(default=0.1, gt=0, lt=1)
    """Share of every epoch's examples that is replayed; each epoch takes other ones."""
    source: str = "builtin"
    """`builtin` (general instructions that ship with Luthier), `past` (the rows that the model kept from which training
    begins, see train.keep), or a JSON-lines file with the fields instruction and response, relative to the project
    folder."""

    def path(self, root: Path) -> Path:
        return BUILTIN if self.source == "builtin" else root / self.source

    def identity(self, root: Path) -> str:
        """Hash of the rows, for the artifact's id; `past` itself, whose rows are part of the earlier run's id."""
        if self.source == PAST:
            return PAST
        try:
            return file_hash(self.path(root))
        except OSError as error:
            raise DataError(f"train.replay.source '{self.source}' cannot be read: {error.strerror}") from None

    def count(self, num_own: int) -> int:
        """Replayed examples per epoch beside `num_own` of the user's, where nothing else is replayed."""
        return counts([self], num_own)[0]

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


def counts(replays: Sequence[Replay], num_own: int) -> list[int]:
    """Examples that each contributes to an epoch beside `num_own` of the user's, so that each has its share of the
    whole epoch; at least one."""
    whole = num_own / (1 - sum(one.share for one in replays))
    return [max(1, round(whole * one.share)) for one in replays]


class OneOrMore:
    """Marks a field that takes one Replay, a list of them, or null: `Annotated[…, OneOrMore]`."""

    @staticmethod
    def read(value: Any, info: core_schema.ValidationInfo) -> Replay | tuple[Replay, ...] | None:
        if value is None or isinstance(value, Replay):
            return value
        several = isinstance(value, list | tuple)
        try:
            found = TypeAdapter(tuple[Replay, ...] if several else Replay).validate_python(value, context=info.context)
        except ValidationError as error:
            raise Nested(error, Replay) from None
        if isinstance(found, Replay):
            return found
        sources = [one.source for one in found]
        if len(set(sources)) < len(sources):
            raise ValueError("two entries replay the same source; give it one share")
        if sum(one.share for one in found) >= 1:
            raise ValueError("the shares add up to 1 or more, so no room is left for the rows to learn")
        return found

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def dump(value: Replay | tuple[Replay, ...] | None) -> Any:
            if value is None or isinstance(value, Replay):
                return value and value.dump()
            return [one.dump() for one in value]

        return core_schema.with_info_plain_validator_function(
            cls.read, serialization=core_schema.plain_serializer_function_ser_schema(dump))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        one = dict(handler.resolve_ref_schema(handler(Replay.__pydantic_core_schema__)))
        return {"anyOf": [one, {"type": "array", "items": one}, {"type": "null"}]}
