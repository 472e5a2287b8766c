"""Laws of the shipped example: the files are what the script makes, the facts agree, and the pairs are usable."""

import filecmp
import importlib.util
import json
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "examples" / "helpdesk"
DOCUMENTS = HERE / "documents"


@pytest.fixture(scope="module")
def maker():
    pytest.importorskip("reportlab", reason="the example's files are made with the dev extra")
    pytest.importorskip("pptx", reason="the example's files are made with the dev extra")
    spec = importlib.util.spec_from_file_location("make_documents", HERE / "make_documents.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_documents"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def test_committed_files_are_what_the_script_makes(maker, tmp_path):
    made = maker.make(tmp_path)
    assert len(made) == 9
    for path in made:
        committed = DOCUMENTS / path.relative_to(tmp_path)
        if path.suffix in (".docx", ".pptx", ".xlsx"):  # compressed: other zlib versions pack the same content anew
            assert contents(path) == contents(committed), path.name
        else:
            assert filecmp.cmp(path, committed, shallow=False), path.name


def contents(path):
    import zipfile

    with zipfile.ZipFile(path) as file:
        return {info.filename: (info.date_time, file.read(info)) for info in file.infolist()}


def test_the_folder_shows_every_format_and_three_honest_set_asides():
    files = [path for path in DOCUMENTS.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".pdf", ".docx", ".pptx", ".xlsx", ".html", ".md", ".txt", ".csv",
                                               ".eml"}
    empty = [path.name for path in files if path.stat().st_size == 0]
    assert empty == ["todo.txt"]
    original = DOCUMENTS / "policies" / "warranty-terms.docx"
    assert filecmp.cmp(original, DOCUMENTS / "policies" / "warranty-terms_copy.docx", shallow=False)
    pdfium = pytest.importorskip("pypdfium2", reason="reads the damaged PDF")
    with pytest.raises(pdfium.PdfiumError):
        pdfium.PdfDocument(DOCUMENTS / "archive" / "owners-manual-2024-damaged.pdf")
    assert len(pdfium.PdfDocument(DOCUMENTS / "manuals" / "owners-manual.pdf")) >= 3


def texts():
    """Every text of the example by name: the sources of the office files, and the plain documents."""
    plain = [path for path in DOCUMENTS.rglob("*") if path.suffix in (".html", ".md", ".txt", ".csv", ".eml")]
    return {path.name: path.read_text("utf-8") for path in [*(HERE / "sources").glob("*.md"), *plain]}


def test_the_amount_of_text_is_a_small_company_handbook():
    words = sum(len(re.sub(r"<[^>]+>", " ", text).split()) for text in texts().values())
    assert 10_000 <= words <= 16_000, words


@pytest.mark.parametrize(("subject", "pattern", "value"), [
    ("support phone", r"(?:phone on|call|phone to) (020 555 01[0-8]\d)", "020 555 0142"),
    ("partner workshops", r"(\d+) partner workshops", "63"),
    ("price of the fast charger", r"C4.{0,60}?(?:for |models,|models \| )(\d+)", "119"),
    ("price of a key", r"replacement key costs (\d+) euros|Battery key set[^,]*,[^,]*,(\d+)", "18"),
    ("Basic service", r"Basic (?:service )?(?:\| |costs )(\d+) euros", "69"),
    ("weight of the Fold 2", r"Fold 2(?! \|)[^.\n]{0,60}?(\d\d\.\d) kg|weighs (16\.\d) kg", "16.8"),
    ("belt life", r"(?:Belt replacement on the Cargo 7 \| |lasts about |rust, )(\d\d,\d{3}) km", "15,000"),
    ("battery PB-540", r"PB-540 (?:costs|\| 540 Wh.*\|) (\d+)(?: euros| \|)", "560"),
    ("Link Plus", r"Link Plus(?: costs |.*?plan of the .*?, | \| )(\d\.\d\d)", "3.90"),
])
def test_facts_agree_across_documents(subject, pattern, value):
    found = {name: {next(filter(None, hit.groups())) for hit in re.finditer(pattern, text)}
             for name, text in texts().items()}
    told = {name: values for name, values in found.items() if values}
    assert len(told) >= 2, (subject, told)
    assert set().union(*told.values()) == {value}, (subject, told)


def test_documents_that_change_a_fact_say_when(maker):
    """Prices of model year 2027 stand beside those of 2026 in the training slides; the price list has the new ones."""
    slides = (HERE / "sources" / "model-year-2027.md").read_text("utf-8")
    prices = (HERE / "sources" / "price-list-2027.md").read_text("utf-8")
    for model, new in re.findall(r"\| (\w+ \d) \| [\d,]+ euros \| ([\d,]+) euros", slides):
        assert re.search(rf"\| {model} \|.*\| {new.replace(',', '')} \|", prices), (model, new)


def test_pairs_are_chats_that_answer_from_the_documents():
    rows = [json.loads(line) for line in (HERE / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) >= 40
    assert len({row["messages"][0]["content"] for row in rows}) == len(rows)
    everything = " ".join(texts().values())
    for row in rows:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        answer = row["messages"][1]["content"]
        for number in re.findall(r"\d+(?:[.:,]\d+)*", answer):
            # 12 km too many at 1 euro each is arithmetic, not a quotation
            assert number in everything or number == "12", (number, answer)


def test_pairs_refuse_what_the_documents_do_not_hold():
    from luthier.task import Task

    answers = [json.loads(line)["messages"][1]["content"]
               for line in (HERE / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert answers.count(Task().refusal) >= 2
