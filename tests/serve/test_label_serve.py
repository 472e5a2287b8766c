"""Serving releases with labels: the same decisions as the model's, batching, limits, explanations, log and lineage."""

import base64
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluate"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from label_kit import encoder, texts  # pyright: ignore[reportMissingImports]
from label_release_kit import TEXTS, Api, picture, sharpened, write_release  # pyright: ignore[reportMissingImports]

from luthier.adapt import predict
from luthier.adapt.labelled import load_label_model
from luthier.errors import UsageError
from luthier.release.folder import read_release
from luthier.serve.base import Serve
from luthier.serve.labels.base import LabelServe
from luthier.serve.labels.explain import units_of
from luthier.task import Task
from luthier.types import Example, Origin


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def opened(base):
    """labels and task -> an untrained model."""
    from luthier.adapt.backbones.text import open_text_backbone
    from luthier.adapt.full import Full
    from luthier.adapt.head import Head
    from luthier.adapt.labelled import outputs_of
    from luthier.adapt.network import LabelModel, Network

    def make(labels, **task):
        kind = Task(**task)
        outputs = outputs_of(kind, labels)
        network = Network(open_text_backbone(base, source="tiny"), kind, outputs=len(outputs), head=Head(),
                          pooling="mean", seed=1).eval()
        model = LabelModel(module=network, task=kind, labels=outputs, name="tiny", method=Full())
        return model if kind.type == "embed" else sharpened(model)

    return make


@pytest.fixture(scope="module")
def release(opened, tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("desk") / "desk" / "1",
                         opened(("login", "parcel", "refund"), type="classify", abstain=0.4).but(temperature=1.7))


@pytest.fixture(scope="module")
def live(release, serve_release, tmp_path_factory):
    with serve_release(release, Serve(), tmp_path_factory.mktemp("root")) as found:
        yield found


@pytest.fixture(scope="module")
def api(live, key):
    return Api(live.url, key)


def examples(some):
    return [Example(id=str(at), input=text, target=None, origin=Origin(maker="human", step="t"))
            for at, text in enumerate(some)]


def test_answers_are_the_calibrated_probabilities_of_the_released_model(api, release):
    model = load_label_model(release / "model")
    wanted = predict.probabilities(predict.logits(model, model.rows(examples(TEXTS), targets=False)), temperature=1.7)
    found = api.post("/v1/classify", {"model": "desk", "input": TEXTS, "top_k": 2, "probabilities": True})
    assert found["model"] == "desk" and found["luthier"] == {"release": "desk", "version": 1, "model": "tuned"}
    for row, probs in zip(found["data"], wanted, strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(list(probs), abs=2e-6)
        best = model.labels[int(probs.argmax())]
        assert row["best_guess"] == best and row["abstained"] == (probs.max() < 0.4)
        assert row["label"] == (None if row["abstained"] else best)
        assert [one["label"] for one in row["top"]] == [model.labels[at] for at in np.argsort(-probs)[:2]]
        assert row["truncated"] is False


def test_a_row_below_the_threshold_gets_no_label_and_tells_its_best_guess(opened, serve_release, key, tmp_path):
    folder = write_release(tmp_path / "1", opened(("a", "b"), type="classify", abstain=1.0).but(temperature=50.0))
    with serve_release(folder, Serve(), tmp_path) as found:
        row = Api(found.url, key).post("/v1/classify", {"input": TEXTS[0]})["data"][0]
    assert row["label"] is None and row["abstained"] and row["best_guess"] in ("a", "b") and row["probability"] < 1


def test_several_labels_are_those_over_their_own_thresholds(opened, serve_release, key, tmp_path):
    model = opened(("a", "b", "c"), type="classify", multi_label=True)
    probs = predict.probabilities(predict.logits(model, model.rows(examples(TEXTS), targets=False)), multi_label=True)
    limits = {"a": float(np.median(probs[:, 0])), "c": 0.9}
    with serve_release(write_release(tmp_path / "1", model, thresholds=limits), Serve(), tmp_path) as found:
        rows = Api(found.url, key).post("/v1/classify", {"input": TEXTS})["data"]
    cut = np.array([limits["a"], 0.5, 0.9])
    assert [{one["label"] for one in row["labels"]} for row in rows] == [
        {"abc"[at] for at in np.flatnonzero(row >= cut)} for row in probs]


def test_requests_at_the_same_time_are_computed_together(live, api):
    api.post("/v1/classify", {"input": "warm up"})
    service = live.service
    before, gate, compute = service.batcher.batches, threading.Barrier(16), service.batcher.compute
    alone = [api.post("/v1/classify", {"input": TEXTS[at % 4]})["data"][0]["probability"] for at in range(4)]
    assert service.batcher.batches == before + 4
    first = threading.Event()

    def slow(rows):  # the first batch takes as long as a large model would; the others gather meanwhile
        if not first.is_set():
            first.set()
            live.wait_until(lambda: len(rows) + service.batcher.waiting == 16, 20)
        return compute(rows)

    service.batcher.compute, before = slow, service.batcher.batches
    try:
        with ThreadPoolExecutor(16) as pool:
            def ask(at):
                gate.wait()
                return api.post("/v1/classify", {"input": TEXTS[at % 4]})["data"][0]["probability"]

            found = list(pool.map(ask, range(16)))
    finally:
        service.batcher.compute = compute
    assert service.batcher.batches - before <= 2
    assert found == pytest.approx([alone[at % 4] for at in range(16)], abs=1e-5)


def test_a_failing_batch_is_told_to_its_requests_and_the_next_ones_are_answered(live, api):
    compute = live.service.batcher.compute

    def broken(rows):
        raise RuntimeError("out of memory")

    live.service.batcher.compute = broken
    try:
        told = api.post("/v1/classify", {"input": "now"}, status=500)
    finally:
        live.service.batcher.compute = compute
    assert told["error"]["code"] == "internal_error" and "memory" not in told["error"]["message"]
    assert api.post("/v1/classify", {"input": "now"})["data"]


@pytest.mark.parametrize(("body", "status", "code", "param"), [
    ({"input": []}, 400, "invalid_value", "input"), ({"input": ""}, 400, "invalid_value", "input"),
    ({}, 400, "missing_required_parameter", "input"), ({"input": "a", "n": 1}, 400, "unknown_parameter", "n"),
    ({"input": "a", "model": "other"}, 404, "model_not_found", "model"),
    ({"input": "a", "explain": {"method": "magic"}}, 400, "invalid_value", "explain.method"),
    ({"input": "a", "explain": {"label": "nothing"}}, 400, "invalid_value", "explain.label"),
    ({"input": ["a"] * 9, "explain": True}, 400, "invalid_value", "explain"),
    ({"input": ["a"] * 257}, 400, "invalid_value", "input"),
    ({"image": "AAAA"}, 400, "unsupported_content", "image"),
])
def test_what_cannot_be_honoured_is_refused_by_name(api, body, status, code, param):
    error = api.post("/v1/classify", body, status=status)["error"]
    assert (error["code"], error["param"]) == (code, param)


def test_the_key_the_route_and_the_models_are_told(api, live):
    api.post("/v1/classify", {"input": "a"}, status=401, headers={"authorization": "Bearer wrong"})
    assert api.post("/v1/tag", {"input": "a"}, status=400)["error"]["code"] == "wrong_endpoint"
    assert "/v1/classify" in api.post("/v1/tag", {"input": "a"}, status=400)["error"]["message"]
    card = api.get("/v1/models")["data"][0]
    assert card["id"] == "desk" and card["luthier"]["type"] == "classify" and card["luthier"]["abstain"] == 0.4
    assert card["luthier"]["labels"] == ["login", "parcel", "refund"]
    assert "luthier_label_batches" in api.get("/metrics")


def test_the_answer_log_holds_hash_label_and_probability_and_never_the_text(api, live):
    import hashlib

    found = api.post("/v1/classify", {"input": ["parcel is a secret", "login"]})
    rows = [json.loads(line) for line in (live.root / ".luthier" / "answers.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["id"] == found["data"][0]["id"])
    assert row["release"] == "desk/1" and row["probability"] == found["data"][0]["probability"]
    assert row["label"] == found["data"][0]["label"] and "secret" not in json.dumps(rows)
    assert row["question_sha256"] == hashlib.sha256(b"parcel is a secret").hexdigest()


def test_occlusion_is_exactly_the_fall_of_the_log_odds_without_the_word(opened):
    from luthier.serve.labels.explain import Explainer
    from luthier.serve.labels.predictor import Predictor

    predictor = _predictor(opened)
    text = "my parcel is late now"
    asked = predictor.texts([text])[0]
    told = Explainer(predictor).explain(asked, "b", "occlusion", 3)
    assert len(told["tokens"]) == 3 and isinstance(predictor, Predictor)
    score = predictor.log_odds("b")
    whole = score(np.stack(predictor.logits([asked.row])))[0]
    for token in told["tokens"]:  # the tokenizer has no mask, so the word is left out
        without = predictor.texts([text[: token["start"]] + text[token["end"] + 1 :]])[0]
        fall = whole - score(np.stack(predictor.logits([without.row])))[0]
        assert token["contribution"] == pytest.approx(fall, abs=2e-5)
        assert token["text"] == text[token["start"] : token["end"]]


@pytest.mark.parametrize("several", [False, True])
def test_integrated_gradients_add_up_to_the_difference_of_the_log_odds(opened, several):
    from luthier.serve.labels.explain import Explainer

    predictor = _predictor(opened, multi_label=several)
    told = Explainer(predictor).explain(predictor.texts(["my parcel is late now"])[0], "b", "integrated_gradients", 50)
    whole = told["completeness"]
    assert whole["holds"] and whole["sum"] == pytest.approx(whole["difference"], rel=0.02, abs=0.002)
    assert sum(token["contribution"] for token in told["tokens"]) == pytest.approx(whole["sum"], abs=1e-3)


def _predictor(opened, **task):
    from types import SimpleNamespace

    from luthier.serve.labels.predictor import Predictor

    model = opened(("a", "b", "c"), type="classify", **task).but(temperature=2.0)
    record: Any = SimpleNamespace(task=model.task, labels={"abstain": 0.0, "thresholds": {}}, label="desk/1")
    return Predictor(record, model)


def test_pieces_of_a_word_are_one_unit_and_long_texts_are_covered_in_larger_ones():
    offsets = [(0, 0), (0, 3), (3, 6), (7, 9), (9, 10), (0, 0)]
    assert [(unit.start, unit.end, unit.tokens) for unit in units_of("unhappy so.", [(0, 0), (0, 2), (2, 7), (8, 10),
                                                                                  (10, 11), (0, 0)])] == [
        (0, 7, (1, 2)), (8, 10, (3,)), (10, 11, (4,))]
    many = units_of("a b c d e", [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)], most=2)
    assert [unit.tokens for unit in many] == [(0, 1, 2), (3, 4)] and len(offsets) == 6


def test_explanations_come_with_the_answer(api):
    row = api.post("/v1/classify", {"input": TEXTS[0], "explain": {"top": 2}})["data"][0]
    assert row["explanation"]["label"] == row["best_guess"] and len(row["explanation"]["tokens"]) == 2


def test_a_tagger_gives_pieces_of_the_text_with_their_probability(opened, serve_release, key, tmp_path):
    from luthier.adapt.spans import decode_spans

    model = opened(("x", "y"), type="tag")
    rows = model.rows(examples(TEXTS), targets=False)
    wanted = decode_spans(model, examples(TEXTS), rows, predict.tag_logits(model, rows))
    with serve_release(write_release(tmp_path / "1", model), Serve(), tmp_path) as found:
        api = Api(found.url, key)
        data = api.post("/v1/tag", {"input": TEXTS})["data"]
        assert api.get("/v1/models")["data"][0]["luthier"]["labels"] == ["x", "y"]
    assert any(wanted)
    for row, tags, text in zip(data, wanted, TEXTS, strict=True):
        assert [(one["start"], one["end"], one["label"]) for one in row["spans"]] == [
            (tag.start, tag.end, tag.label) for tag in tags]
        assert all(one["text"] == text[one["start"] : one["end"]] and 0 < one["probability"] <= 1
                   for one in row["spans"])


def test_an_embedder_answers_openai_s_client(opened, serve_release, key, tmp_path):
    openai = pytest.importorskip("openai")
    model = opened((), type="embed")
    wanted = predict.logits(model, model.rows(examples(TEXTS), targets=False))
    with serve_release(write_release(tmp_path / "1", model), Serve(), tmp_path) as found:
        client = openai.OpenAI(base_url=f"{found.url}/v1", api_key=key, max_retries=0)
        reply = client.embeddings.create(model="desk", input=TEXTS)
        error = Api(found.url, key).post("/v1/embeddings", {"model": "desk", "input": "now " * 200}, status=400)
    assert np.stack([row.embedding for row in reply.data]) == pytest.approx(wanted, abs=1e-6)
    assert error["error"]["code"] == "context_length_exceeded"


def test_systems_of_assistants_are_refused(release, tmp_path):
    from luthier.serve.base import create_app

    with pytest.raises(UsageError, match="one model"):
        create_app(release, Serve(systems=("base",)), root=tmp_path)


# Images


@pytest.fixture(scope="module")
def images(serve_release, tmp_path_factory):
    """A server over a random EfficientNet-Lite0 for small images."""
    import torch

    from luthier.adapt.backbones.image_processor import ImageProcessor
    from luthier.adapt.backbones.lite0 import Lite0
    from luthier.adapt.full import Full
    from luthier.adapt.head import Head
    from luthier.adapt.network import LabelModel, Network

    torch.manual_seed(0)
    backbone = Lite0(ImageProcessor(size=32))
    network = Network(backbone, Task(type="image"), outputs=2, head=Head(), pooling="auto", seed=0).eval()
    model = sharpened(LabelModel(module=network, task=Task(type="image"), labels=("cat", "dog"), name="tiny",
                                 method=Full()))
    root = tmp_path_factory.mktemp("images")
    folder = write_release(root / "desk" / "1", model)
    with serve_release(folder, Serve(labels=LabelServe(max_image_pixels=100_000)), root) as found:
        yield found, folder


@pytest.fixture(scope="module")
def pictures(images, key):
    return Api(images[0].url, key)


def form(*files: bytes, **fields: str) -> tuple[bytes, dict[str, str]]:
    parts = [(f'name="file"; filename="f{at}.png"\r\nContent-Type: image/png', file) for at, file in enumerate(files)]
    parts += [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    body = b"".join(b"--XX\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
                    for head, content in parts) + b"--XX--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=XX"}


def test_an_uploaded_image_and_one_in_base64_get_the_answer_of_the_model(pictures, images):
    model = load_label_model(images[1] / "model")
    data = picture()
    pixels = model.processor.decode_bytes(data)  # type: ignore[attr-defined]
    from luthier.adapt.backbones.base import Row

    wanted = predict.probabilities(predict.logits(model, [Row("a", pixels, 1)]))[0]
    body, headers = form(data, picture(colour=(0, 0, 250)), probabilities="true", top_k="1")
    uploaded = pictures.post("/v1/classify", body, headers=headers)["data"]
    assert len(uploaded) == 2 and list(uploaded[0]["probabilities"].values()) == pytest.approx(list(wanted), abs=1e-5)
    text = base64.b64encode(data).decode()
    for sent in (text, f"data:image/png;base64,{text}"):
        row = pictures.post("/v1/classify", {"image": sent})["data"][0]
        assert row["probability"] == pytest.approx(wanted.max(), abs=1e-5) and "truncated" not in row


@pytest.mark.parametrize(("data", "said"), [
    (b"not an image", "not an image"), (picture()[:60], "damaged"), (picture((400, 300)), "400 × 300 pixels"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
])
def test_what_is_no_image_or_too_large_is_refused_with_a_sentence(pictures, data, said):
    body, headers = form(data)
    error = pictures.post("/v1/classify", body, headers=headers, status=400)["error"]
    assert said in error["message"] and error["code"] == "invalid_image"


def test_forms_are_checked_like_json_and_refused_from_other_origins(pictures):
    for fields, code in (({"top_k": "many"}, "invalid_value"), ({"other": "1"}, "unknown_parameter"),
                         ({"input": '"a"'}, "unknown_parameter"), ({"model": "other"}, "model_not_found")):
        body, headers = form(picture(), **fields)
        status = 404 if code == "model_not_found" else 400
        assert pictures.post("/v1/classify", body, headers=headers, status=status)["error"]["code"] == code
    body, headers = form(picture())
    told = pictures.post("/v1/classify", body, headers={**headers, "origin": "https://evil.example"}, status=403)
    assert told["error"]["code"] == "foreign_origin"
    body, headers = form(top_k="1")
    assert pictures.post("/v1/classify", body, headers=headers, status=400)["error"]["param"] == "file"
    assert pictures.post("/v1/classify", {"input": "a"}, status=400)["error"]["param"] == "image"


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_an_image_is_explained_by_a_coarse_map(pictures, method):
    body, headers = form(picture(), explain=json.dumps({"method": method}))
    told = pictures.post("/v1/classify", body, headers=headers)["data"][0]["explanation"]
    assert np.shape(told["heatmap"]) == (7, 7) and told["method"] == method


def test_the_release_reads_back_with_its_labels(release):
    record = read_release(release)
    assert record.labels is not None and record.weights("tuned") == release / "model" and len(texts("single")) > 100
