"""Laws of the command line: fast help, one clear sentence for a mistake, a stable exit code, data on stdout."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def luthier(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "luthier.cli", *words], cwd=cwd, capture_output=True, text=True,
                          check=False, timeout=120)


def test_help_imports_nothing_heavy():
    code = ("import sys, luthier.cli\nfrom typer.testing import CliRunner\n"
            "assert CliRunner().invoke(luthier.cli.app, ['--help']).exit_code == 0\n"
            "print([m for m in ('torch', 'transformers', 'numpy', 'pydantic', 'yaml', 'fastapi') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_opening_a_project_imports_no_torch(tmp_path):
    assert luthier("new", "p", cwd=tmp_path).returncode == 0
    code = ("import sys\nfrom luthier.project import Project\nProject.open('p')\n"
            "print([m for m in ('torch', 'transformers', 'pypdfium2', 'fastapi') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert out.strip() == "[]"


def test_new_writes_a_project_that_reads_back_as_the_defaults(tmp_path):
    made = luthier("new", "my desk", "--json", cwd=tmp_path)
    assert made.returncode == 0 and json.loads(made.stdout)["folder"] == "my desk"
    from luthier.project import Project, ProjectSpec

    assert Project.open(tmp_path / "my desk").spec == ProjectSpec(name="my-desk")
    text = (tmp_path / "my desk" / "luthier.yaml").read_text()
    for name, help_text in ProjectSpec.field_help().items():
        assert f"\n{name}:" in text and " ".join(help_text.split())[:60] in text
    again = luthier("new", "my desk", cwd=tmp_path)
    assert again.returncode == 2 and "exists already" in again.stderr


def test_schema_accepts_what_new_wrote_and_refuses_a_typo(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    import yaml

    luthier("new", "p", cwd=tmp_path)
    schema = json.loads((tmp_path / "p" / "luthier.schema.json").read_text())
    data = yaml.safe_load((tmp_path / "p" / "luthier.yaml").read_text())
    jsonschema.validate(data, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "trian": {}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "prepare": {"makers": [{"kind": "nonsense"}]}}, schema)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "-C", "nowhere"), 2, "no such folder: nowhere"),
        (("run", "-C", "."), 2, "no project file"),
        (("show", "-C", "p", "trian"), 2, "'trian' cannot be shown"),
        (("show", "-C", "p", "train"), 2, "'train' has not run"),
        (("run", "-C", "p", "--set", "train.epohcs=2"), 2, "did you mean 'epochs'"),
        (("run", "-C", "p"), 4, "documents"),
        (("ingest", "-C", "p", "--set", "ingest.sources=[gone]"), 2, "gone"),
        (("serve", "-C", "p"), 2, "luthier run"),
        (("serve", "-C", "p", "--release", "../../etc"), 2, "no release"),
        (("trace", "-C", "p", "xyz"), 2, "nothing called 'xyz'"),
        (("chat", "-C", "p", "hello"), 2, "luthier run"),
        (("new", "p"), 2, "exists already"),
        (("new", "q", "--documents", "missing"), 2, "no such folder of documents"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_stable_code(tmp_path, words, code, said):
    luthier("new", "p", cwd=tmp_path)
    done = luthier(*words, cwd=tmp_path)
    assert said in done.stderr, done.stderr
    assert done.returncode == code and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 6


def test_errors_are_json_for_machines(tmp_path):
    done = luthier("run", "-C", "nowhere", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stderr.splitlines()[-1])["message"].startswith("no such folder")


def test_a_yaml_typo_names_file_line_and_remedy(tmp_path):
    luthier("new", "p", cwd=tmp_path)
    file = tmp_path / "p" / "luthier.yaml"
    file.write_text("name: p\ntrain:\n  epohcs: 3\n")
    done = luthier("check", "-C", "p", cwd=tmp_path)
    assert done.returncode == 2
    assert "luthier.yaml:3: train.epohcs: unknown field; did you mean 'epochs'?" in done.stderr


def test_show_lists_every_kind_with_help_for_every_field():
    data = json.loads(luthier("show", "kinds", "--json").stdout)
    assert {"reader", "maker", "metric"} <= set(data)
    for kinds in data.values():
        for kind, about in kinds.items():
            assert about["help"], kind
            assert all(about["fields"].values()), kind
