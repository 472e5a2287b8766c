"""Frozen typed specs: one declaration feeds Python, YAML, the command line, the editor schema and the docs.

A field's docstring (the string literal below it) is its help, with units. Unknown keys, wrong types and unknown kinds
fail before any work, with the line of the YAML file and a suggestion.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from luthier.docstrings import field_help
from luthier.errors import SpecError

Loc = tuple[str | int, ...]
S = typing.TypeVar("S", bound="Spec")


def check_pattern(pattern: str) -> re.Pattern[str]:
    """A user's regular expression, compiled; ValueError (which pydantic shows at its field) where it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


class Spec(BaseModel):
    """Base of every configuration object: frozen, keyword-only, refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str] = ""
    """The name in YAML, set by `@register`; empty for a plain section."""

    @classmethod
    def field_help(cls) -> dict[str, str]:
        """Field → its docstring."""
        return {name: text for name, text in field_help(cls).items() if name in cls.model_fields}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        found = handler(core_schema)
        fields = handler.resolve_ref_schema(found).get("properties", {})
        for name, text in cls.field_help().items():
            if name in fields:
                fields[name].setdefault("description", text)
        return found

    def dump(self) -> dict[str, Any]:
        """JSON-ready fields, defaults included: what is hashed, stored and shown."""
        data = self.model_dump(mode="json")
        return {"kind": self.kind, **data} if self.kind else data

    def but(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})

    def __repr_args__(self):  # only what differs from the defaults, so that prints stay readable
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.is_required() or value != field.get_default(call_default_factory=True):
                yield name, value


class Nested(ValueError):
    """Carries a nested spec's errors through pydantic, which would otherwise flatten them into one string."""

    def __init__(self, error: ValidationError, owner: type[BaseModel]):
        super().__init__(str(error))
        self.error, self.owner = error, owner


def parse(model: type[S], data: Any, *, source: str = "", lines: dict[Loc, int] | None = None,
                   local: Path | None = None) -> S:
    """Validate `data` as `model`; every problem becomes one line of a `SpecError`.

    `lines` maps a key's path to its 1-based line in `source`; `local` is the project folder whose Python files
    may provide kinds (`kind: my_module:MyClass`), None when the input is not trusted with code.
    """
    try:
        return model.model_validate(data, context={"local": local})
    except ValidationError as error:
        found: dict[Loc, str] = {}
        for loc, message in _flatten(error, model, ()):  # a field that takes one of two kinds complains of both
            found[loc] = f"{found[loc]}, or {message}" if loc in found else message
    shown = []
    for loc, message in found.items():
        at = _line(loc, lines or {})
        where = f"{source}:{at}: " if source and at else f"{source}: " if source else ""
        path = ".".join(str(part) for part in loc)
        shown.append(f"{where}{path}: {message}" if path else f"{where}{message}")
    raise SpecError("\n".join(shown))


def load_yaml(path: Path, model: type[S], *, overrides: typing.Sequence[str] = ()) -> S:
    """Read a YAML file into a spec; errors name the file, the line and the nearest known key.

    `overrides` are `path.to.field=value` settings (the value is YAML) that replace what the file says.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"no project file at {path}; create a project with: luthier new NAME") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date, for one
        mark = getattr(error, "problem_mark", None)
        at = f":{mark.line + 1}" if mark else ""
        raise SpecError(f"{path.name}{at}: not valid YAML: {getattr(error, 'problem', error)}") from None
    lines: dict[Loc, int] = {}
    if node is not None:
        _mark(node, (), lines, path.name)
    if not isinstance(data, dict):
        raise SpecError(f"{path.name}:1: expected 'section: …' lines, found {type(data).__name__}")
    for setting in overrides:
        override(data, setting)
    return parse(model, data, source=path.name, lines=lines, local=path.parent.resolve())


def line_numbers(text: str, source: str) -> dict[Loc, int]:
    """The 1-based line of every key of a YAML text by its path; SpecError where a key is given twice."""
    lines: dict[Loc, int] = {}
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is not None:
        _mark(node, (), lines, source)
    return lines


def override(data: dict[str, Any], setting: str) -> None:
    """Apply one `train.epochs=3` to raw data in place."""
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise SpecError(f"'{setting}' is not a setting; write it as section.field=value, such as train.epochs=3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"'{setting}': the value is not valid YAML: {getattr(error, 'problem', error)}") from None
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
        with contextlib.suppress(ValueError):
            value = float(value)
    here: Any = data
    parts = path.split(".")
    for part in parts[:-1]:
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                raise SpecError(f"'{setting}': '{part}' is not a position in that list (0 to {len(here) - 1})")
            here = here[int(part)]
        else:
            if here.get(part) is None:  # not there yet, or switched off: fields switch it on
                here[part] = {}
            here = here[part]
        if not isinstance(here, dict | list):
            raise SpecError(f"'{setting}': '{part}' holds a value, not fields")
    last = parts[-1]
    if isinstance(here, list):
        if not last.isdigit() or int(last) >= len(here):
            raise SpecError(f"'{setting}': '{last}' is not a position in that list (0 to {len(here) - 1})")
        here[int(last)] = value
    else:
        here[last] = value


def _mark(node: yaml.Node, loc: Loc, lines: dict[Loc, int], source: str) -> None:
    lines.setdefault(loc, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*loc, key.value)
            if here in lines:  # plain YAML would let the second silently win
                raise SpecError(f"{source}:{key.start_mark.line + 1}: {'.'.join(map(str, here))}: "
                                f"given twice (first on line {lines[here]}); keep one")
            lines[here] = key.start_mark.line + 1
            _mark(value, here, lines, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _mark(value, (*loc, index), lines, source)


def _line(loc: Loc, lines: dict[Loc, int]) -> int | None:
    while loc not in lines and loc:
        loc = loc[:-1]
    return lines.get(loc)


_KIND = re.compile(r"literal\[.*\]|constrained-\w+|(float|int|bool|str|none)")
"""What pydantic puts into a path for each kind that a field may be: no name that a user knows."""


def _flatten(error: ValidationError, owner: type[BaseModel], base: Loc) -> typing.Iterator[tuple[Loc, str]]:
    for item in error.errors():
        loc: Loc = (*base, *(part for part in item["loc"] if not _KIND.fullmatch(str(part))))
        nested = item.get("ctx", {}).get("error")
        if isinstance(nested, Nested):
            yield from _flatten(nested.error, nested.owner, loc)
        elif item["type"] == "extra_forbidden":
            model = _model_at(owner, item["loc"][:-1])
            known = [*model.model_fields] if model else []
            near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known fields: {', '.join(known)}" if known else ""
            yield loc, f"unknown field{hint}"
        elif item["type"] == "missing":
            yield loc, "this field is required"
        elif nested is not None:
            yield loc, str(nested)
        else:
            yield loc, f"{item['msg'][0].lower()}{item['msg'][1:]} (found {item['input']!r:.80})"


def _model_at(model: type[BaseModel] | None, loc: Loc) -> type[BaseModel] | None:
    for part in loc:
        if model is None:
            return None
        field = model.model_fields.get(part) if isinstance(part, str) else None
        model = next(_models_in(field.annotation), None) if field else model
    return model


def _models_in(annotation: Any) -> typing.Iterator[type[BaseModel]]:
    plain = isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias)
    if plain and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)
