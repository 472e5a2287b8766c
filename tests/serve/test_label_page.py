"""The page of a release with labels in a real browser: a person types a text or chooses an image and sees why."""

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_chat_page import BROWSERS, Browser

from luthier.serve.base import Serve
from luthier.serve.chat import LABEL_FILES, UI


def test_the_page_s_files_ask_nobody_else_and_need_no_inline_code():
    for name, media in LABEL_FILES.values():
        text = (UI / name).read_text("utf-8")
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text, name
        if media.startswith("text/html"):
            assert "<style" not in text and " style=" not in text and "onclick" not in text
        if media.startswith("text/javascript"):
            assert "innerHTML" not in text and "eval(" not in text and "insertAdjacentHTML" not in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    made = Browser(program, tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


def model(task, labels, backbone):
    import torch

    from luthier.adapt.full import Full
    from luthier.adapt.head import Head
    from luthier.adapt.network import LabelModel, Network

    torch.manual_seed(0)
    network = Network(backbone, task, outputs=len(labels), head=Head(), pooling="mean", seed=0).eval()
    with torch.no_grad():
        network.head[-1].weight.normal_(std=1.0)
    return LabelModel(module=network, task=task, labels=labels, name="tiny", method=Full())


@pytest.mark.slow
def test_a_text_is_decided_and_its_words_are_marked(browser, serve_release, key, tmp_path):
    from label_release_kit import encoder, write_release

    from luthier.adapt.backbones.text import open_text_backbone
    from luthier.task import Task

    made = model(Task(type="classify"), ("login", "<b>parcel</b>"),
                 open_text_backbone(encoder(tmp_path / "encoder"), source="tiny"))
    with serve_release(write_release(tmp_path / "1", made), Serve(), tmp_path) as page:
        browser.tell("Page.navigate", url=f"{page.url}/#key={key}")
        browser.until("document.getElementById('ask')?.hidden === false")
        assert browser.run("document.getElementById('send').disabled") is True
        browser.run("document.getElementById('text').focus()")
        browser.type("😀 my parcel is late <i>now</i>")
        browser.until("!document.getElementById('send').disabled")
        browser.run("document.getElementById('send').click()")
        browser.until("document.querySelectorAll('.bars progress').length === 2")
        assert browser.run("document.querySelectorAll('.answer i, .answer .bars b').length") == 0
        marked = browser.run("[...document.querySelectorAll('.words mark')].map(m => m.textContent)")
        assert marked and set(marked) <= {"😀", "my", "parcel", "is", "late", "<", "i", ">", "now", "/"}
        assert browser.run("document.querySelector('.words').textContent") == "😀 my parcel is late <i>now</i>"
        browser.tell("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=2, mobile=True)
        assert browser.run("document.documentElement.scrollWidth <= 360")
        browser.tell("Emulation.clearDeviceMetricsOverride")
        assert browser.complaints() == []
        hosts = {url.split("/")[2] for url in browser.requested() if url.startswith("http")}
        assert hosts == {page.url.split("/")[2]}


@pytest.mark.slow
def test_an_image_is_decided_and_covered_by_its_map(browser, serve_release, key, tmp_path):
    from label_release_kit import picture, write_release

    from luthier.adapt.backbones.image_processor import ImageProcessor
    from luthier.adapt.backbones.lite0 import Lite0
    from luthier.task import Task

    made = model(Task(type="image"), ("cat", "dog"), Lite0(ImageProcessor(size=32)))
    with serve_release(write_release(tmp_path / "1", made), Serve(), tmp_path) as page:
        browser.tell("Page.navigate", url="about:blank")
        browser.events.clear()  # the page before lost its server
        browser.tell("Page.navigate", url=f"{page.url}/#key={key}")
        browser.until("document.getElementById('drop') && !document.getElementById('drop').hidden"
                      " && !document.getElementById('ask').hidden")
        (tmp_path / "cat.png").write_bytes(picture())
        found = browser.tell("Runtime.evaluate", expression="document.getElementById('file')")
        browser.tell("DOM.setFileInputFiles", files=[str(tmp_path / "cat.png")],
                     objectId=found["result"]["objectId"])
        browser.until("!document.getElementById('send').disabled && !document.getElementById('preview').hidden")
        browser.run("document.getElementById('send').click()")
        browser.until("document.querySelectorAll('#heat div').length === 49")
        assert json.dumps(browser.complaints()) == "[]"
