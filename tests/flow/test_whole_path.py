"""Laws of the whole path: files in, answer over HTTP out; nothing is done twice; a change re-runs what it reaches;
`kill -9` at any moment loses nothing and changes nothing."""

import hashlib
import importlib.util
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from luthier.testing import tiny_chat_model

_spec = importlib.util.spec_from_file_location("flow_corpus", Path(__file__).with_name("corpus.py"))
corpus = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(corpus)

SETTINGS = {
    "name": "flow",
    "prepare": {"split": {"by": "passage"}},
    "index": {"mode": "keywords"},
    "adapt": {"model": "tiny", "dtype": "float32", "method": {"kind": "lora", "rank": 4}},
    "rag": {"top_k": 2, "max_context_tokens": 60},
    "train": {"epochs": 2, "max_length": 1024, "checkpoint_every_s": 0.2, "max_truncated_share": 1.0},
    "evaluate": {"max_questions": 8, "max_new_tokens": 4, "min_questions": 2, "bootstrap_samples": 200,
                 "latency_questions": 1,
                 "metrics": [{"kind": "token_f1"}, {"kind": "answer_loss"}, {"kind": "groundedness"}]},
    "release": {"probes": 2, "probe_tokens": 4},
}
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def luthier(*words: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "luthier.cli", *words], cwd=cwd, env=ENV, capture_output=True,
                          text=True, check=False, timeout=timeout)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A project that has not run yet."""
    root = tmp_path_factory.mktemp("flow") / "p"
    corpus.write_corpus(root / "documents")
    tiny_chat_model(root / "tiny")
    (root / "luthier.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def finished(template: Path) -> Path:
    """The same project, run to a (forced: the model is random) release."""
    done = luthier("run", "--force", "--json", cwd=template)
    assert done.returncode == 0, done.stderr[-3000:]
    return template


def stages(done: subprocess.CompletedProcess[str]) -> dict[str, bool]:
    assert done.returncode == 0, done.stderr[-3000:]
    return {row["stage"]: row["made"] for row in json.loads(done.stdout)["stages"]}


def weights(root: Path) -> str:
    latest = json.loads((root / ".luthier/latest.json").read_text())["train"]
    best = root / ".luthier/store/train" / latest / "best"
    files = sorted(p for p in best.rglob("*.safetensors"))
    assert files
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


@pytest.mark.slow
def test_bad_files_are_set_aside_and_the_rest_goes_on(finished):
    data = json.loads(luthier("show", "ingest", "--json", cwd=finished).stdout)
    assert data["summary"]["documents"] == 9
    assert data["summary"]["set_aside"] == {"corrupt": 1, "empty": 1}


@pytest.mark.slow
def test_a_second_run_is_a_no_op_in_under_two_seconds(finished):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    made = stages(luthier("run", "--force", "--json", cwd=finished))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert not any(made.values()), made
    # processor seconds, because tests share the cores: on an idle machine they are the wall time
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


@pytest.mark.slow
def test_check_knows_that_nothing_would_run(finished):
    done = luthier("check", "--json", cwd=finished)
    assert done.returncode == 0, done.stderr
    assert {step["stage"]: step["state"] for step in json.loads(done.stdout)["steps"]} == dict.fromkeys(
        ("ingest", "prepare", "index", "adapt", "train", "evaluate", "release"), "kept")


@pytest.mark.slow
def test_the_report_measures_all_four_systems(finished):
    folder = next((finished / ".luthier/releases/flow").glob("*/release.json")).parent
    report = json.loads((folder / "report.json").read_text())
    assert set(report["systems"]) == {"base", "retrieval", "tuned", "tuned_retrieval"}
    assert report["test"]["num_questions"] >= 4 and report["verdict"]["sentence"]
    assert report["retention"]["token_loss"]["n"] > 0
    assert json.loads((folder / "release.json").read_text())["forced"]


@pytest.mark.slow
def test_lineage_walks_both_ways(finished):
    forward = json.loads(luthier("trace", "room-amber.md", "--json", cwd=finished).stdout)
    assert forward["passages"] and forward["examples"] and forward["models"]
    assert forward["releases"] == ["flow/1"]
    back = json.loads(luthier("trace", forward["examples"][0]["id"], "--json", cwd=finished).stdout)
    assert forward["id"] in back["origin"]["documents"]
    release = json.loads(luthier("trace", "flow/1", "--json", cwd=finished).stdout)
    assert "room-amber.md" in {row["path"] for row in release["documents"]}
    aside = json.loads(luthier("trace", "broken.pdf", "--json", cwd=finished).stdout)
    assert aside["set_aside"] == "corrupt"


@pytest.mark.slow
def test_the_server_answers_with_citations_and_the_answer_can_be_traced(finished):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "luthier.cli", "serve", "--port", str(port)], cwd=finished,
                              env={**ENV, "LUTHIER_API_KEY": "k"}, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                if json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2))["status"] == "ok":
                    break
            except OSError:
                pass
            time.sleep(0.3)
        body = {"model": "flow:tuned-retrieval", "max_tokens": 4,
                "messages": [{"role": "user", "content": "What does Birch cost?"}]}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(),
                                         {"Authorization": "Bearer k", "Content-Type": "application/json"})
        reply = json.load(urllib.request.urlopen(request, timeout=60))
        citation = reply["choices"][0]["message"]["citations"][0]
        assert citation["path"] == "room-birch.md" and "22 euros" in citation["text"]
        busy = luthier("serve", "--port", str(port), cwd=finished)
        assert busy.returncode == 9 and str(port) in busy.stderr and "Traceback" not in busy.stderr
    finally:
        server.terminate()
        assert server.wait(timeout=30) is not None
    traced = json.loads(luthier("trace", f"answer:{reply['id']}", "--json", cwd=finished).stdout)
    assert traced["type"] == "answer" and citation["passage"] in {row["id"] for row in traced["passages"]}


@pytest.mark.slow
def test_gc_keeps_what_a_release_stands_on(finished):
    found = json.loads(luthier("gc", "--json", cwd=finished).stdout)
    assert found["garbage"] == []


@pytest.mark.slow
def test_one_changed_document_touches_only_its_own_rows(finished, tmp_path):
    import shutil

    root = tmp_path / "changed"
    shutil.copytree(finished, root)
    before = {row["id"]: row for row in rows(root)}
    file = root / "documents" / "room-fern.md"
    file.write_text(file.read_text().replace("66 euros", "71 euros"), encoding="utf-8")
    made = stages(luthier("prepare", "--json", cwd=root))
    assert made == {"ingest": True, "prepare": True}
    after = {row["id"]: row for row in rows(root)}
    found = ("section", "table", "faq")
    new = [row for id, row in after.items() if id not in before and row["origin"]["step"] in found]
    assert new and all("Fern" in row["input"][-1]["content"] or "fern" in row["origin"]["where"] for row in new)
    kept = [id for id, row in before.items() if row["origin"]["step"] in ("section", "table", "faq")
            and "fern" not in row["origin"]["where"]]
    assert all(after[id]["split"] == before[id]["split"] for id in kept)


def rows(root: Path) -> list[dict]:
    latest = json.loads((root / ".luthier/latest.json").read_text())["prepare"]
    file = root / ".luthier/store/prepare" / latest / "examples.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_kill_9_at_random_moments_ends_in_the_same_weights(finished, tmp_path):
    """Killed again and again, the run gets to the end, with the weights of the undisturbed run."""
    import shutil

    root = tmp_path / "killed"
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns(".luthier"))
    chance = random.Random(7)
    kills = 0
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-m", "luthier.cli", "train"], cwd=root, env=ENV,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(timeout=chance.uniform(4, 10))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        break
    assert kills >= 1
    assert luthier("train", cwd=root).returncode == 0
    assert weights(root) == weights(finished)


@pytest.mark.slow
def test_a_project_of_pairs_alone_needs_no_documents_and_no_index(template, tmp_path):
    """The user's own pairs in, a release that serves base and tuned out; retrieval is left out, not broken."""
    root = tmp_path / "pairs"
    root.mkdir()
    lines = [json.dumps({"messages": [{"role": "user", "content": f"What is the code of shelf {n}?"},
                                      {"role": "assistant", "content": f"Shelf {n} has the code {n * 37}."}]})
             for n in range(40)]
    (root / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    settings = {**SETTINGS, "name": "pairs", "ingest": {"sources": []}, "rag": {},
                "prepare": {"makers": [{"kind": "pairs", "path": "pairs.jsonl"}]},
                "adapt": {**SETTINGS["adapt"], "model": str(template / "tiny")},
                "train": {**SETTINGS["train"], "max_steps": 2}}
    (root / "luthier.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    made = stages(luthier("run", "--force", "--json", cwd=root))
    assert "index" not in made and made["release"]
    record = json.loads((root / ".luthier/releases/pairs/1/release.json").read_text())
    assert record["systems"] == ["base", "tuned"] and "index" not in record["lineage"]
    answered = luthier("chat", "What is the code of shelf 3?", "--model", "tuned", "--json", cwd=root)
    assert answered.returncode == 0 and json.loads(answered.stdout)["citations"] == []
