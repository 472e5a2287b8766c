"""The page: nothing without the key, everything by keyboard, in a real browser; what is pressed is on disk."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
from review_kit import desk, project
from test_chat_page import BROWSERS, Browser

from luthier.review.base import create_app
from luthier.review.http import FILES, MAX_BODY

KEY = "test-key-of-a-decent-length"


def app_of(root: Path, **more):
    return create_app(desk(root), sources=["documents"], key=KEY, by="ann", name="desk", **more)


@pytest.fixture()
def client(tmp_path):
    from starlette.testclient import TestClient

    return TestClient(app_of(project(tmp_path / "desk")), base_url="http://127.0.0.1",
                      headers={"Authorization": f"Bearer {KEY}"})


def test_the_page_s_files_ask_nobody_else_and_need_no_inline_code():
    for file, media in FILES.values():
        text = Path(file).read_text("utf-8")
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text, file
        if media.startswith("text/html"):
            assert "<style" not in text and " style=" not in text and "onclick" not in text and "<script>" not in text
        if media.startswith("text/javascript"):
            assert "innerHTML" not in text and "eval(" not in text and "insertAdjacentHTML" not in text


def test_nothing_is_told_without_the_key_or_under_another_name(client):
    for path in ("/api/state", "/api/item?queue=privacy&id=name", "/api/image?queue=corrections&id=photo"):
        assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get(path, headers={"Host": "evil.example"}).status_code == 403
    body = {"queue": "privacy", "id": "name", "verdict": "accept", "by": "ann"}
    assert client.post("/api/decide", json=body, headers={"Authorization": ""}).status_code == 401
    plain = {"Content-Type": "text/plain"}
    assert client.post("/api/decide", content=json.dumps(body), headers=plain).status_code == 400
    assert client.post("/api/decide", json={**body, "value": "x" * MAX_BODY}).status_code == 413
    page = client.get("/", headers={"Authorization": ""})
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert client.get("/api/state").json()["queues"][3]["decided"] == 0


def test_a_mistake_is_one_sentence(client):
    for path, body, status, said in (
            ("/api/decide", {"queue": "privacy", "id": "no", "verdict": "accept", "by": "a"}, 400, "no item 'no'"),
            ("/api/decide", {"queue": "privacy", "id": "name", "verdict": "x", "by": "a"}, 400, "verdict"),
            ("/api/decide", {"queue": "labels", "id": "r0", "verdict": "edit", "value": ["x"], "by": "a"}, 400,
             "none of"),
            ("/api/undo", {"by": "a"}, 400, "nothing yet")):
        reply = client.post(path, json=body)
        assert reply.status_code == status and said in reply.json()["error"]["message"]
    assert client.get("/api/item?queue=privacy&id=no").status_code == 400
    assert client.get("/api/state?queue=no").status_code == 400
    assert client.get("/api/image?queue=privacy&id=name").status_code == 404


@contextlib.contextmanager
def served(root: Path):
    import uvicorn

    from luthier.serve.base import listen

    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app_of(root), log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.mark.slow
def test_a_person_decides_everything_by_keyboard(tmp_path):
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    root = project(tmp_path / "desk")
    browser = Browser(program, tmp_path / "profile")
    place = "document.getElementById('place').textContent"

    def said(queue):
        file = root / "labels" / f"{queue}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def until(check):
        end = time.monotonic() + 30
        while not check():
            assert time.monotonic() < end, browser.run("document.body.innerText")
            time.sleep(0.05)

    try:
        with served(root) as url:
            browser.tell("Page.navigate", url=f"{url}/#key={KEY}")
            browser.until("document.getElementById('line')?.hidden === false")  # the line of the photo, cut out
            assert "photo.png" in browser.run(place) and browser.run("location.hash") == ""
            browser.press("e")
            browser.run("document.getElementById('value').select()")
            browser.type("Kind regards, <b>Ada</b>")
            browser.press("Enter", 13, modifiers=2)
            until(lambda: said("corrections"))
            browser.until(f"{place}.includes('scan.pdf') && document.getElementById('line').hidden === false")
            assert browser.run("parseFloat(document.getElementById('box').style.left)") == pytest.approx(12.1, abs=0.1)
            browser.press("s")  # skipped: comes again
            browser.until(f"{place}.startsWith('2 of 3')")
            browser.press("a")
            until(lambda: len(said("corrections")) == 2)
            browser.press("u")
            until(lambda: len(said("corrections")) == 3)
            browser.until(f"document.getElementById('news').textContent === 'Taken back.' && {place}.includes('of 3')")
            assert [one.get("verdict", "undo") for one in said("corrections")] == ["edit", "accept", "undo"]
            assert [said("corrections")[0][key] for key in ("value", "by")] == ["Kind regards, <b>Ada</b>", "ann"]
            for keys, queue, file in (("]a", "pairs", "scan.pdf"), ("]r", "duplicates", "a.md"),
                                      ("]2", "privacy", "mail.eml"), ("]3", "decisions", "data.csv")):
                browser.press(keys[0])
                browser.until(f"{place}.startsWith('1 of') && {place}.includes('{file}') && "
                              "document.querySelector('nav [aria-current=true]').textContent.startsWith("
                              f"'{'Labels' if queue == 'decisions' else queue.title()}')")
                browser.until("document.getElementById('reason').textContent !== 'The engine is unsure of this line.'")
                browser.press(keys[1])
                until(lambda queue=queue: said(queue))
            assert said("pairs")[0]["verdict"] == "accept" and said("duplicates")[0]["verdict"] == "reject"
            assert said("privacy")[0]["value"] == "address" and said("decisions")[0]["labels"] == ["refund"]
            browser.until("document.getElementById('progress').innerText.includes('luthier run')")
            assert browser.run("document.querySelectorAll('main b').length") == 0
            browser.tell("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=2, mobile=True)
            assert browser.run("document.documentElement.scrollWidth <= 360")
            assert browser.complaints() == []
            assert {one.split("/")[2] for one in browser.requested() if one.startswith("http")} == {url.split("/")[2]}
    finally:
        browser.close()


@pytest.mark.slow
def test_the_command_serves_a_second_server_too_and_kill_9_loses_nothing(tmp_path):
    import httpx

    root = project(tmp_path / "desk")
    command = [str(Path(sys.executable).with_name("luthier")), "review", "-C", str(root), "--port", "0", "--by", "ann"]
    servers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        urls = [next(line.split()[1].partition("#")[0] for line in server.stderr if line.startswith("Open: "))
                for server in servers]
        key = (root / ".luthier/review.key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        for at, url in enumerate(urls * 2):
            body = {"queue": "corrections", "id": f"line-{at % 3}", "verdict": "accept", "by": f"p{at}"}
            assert httpx.post(f"{url}api/decide", json=body, headers=headers, timeout=30).status_code == 200
        servers[0].send_signal(signal.SIGKILL)
        state = httpx.get(f"{urls[1]}api/state", headers=headers, timeout=30).json()
        assert state["queues"][0]["decided"] == 3
        assert len((root / "labels/corrections.jsonl").read_text().splitlines()) == 4
        assert (root / ".luthier/review.key").stat().st_mode & 0o077 == 0
    finally:
        for server in servers:
            server.kill()
            server.wait(20)
            server.stderr.close()


def test_the_command_tells_exports_and_imports(tmp_path):
    from typer.testing import CliRunner

    from luthier.cli import app

    root, runner = project(tmp_path / "desk"), CliRunner()

    def call(*words):
        return runner.invoke(app, ["review", "-C", str(root), *words])

    assert "4 open, 0 of 4 decided" in call("--status").stdout
    out = str(tmp_path / "items.jsonl")
    assert json.loads(call("--export", out, "--queue", "privacy", "--json").stdout)["items"] == 1
    Path(out).write_text('{"id": "name", "verdict": "accept"}\n{"id": "no", "verdict": "accept"}\n')
    told = json.loads(call("--import", out, "--by", "ann", "--json").stdout)
    assert (told["taken"], told["refused"]) == (1, {"unknown-id": 1})
    state = json.loads(call("--json").stdout)
    assert state["queues"][3]["people"] == ["ann"] and "1 privacy hit:" in state["changes"][0]
    assert "there is no queue 'x'" in str(call("--queue", "x").exception)
    assert "belongs to" in str(call("--format", "argilla").exception)
