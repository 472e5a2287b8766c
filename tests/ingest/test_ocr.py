"""Pictures through `ingest`: which pages are read, what is in doubt, what people decide. A stand-in for Tesseract reads
what the test wrote for it; the embedded engine reads one real page."""

import http.server
import json
import stat
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

from luthier.ingest.base import Ingest, ingest, read_documents, read_set_aside
from luthier.ingest.ocr.base import OCR_ENGINES, EngineFailed, Ocr, Reading, TextLine
from luthier.ingest.ocr.corrections import Judged, edit_distance, error_rate
from luthier.ingest.ocr.endpoint import Endpoint
from luthier.ingest.ocr.tesseract import Tesseract
from luthier.prepare.unread import drop_unread
from luthier.queues import Decided, read_review
from luthier.store import Store
from luthier.testing import check_spec
from luthier.types import Dropped

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PROSE = "The technician opens the inlet valve slowly and waits until the gauge reads less than two bar."


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def program(tmp_path):
    """A program that answers like Tesseract; `say(lines)` sets what it reads, `calls()` counts the pages it got."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "tesseract"
    file.write_text(f"""#!{sys.executable}
import pathlib, sys
here = pathlib.Path(__file__).parent
if "--version" in sys.argv:
    print("tesseract 5.3.0")
else:
    with open(here / "calls", "a") as calls:
        calls.write("x")
    sys.stdout.write((here / "said").read_text("utf-8"))
""")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)

    class Program:
        ocr = Ocr(engine=Tesseract(command=str(file)))

        def say(self, *lines):
            rows = ["level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"]
            for at, (text, confidence) in enumerate(lines):
                x = 100
                for word in text.split():
                    place = f"{x}\t{100 + 50 * at}\t{12 * len(word)}\t30"
                    rows.append(f"5\t1\t1\t1\t{at}\t1\t{place}\t{confidence}\t{word}")
                    x += 12 * len(word) + 10
            (folder / "said").write_text("\n".join(rows) + "\n", "utf-8")

        def calls(self):
            return len((folder / "calls").read_text()) if (folder / "calls").exists() else 0

    return Program()


def picture_of(text, size=(900, 400)):
    from PIL import Image, ImageDraw

    image = Image.new("L", size, 255)
    ImageDraw.Draw(image).text((60, 60), text, fill=0)
    return image


@pytest.fixture
def scan(tmp_path):
    """A PDF: a page with text, a page that is a picture."""
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    folder = tmp_path / "in"
    folder.mkdir()
    canvas = Canvas(str(folder / "scan.pdf"), pagesize=(595, 842))
    canvas.drawString(72, 700, PROSE)
    canvas.showPage()
    canvas.drawImage(ImageReader(picture_of("unread")), 0, 0, 595, 842)
    canvas.save()
    return folder


def test_only_the_page_without_text_is_read_and_only_once(scan, store, program):
    program.say(("Pumps are checked weekly", 96), ("by the operator.", 92))
    made = ingest([scan], Ingest(workers=1, ocr=program.ocr), store=store)
    (document,) = read_documents(made)
    assert [(span.page, span.text) for span in document.spans] == [
        (1, PROSE), (2, "Pumps are checked weekly by the operator.")]
    span = document.spans[1]
    assert span.box == (36.0, 36.0, 137.5, 64.8)  # 100 pixels at 200 dpi are 36 points
    assert 0.92 < span.confidence < 0.96 and not span.doubt and document.spans[0].confidence == 1.0
    assert "pages_without_text" not in document.meta
    (about,) = document.meta["ocr"]
    assert (about["page"], about["why"], about["engine"]) == (2, "no-text", "tesseract")
    assert made.summary["ocr"]["pages"] == 1 and program.calls() == 1 and read_review(made.path) == []
    assert ingest([scan], Ingest(workers=1, ocr=program.ocr), store=store).id == made.id
    again = ingest([scan], Ingest(workers=1, ocr=program.ocr.but(min_confidence=0.95)), store=store)
    assert again.id != made.id and again.summary["ocr"]["in_doubt"] == 1 and program.calls() == 1


def test_the_pages_to_read_are_counted_before_anything_is_read(scan, store, program):
    from luthier.ingest.ocr.forecast import pages_to_read

    spec = Ingest(workers=1, ocr=program.ocr)
    picture_of("two").save(scan / "two.tif", save_all=True, append_images=[picture_of("pages")])
    picture_of("icon", size=(16, 16)).save(scan / "icon.png")
    (scan / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    (scan / "note.txt").write_text(PROSE, "utf-8")
    assert pages_to_read([scan], spec) == 3 and program.calls() == 0  # a page of the PDF, both of the image
    assert pages_to_read([scan], Ingest(ocr=Ocr(engine="off"))) == 0
    program.say((PROSE, 96))
    made = ingest([scan], spec, store=store)
    assert made.summary["ocr"]["read_now"] == program.calls() == 3 and made.summary["ocr"]["seconds"] > 0
    picture_of("new").save(scan / "new.png")
    assert pages_to_read([scan], spec, made) == 1


def test_a_line_in_doubt_waits_until_a_person_decides_and_the_decision_outlives_a_new_reading(scan, store, program):
    program.say(("Pumps are checked weekly", 96), ("bv the opcrator.", 51))
    spec = Ingest(workers=1, ocr=program.ocr)
    made = ingest([scan], spec, store=store)
    (document,) = read_documents(made)
    assert [span.doubt for span in document.spans] == ["", "low-confidence"]
    (item,) = read_review(made.path)
    assert (item.queue, item.text, item.page, item.where) == ("corrections", "bv the opcrator.", 2, "scan.pdf, page 2")
    kept, dropped = [], []
    for one in drop_unread([document]):
        (dropped if isinstance(one, Dropped) else kept).append(one)
    assert [drop.reason for drop in dropped] == ["low-confidence"]
    assert [span.text for span in kept[0].item.spans] == [PROSE, ""]
    warnings = {(one["page"], one["warning"]) for one in document.meta["page_warnings"]}
    assert (2, "ocr-low-confidence") in warnings

    decided = Decided(id=item.id, verdict="edit", value="by the operator.", text=item.text, where=item.where)
    settled = ingest([scan], spec, store=store, corrections=[decided])
    (document,) = read_documents(settled)
    assert document.spans[1].text == "Pumps are checked weekly by the operator." and not document.spans[1].doubt
    assert read_review(settled.path) == [] and program.calls() == 1
    rate = settled.summary["ocr"]["error_rate"]["all"]
    assert rate == {"cer": round(2 / 16, 4), "lines": 1} and settled.summary["ocr"]["decided"] == 1

    program.say(("Pumps are checked weekly", 96), ("bv the opcrater.", 45))  # another version reads otherwise
    changed = ingest([scan], Ingest(workers=1, ocr=program.ocr.but(dpi=150)), store=store, corrections=[decided])
    assert program.calls() == 2
    assert read_documents(changed)[0].spans[1].text.endswith("by the operator.")
    refused = ingest([scan], spec, store=store, corrections=[Decided(id=item.id, verdict="reject")])
    assert read_documents(refused)[0].spans[1].text == "Pumps are checked weekly"


def test_unsure_text_is_used_where_the_user_says_so_and_still_asked_about(scan, store, program):
    program.say(("bv the opcrator.", 51))
    made = ingest([scan], Ingest(workers=1, ocr=program.ocr.but(use_unsure=True)), store=store)
    assert [span.doubt for span in read_documents(made)[0].spans] == ["", ""] and len(read_review(made.path)) == 1


def test_a_broken_text_layer_yields_to_a_better_reading_only(tmp_path, store, program):
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(tmp_path / "hidden.pdf"), pagesize=(595, 842))
    canvas.drawImage(ImageReader(picture_of("x")), 0, 0, 595, 842)
    for row in range(4):
        canvas.drawString(72, 700 - 20 * row, "tI1e r|ni 1i0o vvvt{ xqzt nmkptrs~ q p b l tI1e r|ni 1i0o")
    canvas.save()
    program.say((PROSE, 95), (PROSE, 95))
    (document,) = read_documents(ingest([tmp_path / "hidden.pdf"], Ingest(workers=1, ocr=program.ocr), store=store))
    assert document.text == f"{PROSE} {PROSE}" and document.meta["ocr"][0]["why"] == "poor-text"
    program.say(("q~x zz| 1I1l", 60))
    again = ingest([tmp_path / "hidden.pdf"], Ingest(workers=1, ocr=program.ocr.but(dpi=100)), store=store)
    (document,) = read_documents(again)
    assert "r|ni" in document.text and "ocr" not in document.meta


def test_images_are_documents_with_all_their_pages_and_bad_ones_cost_themselves(tmp_path, store, program):
    folder = tmp_path / "in"
    folder.mkdir()
    first = picture_of("one")
    first.save(folder / "two.tif", save_all=True, append_images=[picture_of("two", (900, 500))])
    picture_of("one", (900, 600)).convert("RGBA").save(folder / "b.png")
    picture_of("dot", (16, 16)).save(folder / "icon.gif")
    huge = bytearray((folder / "b.png").read_bytes())
    huge[16:24] = (90_000).to_bytes(4, "big") * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    (folder / "huge.png").write_bytes(bytes(huge))
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(50))
    program.say(("Pumps are checked weekly", 96))
    made = ingest([folder], Ingest(workers=1, ocr=program.ocr), store=store)
    assert [(d.path, d.media, d.meta["pages"]) for d in read_documents(made)] == [
        ("b.png", "image/png", 1), ("two.tif", "image/tiff", 2)]
    assert [span.page for span in read_documents(made)[1].spans] == [1, 2]
    assert read_documents(made)[0].spans[0].box == (100.0, 100.0, 382.0, 130.0)
    assert {aside.path: aside.reason for aside in read_set_aside(made)} == {
        "icon.gif": "empty", "huge.png": "too-many-pixels", "cut.jpg": "corrupt"}
    assert program.calls() == 3


def test_without_an_engine_scans_are_set_aside_with_advice_and_read_once_one_is_there(scan, store, program):
    picture_of("one").save(scan / "photo.png")
    missing = Ingest(workers=1, ocr=Ocr(engine=Tesseract(command="no-such-program")))
    made = ingest([scan], missing, store=store)
    (aside,) = read_set_aside(made)
    assert aside.reason == "no-text-layer" and "pip install 'luthier[ocr]'" in aside.detail
    assert read_documents(made)[0].meta["pages_without_text"] == [2]
    program.say(("Pumps are checked weekly", 96))
    assert len(read_documents(ingest([scan], Ingest(workers=1, ocr=program.ocr), store=store))) == 2


def test_a_failing_engine_is_told_and_tried_again(tmp_path, store, program):
    picture_of("one").save(tmp_path / "photo.png")
    (tmp_path / "a.txt").write_text("A text that can be read.")
    (tmp_path / "bin" / "said").unlink(missing_ok=True)  # the program fails
    spec = Ingest(workers=1, ocr=program.ocr, include=("*.png", "*.txt"))
    made = ingest([tmp_path / "photo.png", tmp_path / "a.txt"], spec, store=store)
    (aside,) = read_set_aside(made)
    assert aside.reason == "ocr-failed" and "tesseract" in aside.detail
    program.say(("Pumps are checked weekly", 96))
    later = ingest([tmp_path / "photo.png", tmp_path / "a.txt"], spec.but(min_words=2), store=store)
    assert not read_set_aside(later) and program.calls() == 2


# ------------------------------------------------------------------------------------------------------------ engines


@pytest.fixture
def endpoint():
    """A local OpenAI-compatible server: (spec, requests seen, what it answers)."""
    seen, answer = [], {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers.get("Authorization"), body))
            self.send_response(answer.get("status", 200))
            self.end_headers()
            self.wfile.write(json.dumps(answer.get("body", {})).encode())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    yield Endpoint(url=url, model="vision", key_env="OCR_TEST_KEY"), seen, answer
    server.shutdown()
    server.server_close()


def test_an_endpoint_gets_the_page_and_its_probabilities_become_confidence(endpoint, monkeypatch):
    spec, seen, answer = endpoint
    monkeypatch.setenv("OCR_TEST_KEY", "secret")
    tokens = [("Dear", 0.9), (" Sir", 0.4), ("\n", 1.0), ("we [?]", 0.9)]
    answer["body"] = {"choices": [{"finish_reason": "stop", "message": {"content": "Dear Sir\nwe [?]"}, "logprobs": {
        "content": [{"token": token, "logprob": float(np.log(p))} for token, p in tokens]}}]}
    reading = spec.read(np.full((4000, 100), 255, np.uint8))
    assert [(line.text, round(line.confidence, 3)) for line in reading.lines] == [("Dear Sir", 0.6), ("we [?]", 0.0)]
    path, key, body = seen[0]
    assert path == "/v1/chat/completions" and key == "Bearer secret" and body["model"] == "vision"
    assert body["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    answer["body"]["choices"][0]["finish_reason"] = "length"
    with pytest.raises(EngineFailed, match="cut off after 4000 tokens"):
        spec.read(np.zeros((50, 50), np.uint8))
    answer |= {"status": 503, "body": {"error": "busy"}}
    with pytest.raises(EngineFailed, match="HTTP 503"):
        spec.read(np.zeros((50, 50), np.uint8))
    monkeypatch.delenv("OCR_TEST_KEY")
    with pytest.raises(EngineFailed, match="OCR_TEST_KEY is not set"):
        spec.read(np.zeros((50, 50), np.uint8))


def test_auto_takes_the_cheap_engine_where_it_is_sure_and_the_likelier_reading_elsewhere(monkeypatch):
    from luthier.ingest.ocr.auto import Auto
    from luthier.ingest.ocr.rapidocr import RapidOcr

    said = {}
    for engine in (Tesseract, RapidOcr):
        monkeypatch.setattr(engine, "identity", lambda self: "here")
        monkeypatch.setattr(engine, "read", lambda self, image: Reading((said[self.kind],), self.kind))
    page = np.full((200, 200), 255, np.uint8)

    def read(cheap, strong):
        said.update(tesseract=TextLine("The gauge shows two bar", None, cheap),
                    rapidocr=TextLine("The gauge shows two bar", None, strong))
        return Auto().read(page).engine

    assert read(0.93, 0.99) == "tesseract"
    assert read(0.6, 0.9) == "rapidocr"
    assert read(0.6, 0.4) == "tesseract"


def test_specs_survive_yaml():
    vision = Endpoint(url="http://x/v1", model="m")
    for spec in (Ocr(), Ocr(engine=Tesseract(languages="deu")), Ocr(handwriting=vision)):
        assert Ocr.model_validate(spec.dump()) == spec
    for engine in (Tesseract(layout=11), vision):
        check_spec(OCR_ENGINES, engine)
    assert Ocr.model_validate({"engine": False}).engine.kind == "off"  # what YAML makes of `off`


def test_error_rate_is_edits_over_characters_with_an_interval():
    def slow(one, other):
        table = np.zeros((len(one) + 1, len(other) + 1), int)
        table[:, 0], table[0] = range(len(one) + 1), range(len(other) + 1)
        for i in range(1, len(one) + 1):
            for j in range(1, len(other) + 1):
                table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1,
                                  table[i - 1, j - 1] + (one[i - 1] != other[j - 1]))
        return table[-1, -1]

    rng = np.random.default_rng(0)

    def some():
        return "".join(rng.choice(list("abc "), rng.integers(0, 12)))

    pairs = [(some(), some()) for _ in range(100)]
    assert all(edit_distance(*pair) == slow(*pair) for pair in pairs)
    found = error_rate([Judged("a", False, "valvc", "valve"), *[Judged("a", False, "valve", "valve")] * 5])
    assert found["cer"] == round(1 / 30, 4) and found["lines"] == 6
    assert found["interval"][0] <= found["cer"] <= found["interval"][1]


# ------------------------------------------------------------------------------------------------------------ real data


@pytest.mark.skipif(not (DATA / "letters_1905").is_dir(), reason="no shared/data/letters_1905")
@pytest.mark.parametrize("name, kind", [("handwritten_Lettre59", True), ("typed_Lettre243", False)])
def test_handwritten_lines_of_a_letter_are_told_from_typed_ones(name, kind):
    import cv2

    from luthier.ingest.ocr._hand import handwritten

    file = DATA / "letters_1905" / f"{name}.jpg"
    lines = json.loads(file.with_suffix(".json").read_text("utf-8"))["lines"]
    lines = [line for line in lines if (line["kind"] in ("Handwritten", "Signature")) == kind]
    boxes = [(x, y, x + wide, y + high) for x, y, wide, high in (line["box"] for line in lines)]
    found = handwritten(cv2.imread(str(file)), boxes)
    assert len(boxes) >= 8 and sum(one == kind for one in found) >= 0.9 * len(found)


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "ocr_print").is_dir(), reason="no shared/data/ocr_print")
def test_the_embedded_engine_reads_a_printed_page_through_ingest(store, recall):
    pytest.importorskip("rapidocr")
    made = ingest([DATA / "ocr_print" / "phototest.tif"], Ingest(workers=1, ocr=Ocr()), store=store)
    (document,) = read_documents(made)
    truth = (DATA / "ocr_print" / "phototest.gold.txt").read_text("utf-8")
    assert recall(document.text, truth) >= 0.95 and not any(span.doubt or span.hand for span in document.spans)
