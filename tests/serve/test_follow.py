"""Laws of the hot swap: no request fails, answers come whole from one release, the new one answers from then on, the
old one is freed, and a release that cannot be loaded changes nothing."""

import gc
import importlib.util
import itertools
import json
import shutil
import sys
import threading
import time
import weakref
from pathlib import Path

import httpx
import pytest

pytest.importorskip("torch")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluate"))
from label_kit import encoder  # pyright: ignore[reportMissingImports]

from luthier.release.folder import RECORD, hash_files, promote, read_release, rollback
from luthier.serve.base import Serve, create_app
from luthier.serve.engines.transformers import Transformers
from luthier.serve.follow import Following
from luthier.serve.labels.predictor import open_release
from luthier.types import read_jsonl

TEXTS = ["my parcel is late now", "login lost now now"]
ASSISTANT = Serve(engine=Transformers(threads=1), max_output_tokens=400, max_prompt_tokens=900, follow_s=0.05)


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


served, kit = load("test_label_serve"), load("conftest")


def renumber(folder: Path, **changes) -> Path:
    record = json.loads((folder / RECORD).read_text())
    files = {name: hash for name, hash in hash_files(folder).items() if name != RECORD}
    (folder / RECORD).write_text(json.dumps({**record, "version": int(folder.name), "files": files, **changes}))
    return folder


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Two versions of a classifier that tell the same texts other labels; version 1 is live."""
    from luthier.adapt.backbones.text import open_text_backbone
    from luthier.adapt.full import Full
    from luthier.adapt.head import Head
    from luthier.adapt.network import LabelModel, Network
    from luthier.task import Task

    base, home = encoder(tmp_path_factory.mktemp("encoder")), tmp_path_factory.mktemp("releases") / "desk"
    labels, task = ("login", "parcel", "refund"), Task(type="classify")
    for version in (1, 2):
        network = Network(open_text_backbone(base, source="tiny"), task, outputs=3, head=Head(), pooling="mean",
                          seed=1).eval()
        model = LabelModel(module=network, task=task, labels=labels, name="tiny", method=Full())
        renumber(served.write_release(home / str(version), served.sharpened(model, seed=version + 2)))
    return home


@pytest.fixture(scope="module")
def assistants(release, tmp_path_factory):
    """Two versions of an assistant with other tuned weights."""
    home = tmp_path_factory.mktemp("releases") / "desk"
    for version in (1, 2):
        shutil.copytree(release, home / str(version))
        if version == 2:
            kit.sharpen(home / "2" / "model", 33)
        renumber(home / str(version))
    return home


@pytest.fixture
def home(request, tmp_path):
    """A copy with its own history; version 1 is live."""
    copy = tmp_path / "releases" / "desk"
    shutil.copytree(request.getfixturevalue(request.param), copy)
    promote(copy / "1")
    return copy


class Askers:
    """Threads that ask without a pause until told to stop."""

    def __init__(self, ask, count: int):
        self.ask, self.stop = ask, threading.Event()
        self.seen: list[list] = [[] for _ in range(count)]
        self.threads = [threading.Thread(target=self._go, args=(seen,)) for seen in self.seen]

    def _go(self, seen: list) -> None:
        while not self.stop.is_set():
            seen.append(self.ask())

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)


def shape(versions: list[int]) -> list[int]:
    """The versions in the order met, repeats left out."""
    return [version for at, version in enumerate(versions) if at == 0 or versions[at - 1] != version]


@pytest.mark.parametrize("home", ["classifiers"], indirect=True)
def test_many_at_once_through_an_update_and_a_rollback_no_request_fails(home, serve_release, tmp_path, key):
    truth = {}
    for version in (1, 2):
        model = open_release(home / str(version))
        truth[version] = [model.decide(row, top_k=0) for row in
                          model.logits([one.row for one in model.texts(TEXTS)])]
    assert truth[1] != truth[2]
    with serve_release(home / "1", Serve(follow_s=0.05), tmp_path, follow=True) as live:
        client = httpx.Client(base_url=live.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

        def ask():
            reply = client.post("/v1/classify", json={"input": TEXTS})
            return reply.status_code, reply.headers.get("x-luthier-release"), reply.json()

        first = weakref.ref(live.service.predictor.model.module)
        with Askers(ask, 8) as askers:
            for change, version in ((lambda: promote(home / "2"), 2), (lambda: rollback(home.parent, "desk"), 1)):
                time.sleep(0.3)
                change()
                live.wait_until(lambda version=version: live.service.record.version == version)
                assert ask()[1] == f"desk/{version}"  # from now on the new one answers
            time.sleep(0.3)
        live.wait_until(lambda: gc.collect() is not None and first() is None)  # the memory of the first is free again
        logged = [row["release"] for row in read_jsonl(tmp_path / ".luthier" / "answers.jsonl")]
    replies = [reply for seen in askers.seen for reply in seen]
    assert len(replies) > 50 and {status for status, _, _ in replies} == {200}
    for _, header, body in replies:
        version = body["luthier"]["version"]
        assert header == f"desk/{version}"
        for told, wanted in zip(body["data"], truth[version], strict=True):
            assert told["label"] == wanted["label"]
            assert told["probability"] == pytest.approx(wanted["probability"], abs=1e-4)
    for seen in askers.seen:
        assert shape([body["luthier"]["version"] for _, _, body in seen]) == [1, 2, 1]
    assert len(logged) == 2 * (len(replies) + 2) and set(logged) == {"desk/1", "desk/2"}  # two inputs a request


def slowly(monkeypatch) -> threading.Event:
    """From now on a step of generation takes a tenth of a second, until the event is set: a stream outlives what a test
    does meanwhile, on any machine."""
    from luthier.models.decode import Batcher

    hurry, tick = threading.Event(), Batcher.tick

    def wait(batcher):
        if batcher.busy:
            hurry.wait(0.1)
        return tick(batcher)

    monkeypatch.setattr(Batcher, "tick", wait)
    return hurry


@pytest.mark.parametrize("home", ["assistants"], indirect=True)
def test_a_stream_ends_on_the_release_it_began_on_while_the_new_one_answers(home, serve_release, tmp_path, key):
    with serve_release(home / "1", ASSISTANT, tmp_path, follow=True) as live:
        client = httpx.Client(base_url=live.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        body = {"model": "desk:tuned", "messages": [{"role": "user", "content": "Tell me all. " * 3}],
                "max_tokens": 400}
        alone = client.post("/v1/chat/completions", json=body).json()
        assert alone["usage"]["completion_tokens"] > 100, "the law needs a long answer"
        old = weakref.ref(live.service.engine._held["tuned"].module)
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as reply:
            assert reply.headers["x-luthier-release"] == "desk/1"
            lines = (line for line in reply.iter_lines() if line)
            got = [next(lines)]
            promote(home / "2")
            live.wait_until(lambda: live.service.record.version == 2)
            quick = client.post("/v1/chat/completions", json={**body, "max_tokens": 3})
            assert quick.headers["x-luthier-release"] == "desk/2" and quick.json()["luthier"]["version"] == 2
            got += list(lines)
        assert got[-1] == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in got[:-1]]
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        assert text == alone["choices"][0]["message"]["content"]
        assert {chunk["system_fingerprint"] for chunk in chunks} == {"desk/1"}
        live.wait_until(lambda: gc.collect() is not None and old() is None)


@pytest.mark.parametrize("home", ["assistants"], indirect=True)
def test_threads_of_chats_and_streams_meet_no_error_through_a_swap(home, serve_release, tmp_path, key):
    with serve_release(home / "1", ASSISTANT, tmp_path, follow=True) as live:
        client = httpx.Client(base_url=live.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

        number = itertools.count()

        def ask():
            body = {"model": "desk", "messages": [{"role": "user", "content": "How long does a refund take?"}],
                    "max_tokens": 8, "stream": next(number) % 2 == 0}
            reply = client.post("/v1/chat/completions", json=body)
            ended = "data: [DONE]" in reply.text if body["stream"] else "choices" in reply.json()
            return reply.status_code, reply.headers["x-luthier-release"], ended and '"error"' not in reply.text

        with Askers(ask, 6) as askers:
            time.sleep(0.3)
            promote(home / "2")
            live.wait_until(lambda: all(seen and seen[-1][1] == "desk/2" for seen in askers.seen), 60)
    for seen in askers.seen:
        assert {(status, whole) for status, _, whole in seen} == {(200, True)}
        assert shape([int(header[-1]) for _, header, _ in seen]) == [1, 2]


@pytest.mark.parametrize("home", ["assistants"], indirect=True)
def test_a_rollback_does_not_wait_for_the_old_release_s_streams(home, serve_release, tmp_path, key, monkeypatch):
    hurry = slowly(monkeypatch)
    with serve_release(home / "1", ASSISTANT, tmp_path, follow=True) as live:
        client = httpx.Client(base_url=live.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        body = {"model": "desk:tuned", "messages": [{"role": "user", "content": "Tell me all. " * 3}],
                "max_tokens": 400, "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            first = live.service
            promote(home / "2")
            live.wait_until(lambda: live.service.record.version == 2)
            rollback(home.parent, "desk")
            live.wait_until(lambda: live.service.record.version == 1)
            assert live.service is first  # the stream was still on: the release came back without a load
            hurry.set()
            assert [line for line in lines if line][-1] == "data: [DONE]"
        live.wait_until(lambda: live.app._old is None)
        assert client.get("/v1/models").headers["x-luthier-release"] == "desk/1"


@pytest.mark.parametrize("home", ["classifiers"], indirect=True)
def test_a_release_that_cannot_be_loaded_changes_nothing_but_what_is_told(home, serve_release, tmp_path, key, caplog):
    with (home / "2" / "model" / "network.json").open("a") as file:
        file.write(" ")
    with serve_release(home / "1", Serve(follow_s=0.05), tmp_path, follow=True) as live:
        client = httpx.Client(base_url=live.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        promote(home / "2")
        live.wait_until(lambda: live.service.news is not None)
        card = client.get("/v1/models").json()["data"][0]["luthier"]
        assert card["version"] == 1 and card["not_followed"]["wanted"] == "desk/2"
        assert "network.json is changed" in card["not_followed"]["error"]
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.post("/v1/classify", json={"input": TEXTS}).headers["x-luthier-release"] == "desk/1"
        assert "desk/2 went live but cannot be served, desk/1 goes on" in caplog.text
        time.sleep(0.3)
        assert caplog.text.count("cannot be served") == 1  # told once, not at every look
        rollback(home.parent, "desk")
        live.wait_until(lambda: live.service.news is None)
        assert "not_followed" not in client.get("/v1/models").text


@pytest.mark.parametrize("home", ["classifiers"], indirect=True)
def test_the_header_is_for_those_with_a_key_and_following_can_be_switched_off(home, serve_release, tmp_path, key):
    assert not isinstance(create_app(home / "1", Serve(follow_s=None), root=tmp_path, follow=True), Following)
    assert not isinstance(create_app(home / "1", Serve(), root=tmp_path), Following)
    with serve_release(home / "1", Serve(), tmp_path) as live:
        for path, headers in (("/healthz", {}), ("/v1/models", {}), ("/", {})):
            assert "x-luthier-release" not in httpx.get(live.url + path, headers=headers).headers
        held = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{live.url}/v1/models", headers=held).headers["x-luthier-release"] == "desk/1"
        assert httpx.get(f"{live.url}/v1/models/x", headers=held).headers["x-luthier-release"] == "desk/1"
    assert read_release(home / "1").stage == "live"
