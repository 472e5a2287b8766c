"""What a file or folder of labelled data is: which maker reads it, with which columns, and what it holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from luthier.errors import DataError, UsageError
from luthier.prepare.makers import _columns, _images, _rows
from luthier.prepare.makers._labelled import class_files
from luthier.prepare.makers._rows import Row, read_rows
from luthier.prepare.makers.coco import is_coco, read_coco
from luthier.prepare.makers.coco import split_of as coco_split
from luthier.prepare.makers.conll import SUFFIXES as CONLL
from luthier.prepare.makers.conll import sentences
from luthier.prepare.makers.rows import Rows, columns_of
from luthier.task import TaskType

_MOST = 300_000
"""Rows looked at to count labels."""
_TABLES = _rows.SUFFIXES
_OUTSIDE = ("oos", "ood", "out of scope", "out of domain", "outofscope", "outofdomain")
_PERHAPS_OUTSIDE = ("none", "none of these", "none of the above", "other", "others", "unknown", "no class", "rest")
"""Labels that surely, and that perhaps, mean "none of the classes"; letters only."""
_ROLES = ("text", "label", "label_separator", "image", "spans", "tokens", "tags", "query", "positive", "negatives",
          "group_by", "weight")


@dataclass(frozen=True)
class Detected:
    """How data is to be read."""

    kind: str
    """Maker."""
    fields: dict[str, Any]
    """Its fields, without `path`."""
    inside: str = ""
    """Where the data lies inside the given folder; empty for the whole of it, or a file."""
    files: tuple[Path, ...] = ()
    """The files to copy; empty for all."""
    told: tuple[str, ...] = ()
    """What was found, for a person."""
    task: dict[str, Any] = field(default_factory=dict)
    """Fields of the task that follow from the data, such as multi_label."""
    splits: tuple[str, ...] = ()
    """Splits that the data names itself."""


def detect(task: TaskType, path: Path, columns: Mapping[str, str]) -> Detected:
    """Look at a file or folder. `columns` are roles whose column (or value) the user named, such as label.

    Raises UsageError that says what was found and what to name, where it cannot be told.
    """
    unknown = [role for role in columns if role not in _ROLES]
    if unknown:
        raise UsageError(f"'{unknown[0]}' is no role of a column; roles: {', '.join(_ROLES)}")
    if not path.exists():
        raise UsageError(f"no such file or folder of data: {path}")
    try:
        found = _file(task, path, columns) if path.is_file() else _folder(task, path, columns)
    except DataError as error:
        hint = ". On the command line: --column ROLE=COLUMN" if "`" in str(error) else ""
        raise UsageError(f"{error}{hint}") from None
    if found is None:
        raise UsageError(f"{path} holds no data for the task '{task}'; it needs a table (CSV, TSV, JSON Lines, JSON, "
                         f"Parquet), a Hugging Face dataset folder{_others(task)}")
    return found


def _others(task: TaskType) -> str:
    return {"classify": ", or a folder with one sub-folder of texts a class",
            "image": ", an .npz archive, COCO annotations, or a folder with one sub-folder of images a class",
            "tag": ", or CoNLL column files"}.get(task, "")


def _file(task: TaskType, path: Path, columns: Mapping[str, str]) -> Detected | None:
    suffix = path.suffix.lower()
    if suffix == ".npz" and task == "image":
        return _npz(path)
    if suffix == ".json" and task == "image" and is_coco(path):
        raise DataError(f"{path.name} holds COCO annotations; name the folder that holds its images, too")
    if task == "tag" and suffix in CONLL and _is_conll(path):
        return _conll(path, [path])
    return _table(task, path, columns) if suffix in _TABLES else None


def _folder(task: TaskType, path: Path, columns: Mapping[str, str]) -> Detected | None:
    if task == "image":
        return _coco(path) or _image_folder(path, columns) or _one_npz(path) or _tables(task, path, columns)
    if task == "tag":
        files = [file for file in sorted(path.rglob("*"))
                 if file.is_file() and file.suffix.lower() in CONLL and _is_conll(file)]
        if files:
            return _conll(path, files)
    if task == "classify" and not _has_tables(path):
        return _text_folder(path)
    return _tables(task, path, columns)


def _has_tables(path: Path) -> bool:
    """A folder of tables, and not of texts that happen to be CSV or JSON files in class folders."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return True
    return any(file.suffix.lower() in _TABLES for file in path.iterdir() if file.is_file()) or any(
        path.rglob("*.parquet"))


def _tables(task: TaskType, path: Path, columns: Mapping[str, str]) -> Detected | None:
    """One maker for all tables of a folder; files without usable rows are left behind."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _table(task, path, columns)
    try:
        files = _rows.files_of(path, str(path))
    except DataError:
        return None
    used, why = [], ""
    for file in files:
        head = [row.data for row in islice(read_rows(file, file.name, {}), 50) if isinstance(row, Row)]
        try:
            columns_of(Rows(path=file.name, **columns), head, task)  # type: ignore[arg-type]  # checked by pydantic
            used.append(file)
        except DataError as error:
            why = why or str(error)
    if not used:
        raise DataError(why)
    found = _table(task, used[0] if len(used) == 1 else path, columns, used)
    left = [file.name for file in files if file not in used]
    told = (*found.told, *((f"left out, since no rows with these columns stand in it: {', '.join(left)}",)
                           if left else ()))
    inside = used[0].relative_to(path).as_posix() if len(used) == 1 else ""
    return replace(found, inside=inside, files=tuple(used), told=told)


def _table(task: TaskType, path: Path, columns: Mapping[str, str], only: Sequence[Path] = ()) -> Detected:
    spec = Rows(path=path.name, **columns)  # type: ignore[arg-type]  # checked by pydantic
    rows = list(islice(_read(path, only), _MOST))
    data = [row.data for row in rows]
    if not data:
        raise DataError(f"{path.name} holds no rows that can be read")
    found = columns_of(spec, data[:400], task)
    fields: dict[str, Any] = {**{role: name for role, name in found.items() if name}, **columns}
    told = [f"{path.name}: {len(rows):,} rows; " + ", ".join(f"{role} in column '{name}'"
                                                             for role, name in found.items() if name)]
    extra: dict[str, Any] = {}
    if found.get("label"):
        extra = _labels(str(found["label"]), data, columns, fields, told, task)
    group = None if "group_by" in columns else _group(data, [name for name in found.values() if name])
    if group:
        fields["group_by"] = group
        told.append(f"rows with the same '{group}' stay in one split (group_by); take the field out if that is wrong")
    named = {str(row.data.get(spec.split_column) or row.split or "").strip().lower() for row in rows}
    splits = tuple(sorted(name for name in named if name))
    if splits:
        told.append(f"its own split is kept: {', '.join(splits)}")
    return Detected(kind="rows", fields=fields, told=tuple(told), task=extra, splits=splits)


def _read(path: Path, only: Sequence[Path]) -> Iterator[Row]:
    notes: dict[str, Any] = {}
    for file in only or [path]:
        for row in read_rows(file, file.name, notes):
            if isinstance(row, Row):
                split = row.split or (_rows.split_in_name(file) if file.is_file() else "")
                yield Row(row.where, row.data, split)


def _labels(column: str, data: Sequence[Mapping[str, Any]], columns: Mapping[str, str], fields: dict[str, Any],
            told: list[str], task: TaskType) -> dict[str, Any]:
    """Count the classes; say so; tell whether rows have several."""
    values = [row.get(column) for row in data]
    separator = columns.get("label_separator") or (_separator(values) if task == "classify" else None)
    found: Counter[str] = Counter()
    several = unlabelled = 0
    for value in values:
        try:
            labels = _columns.label_names(value, separator=separator)
        except ValueError:
            continue  # prepare sets the row aside, with its line
        found.update(labels or ())
        several += labels is not None and len(labels) > 1
        unlabelled += labels is None
    if len(found) > max(20, len(data) / 2):
        fields_found = ", ".join(_columns.fields_of(data[:400]))
        raise DataError(f"the column '{column}' holds {len(found):,} different values in {len(data):,} rows, so it is "
                        f"no class; name the right one as `label` (columns: {fields_found})")
    aside = _outside(found, fields, several=bool(several)) if task in ("classify", "image") else []
    most = ", ".join(f"{label} ({count:,})" for label, count in found.most_common(4))
    told.append((f"{len(found):,} label{'s' * (len(found) != 1)}: {most}{', …' if len(found) > 4 else ''}" if found
                 else "no labels")
                + (f"; {unlabelled:,} rows without a label" if unlabelled else ""))
    told += aside
    if not several:
        return {}
    if separator:
        fields["label_separator"] = separator
    told.append(f"{several:,} rows have several labels" + (f" (cut at '{separator}')" if separator else "")
                + ", so the task is multi-label")
    return {"multi_label": True} if task == "classify" else {}


def _outside(found: Counter[str], fields: dict[str, Any], *, several: bool) -> list[str]:
    """Take labels such as oos out of the counts and into `out_of_scope`; says so, and tells of those that may be
    meant so."""
    said: list[str] = []
    for label in list(found):
        plain = re.sub(r"[^a-z]+", " ", label.lower()).strip()
        if plain in _OUTSIDE and not several:
            fields.setdefault("out_of_scope", []).append(label)
            said.append(f"{found.pop(label):,} rows with the label '{label}' count as rows of none of the classes: "
                        "they test how such inputs are recognised (out_of_scope; take the field out if it is a class)")
        elif plain in (*_OUTSIDE, *_PERHAPS_OUTSIDE):
            said.append(f"if the label '{label}' ({found[label]:,} rows) means none of the classes, write "
                        f"out_of_scope: [{label}] into prepare.makers; else it is a class like the others")
    return said


def _separator(values: Sequence[Any]) -> str | None:
    """`;` or `|` where cutting there leaves few names, which stand in several different cells."""
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    for sign in ("|", ";"):
        cut = [text for text in texts if sign in text]
        if len(cut) >= max(2, 0.02 * len(texts)):
            whole = {text.strip() for text in texts}
            parts = [part.strip() for text in whole for part in text.split(sign)]
            names = len(set(parts))
            if (names < len(whole) or names <= 0.75 * len(parts)) and names <= max(3, len(texts) / 3):
                return sign
    return None


def _group(data: Sequence[Mapping[str, Any]], taken: Sequence[str]) -> str | None:
    """A column that names what rows come from, where several rows share a value and there are enough values."""
    for name in _columns.fields_of(data[:400]):
        if name not in taken and name.strip().lower() in _columns.GROUPS:
            values = {str(row.get(name)) for row in data}
            if 10 <= len(values) <= 0.9 * len(data) and all(row.get(name) not in (None, "") for row in data):
                return name
    return None


def _one_npz(path: Path) -> Detected | None:
    files = sorted(path.glob("*.npz"))
    if len(files) != 1:
        return None
    found = _npz(files[0])
    return replace(found, inside=files[0].name, files=(files[0],))


def _npz(path: Path) -> Detected:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        shapes = {name: archive[name].shape for name in archive.files}
    pairs = _images.pairs(shapes)
    if not pairs:
        held = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(f"{path.name} holds no images with labels such as x_train and y_train; it holds: {held}")
    told = [f"{path.name}: " + ", ".join(f"{shapes[images][0]:,} images of {' x '.join(map(str, shapes[images][1:]))} "
                                         f"in {images} (labels in {labels})" for images, labels, _ in pairs)]
    splits = tuple(split for _, _, split in pairs if split)
    return Detected(kind="rows", fields={}, told=tuple(told), splits=splits)


def _coco(path: Path) -> Detected | None:
    """COCO annotation files with their images in one folder."""
    found = [file for file in sorted(path.rglob("*.json")) if is_coco(file)]
    if not found:
        return None
    names: Counter[str] = Counter()
    several = pictures = 0
    for file in found:
        data = read_coco(file, file.name)
        category = {one.get("id"): str(one.get("name", "")) for one in data["categories"]}
        inside: dict[Any, set[str]] = {}
        for one in data["annotations"]:
            inside.setdefault(one.get("image_id"), set()).add(category.get(one.get("category_id"), "?"))
        names.update(name for held in inside.values() for name in held)
        several += sum(len(held) > 1 for held in inside.values())
        pictures += len(data["images"])
    told = [f"{', '.join(file.relative_to(path).as_posix() for file in found)}: {pictures:,} images; categories: "
            + ", ".join(f"{name} ({count:,})" for name, count in names.most_common(5))]
    if several:
        told.append(f"{several:,} images have several categories and would be left out; the maker's field `several` "
                    "takes the largest or commonest, or makes every box an example (crop)")
    splits = tuple(sorted({split for file in found if (split := coco_split(file))}))
    if splits:
        told.append(f"its own split is kept: {', '.join(splits)}")
    return Detected(kind="coco", fields={"several": "drop"} if several else {}, told=tuple(told), splits=splits)


def _image_folder(path: Path, columns: Mapping[str, str]) -> Detected | None:
    """Class folders of images, here or one level below, with a table about them beside if there is one."""
    for base in (path, *(one for one in sorted(path.iterdir()) if one.is_dir() and not one.name.startswith("."))):
        try:
            files, _ = class_files(base, base.name)
        except DataError:
            continue
        images = [row for row in files if row[0].suffix.lower() in _images.SUFFIXES]
        classes = {label for _, label, _ in images if label is not None}
        direct = all(file.parent.name == label for file, label, _ in images[:200] if label)
        if len(images) < len(files) / 2 or len(classes) < 2 or not direct:
            continue
        inside = "" if base == path else base.name
        told = [f"{path.name}{'/' if inside else ''}{inside}: {len(images):,} images in {len(classes)} folders: "
                + ", ".join(f"{label} ({count:,})" for label, count in
                            Counter(label for _, label, _ in images).most_common(5))]
        splits = tuple(sorted({split for _, _, split in files if split}))
        if splits:
            told.append(f"its own split is kept: {', '.join(splits)}")
        fields: dict[str, Any] = {}
        for table in sorted(one for one in path.iterdir() if one.is_file() and one.suffix.lower() in _TABLES):
            about = _image_table(table, base, {file.resolve() for file, _, _ in images}, columns)
            if about:
                fields.update(about)
                told.append(f"{table.name} tells about the images" + (
                    f"; images with the same '{about['group_by']}' stay in one split" if "group_by" in about else ""))
                break
        return Detected(kind="image_folders", fields=fields, inside=inside, told=tuple(told), splits=splits)
    return None


def _image_table(table: Path, base: Path, files: set[Path], columns: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        data = [row.data for row in read_rows(table, table.name, {}) if isinstance(row, Row)]
        image = columns.get("image") or _columns.guess("image", _columns.fields_of(data[:400]))
    except DataError:
        return None
    if image is None or not any((table.parent / str(row.get(image))).resolve() in files for row in data[:20]):
        return None
    label = columns.get("label") or _columns.guess("label", _columns.fields_of(data[:400]), taken=[image])
    group = columns.get("group_by") or _group(data, [image, label or ""])
    up = "" if table.parent == base else "../"
    return {"labels": f"{up}{table.name}", "image": image, **({"label": label} if label else {}),
            **({"group_by": group} if group else {})}


def _text_folder(path: Path) -> Detected | None:
    try:
        files, _ = class_files(path, path.name)
    except DataError:
        return None
    counts = Counter(label for _, label, _ in files if label is not None)
    if len(counts) < 2:
        return None
    unlabelled = sum(label is None for _, label, _ in files)
    told = [f"{path.name}: {len(files):,} files in {len(counts)} folders: "
            + ", ".join(f"{label} ({count:,})" for label, count in counts.most_common(5))
            + (f"; {unlabelled:,} without a label" if unlabelled else "")]
    splits = tuple(sorted({split for _, _, split in files if split}))
    if splits:
        told.append(f"its own split is kept: {', '.join(splits)}")
    return Detected(kind="text_folders", fields={}, told=tuple(told), splits=splits)


def _is_conll(path: Path) -> bool:
    """Whether the first sentences are columns: the same number, at least two, in every line of a sentence."""
    try:
        text = _rows.read_text(path, path.name)[0][:50_000]
    except DataError:
        return False
    seen = [rows for _, rows in islice(sentences(text), 20)][:-1] or [rows for _, rows in islice(sentences(text), 1)]
    words = [rows for rows in seen if rows[0][0] != "-DOCSTART-"]
    return bool(words) and all(len({len(cells) for cells in rows}) == 1 and len(rows[0]) > 1 and len(rows[0][-1]) < 40
                               for rows in words) and any(len(rows) > 2 for rows in words)


def _conll(path: Path, files: Sequence[Path]) -> Detected:
    number: Counter[str] = Counter()
    total = 0
    for file in files:
        for _, rows in sentences(_rows.read_text(file, file.name)[0]):
            total += rows[0][0] != "-DOCSTART-"
            number.update(cells[-1].split("-", 1)[-1] for cells in rows if cells[-1] != "O" and len(cells) > 1
                          and cells[0] != "-DOCSTART-")
    told = (f"{path.name}: CoNLL columns, {total:,} sentences, tags: "
            + ", ".join(name for name, _ in number.most_common(8)),)
    return Detected(kind="conll", fields={}, files=tuple(files) if path.is_dir() else (), told=told)
