"""The stage: every file is a document or is set aside with a reason; nothing is read twice; nothing stops the rest."""

import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections import Counter

import pytest

from luthier.errors import DataError, MissingExtra, SpecError, UsageError
from luthier.ingest.base import READERS, Ingest, ingest, read_documents, read_set_aside
from luthier.ingest.ocr.base import Ocr
from luthier.ingest.ocr.off import Off
from luthier.progress import Silent
from luthier.spec import load_yaml, parse
from luthier.store import Store
from luthier.testing import check_spec


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def folder(tmp_path):
    """Three small documents, one of them in a subfolder."""
    root = tmp_path / "documents"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("The first document speaks of pumps.\n")
    (root / "b.md").write_text("# Second\n\nIt speaks of valves.\n")
    (root / "sub" / "c.html").write_text("<html><body><h1>Third</h1><p>It speaks of seals.</p></body></html>")
    return root


class Counting(Silent):
    """Counts the files that are really read, through the progress bar."""

    def __init__(self):
        self.read, self.said = 0, []

    def track(self, what, total, *, unit="", done=0.0):
        from contextlib import contextmanager

        outer = self

        class Bar:
            def advance(self, count=1, **shown):
                outer.read += count

        @contextmanager
        def manager():
            yield Bar()

        return manager()

    def say(self, message, **fields):
        self.said.append(message)


def test_documents_are_ordered_by_path_and_counted(folder, store):
    progress = Counting()
    made = ingest([folder], store=store, progress=progress)
    documents = read_documents(made)
    assert [d.path for d in documents] == ["a.txt", "b.md", "sub/c.html"]
    assert [d.reader for d in documents] == ["text", "markdown", "html"]
    assert documents[1].title == "Second" and documents[1].spans[1].text == "It speaks of valves."
    assert all(d.id == d.sha256[:16] for d in documents)
    assert made.inputs == {d.path: d.sha256 for d in documents}
    words = sum(len(d.text.split()) for d in documents)
    assert {k: made.summary[k] for k in ("documents", "set_aside", "ignored", "words", "pages", "readers")} == {
        "documents": 3, "set_aside": {}, "ignored": 0, "words": words, "pages": 0,
        "readers": {"html": 1, "markdown": 1, "text": 1}}
    assert progress.said == []


def test_the_same_folder_is_a_no_op_and_one_change_reads_one_file(folder, store):
    first = ingest([folder], store=store)
    progress = Counting()
    again = ingest([folder], store=store, progress=progress)
    assert again.id == first.id and not again.fresh and progress.read == 0 and not progress.said
    os.utime(folder / "a.txt")  # touched, not changed
    assert ingest([folder], store=store).id == first.id
    (folder / "a.txt").write_text("The first document speaks of motors.\n")
    changed = ingest([folder], store=store, progress=progress)
    assert changed.id != first.id and progress.read == 1
    assert "motors" in read_documents(changed)[0].text
    (folder / "b.md").unlink()
    assert [d.path for d in read_documents(ingest([folder], store=store, progress=progress))] == ["a.txt", "sub/c.html"]
    assert progress.read == 1, "a removed file needs no reading"


def test_options_of_one_reader_read_only_its_files_again(folder, store):
    ingest([folder], store=store)
    progress = Counting()
    spec = parse(Ingest, {"readers": [{"kind": "html", "keep_furniture": True}]})
    assert ingest([folder], spec, store=store, progress=progress).fresh and progress.read == 1
    same = Ingest(workers=1, sources=("elsewhere",))
    assert not ingest([folder], same, store=store).fresh, "the number of workers does not change the result"


def test_the_no_op_is_fast_and_imports_no_parser(tmp_path):
    root = tmp_path / "documents"
    root.mkdir()
    for i in range(50):
        (root / f"{i}.txt").write_text(f"Document number {i} speaks of something else.\n" * 20)
    code = f"""
import sys, time
from luthier.ingest.base import Ingest, ingest
from luthier.store import Store
store, folder = Store({str(tmp_path / 'store')!r}), {str(root)!r}
began = time.process_time()
made = ingest([folder], Ingest(), store=store)
print(made.fresh, time.process_time() - began)
heavy = {{"pypdfium2", "liteparse", "docx", "pptx", "openpyxl", "lxml", "bs4", "torch", "markdown_it"}}
print(sorted(heavy & {{name.partition(".")[0] for name in sys.modules}}))
"""
    for fresh in ("True", "False"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        out = done.stdout.split("\n")
        assert out[0].split()[0] == fresh and out[1] == "[]"
    assert float(out[0].split()[1]) < 1


def _bad_files(root, make_pdf, flow):
    """One file for each reason, and the reason."""
    make_pdf(root / "locked.pdf", [flow("p", "secret")], encrypt="password")
    whole = make_pdf(root / "good.pdf", [flow("p", "A good page about pumps and valves.")]).read_bytes()
    (root / "cut.pdf").write_bytes(whole[:400])
    from reportlab.pdfgen.canvas import Canvas

    scan = Canvas(str(root / "scan.pdf"))
    scan.rect(50, 50, 400, 600, fill=1)
    scan.save()
    (root / "empty.txt").write_bytes(b"")
    (root / "blank.txt").write_bytes(b" \n\n ")
    (root / "noise.bin").write_bytes(random.Random(1).randbytes(5000))
    (root / "noise.txt").write_bytes(random.Random(2).randbytes(5000))
    (root / "named.docx").write_bytes(random.Random(3).randbytes(5000))
    (root / "large.txt").write_text("word " * 300_000)
    (root / "old.doc").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 2000)
    (root / "locked.docx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 500
                                       + "EncryptedPackage".encode("utf-16-le") + b"\0" * 500)
    (root / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    with zipfile.ZipFile(root / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("word/document.xml", b" " * 120_000_000)
    with zipfile.ZipFile(root / "plain.zip", "w") as archive:
        archive.writestr("a.txt", "inside")
    (root / "laughs.xml").write_text('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha">]><a>&x;</a>')
    (root / "copy of good.pdf").write_bytes(whole)
    (root / "broken.json").write_text("{")
    return {"locked.pdf": "encrypted", "cut.pdf": "corrupt", "scan.pdf": "no-text-layer", "empty.txt": "empty",
            "blank.txt": "empty", "noise.bin": "unknown-format", "noise.txt": "unknown-format", "named.docx": "corrupt",
            "large.txt": "too-large", "old.doc": "unsupported", "locked.docx": "encrypted",
            "photo.png": "no-text-layer", "bomb.docx": "zip-bomb", "plain.zip": "unsupported",
            "laughs.xml": "unsafe-xml", "good.pdf": "duplicate", "broken.json": "corrupt"}


def test_every_bad_file_is_set_aside_with_its_reason_and_stops_nobody(folder, store, make_pdf, flow):
    reasons = _bad_files(folder, make_pdf, flow)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "~$letter.docx").write_bytes(b"x")
    progress = Counting()
    made = ingest([folder], Ingest(max_mb=1, ocr=Ocr(engine=Off())), store=store, progress=progress)
    asides = read_set_aside(made)
    assert {a.path: a.reason for a in asides} == reasons
    assert all(a.detail for a in asides)
    assert [d.path for d in read_documents(made)] == ["a.txt", "b.md", "copy of good.pdf", "sub/c.html"]
    assert made.summary["set_aside"] == dict(sorted(Counter(reasons.values()).items()))
    assert made.summary["ignored"] == 2 and made.summary["pages"] == 1
    assert progress.said[0] == "  set aside blank.txt: empty (no text found)" and len(progress.said) == 6
    assert progress.said[-1] == "  and 12 more; see them with: luthier show ingest"
    assert "save it as DOCX" in next(a.detail for a in asides if a.path == "old.doc")


BAD_READER = '''
import os
import time
from typing import ClassVar
from luthier.ingest import base
from luthier.plugins import register
from luthier.spec import Spec


class BadReader(Spec):
    """Does what bad parsers do."""

    version: ClassVar[int] = 1

    def accepts(self, source):
        return 9 if source.suffix == ".bad" else base.NO

    def read(self, source):
        text = source.read_bytes().decode()
        if text == "hang":
            time.sleep(60)
        if text == "eat":
            kept = [bytearray(1 << 20) for _ in range(100_000)]
        if text == "crash":
            os.abort()
        if text == "import":
            import no_such_parser.deep
        if text == "raise":
            raise ArithmeticError("a bug")
        yield source.document(reader="bad", media="text/bad", spans=[base.Span(text=text)])
'''


def test_a_reader_of_the_users_own_and_what_its_failures_cost(folder, store):
    """A plug-in is one file; hanging, eating memory, crashing and raising cost one file each."""
    project = folder.parent
    (project / "my_reader.py").write_text(BAD_READER)
    (project / "luthier.yaml").write_text("readers:\n- kind: my_reader:BadReader\ntimeout_s: 8\nmemory_mb: 300\n")
    spec = load_yaml(project / "luthier.yaml", Ingest)
    for text in ("hang", "eat", "crash", "raise", "fine"):
        (folder / f"{text}.bad").write_text(text)
    made = ingest([folder], spec, store=store)
    assert {a.path: a.reason for a in read_set_aside(made)} == {
        "hang.bad": "timeout", "eat.bad": "memory", "crash.bad": "crashed", "raise.bad": "error"}
    assert [d.path for d in read_documents(made)] == ["a.txt", "b.md", "fine.bad", "sub/c.html"]
    progress = Counting()
    (folder / "new.txt").write_text("Another file.")
    (folder / "hang.bad").unlink()
    ingest([folder], spec, store=store, progress=progress)
    (folder / "import.bad").write_text("import")
    with pytest.raises(MissingExtra, match=r"reading import.bad needs the Python package 'no_such_parser'; install it"):
        ingest([folder], spec, store=store)
    assert progress.read == 4, "what failed for want of time, memory or luck is tried again, what was read is not"


def test_links_and_pipes(folder, store):
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret words")
    (folder / "escape.txt").symlink_to(outside / "secret.txt")
    (folder / "folder").symlink_to(outside)
    (folder / "dangling.txt").symlink_to(folder / "nowhere.txt")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    (folder / "again").symlink_to(folder / "sub")
    (folder / "same.txt").symlink_to(folder / "a.txt")
    os.mkfifo(folder / "pipe.txt")
    made = ingest([folder], store=store)
    assert {a.path: a.reason for a in read_set_aside(made)} == {
        "escape.txt": "unsafe-link", "folder": "unsafe-link", "dangling.txt": "unreadable", "loop.txt": "unreadable",
        "pipe.txt": "unknown-format", "same.txt": "duplicate"}
    assert "secret" not in "".join(d.text for d in read_documents(made))


def test_a_file_without_permission_is_set_aside(folder, store, monkeypatch):
    from luthier.ingest import _files

    real = _files.file_hash

    def refuse(path):
        if path.name == "a.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(_files, "file_hash", refuse)  # tests may run as root, whom no permission stops
    made = ingest([folder], store=store)
    (aside,) = read_set_aside(made)
    assert (aside.path, aside.reason, aside.detail) == ("a.txt", "unreadable", "Permission denied")


def test_include_and_exclude(folder, store):
    def names(**fields):
        return [d.path for d in read_documents(ingest([folder], Ingest(**fields), store=store))]

    assert names(exclude=("sub",)) == names(exclude=("*.html",)) == names(exclude=("sub/*",)) == ["a.txt", "b.md"]
    assert names(include=("*.md", "sub/*")) == ["b.md", "sub/c.html"]
    assert ingest([folder], Ingest(exclude=("sub",)), store=store).summary["ignored"] == 1


def test_several_sources_keep_their_names_apart(folder, store, tmp_path):
    other = tmp_path / "more" / "documents"
    other.mkdir(parents=True)
    (other / "a.txt").write_text("Another first document.")
    single = tmp_path / "single.txt"
    single.write_text("One file alone.")
    made = ingest([folder, other, single], store=store)
    assert [d.path for d in read_documents(made)] == [
        "documents-2/a.txt", "documents/a.txt", "documents/b.md", "documents/sub/c.html", "single.txt"]


def test_names_that_are_not_utf8(folder, store):
    path = os.fsencode(folder) + b"/caf\xe9.txt"
    with open(path, "w") as file:
        file.write("Words in a strangely named file.")
    made = ingest([folder], store=store)
    assert "strangely" in next(d for d in read_documents(made) if d.path == r"caf\xe9.txt").text
    assert not ingest([folder], store=store).fresh


def test_min_words_and_bad_pages(folder, store):
    (folder / "glued.txt").write_text("Thistextlostallofitsspacesinsomeoldconverterorother\n\n" * 5)
    (folder / "short.txt").write_text("Two words")
    kept = ingest([folder], Ingest(min_words=4), store=store)
    assert {a.path: a.reason for a in read_set_aside(kept)} == {"short.txt": "empty"}
    (warning,) = next(d for d in read_documents(kept) if d.path == "glued.txt").meta["page_warnings"]
    assert warning["warning"] == "glued-words" and warning["page"] is None and kept.summary["page_warnings"] == 1
    dropped = ingest([folder], Ingest(bad_pages="drop"), store=store)
    assert {a.path: a.detail for a in read_set_aside(dropped)} == {"glued.txt": "every page was dropped as garbled"}


def test_wrong_sources_and_useless_folders_say_what_to_do(folder, store, tmp_path):
    with pytest.raises(UsageError, match=r"there is no folder or file .*missing; create it"):
        ingest([tmp_path / "missing"], store=store)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"there are no documents in .*put PDF, DOCX"):
        ingest([empty], store=store)
    (empty / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    (empty / "b.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 2 files .* 1 corrupt \(a.png\): open.*1 empty \(b.txt\)"):
        ingest([empty], store=store)


def test_a_file_that_changes_while_it_is_read_is_not_believed(folder, store, monkeypatch):
    from luthier.ingest import _files

    real = _files.collect

    def collect(sources, spec):
        found = real(sources, spec)
        (folder / "a.txt").write_text("Changed a moment later, and longer than before.\n")
        return found

    monkeypatch.setattr(_files, "collect", collect)
    assert {a.path: a.reason for a in read_set_aside(ingest([folder], store=store))} == {"a.txt": "changed"}


def test_an_interrupted_run_does_not_lose_what_was_read(folder, store):
    class Stop(Counting):
        def track(self, *arguments, **named):
            manager = super().track(*arguments, **named)
            bar = manager.__enter__()
            outer, advance = self, bar.advance

            def stop(count=1, **shown):
                advance(count)
                if outer.read == 3:
                    raise KeyboardInterrupt

            bar.advance = stop
            from contextlib import nullcontext

            return nullcontext(bar)

    with pytest.raises(KeyboardInterrupt):
        ingest([folder], Ingest(workers=1), store=store, progress=Stop())
    progress = Counting()
    assert ingest([folder], store=store, progress=progress).fresh and progress.read == 1


def test_worker_count_does_not_change_the_result(folder, tmp_path):
    one, two = (ingest([folder], Ingest(workers=n), store=Store(tmp_path / str(n))) for n in (1, 2))
    assert one.id == two.id
    assert (one.path / "documents.jsonl").read_bytes() == (two.path / "documents.jsonl").read_bytes()


def test_specs_are_well_formed():
    for cls in READERS.kinds().values():
        check_spec(READERS, cls())
        assert isinstance(cls.version, int)
    assert {*READERS.kinds()} >= {"csv", "docx", "eml", "html", "json", "markdown", "pdf", "pptx", "text", "xlsx",
                                  "xml"}
    bare = [name for name in Ingest.model_fields if not Ingest.field_help().get(name)]
    assert not bare
    with pytest.raises(SpecError, match="did you mean 'timeout_s'"):
        parse(Ingest, {"timeouts": 3})
    with pytest.raises(SpecError, match="unknown reader kind 'pfd'; did you mean 'pdf'"):
        parse(Ingest, {"readers": ["pfd"]})


def test_a_full_copy_of_the_store_is_enough(folder, store, tmp_path):
    """The artifact and the cache hold no absolute paths of the store."""
    made = ingest([folder], store=store)
    shutil.move(store.root, tmp_path / "moved")
    moved = Store(tmp_path / "moved")
    began = time.process_time()
    assert not ingest([folder], store=moved).fresh
    assert time.process_time() - began < 1
    assert [d.path for d in read_documents(moved.find("ingest", made.id))] == ["a.txt", "b.md", "sub/c.html"]
