"""Write `luthier.yaml` from the specs, with the field docstrings as comments, and the JSON schema for editors."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import yaml

from luthier.ingest.base import Ingest
from luthier.project.base import ProjectSpec
from luthier.spec import Spec
from luthier.task import TaskType

WIDTH = 110
HEADER = """\
# yaml-language-server: $schema=luthier.schema.json
# Every field stands here with its default. A field that you delete keeps its default; an unknown one is an error.
# Check what would happen before anything is spent:  luthier check
"""
LABELLED_HEADER = HEADER.replace("Every field stands here", "The fields for this task stand here")

_CHAT: tuple[TaskType, ...] = ("assistant", "completion")
FOR: dict[str, tuple[TaskType, ...]] = {
    **dict.fromkeys(("task.system", "task.refusal", "index", "rag", "adapt.template", "train.packing", "train.replay"),
                    _CHAT),
    **dict.fromkeys((f"ingest.{name}" for name in Ingest.model_fields if name != "sources"), _CHAT),
    **dict.fromkeys((f"prepare.{name}" for name in ("boilerplate", "clean", "chunk", "dedupe", "volatility",
                                                    "max_examples_per_document")), _CHAT),
    **dict.fromkeys((f"evaluate.{name}" for name in ("systems", "metrics", "max_new_tokens", "max_wrong_refusal_rise",
                                                     "retention", "recitation", "judge")), _CHAT),
    "task.labels": ("classify", "tag", "image"), "task.multi_label": ("classify",),
    "task.abstain": ("classify", "image"), "adapt.image_size": ("image",), "watch.gate.max_retention_rise": _CHAT,
    "watch.gate.max_contradicted": ("classify", "image"), "watch.gate.sure": ("classify", "image"),
}
"""The tasks that a field is for. The file of another task leaves it out, unless it was set."""


def commented_yaml(spec: ProjectSpec) -> str:
    """The whole project as YAML that a person can edit; reading it back gives an equal spec.

    For a labelled task, sections and fields that have nothing to say there are left out where they hold the default.
    """
    task = spec.task.type if spec.task.labelled else None
    return (LABELLED_HEADER if task else HEADER) + "\n".join(_section(spec, 0, task)) + "\n"


def _section(spec: Spec, depth: int, task: TaskType | None, path: str = "") -> list[str]:
    lines: list[str] = []
    pad = "  " * depth
    for name, field in type(spec).model_fields.items():
        value = getattr(spec, name)
        here = f"{path}{name}"
        default = not field.is_required() and value == field.get_default(call_default_factory=True)
        if task and default and task not in FOR.get(here, (task,)):
            continue
        if depth == 0:
            lines.append("")
        help_text = " ".join(type(spec).field_help().get(name, "").split())
        lines += [f"{pad}# {line}" for line in textwrap.wrap(help_text, WIDTH - 2 - len(pad))]
        if isinstance(value, Spec) and not value.kind:
            lines += [f"{pad}{name}:", *_section(value, depth + 1, task, f"{here}.")]
        elif isinstance(value, tuple) and value and all(isinstance(item, Spec) for item in value):
            lines += [f"{pad}{name}:", *(f"{pad}  - {flow(_short(item))}" for item in value)]
        else:
            data = _short(value) if isinstance(value, Spec) else spec.model_dump(mode="json", include={name})[name]
            text = flow(data)
            lines.append(f"{pad}{name}: {text}")
    return lines


def _short(spec: Spec) -> dict[str, Any]:
    """Kind and whatever differs from the defaults: a list of ten methods stays ten short lines."""
    full = spec.dump()
    default = {name: field.get_default(call_default_factory=True) for name, field in type(spec).model_fields.items()}
    kept = {name: full[name] for name in default if getattr(spec, name) != default[name]}
    return {"kind": spec.kind, **kept} if spec.kind else kept


def flow(data: Any) -> str:
    """One line of YAML."""
    text = yaml.safe_dump(data, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").rstrip()


def json_schema() -> dict[str, Any]:
    """JSON schema of `luthier.yaml` for editors: completion, help on hover, and errors while typing."""
    schema = ProjectSpec.model_json_schema()
    defs = schema.setdefault("$defs", {})
    _hoist({key: value for key, value in schema.items() if key != "$defs"}, defs)
    for value in list(defs.values()):
        _hoist(value, defs)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _hoist(node: Any, defs: dict[str, Any]) -> None:
    """Definitions nested in a seam's choices move to the top, where their references point."""
    if isinstance(node, dict):
        inner = node.pop("$defs", {})
        for name, value in inner.items():
            defs.setdefault(name, value)
            _hoist(value, defs)
        for value in node.values():
            _hoist(value, defs)
    elif isinstance(node, list):
        for value in node:
            _hoist(value, defs)


def schema_text() -> str:
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
