"""Laws of specs: what is wrong is found before any work, with the line and the nearest known word."""

import pickle
from pathlib import Path
from typing import Annotated

import pytest

from luthier.errors import SpecError
from luthier.plugins import Seam, register
from luthier.spec import Spec, load_yaml, override, parse

TOOLS = Seam("tool", package="luthier.models")


@register(TOOLS, "saw")
class Saw(Spec):
    """Cuts."""

    teeth: int = 24
    """Number of teeth."""


class Inner(Spec):
    depth: float = 1.0
    """Depth in mm."""


class Outer(Spec):
    name: str = "x"
    """Name."""
    inner: Inner = Inner()
    """Inner section."""
    tools: tuple[Annotated[Saw, TOOLS], ...] = (Saw(),)
    """Tools in order."""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "luthier.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_yaml_maps_to_typed_specs(tmp_path):
    spec = load_yaml(write(tmp_path, "inner: {depth: 2}\ntools: [saw, {kind: saw, teeth: 3}]\n"), Outer)
    assert spec == Outer(inner=Inner(depth=2), tools=(Saw(), Saw(teeth=3)))
    assert spec.dump()["tools"][1] == {"kind": "saw", "teeth": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\ninner:\n  dept: 3\n", "luthier.yaml:3: inner.dept: unknown field; did you mean 'depth'?"),
        ("nmae: a\n", "luthier.yaml:1: nmae: unknown field; did you mean 'name'?"),
        ("inner:\n  depth: deep\n", "luthier.yaml:2: inner.depth: input should be a valid number"),
        ("tools:\n  - {kind: saww}\n", "luthier.yaml:2: tools.0: unknown tool kind 'saww'; did you mean 'saw'?"),
        ("tools:\n  - kind: saw\n    teth: 2\n", "luthier.yaml:3: tools.0.teth: unknown field; did you mean 'teeth'?"),
        ("tools:\n  - kind: saw\n    teeth: many\n", "luthier.yaml:3: tools.0.teeth: input should be a valid integer"),
        ("name: a\nname: b\n", "luthier.yaml:2: name: given twice (first on line 1)"),
        ("name: [a\n", "not valid YAML"),
        ("- a\n", "expected 'section: …' lines, found list"),
        ("tools: [{kind: 'os:system'}]\n", "is not a Spec class"),
    ],
)
def test_errors_name_line_field_and_remedy(tmp_path, text, said):
    with pytest.raises(SpecError) as caught:
        load_yaml(write(tmp_path, text), Outer)
    assert said in str(caught.value)


def test_every_problem_is_listed_at_once(tmp_path):
    with pytest.raises(SpecError) as caught:
        load_yaml(write(tmp_path, "nmae: a\ninner: {dept: 1}\n"), Outer)
    assert len(str(caught.value).splitlines()) == 2


def test_local_file_provides_kinds_only_where_code_is_trusted(tmp_path):
    code = "from luthier.spec import Spec\nclass Axe(Spec):\n    '''Chops.'''\n    kg: int = 1\n"
    (tmp_path / "mine.py").write_text(code)
    spec = load_yaml(write(tmp_path, "tools: [{kind: 'mine:Axe', kg: 2}]\n"), Outer)
    assert spec.tools[0].dump() == {"kind": "mine:Axe", "kg": 2}
    with pytest.raises(SpecError, match="allowed only in a local project file"):
        parse(Outer, {"tools": [{"kind": "mine:Axe"}]})


def test_overrides_reach_nested_fields_and_list_items(tmp_path):
    file = write(tmp_path, "tools: [{kind: saw}]\n")
    spec = load_yaml(file, Outer, overrides=["inner.depth=1e-4", "tools.0.teeth=5", "name=y"])
    assert (spec.inner.depth, spec.tools[0].teeth, spec.name) == (1e-4, 5, "y")
    with pytest.raises(SpecError, match="did you mean 'depth'"):
        load_yaml(file, Outer, overrides=["inner.depht=1"])
    with pytest.raises(SpecError, match="not a position"):
        load_yaml(file, Outer, overrides=["tools.7.teeth=1"])
    with pytest.raises(SpecError, match=r"section\.field=value"):
        override({}, "inner.depth")


def test_specs_are_frozen_and_pickle():
    spec = Outer(name="y")
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "z"
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.but(name="z") == Outer(name="z")
    assert repr(spec) == "Outer(name='y')"


def test_a_kind_has_one_owner():
    with pytest.raises(ValueError, match="is taken by"):
        register(TOOLS, "saw")(type("Other", (Spec,), {"__doc__": "x"}))


def test_the_schema_of_a_seam_defines_every_spec_that_stands_inside_a_kind():
    import json
    import re
    from typing import Annotated, Any

    from luthier.plugins import Seam, register

    seam = Seam("schema test", package="tests.core")
    seam._loaded = True

    class Inner(Spec):
        """Inside."""

        size: int = 1
        """A size."""

    @register(seam, "outer")
    class Outer(Spec):
        """Outside."""

        inner: Inner = Inner()
        """Inside."""

    class Whole(Spec):
        """All."""

        part: Annotated[Any, seam] = Outer()
        """A part."""

    schema = Whole.model_json_schema()
    used = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
    assert used == {"Inner"} == set(schema["$defs"])
    assert schema["properties"]["part"]["anyOf"][0]["properties"]["kind"] == {"const": "outer"}


def test_naming_kinds_imports_no_torch():
    import subprocess
    import sys

    code = ("import sys; from luthier.project.yaml_file import json_schema; json_schema(); "
            "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
