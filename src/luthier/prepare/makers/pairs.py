"""The user's own pairs, in the formats people have them in; every row checked, every bad one reported with its line."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from luthier.errors import DataError
from luthier.plugins import register
from luthier.prepare.base import MAKERS, OWN_SPLIT, TOGETHER
from luthier.prepare.keys import key_of
from luthier.prepare.makers._examples import drop
from luthier.prepare.makers._formats import SPLITS, Format, Pair, Problem, columns_of, detect, read_pair
from luthier.prepare.makers._rows import BadRow, Row, files_of, read_rows
from luthier.prepare.makers._text import key
from luthier.spec import Spec
from luthier.types import Dropped, Example, Message, Origin, Split, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

_SHOWN = 5


@register(MAKERS, "pairs")
class Pairs(Spec):
    """Read question–answer pairs and conversations from a file or folder of the user's."""

    path: str = Field(min_length=1)
    """File or folder, relative to the project folder: JSON Lines, JSON, CSV, TSV (these also as .gz), Parquet, or a
    Hugging Face dataset folder (the last two need the extra `datasets`)."""
    format: Literal["auto", "openai", "sharegpt", "alpaca", "columns"] = "auto"
    """`openai`: messages with role and content; `sharegpt`: conversations with from and value; `alpaca`: instruction,
    input, output; `columns`: a question and an answer column. `auto` looks at the first rows and says what it found."""
    question: str | None = None
    """Column that holds the question; None guesses from its name (question, prompt, instruction, input…)."""
    answer: str | None = None
    """Column that holds the answer; None guesses from its name (answer, completion, output, response…)."""
    split: Split | None = None
    """Put all rows into this split (`test` for a file of test questions); None lets the file's split column, or else
    the project's shares, decide."""
    split_column: str = "split"
    """Column that names each row's split (train, validation or test), where the file has one."""
    group_by: str | None = None
    """Column whose equal values must stay in one split, such as the document or the customer a pair is about."""
    strict: bool = False
    """Stop with the list of bad rows instead of leaving them out."""
    max_chars: int = Field(default=20_000, ge=100)
    """Longest row in characters, question, answer and earlier turns together; longer ones are dropped."""

    per_document: ClassVar[bool] = False
    uses_retriever: ClassVar[bool] = False
    VERSION: ClassVar[int] = 1

    @model_validator(mode="after")
    def _columns_used(self) -> Pairs:
        if self.format in ("openai", "sharegpt") and (self.question or self.answer):
            raise ValueError(
                f"question and answer name columns; the format '{self.format}' has a list of turns instead"
            )
        return self

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The hash of every file read. Raises DataError when there is none."""
        from luthier.models.sources import file_hash

        path = root / Path(self.path).expanduser()
        base = path if path.is_dir() else path.parent
        return {file.relative_to(base).as_posix(): file_hash(file) for file in files_of(path, self.path)}

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """One example a row, origin `human`, `where` its file and line; bad rows as drops with a reason and the line.

        Raises DataError when nothing can be read, when the columns cannot be told, or, `strict`, on bad rows.
        """
        notes = context.notes
        notes["path"] = self.path
        rows = read_rows(context.root / Path(self.path).expanduser(), self.path, notes)
        head = list(islice(rows, 200))
        format, question, answer = self._layout([row.data for row in head if isinstance(row, Row)], notes)
        counts: Counter[str] = Counter()
        bad, wrong = list[str](), 0
        seen: set[int] = set()  # keys, not texts: a file may be larger than memory
        asked, told = array("Q"), array("Q")
        for row in (row for part in (head, rows) for row in part):
            counts["rows"] += 1
            example = self._example(row, format, question, answer, context)
            if isinstance(example, Example):
                twin = key_of("\0".join([*(m.content for m in example.input if isinstance(m, Message)),
                                         example.target or ""]))
                if twin in seen:
                    counts["dropped"] += 1
                    yield drop(row.where, self.kind, "duplicate", "the same row stands earlier", example.question)
                    continue
                seen.add(twin)
                if len(example.input) <= 2:
                    asked.append(key_of(key(example.question)))
                    told.append(key_of(example.target or ""))
                counts["kept"] += 1
                yield example
                continue
            counts["dropped"] += 1
            if example.reason != "too-long":
                wrong += 1
                if len(bad) < _SHOWN:
                    bad.append(f"{example.item}: {example.reason}: {example.detail}")
            yield example
        counts["same_question_other_answer"] = _contradictions(asked, told)
        notes.update(counts)
        if bad and self.strict:
            more = f"\n… and {wrong - len(bad)} more" if wrong > len(bad) else ""
            raise DataError(f"pairs: {wrong} of {counts['rows']} rows of {self.path} are bad; mend them or set "
                            "strict: false to leave them out:\n" + "\n".join(bad) + more)
        if not counts["kept"]:
            first = f"; the first: {bad[0]}" if bad else ""
            raise DataError(f"pairs: none of the {counts['rows']} rows of {self.path} can be used{first}")
        left = f", {counts['dropped']} left out" if counts["dropped"] else ""
        context.progress.say(f"pairs: {self.path} read as {notes['format']}: {counts['kept']} pairs{left}",
                             **{"path": self.path, **counts})

    def _layout(self, rows: list[dict[str, Any]], notes: dict[str, Any]) -> tuple[Format, str | None, str | None]:
        """The format and columns; both are told in the notes, so that a wrong guess is seen."""
        named = bool(self.question or self.answer)
        format = self.format if self.format != "auto" else detect(rows)
        if named and format not in ("alpaca",):
            format = "columns"
        fields = list(dict.fromkeys(name for row in rows for name in row))
        if format is None:
            raise DataError(f"pairs: cannot tell the question and answer in {self.path} (fields: "
                            f"{', '.join(fields) or 'none readable'}); name them as `question` and `answer`")
        question, answer = self.question, self.answer
        if format == "columns":
            guesses = [columns_of(row) for row in rows]
            question = question or next((q for q, _ in guesses if q and q != answer), None)
            answer = answer or next((a for _, a in guesses if a and a != question), None)
            if question is None or answer is None:
                raise DataError(f"pairs: cannot tell the {'question' if question is None else 'answer'} column of "
                                f"{self.path} (fields: {', '.join(fields)}); name it as "
                                f"`{'question' if question is None else 'answer'}`")
        for label, name in (("question", question), ("answer", answer), ("group_by", self.group_by)):
            if name is not None and fields and name not in fields:
                raise DataError(f"pairs: {self.path} has no column '{name}' (given as {label}); it has: "
                                f"{', '.join(fields)}")
        notes["format"] = format if format != "columns" else f"columns '{question}' and '{answer}'"
        return format, question, answer

    def _example(self, row: Row | BadRow, format: Format, question: str | None, answer: str | None,
                 context: MakeContext) -> Example | Dropped:
        if isinstance(row, BadRow):
            return drop(row.where, self.kind, row.reason, row.detail, row.text)
        pair = read_pair(row.data, format, question, answer)
        text = " ".join(str(value) for value in row.data.values() if isinstance(value, str))
        if isinstance(pair, Problem):
            return drop(row.where, self.kind, pair.reason, pair.detail, text)
        split = self._split(row)
        if isinstance(split, Problem):
            return drop(row.where, self.kind, split.reason, split.detail, text)
        length = len(pair.answer) + sum(len(turn.content) for turn in pair.turns)
        if length > self.max_chars:
            return drop(row.where, self.kind, "too-long", f"{length} characters, the limit is {self.max_chars}", text)
        group = row.data.get(self.group_by) if self.group_by else None
        if self.group_by and (group is None or not str(group).strip()):
            return drop(row.where, self.kind, "no-group", f"the column '{self.group_by}' is empty", text)
        return self._build(pair, row, split, str(group).strip() if group is not None else "", context)

    def _build(self, pair: Pair, row: Row, split: Split | None, group: str, context: MakeContext) -> Example:
        turns = pair.turns
        if context.task.system and turns[0].role != "system":
            turns = (Message(role="system", content=context.task.system), *turns)
        return Example(
            id=digest("example", self.kind, *(f"{turn.role}:{turn.content}" for turn in turns), pair.answer),
            input=turns, target=pair.answer, split=split or "train", tags=(OWN_SPLIT,) if split else (),
            groups={TOGETHER: f"{self.group_by}={group}"} if self.group_by else {},
            origin=Origin(maker="human", step=self.kind, where=row.where),
        )

    def _split(self, row: Row) -> Split | Problem | None:
        if self.split is not None:
            return self.split
        named = row.data.get(self.split_column) or row.split
        if not isinstance(named, str) or not named.strip():
            return None
        found = SPLITS.get(named.strip().lower())
        return found or Problem("bad-split", f"'{named}' is no split; write train, validation or test")


def _contradictions(asked: array[int], told: array[int]) -> int:
    """How many rows answer a question otherwise than the first row that asks it."""
    import numpy as np

    if not asked:
        return 0
    questions, answers = np.frombuffer(asked, np.uint64), np.frombuffer(told, np.uint64)
    _, first, number = np.unique(questions, return_index=True, return_inverse=True)
    return int((answers != answers[first][number]).sum())
