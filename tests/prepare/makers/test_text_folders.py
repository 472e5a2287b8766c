"""One folder a class: every readable format, own splits, and every unreadable file told with its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.errors import DataError
from luthier.prepare.base import MAKERS
from luthier.prepare.makers.text_folders import TextFolders
from luthier.store import Store
from luthier.task import Task
from luthier.testing import check_spec


@pytest.fixture
def read(context, run, tmp_path):
    def go(files, **fields):
        for name, content in files.items():
            path = tmp_path / "inbox" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        made = context(task=Task(type="classify"))
        return run(TextFolders(path="inbox", **fields), replace(made, store=Store(tmp_path / "store")))

    return go


def test_spec_conforms():
    check_spec(MAKERS, TextFolders(path="inbox"))


def test_the_folder_is_the_class_and_the_file_the_example(read):
    examples, dropped = read({"spam/1.txt": "buy now", "spam/deep/2": "cheap", "ham/3.txt": b"caf\xe9 at noon",
                              "ham/4.html": "<html><body><p>See you at the office</p></body></html>",
                              "README.md": "about this", ".hidden/5.txt": "no"})
    assert [(e.origin.where, e.labels, e.input) for e in examples] == [
        ("inbox/ham/3.txt", ("ham",), "café at noon"), ("inbox/ham/4.html", ("ham",), "See you at the office"),
        ("inbox/spam/1.txt", ("spam",), "buy now"), ("inbox/spam/deep/2", ("spam",), "cheap")]
    assert not dropped and all(len(e.origin.documents) == 1 for e in examples)


def test_pdf_and_docx_are_read_like_documents_and_the_same_file_in_two_classes_is_kept_twice(read, tmp_path):
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_paragraph("The lease ends in May.")
    document.save(str(tmp_path / "a.docx"))
    body = (tmp_path / "a.docx").read_bytes()
    examples, _ = read({"lease/a.docx": body, "other/b.docx": body})
    assert [(e.labels, e.input) for e in examples] == [(("lease",), "The lease ends in May."),
                                                       (("other",), "The lease ends in May.")]


def test_top_folders_may_be_splits_and_unlabelled_texts(read):
    examples, _ = read({"train/pos/1.txt": "good", "train/neg/2.txt": "bad", "train/unsup/3.txt": "so so",
                        "test/pos/4.txt": "great"})
    assert {(e.input, e.split, e.labels) for e in examples} == {
        ("good", "train", ("pos",)), ("bad", "train", ("neg",)), ("so so", "train", None), ("great", "test", ("pos",))}


def test_files_that_cannot_be_read_are_told(read):
    files = {"a/1.txt": "fine", "a/2.txt": b"\0\1\2", "b/3.txt": " \n", "b/4.pdf": b"%PDF-1.4 broken", "loose.txt": "x"}
    examples, dropped = read(files)
    assert [e.input for e in examples] == ["fine"]
    assert {d.item: d.reason for d in dropped} == {
        "inbox/loose.txt": "no-class-folder", "inbox/a/2.txt": "not-text", "inbox/b/3.txt": "empty-text",
        "inbox/b/4.pdf": "corrupt"}
    with pytest.raises(DataError, match="bad"):
        read(files, strict=True)


def test_a_folder_without_classes_is_an_error(read):
    with pytest.raises(DataError, match="no sub-folders"):
        read({"1.txt": "x"})
