"""The string below a field is its help. Read from the source only when somebody asks, and once for each file: reading
it for every class as it is made cost each command half a second."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache


def field_help(cls: type) -> dict[str, str]:
    """Field name → its docstring, for a class and what it inherits; fields without one, and classes whose source is not
    at hand, are missing."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        module = sys.modules.get(one.__module__)
        file = getattr(module, "__file__", None)
        if file:
            found |= _file_help(file).get(one.__qualname__.replace(".<locals>", ""), {})
    return found


@cache
def _file_help(file: str) -> dict[str, dict[str, str]]:
    """Qualified class name → field → docstring."""
    try:
        with open(file, encoding="utf-8") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, dict[str, str]] = {}

    def walk(node: ast.AST, path: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                found[".".join((*path, child.name))] = _below(child)
            named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            walk(child, (*path, child.name) if named else path)

    walk(tree, ())
    return found


def _below(owner: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, text in zip(owner.body, owner.body[1:]):
        if (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)):
            found[field.target.id] = inspect.cleandoc(text.value.value)
    return found
