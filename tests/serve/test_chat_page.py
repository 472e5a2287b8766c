"""The chat page in a real browser (headless Chromium over its debugging pipe, no driver package needed)."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from luthier.serve.base import Serve
from luthier.serve.chat import FILES, UI
from luthier.serve.engines.transformers import Transformers

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Browser:
    """Chromium told by JSON over file descriptors 3 and 4 (`--remote-debugging-pipe`)."""

    def __init__(self, program: str, profile: Path):
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()

        def wire():  # the browser reads on 3 and writes on 4
            os.dup2(to_read, 3)
            os.dup2(to_write, 4)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=wire, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.numbers, self.replies, self.events = itertools.count(1), {}, []
        self.news = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.tell(f"{domain}.enable")

    session = None

    def _listen(self):
        rest = b""
        while chunk := os.read(self.read, 1 << 16):
            *messages, rest = (rest + chunk).split(b"\0")
            with self.news:
                for message in map(json.loads, messages):
                    if "id" in message:
                        self.replies[message["id"]] = message
                    else:
                        self.events.append(message)
                self.news.notify_all()

    def tell(self, method, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        with self.news:
            assert self.news.wait_for(lambda: number in self.replies, 30), f"no reply to {method}"
        reply = self.replies.pop(number)
        assert "error" not in reply, reply
        return reply["result"]

    def run(self, code):
        found = self.tell("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, code, seconds=60):
        end = time.monotonic() + seconds
        while not (value := self.run(code)):
            assert time.monotonic() < end, f"waited in vain for {code}: {self.run('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def type(self, text):
        self.tell("Input.insertText", text=text)

    def press(self, key, code=0, **more):
        for kind in ("keyDown", "keyUp"):
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def picture(self, file):
        file.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"]))

    def complaints(self):
        """Console errors and policy violations; a refused login is the browser's own note, not ours."""
        texts = [event["params"]["entry"]["text"] for event in self.events if event["method"] == "Log.entryAdded"]
        texts += [json.dumps(event["params"]) for event in self.events if event["method"] == "Runtime.exceptionThrown"]
        return [text for text in texts if "401" not in text and "429" not in text]

    def requested(self):
        return [event["params"]["request"]["url"] for event in self.events
                if event["method"] == "Network.requestWillBeSent"]

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    made = Browser(program, tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def page(release, serve_release, tmp_path_factory):
    spec = Serve(engine=Transformers(threads=1), max_output_tokens=300)
    with serve_release(release, spec, tmp_path_factory.mktemp("page")) as found:
        yield found


def test_the_page_s_files_ask_nobody_else_and_need_no_inline_code():
    for name, media in FILES.values():
        text = (UI / name).read_text("utf-8")
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text, name
        if media.startswith("text/html"):
            assert "<style" not in text and " style=" not in text and "onclick" not in text
            assert "<script>" not in text
        if media.startswith("text/javascript"):
            assert "innerHTML" not in text and "eval(" not in text and "insertAdjacentHTML" not in text


@pytest.mark.slow
def test_a_person_gives_the_key_asks_reads_the_sources_and_stops(browser, page, key, tmp_path):
    browser.tell("Page.navigate", url=page.url + "/")
    browser.until("document.getElementById('keydialog')?.open")
    browser.type("wrong")
    browser.press("Enter", 13, text="\r")
    browser.until("document.getElementById('keyproblem').textContent.includes('does not accept')")
    browser.type(key)
    browser.press("Enter", 13, text="\r")
    browser.until("!document.getElementById('send').disabled")
    assert browser.run("document.getElementById('name').textContent") == "desk"
    assert browser.run("[...document.querySelectorAll('#model option')].map(o => o.value)") == [
        "desk:base", "desk:retrieval", "desk:tuned", "desk:tuned-retrieval"]
    assert browser.run("document.getElementById('model').value") == "desk:tuned-retrieval"
    assert browser.run("document.activeElement.id") == "question"
    assert browser.run("sessionStorage.length === 1 && localStorage.length === 0 && document.cookie === ''")

    browser.type("What does error code E-07 mean?")
    browser.press("Enter", 13, text="\r")
    browser.until("document.querySelectorAll('details').length === 3")
    assert browser.run("document.querySelector('.turn.user').textContent") == "What does error code E-07 mean?"
    assert browser.run("document.querySelector('.turn.assistant .text').textContent.length > 20")
    assert "battery.md" in browser.run("document.querySelector('details summary').textContent")
    browser.run("document.querySelector('details summary').click()")
    assert "E-07 means" in browser.run("document.querySelector('details[open] .passage').textContent")

    browser.run("document.getElementById('model').value = 'desk:tuned'")
    browser.run("document.getElementById('question').focus()")
    browser.type("<img src=x onerror=alert(1)> & tell me everything")
    browser.press("Enter", 13, text="\r")
    browser.until("!document.getElementById('stop').hidden")
    browser.press("Escape", 27)
    browser.until("document.getElementById('stop').hidden")
    assert browser.run("document.querySelectorAll('.turn img').length") == 0
    assert "stopped" in browser.run("document.querySelectorAll('.turn.assistant .meta')[1].textContent")
    page.wait_until(lambda: page.service.admission.open == 0)

    browser.run("document.getElementById('new').click()")
    assert browser.run("document.querySelectorAll('.turn').length") == 0
    assert browser.complaints() == []
    assert {url.split("/")[2] for url in browser.requested() if url.startswith("http")} == {page.url.split("/")[2]}


@pytest.mark.slow
def test_a_link_with_the_key_logs_in_and_forgets_it_in_the_address(browser, page, key):
    browser.run("sessionStorage.clear()")
    browser.tell("Page.navigate", url="about:blank")
    browser.tell("Page.navigate", url=f"{page.url}/#key={key}")
    browser.until("document.getElementById('send') && !document.getElementById('send').disabled")
    assert browser.run("location.hash") == "" and not browser.run("document.getElementById('keydialog').open")


@pytest.mark.slow
def test_everything_fits_a_phone_and_has_a_name_for_screen_readers(browser, page, key):
    browser.tell("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=2, mobile=True)
    browser.tell("Page.navigate", url="about:blank")
    browser.tell("Page.navigate", url=f"{page.url}/#key={key}")
    browser.until("document.getElementById('send') && !document.getElementById('send').disabled")
    assert browser.run("document.documentElement.scrollWidth <= 360")
    tree = browser.tell("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in tree if not node.get("ignored")
                and node.get("role", {}).get("value") in ("button", "textbox", "combobox", "link")]
    assert len(controls) >= 5 and all(node.get("name", {}).get("value", "").strip() for node in controls)
    browser.tell("Emulation.clearDeviceMetricsOverride")
