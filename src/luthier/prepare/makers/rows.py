"""The user's own labelled rows: tables, JSON files, Hugging Face dataset folders, NumPy archives of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from luthier.errors import DataError
from luthier.plugins import register
from luthier.prepare.base import MAKERS, TOGETHER
from luthier.prepare.labels import OUT_OF_SCOPE
from luthier.prepare.makers import _columns, _images, _tags
from luthier.prepare.makers._examples import drop
from luthier.prepare.makers._formats import Problem
from luthier.prepare.makers._labelled import UNLABELLED, LabelledSource, hashes, split_tags
from luthier.prepare.makers._rows import BadRow, Row, files_of, read_rows, split_in_name
from luthier.types import Dropped, Example, Origin, Tag, digest

if TYPE_CHECKING:
    from luthier.prepare.base import MakeContext

_HEAD = 400
_OF_TASK = {"classify": ("text", "label"), "image": ("image", "label"), "tag": ("text", "spans", "tokens", "tags"),
            "embed": ("query", "positive", "negatives")}


@dataclass(frozen=True)
class Answer:
    """What one row says; all None for a row without an answer."""

    text: str = ""
    labels: tuple[str, ...] | None = None
    spans: tuple[Tag, ...] | None = None
    target: str | None = None
    negatives: tuple[str, ...] = ()
    image: str = ""


@register(MAKERS, "rows")
class Rows(LabelledSource):
    """Read labelled rows from a file or folder: CSV, TSV, JSON Lines, JSON, Parquet, a Hugging Face dataset folder, or
    an .npz archive of images. `path` names it; rows of a file named after a split (train.csv, or in a folder) belong to
    that split, unless `split` says otherwise or a row names its own."""

    text: str | None = None
    """classify, tag: column that holds the text; None guesses from its name (text, sentence, utterance, clause…)."""
    label: str | None = None
    """classify, image: column that holds the class, or a list of classes; None guesses from its name (label, category,
    intent, class…). A row with an empty cell is kept as unlabelled."""
    label_separator: str | None = Field(default=None, min_length=1)
    """classify: sign that cuts a cell into several classes, such as ';'; lists need none."""
    out_of_scope: tuple[str, ...] = ()
    """classify, image: values of the label column that mean "none of the classes", such as oos. Their rows are never
    trained on as a class; those for validation and test show how well such inputs are recognised. Where a row may
    have several classes, they are rows without any."""
    names: tuple[str, ...] = ()
    """Names of the classes or word tags where the data holds the numbers 0, 1, 2… for them."""
    image: str | None = None
    """image: column that holds the image's path, relative to the table's folder; None guesses from its name."""
    spans: str | None = None
    """tag: column that holds a list of {start, end, label} in characters of the text; None guesses."""
    tokens: str | None = None
    """tag: column that holds the list of words, where the data has words and one tag a word."""
    tags: str | None = None
    """tag: column that holds the list of word tags (BIO, BIOES or plain labels), as many as words."""
    query: str | None = None
    """embed: column that holds the query; None guesses from its name (query, question, anchor…)."""
    positive: str | None = None
    """embed: column that holds the matching text; a list makes one row of each. None guesses from its name."""
    negatives: str | None = None
    """embed: column that holds a text or a list of texts that do not match; None guesses from its name."""
    unlabelled: bool = False
    """Every row is without an answer: text to learn from by self-training or to choose rows to label from."""
    split_column: str = "split"
    """Column that names each row's split (train, validation or test), where the data has one."""
    group_by: str | None = None
    """Column whose equal values must stay in one split, such as the document or the customer a row is about."""
    weight: str | None = None
    """Column that holds how much a row counts in training, a number of at least 0."""
    groups: tuple[str, ...] = ()
    """Columns to keep as attributes for audits, such as language or customer segment."""
    max_chars: int = Field(default=100_000, ge=100)
    """Longest text of a row in characters; longer ones are dropped."""
    max_megapixels: float = Field(default=50, gt=0)
    """image: larger images are dropped (millions of pixels)."""

    VERSION: ClassVar[int] = 2

    def files(self, root: Path) -> list[Path]:
        path = self.place(root)
        return [path] if path.suffix.lower() == ".npz" and path.is_file() else files_of(path, self.path)

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The hash of every file read, and of the images that a table lists. Raises DataError when there is none."""
        listed = self._listed_images(root)
        if not listed:
            return super().inputs(root)
        return {**super().inputs(root), **hashes(root, [file for file in listed if file.is_file()])}

    def _listed_images(self, root: Path) -> list[Path]:
        path = self.place(root)
        if not path.is_file() or path.suffix.lower() in (".npz", ".parquet"):
            return []
        rows = read_rows(path, self.path, {})
        head = list(islice(rows, 20))
        fields = _columns.fields_of([row.data for row in head if isinstance(row, Row)])
        column = self.image or next((name for names in _columns.IMAGE for name in names if name in fields), None)
        if column is None or not any(isinstance(row, Row) and str(row.data.get(column)).lower().endswith(
                _images.SUFFIXES) for row in head):
            return []
        return sorted({path.parent / str(row.data[column]).strip() for row in chain(head, rows)
                       if isinstance(row, Row) and row.data.get(column)})

    def make(self, context: MakeContext) -> Iterator[Example | Dropped]:
        """One example a row, origin `human`, `where` its file and line; bad rows as drops with a reason and the line.

        Raises DataError when nothing can be read, when the columns cannot be told, or, `strict`, on bad rows.
        """
        self.refuse_task(context)
        self._refuse_fields(context)
        yield from self.collect(context, self._checked(context))

    def _refuse_fields(self, context: MakeContext) -> None:
        used = _OF_TASK[context.task.type]
        for name in dict.fromkeys(chain.from_iterable(_OF_TASK.values())):
            if getattr(self, name) is not None and name not in used:
                raise DataError(f"rows of {self.path}: the field '{name}' is not for the task '{context.task.type}'; "
                                f"its columns are named by {', '.join(used)}")
        if self.out_of_scope and "label" not in used:
            raise DataError(f"rows of {self.path}: out_of_scope names values of a label column, which the task "
                            f"'{context.task.type}' has none of; leave it out")
        if self.label_separator and not context.task.multi_label:
            raise DataError(f"rows of {self.path}: label_separator is set, so a row may have several classes; set "
                            "task.multi_label: true, or leave label_separator out")

    def _checked(self, context: MakeContext) -> Iterator[Example | Dropped]:
        made = self._examples(context)
        if context.task.type != "image" or self.place(context.root).suffix.lower() == ".npz":  # written here, so good
            yield from made
            return
        cache = _images.images_cache(context.cache)
        while batch := list(islice(made, 256)):  # images are looked at in threads, a batch at a time
            files = [context.root / one.image for one in batch if isinstance(one, Example)]
            looked = _images.check_all(files, self.max_megapixels, cache)
            for one in batch:
                found = next(looked) if isinstance(one, Example) else None
                if found is None or not found.reason:
                    yield one
                else:
                    assert isinstance(one, Example)
                    yield drop(one.origin.where, self.kind, found.reason, f"{one.image}: {found.detail}")

    def _examples(self, context: MakeContext) -> Iterator[Example | Dropped]:
        notes: dict[str, Any] = {}
        rows = self._rows(context, notes)
        head = list(islice(rows, _HEAD))
        good = [row.data for row in head if isinstance(row, Row)]
        if not good and len(head) < _HEAD:  # an empty file, or one of bad rows only: no columns to tell
            yield from (drop(row.where, self.kind, row.reason, row.detail, row.text) for row in head
                        if isinstance(row, BadRow))
            return
        columns = columns_of(self, good, context.task.type)
        context.notes.update({**notes, **{f"column {role}": name for role, name in columns.items() if name}})
        for row in chain(head, rows):
            if isinstance(row, BadRow):
                yield drop(row.where, self.kind, row.reason, row.detail, row.text)
            else:
                yield from self._row(row, columns, context)

    def _rows(self, context: MakeContext, notes: dict[str, Any]) -> Iterator[Row | BadRow]:
        path = self.place(context.root)
        if path.suffix.lower() == ".npz":
            yield from _images.read_npz(path, self.path, _images.images_cache(context.cache))
            return
        named = split_in_name(path) if path.is_file() else ""  # files of a folder: read_rows looks at each
        for row in read_rows(path, self.path, notes):
            yield Row(row.where, row.data, named) if named and isinstance(row, Row) and not row.split else row

    def _row(self, row: Row, columns: Mapping[str, str | None], context: MakeContext) -> Iterator[Example | Dropped]:
        shown = str(row.data.get(columns.get("text") or columns.get("query") or "") or "")

        def bad(reason: str, detail: str) -> Dropped:
            return drop(row.where, self.kind, reason, detail, shown)

        split = self.own_split(row.data.get(self.split_column) or row.split)
        if isinstance(split, Problem):
            yield bad(split.reason, split.detail)
            return
        group = _columns.label_name(row.data.get(self.group_by)) if self.group_by else None
        if self.group_by and group is None:
            yield bad("no-group", f"the column '{self.group_by}' is empty")
            return
        try:
            weight = self._weight(row.data)
            answers = self._answers(row, columns, context)
        except ValueError as error:  # a JSON error in a cell is one, too
            yield bad("bad-row", str(error))
            return
        for answer in answers:
            if isinstance(answer, Problem):
                yield bad(answer.reason, answer.detail)
                continue
            known = (answer.labels, answer.spans, answer.target) != (None, None, None)
            outside = answer.labels == () and not context.task.multi_label
            yield Example(
                id=digest("example", self.kind, row.where, answer.text, answer.image), input=answer.text,
                target=answer.target, labels=answer.labels, spans=answer.spans, negatives=answer.negatives,
                image=answer.image, split=split or "train", weight=weight,
                tags=(*split_tags(split), *(() if known else (UNLABELLED,)), *((OUT_OF_SCOPE,) if outside else ())),
                groups={**({TOGETHER: f"{self.group_by}={group}"} if group is not None else {}),
                        **{name: str(row.data.get(name, "") or "") for name in self.groups}},
                origin=Origin(maker="human", step=self.kind, where=row.where),
            )

    def _weight(self, data: Mapping[str, Any]) -> float:
        if self.weight is None:
            return 1.0
        value = data.get(self.weight)
        try:
            weight = float(value)  # type: ignore[arg-type]  # what is no number raises
        except (TypeError, ValueError):
            raise ValueError(f"the weight '{value}' is no number") from None
        if not 0 <= weight < float("inf"):
            raise ValueError(f"the weight {weight:g} is not a number of at least 0")
        return weight

    def _answers(self, row: Row, columns: Mapping[str, str | None], context: MakeContext) -> Iterable[Any]:
        """The row's answers or problems; ValueError for a cell that cannot be read."""
        data = row.data
        kind = context.task.type
        if kind == "image":
            return [self._image(data, columns, context)]
        if kind == "tag":
            return [self._tagged(data, columns)]
        text = _text(data.get(columns["query" if kind == "embed" else "text"] or ""))
        problem = self._unfit(text)
        if problem:
            return [problem]
        if kind == "classify":
            return [Answer(text=text.strip(), labels=self._labels(data, columns))]
        positives = None if self.unlabelled else _columns.string_list(data.get(columns["positive"] or ""))
        negatives = _columns.string_list(data.get(columns.get("negatives") or "")) or []
        if positives is None:
            return [Answer(text=text.strip())]
        found: list[Any] = []
        for positive in positives:
            problem = self._unfit(positive)
            found.append(problem or Answer(text=text.strip(), target=positive.strip(),
                                           negatives=tuple(dict.fromkeys(one.strip() for one in negatives
                                                                         if one.strip()))))
        return found

    def _labels(self, data: Mapping[str, Any], columns: Mapping[str, str | None]) -> tuple[str, ...] | None:
        if self.unlabelled:
            return None
        found = _columns.label_names(data.get(columns["label"] or ""), separator=self.label_separator, names=self.names)
        outside = [label for label in found or () if label in self.out_of_scope]
        if found is None or not outside:
            return found
        if len(found) > len(outside):
            raise ValueError(f"'{outside[0]}' means none of the classes (out_of_scope), but the row has "
                             f"{', '.join(repr(label) for label in found if label not in outside)}, too")
        return ()

    def _image(self, data: Mapping[str, Any], columns: Mapping[str, str | None], context: MakeContext) -> Any:
        value = data.get(columns["image"] or "")
        if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):  # an image column of `datasets`
            file = _images.keep_bytes(value["bytes"], _images.images_cache(context.cache))
        else:
            value = value.get("path") if isinstance(value, Mapping) else value
            if not isinstance(value, str) or not value.strip():
                return Problem("no-image", f"the column '{columns['image']}' is empty")
            base = self.place(context.root)
            file = (base if base.is_dir() else base.parent) / Path(value.strip()).expanduser()
        return Answer(image=_images.image_path(file, context.root), labels=self._labels(data, columns))

    def _tagged(self, data: Mapping[str, Any], columns: Mapping[str, str | None]) -> Any:
        words = _columns.string_list(data.get(columns["tokens"] or "")) if columns["tokens"] else None
        if words is not None:
            given = None if self.unlabelled else data.get(columns["tags"] or "")
            text, spans = " ".join(words), None
            if given not in (None, ""):
                tags = [_columns.label_names(tag, separator=None, names=self.names) for tag in _list(given)]
                if len(tags) != len(words):
                    return Problem("tags-and-words", f"{len(words)} words but {len(tags)} tags")
                text, spans = _tags.join_words(words, [tag[0] if tag else "" for tag in tags])
            return self._unfit(text) or Answer(text=text, spans=spans)
        text = _text(data.get(columns["text"] or ""))  # not stripped: positions count from its first character
        spans = None if self.unlabelled else _tags.read_spans(data.get(columns["spans"] or ""), text)
        return self._unfit(text) or Answer(text=text, spans=spans)

    def _unfit(self, text: str) -> Problem | None:
        if not text.strip():
            return Problem("empty-text", "the text is empty")
        if len(text) > self.max_chars:
            return Problem("too-long", f"{len(text)} characters, the limit is {self.max_chars}")
        return None


def columns_of(spec: Rows, rows: Sequence[Mapping[str, Any]], task: str) -> dict[str, str | None]:
    """Role → column for the task, told or guessed. Raises DataError when one that is needed cannot be told."""
    fields = _columns.fields_of(rows)
    named = {name: getattr(spec, name) for name in (*_OF_TASK[task], "group_by", "weight")}
    for role, name in [*named.items(), *(("groups", name) for name in spec.groups)]:
        if name is not None and fields and name not in fields:
            raise DataError(f"{spec.path} has no column '{name}' (given as {role}); it has: {', '.join(fields)}")
    taken = [name for name in (spec.split_column, spec.group_by, spec.weight, *spec.groups) if name]
    try:
        found = _guessed(spec, fields, rows, task, taken)
    except DataError as error:
        raise DataError(f"{spec.path}: {error}") from None
    needed = {"classify": ("text", "label"), "image": ("image", "label"), "embed": ("query", "positive"),
              "tag": ("tokens", "tags") if found.get("tokens") else ("text", "spans")}[task]
    missing = [role for role in needed if not found.get(role) and not (spec.unlabelled and role != needed[0])]
    if missing:
        raise DataError(f"cannot tell the {' and the '.join(missing)} column of {spec.path} (columns: "
                        f"{', '.join(fields) or 'none readable'}); name it as "
                        + " and ".join(f"`{role}`" for role in missing)
                        + ("; or set unlabelled: true where no row has an answer" if missing != [needed[0]] else ""))
    return found


def _guessed(spec: Rows, fields: Sequence[str], rows: Sequence[Mapping[str, Any]], task: str,
             taken: list[str]) -> dict[str, str | None]:
    if task == "classify":
        text, label = _columns.text_and_label(fields, rows, text=spec.text, label=spec.label, skip=taken,
                                              need_label=not spec.unlabelled)
        return {"text": text, "label": label}
    if task == "image":
        image = spec.image or _columns.guess("image", fields, taken=taken)
        label = spec.label or _columns.guess("label", fields, taken=[*taken, image or ""])
        return {"image": image, "label": label}
    if task == "embed":
        query = spec.query or _columns.guess("query", fields, taken=taken)
        positive = spec.positive or _columns.guess("positive", fields, taken=[*taken, query or ""])
        negatives = spec.negatives or _columns.guess("negatives", fields, taken=[*taken, query or "", positive or ""])
        return {"query": query, "positive": positive, "negatives": negatives}
    tokens = spec.tokens or (None if spec.text or spec.spans else _columns.guess("tokens", fields, taken=taken))
    if tokens:
        return {"tokens": tokens, "tags": spec.tags or _columns.guess("tags", fields, taken=[*taken, tokens]),
                "text": None, "spans": None}
    text = spec.text or _columns.guess("text", fields, taken=[*taken, spec.spans or ""])
    return {"tokens": None, "tags": None, "text": text,
            "spans": spec.spans or _columns.guess("spans", fields, taken=[*taken, text or ""])}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"the text is no text but {type(value).__name__}")


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        import json

        value = json.loads(value)
    if not isinstance(value, list):
        raise ValueError(f"the word tags are no list but {type(value).__name__}")
    return value
