"""Write settings into `luthier.yaml` and leave everything else as it stands: comments, order, spacing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from luthier.errors import SpecError
from luthier.project.yaml_file import flow
from luthier.store import write_text
from luthier.tune.space import with_overrides

INDENT = 2


def apply(file: Path, overrides: Mapping[str, Any]) -> list[str]:
    """Change fields of a YAML file in place, by their path; returns what was changed, one line each.

    The new text is read back and must say exactly the old data with these fields changed; where a line edit cannot do
    that (anchors, values over several lines, a list), SpecError says so and the file stays as it was.
    """
    old = text = file.read_text(encoding="utf-8")
    told = []
    for path, value in overrides.items():
        text, line = _set(text, path, value, file.name)
        told.append(f"{file.name}:{line}: {path} = {flow(value)}")
    try:
        wanted = with_overrides(_unshared(yaml.safe_load(old) or {}), overrides)
        got = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise SpecError(f"{file.name} cannot be changed safely ({error}); write the values there yourself") from None
    if _plain(got) != _plain(wanted):
        raise SpecError(f"{file.name} cannot be changed safely (anchors, or a field inside another value); write the "
                        "values there yourself")
    if text != old:
        write_text(file, text)
    return told


def _unshared(data: Any) -> Any:
    """A copy in which an anchor and its aliases are separate values."""
    if isinstance(data, dict):
        return {key: _unshared(value) for key, value in data.items()}
    return [_unshared(value) for value in data] if isinstance(data, list) else data


def _plain(data: Any) -> Any:
    """As the specs read it: numbers that YAML 1.1 takes for text are numbers."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if isinstance(data, str):
        try:
            return float(data)
        except ValueError:
            return data
    return data


def _set(text: str, path: str, value: Any, source: str) -> tuple[str, int]:
    """The text with one field changed, and its line."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    parts = path.split(".")
    if root is None:
        return text + _block(parts, value, 0), text.count("\n") + 1
    node: yaml.Node = root
    for depth, part in enumerate(parts):
        if not isinstance(node, yaml.MappingNode):
            if isinstance(node, yaml.ScalarNode):  # `plan: gradual` gets a field: {kind: gradual, …}
                held = yaml.safe_load(node.value) if node.style is None else node.value
                data = {} if held is None else {"kind": held}
                return _replace(text, node, with_overrides(data, {".".join(parts[depth:]): value}), source, path)
            raise SpecError(f"{source}:{node.start_mark.line + 1}: {path} lies in a list, which is not changed line by "
                            "line; write the value there yourself")
        found = next((inner for key, inner in node.value if key.value == part), None)
        if found is None:
            if node.flow_style:
                data = yaml.safe_load(text[node.start_mark.index:node.end_mark.index])
                return _replace(text, node, with_overrides(data, {".".join(parts[depth:]): value}), source, path)
            return _insert(text, node, parts[depth:], value, top=depth == 0)
        node = found
    return _replace(text, node, value, source, path)


def _replace(text: str, node: yaml.Node, value: Any, source: str, path: str) -> tuple[str, int]:
    start, end = node.start_mark, node.end_mark
    if start.line != end.line:
        raise SpecError(f"{source}:{start.line + 1}: {path} stands on several lines, which is not changed line by "
                        "line; write the value there yourself")
    shown = flow(value)
    if start.index == end.index:  # `key:` without a value
        shown = f" {shown}" if text[start.index - 1] == ":" else shown
    return text[:start.index] + shown + text[end.index:], start.line + 1


def _insert(text: str, node: yaml.MappingNode, parts: list[str], value: Any, *, top: bool) -> tuple[str, int]:
    """A new field as the first of its section (the last of the file for a new section)."""
    if top:
        joint = "" if text.endswith("\n") else "\n"
        return text + joint + _block(parts, value, 0), text.count("\n") + 1 + len(joint)
    first = node.value[0][0].start_mark
    at = first.index - first.column
    return text[:at] + _block(parts, value, first.column) + text[at:], first.line + 1


def _block(parts: list[str], value: Any, column: int) -> str:
    lines = [f"{' ' * (column + INDENT * depth)}{part}:" for depth, part in enumerate(parts)]
    return "\n".join(lines) + f" {flow(value)}\n"
