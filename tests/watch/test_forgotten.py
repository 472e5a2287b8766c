"""Laws of what is forgotten: content decides, a slip in the file stops everything, the text itself is not kept."""

import json

import pytest

from luthier.errors import DataError
from luthier.ingest.base import Ingest, ingest, read_documents, read_set_aside
from luthier.ingest.forgotten import FILE, add_entry, read_forgotten
from luthier.prepare.base import Prepare, prepare, read_dropped, read_examples
from luthier.prepare.forgotten_rows import row_digest
from luthier.prepare.makers.rows import Rows
from luthier.store import Store
from luthier.task import Task

TASK = Task(type="classify")


def documents(root):
    (root / "documents").mkdir()
    for name, text in (("a.md", "# Ash\n\nThe ash grows by the river."), ("b.md", "# Box\n\nThe box hedge is cut.")):
        (root / "documents" / name).write_text(text)
    return root / "documents"


def read(root, folder):
    made = ingest([folder], Ingest(), store=Store(root / "store"), forgotten=read_forgotten(root))
    return {d.path: d.sha256 for d in read_documents(made)}, {a.path: a.reason for a in read_set_aside(made)}


def test_a_forgotten_document_is_left_out_by_content_and_by_path(tmp_path):
    folder = documents(tmp_path)
    found, _ = read(tmp_path, folder)
    assert add_entry(tmp_path, {"document": "a.md", "sha256": found["a.md"]})
    assert read(tmp_path, folder) == ({"b.md": found["b.md"]}, {"a.md": "forgotten"})
    (folder / "a.md").rename(folder / "renamed.md")
    assert read(tmp_path, folder) == ({"b.md": found["b.md"]}, {"renamed.md": "forgotten"})
    (folder / "a.md").write_text("# Ash\n\nAnother text under the old name.")
    assert read(tmp_path, folder)[1] == {"a.md": "forgotten", "renamed.md": "forgotten"}


def rows(root, name="data.csv", texts=None):
    texts = texts or [f"{word} number {at}" for at in range(12) for word in ("ant", "bee")]
    (root / name).write_text("text,label\n" + "".join(f"{text},{text.split()[0]}\n" for text in texts))
    return prepare(None, TASK, Prepare(makers=(Rows(path=name),)), store=Store(root / "store"), root=root)


def test_a_forgotten_row_is_left_out_whatever_its_file_line_and_label(tmp_path):
    before = rows(tmp_path)
    gone = read_examples(before, "train")[0]
    assert add_entry(tmp_path, {"file": "data.csv", "rows": [row_digest(gone, tmp_path)]})
    after = rows(tmp_path)
    assert after.id != before.id
    assert {e.input for e in read_examples(before)} - {e.input for e in read_examples(after)} == {gone.input}
    texts = [e.input for e in reversed(read_examples(before))]
    (tmp_path / "data.csv").unlink()
    moved = rows(tmp_path, "other.csv", [*texts, gone.input.upper() + "!"])
    assert gone.input not in {e.input for e in read_examples(moved)}
    assert {d.reason for d in read_dropped(moved)} == {"forgotten"} and not any(d.text for d in read_dropped(moved))
    assert gone.input not in (tmp_path / FILE).read_text()


def test_the_same_entry_is_written_once_and_an_empty_file_changes_no_artifact(tmp_path):
    before = rows(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / FILE).write_text("\n")
    assert rows(tmp_path).id == before.id
    entry = {"document": "a.md", "sha256": "0" * 64}
    assert add_entry(tmp_path, {**entry, "at": "2026-01-01"}) and not add_entry(tmp_path, {**entry, "at": "2026-02-02"})
    assert len((tmp_path / FILE).read_text().split()) > 0 and len(read_forgotten(tmp_path).paths) == 1


@pytest.mark.parametrize("line", ["{", '{"document": "a.md"}', '{"file": "a.csv", "rows": "x"}', "[]"])
def test_a_slip_in_the_file_stops_with_its_line(tmp_path, line):
    (tmp_path / "labels").mkdir()
    (tmp_path / FILE).write_text(json.dumps({"document": "a", "sha256": "b"}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"forgotten\.jsonl:2"):
        read_forgotten(tmp_path)
