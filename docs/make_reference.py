"""Write docs/reference.md and docs/luthier.schema.json from the specs; `--check` fails when they are out of date."""

from __future__ import annotations

import sys
from pathlib import Path

from luthier.project.base import ProjectSpec
from luthier.project.show import seams
from luthier.project.yaml_file import flow, schema_text
from luthier.spec import Spec

HERE = Path(__file__).parent


def reference() -> str:
    lines = ["# Reference", "",
             "Generated from the specs by `make docs`: every section and field of `luthier.yaml`, then every kind at "
             "every seam.", ""]
    for name, field in ProjectSpec.model_fields.items():
        if isinstance(field.get_default(call_default_factory=True), Spec):
            lines += [f"## `{name}`", "", " ".join(ProjectSpec.field_help().get(name, "").split()), ""]
            lines += table(type(field.get_default(call_default_factory=True)), name)
    for seam in seams():
        lines += [f"## Kinds of {seam.name}", ""]
        for kind, cls in seam.kinds().items():
            lines += [f"### `{kind}`", "", (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "), ""]
            lines += table(cls, "")
    return "\n".join(lines).rstrip() + "\n"


def table(cls: type[Spec], prefix: str) -> list[str]:
    rows, nested = [], []
    for name, field in cls.model_fields.items():
        default = field.get_default(call_default_factory=True) if not field.is_required() else None
        help_text = " ".join(cls.field_help().get(name, "").split()).replace("|", "\\|")
        if isinstance(default, Spec) and not default.kind:
            nested.append((f"{prefix}.{name}" if prefix else name, type(default), help_text))
            continue
        shown = "required" if field.is_required() else f"`{flow(dumped(default))}`"
        rows.append(f"| `{name}` | {shown.replace('|', chr(92) + '|')} | {help_text} |")
    lines = ["| field | default | meaning |", "|---|---|---|", *rows, ""] if rows else []
    for path, inner, help_text in nested:
        lines += [f"**`{path}`**: {help_text}", "", *table(inner, path)]
    return lines


def dumped(value):
    if isinstance(value, Spec):
        return value.dump()
    if isinstance(value, tuple | list):
        return [item.kind if isinstance(item, Spec) and item == type(item)() else dumped(item) for item in value]
    return value


def main() -> int:
    made = {HERE / "reference.md": reference(), HERE / "luthier.schema.json": schema_text()}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is out of date; run: make docs", file=sys.stderr)
        return bool(stale)
    for path, text in made.items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
