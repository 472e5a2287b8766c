"""Releases that lack a part: no encoder, no chat template, no index."""

import importlib.util
import json
import shutil
from pathlib import Path

import openai
import pytest

from luthier.serve.base import Serve
from luthier.serve.engines.transformers import Transformers

SPEC = Serve(engine=Transformers(threads=1), max_output_tokens=6)


@pytest.fixture(scope="module")
def fixtures():
    """The fixtures' module itself, for its `make_release` (tests are imported by path, not as a package)."""
    spec = importlib.util.spec_from_file_location("serve_conftest", Path(__file__).with_name("conftest.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_completion_release_over_keywords_continues_text_and_says_why_it_does_not_chat(fixtures, tmp_path, key):
    release = fixtures.make_release(tmp_path, mode="keywords", template=False, system=None)
    with fixtures.running(release, SPEC, tmp_path) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0)
        assert client.completions.create(model="desk", prompt="Once").usage.completion_tokens > 0
        with pytest.raises(openai.BadRequestError, match="use /v1/completions"):
            client.chat.completions.create(model="desk", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.NotFoundError, match="no encoder"):
            client.embeddings.create(model="desk:embedding", input="x")
        assert "desk:embedding" not in [card.id for card in client.models.list().data]


def test_keywords_alone_find_the_passages(fixtures, tmp_path, key):
    release = fixtures.make_release(tmp_path, mode="keywords")
    with fixtures.running(release, SPEC, tmp_path) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0)
        reply = client.chat.completions.create(model="desk:retrieval", messages=[
            {"role": "user", "content": "How long does a refund take?"}])
        assert reply.choices[0].message.citations[0]["passage"] == "p-billing.pdf-1"


def test_a_release_without_an_index_serves_the_systems_it_has(fixtures, release, tmp_path, key):
    copy = tmp_path / "release" / "1"
    shutil.copytree(release, copy)
    shutil.rmtree(copy / "index")
    record = json.loads((copy / "release.json").read_text())
    kept = {name: digest for name, digest in record["files"].items() if not name.startswith("index/")}
    (copy / "release.json").write_text(json.dumps({**record, "files": kept, "systems": ["base", "tuned"],
                                                   "choice": "tuned"}))
    with fixtures.running(copy, SPEC, tmp_path) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0)
        assert [card.id for card in client.models.list().data] == ["desk", "desk:base", "desk:tuned"]
        assert client.chat.completions.create(model="desk", messages=[{"role": "user", "content": "x"}]).choices
