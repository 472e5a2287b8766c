"""Starting and stopping: what a person sees when it works, when it cannot, and when it is told to end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from luthier.errors import ModelError, ServeError, StoreError, UsageError
from luthier.serve.base import Serve, create_app, serve
from luthier.serve.engines.transformers import Transformers

SPEC = Serve(engine=Transformers(threads=1), port=0)


def test_a_port_that_is_taken_is_one_sentence(release, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port} on 127.0.0.1 is taken.*--port") as error:
            serve(release, SPEC.but(port=port), root=tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / ".luthier").exists()  # nothing was begun


def test_a_host_that_is_not_ours_is_one_sentence(release, tmp_path):
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(ServeError, match=r"cannot listen on.*serve\.host"):
            serve(release, SPEC.but(host=host), root=tmp_path)


def test_a_folder_that_is_no_release_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="is not a release folder"):
        serve(tmp_path, SPEC, root=tmp_path)


def test_a_release_whose_files_changed_is_not_served(release, tmp_path):
    copy = tmp_path / "release" / "1"
    shutil.copytree(release, copy)
    with (copy / "model" / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(StoreError, match=r"config.json is changed"):
        serve(copy, SPEC, root=tmp_path)


def test_a_model_that_cannot_be_loaded_ends_the_server_with_a_sentence(release, tmp_path, monkeypatch):
    def broken(*_):
        raise ModelError("these weights are damaged")

    monkeypatch.setattr("luthier.serve.engines._transformers.TransformersEngine.load", broken)
    with pytest.raises(ModelError, match="damaged"):
        serve(release, SPEC, root=tmp_path)


def test_systems_that_the_release_lacks_are_named(release, tmp_path):
    import json

    record = json.loads((release / "release.json").read_text())
    copy = tmp_path / "release" / "1"
    shutil.copytree(release, copy)
    (copy / "release.json").write_text(json.dumps({**record, "systems": ["base", "retrieval"], "choice": "retrieval"}))
    with pytest.raises(UsageError, match=r"has no tuned; it offers base, retrieval"):
        create_app(copy, SPEC.but(systems=("tuned",)), root=tmp_path)


def test_while_loading_health_and_requests_say_503(release, serve_release, tmp_path, key, monkeypatch):
    go = threading.Event()
    load = "luthier.serve.service.Service._load"
    from luthier.serve.service import Service

    real = Service._load
    monkeypatch.setattr(load, lambda self: (go.wait(20), real(self)))
    with serve_release(release, SPEC, tmp_path, wait=False) as live:
        live.wait_until(lambda: _status(f"{live.url}/healthz") == 503)
        assert httpx.get(f"{live.url}/healthz").json() == {"status": "loading"}
        reply = httpx.post(f"{live.url}/v1/chat/completions", json={}, headers={"Authorization": f"Bearer {key}"})
        assert reply.status_code == 503 and reply.headers["retry-after"] == "2"
        assert reply.json()["error"]["code"] == "loading"
        go.set()
        live.wait_until(lambda: _status(f"{live.url}/healthz") == 200, 30)


def _status(url):
    try:
        return httpx.get(url).status_code
    except httpx.HTTPError:
        return None


def test_sigterm_lets_a_running_answer_finish_and_takes_no_new_one(release, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = ("import sys; from pathlib import Path; from luthier.serve.base import Serve, serve; "
            "from luthier.serve.engines.transformers import Transformers as T; "
            f"serve(Path(sys.argv[1]), Serve(port={port}, engine=T(threads=1), max_output_tokens=900), "
            "root=Path(sys.argv[2]))")
    environment = {name: value for name, value in os.environ.items() if name != "LUTHIER_API_KEY"}
    process = subprocess.Popen([sys.executable, "-c", code, str(release), str(tmp_path)], stderr=subprocess.PIPE,
                               text=True, env={**environment, "OMP_NUM_THREADS": "1"})
    try:
        end = time.monotonic() + 60
        while _status(f"http://127.0.0.1:{port}/healthz") != 200:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        key = (tmp_path / ".luthier" / "serve.key").read_text().strip()
        body = {"model": "desk:tuned", "stream": True, "messages": [{"role": "user", "content": "Tell me all. " * 5}]}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=30) as reply:
            lines = reply.iter_lines()
            first = next(lines)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert first.startswith("data: ") and rest[-1] == "data: [DONE]" and '"finish_reason":"' in rest[-2]
        assert process.wait(timeout=20) == 0
        assert _status(f"http://127.0.0.1:{port}/healthz") is None
        said = process.stderr.read()
        assert f"Serving desk/1 at http://127.0.0.1:{port}" in said and "serve.key" in said
        assert key not in said and "Traceback" not in said  # stderr is no terminal here
    finally:
        process.kill()
        process.wait()
