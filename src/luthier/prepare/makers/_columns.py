"""Which column of a user's table is the text, the label, the tags: told by the user or guessed from its name."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.errors import DataError

TEXT = (("text", "sentence", "utterance"),
        ("query", "clause", "content", "body", "message", "review", "comment", "document", "abstract", "tweet",
         "question", "input", "description", "title"))
LABEL = (("label", "labels"),
         ("category", "categories", "class", "classes", "intent", "clause_type", "condition", "target", "topic",
          "topics", "sentiment", "tag", "tags", "y", "kategorie", "klasse"))
QUERY = (("query", "question", "anchor"), ("search", "sentence1", "text", "input", "utterance"))
POSITIVE = (("positive", "positives", "pos"), ("answer", "document", "passage", "match", "sentence2", "title"))
NEGATIVES = (("negatives", "negative", "neg", "hard_negatives"),)
SPANS = (("spans", "entities"), ("tags", "annotations", "labels", "label"))
TOKENS = (("tokens", "words"),)
WORD_TAGS = (("ner_tags", "tags"), ("labels", "ner", "bio", "tag", "pos_tags"))
IMAGE = (("image", "image_path", "path"), ("file", "file_name", "filename", "filepath", "img"))
NAMES = {"text": TEXT, "label": LABEL, "query": QUERY, "positive": POSITIVE, "negatives": NEGATIVES, "spans": SPANS,
         "tokens": TOKENS, "tags": WORD_TAGS, "image": IMAGE}
"""Names by role; a name of the first group wins over one of the second."""

GROUPS = ("document", "document_id", "doc_id", "source", "source_id", "source_image", "patient", "patient_id",
          "customer", "customer_id", "user", "user_id", "group", "group_id", "contract", "case_id")
"""Names of columns whose equal values usually belong together; proposed by `luthier new`, never taken silently."""


def fields_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All column names, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def guess(role: str, fields: Sequence[str], *, taken: Sequence[str] = ()) -> str | None:
    """The one column whose name fits the role, or None. Raises DataError where two fit equally well."""
    plain = {_plain(name): name for name in fields if name not in taken}
    for names in NAMES[role]:
        found = [plain[name] for name in names if name in plain]
        if len(found) > 1:
            raise DataError(f"two columns could be the {role}: {', '.join(map(repr, found))} (all columns: "
                            f"{', '.join(fields)}); name the right one as `{role}`")
        if found:
            return found[0]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", str(name).strip().lower())


def text_and_label(fields: Sequence[str], rows: Sequence[Mapping[str, Any]], *, text: str | None, label: str | None,
                   skip: Sequence[str] = (), need_label: bool = True) -> tuple[str | None, str | None]:
    """The text and the label column. With exactly two columns, names need not tell: the one that repeats is the label.

    None where a column cannot be told.
    """
    label = label or guess("label", fields, taken=[*skip, *([text] if text else [])])
    text = text or guess("text", fields, taken=[*skip, *([label] if label else [])])
    rest = [name for name in fields if name not in (*skip, text, label) and _plain(name) not in ("id", "split")]
    if text and not label and need_label and len(rest) == 1:
        return text, rest[0]
    if label and not text and len(rest) == 1:
        return rest[0], label
    if not label and not text and len(rest) == 2 and need_label:
        different = [len({str(row.get(name)) for row in rows}) for name in rest]
        if min(different) <= len(rows) / 2 and different[0] != different[1]:
            at = different.index(min(different))
            return rest[1 - at], rest[at]
        if rest == ["column 1", "column 2"]:  # no header: people write the text first
            return rest[0], rest[1]
    return text, label


def label_name(value: Any) -> str | None:
    """A cell as the name of a class: 3 and 3.0 are "3", true is "true"; None for an empty one."""
    if value is None or (isinstance(value, float) and value != value):  # NaN: an empty cell of a data frame
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int | float):
        return " ".join(str(value).split()) or None
    raise ValueError(f"a label is a word or a number, found {type(value).__name__}")


def label_names(value: Any, *, separator: str | None, names: Sequence[str] = ()) -> tuple[str, ...] | None:
    """The classes of a cell, each once and in the order given; None for a cell without any (an empty list is none
    of the classes, which is an answer). Raises ValueError for what cannot be a label.

    A list is several classes, also one written as JSON into a table's cell; `separator` cuts a string into several.
    `names` turns class numbers into words.
    """
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        with contextlib.suppress(ValueError):  # a name that merely stands in brackets
            value = json.loads(value)
    if isinstance(value, str) and separator:
        found = [label_name(part) for part in value.split(separator)]
        if not any(found):
            return None
    elif isinstance(value, list | tuple):
        found = [label_name(one) for one in value]
    else:
        one = label_name(value)
        if one is None:
            return None
        found = [one]
    return tuple(dict.fromkeys(_named(one, names) for one in found if one is not None))


def _named(label: str, names: Sequence[str]) -> str:
    if not names or not label.isdigit():
        return label
    if int(label) >= len(names):
        raise ValueError(f"class number {label} has no name; `names` holds {len(names)}")
    return names[int(label)]


def string_list(value: Any) -> list[str] | None:
    """A list of texts: a list, JSON in a cell, or one text; None for an empty cell. Raises ValueError otherwise."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise ValueError("expected a text or a list of texts")
