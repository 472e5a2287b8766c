"""Laws of the docs: shell blocks run, YAML blocks parse as projects, Python blocks compile, links lead somewhere,
and the reference is what the specs say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from luthier.project import ProjectSpec
from luthier.spec import parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(page.read_text("utf-8")) if name == language]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "said"), [("tutorial.md", ("set aside", "card.html")),
                                            ("tutorial-classify.md", ("30 unlabelled", "card.html"))])
def test_the_tutorials_shell_blocks_run(page, said, tmp_path):
    """All `sh` blocks of the tutorial in one shell, in an empty folder beside a copy of examples/."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script = "set -e\n" + "\n".join(blocks(ROOT / "docs" / page, "sh"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], cwd=work, env={**os.environ, "PATH": path}, capture_output=True,
                          text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(text in done.stdout for text in said)


def test_the_classifier_tutorial_tells_what_the_example_holds():
    """Lines that the tutorial and the example's README name carry the same labels."""
    rows = (ROOT / "examples" / "tickets" / "tickets.csv").read_text("utf-8").splitlines()
    text = (ROOT / "docs" / "tutorial-classify.md").read_text("utf-8")
    listed = re.findall(r"^  data/tickets\.csv:(\d+): (\w+) → \w+ \([\d.]+\)  (.+)$", text, re.MULTILINE)
    assert len(listed) == 5
    for line, label, start in listed:
        row = rows[int(line) - 1]
        assert row.lstrip('"').startswith(start) and f",{label}," in row, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_blocks_are_valid_project_sections(page, tmp_path):
    """A plug-in that a page names as `my_module:Class` is the page's own Python block with that class."""
    for module, name in re.findall(r"\b(my_\w+):(\w+)", "".join(blocks(page, "yaml"))):
        code = next(text for text in blocks(page, "python") if f"class {name}(" in text)
        (tmp_path / f"{module}.py").write_text(code, "utf-8")
    for text in blocks(page, "yaml"):
        parse(ProjectSpec, yaml.safe_load(text), source=page.name, local=tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile_and_their_luthier_imports_exist(page):
    for text in blocks(page, "python"):
        compile(text, page.name, "exec")
        for line in text.splitlines():
            if re.match(r"from luthier[\w.]* import ", line):
                exec(line, {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_commands_named_in_the_docs_exist():
    from typer.main import get_command

    from luthier.cli import app

    known = set(get_command(app).commands)
    for page in PAGES:
        for text in blocks(page, "sh"):
            for command in re.findall(r"^(?:\.venv/bin/)?luthier ([a-z]+)", text, re.MULTILINE):
                assert command in known, f"{page.name}: luthier {command}"


def test_reference_and_schema_are_what_the_specs_say():
    done = subprocess.run([sys.executable, ROOT / "docs" / "make_reference.py", "--check"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"`?make (\w+)`?", (ROOT / "README.md").read_text("utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
