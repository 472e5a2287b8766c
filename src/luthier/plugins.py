"""Seams and the one table of kinds: where methods dock without touching the core.

A seam belongs to a package (`luthier.prepare` for steps). Its kinds are the classes marked `@register(SEAM, "name")`
in that package's modules, in installed packages that declare an entry point `luthier`, and, from a local project
file only, any `my_module:MyClass` beside `luthier.yaml`. Modules that declare kinds keep heavy imports inside
functions: listing kinds must stay fast.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import core_schema

from luthier.spec import Nested, Spec

C = TypeVar("C", bound=type[Spec])


class Seam:
    """A place where methods dock. Use as `Annotated[Protocol, SEAM]` for a field of a spec."""

    def __init__(self, name: str, *, package: str):
        self.name, self.package = name, package
        self._kinds: dict[str, type[Spec]] = {}
        self._loaded = False

    def kinds(self) -> dict[str, type[Spec]]:
        """Every registered kind by name, importing the package's modules and entry points once."""
        if not self._loaded:
            self._loaded = True
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_") and _declares(f"{self.package}.{module.name}"):
                    importlib.import_module(f"{self.package}.{module.name}")
            for entry in importlib.metadata.entry_points(group="luthier"):
                entry.load()
        return dict(sorted(self._kinds.items()))

    def get(self, kind: str, *, local: Path | None = None) -> type[Spec]:
        """The class for a kind; ValueError with a suggestion for an unknown one."""
        if ":" in kind:
            return self._import(kind, local)
        known = self.kinds()
        if kind not in known:
            near = difflib.get_close_matches(kind, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"unknown {self.name} kind '{kind}'; {hint}")
        return known[kind]

    def _import(self, dotted: str, local: Path | None) -> type[Spec]:
        if local is None:
            raise ValueError(f"'{dotted}' names Python code; that is allowed only in a local project file")
        module_name, _, attribute = dotted.partition(":")
        file = local / (module_name.replace(".", "/") + ".py")
        try:
            if file.is_file():
                unique = f"luthier_local_{module_name.replace('.', '_')}"
                module = sys.modules.get(unique)
                if module is None:
                    loader = importlib.util.spec_from_file_location(unique, file)
                    assert loader is not None and loader.loader is not None
                    module = sys.modules[unique] = importlib.util.module_from_spec(loader)
                    loader.loader.exec_module(module)
            else:
                module = importlib.import_module(module_name)
            found = getattr(module, attribute)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise ValueError(f"'{dotted}' cannot be loaded: {error}") from None
        if not (isinstance(found, type) and issubclass(found, Spec)):
            raise ValueError(f"'{dotted}' is not a Spec class")
        found.kind = dotted
        return found

    def parse(self, value: Any, *, local: Path | None = None) -> Spec:
        """The spec that a `kind` name or a mapping with `kind` describes; ValueError says what is wrong with it.

        `local` is the project folder whose Python files may provide kinds; None where the input is not trusted.
        """
        if isinstance(value, Spec):
            return value
        data = {"kind": value} if isinstance(value, str) else value
        if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
            raise ValueError(f"a {self.name} is written as a mapping with 'kind', such as {{kind: NAME}}")
        cls = self.get(data["kind"], local=local)
        try:
            return cls.model_validate({k: v for k, v in data.items() if k != "kind"}, context={"local": local})
        except ValidationError as error:
            raise Nested(error, cls) from None

    def _validate(self, value: Any, info: core_schema.ValidationInfo) -> Spec:
        return self.parse(value, local=(info.context or {}).get("local"))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda spec: spec.dump()),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        choices = []
        for kind, cls in self.kinds().items():
            # through the handler, so that specs inside this one are defined once, where references look for them
            inner = dict(handler.resolve_ref_schema(handler(cls.__pydantic_core_schema__)))
            told = cls.field_help()
            fields = {name: {**field, "description": told[name]} if name in told else field
                      for name, field in inner.get("properties", {}).items()}
            inner["properties"] = {**fields, "kind": {"const": kind}}
            inner["required"] = ["kind", *inner.get("required", [])]
            choices.append(inner)
        return {"anyOf": [*choices, {"type": "string", "enum": [*self.kinds()]}]}


def _declares(module: str) -> bool:
    """Whether the module's text marks a kind: packages also hold modules that do the work, with heavy imports."""
    found = importlib.util.find_spec(module)
    source = getattr(found.loader, "get_source", None) if found is not None else None
    text = source(module) if source is not None else None
    return text is None or "@register(" in text


def register(seam: Seam, kind: str) -> Callable[[C], C]:
    """Class decorator: make a spec available as `kind: NAME` at a seam."""

    def mark(cls: C) -> C:
        taken = seam._kinds.get(kind)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{seam.name} kind '{kind}' is taken by {taken.__module__}.{taken.__qualname__}")
        cls.kind = kind
        seam._kinds[kind] = cls
        return cls

    return mark
