"""Releasing models with labels: what was tested is what is released, and nothing else goes live."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluate"))
from label_kit import Kit, encoder, kit, texts  # pyright: ignore[reportMissingImports]

from luthier.adapt import predict
from luthier.adapt.labelled import WEIGHTS, load_label_model
from luthier.errors import ContractError, GateRefused, SpecError
from luthier.evaluate.base import Evaluate, evaluate, read_predictions, read_report
from luthier.evaluate.labels.base import LabelEvaluate
from luthier.index.rag import Rag
from luthier.release.base import Gate, Release, live_release, read_history, read_release, release, rollback
from luthier.store import Artifact, write_json
from luthier.task import Task

ANY = Gate(beats=None)
"""The laws below are about folders and logits, whatever a tiny encoder reaches."""


class World:
    """A task's artifacts up to its report, and `go`, which releases."""

    def __init__(self, root: Path, kind: str, source: Path):
        task = {"single": Task(type="classify", abstain=0.2), "multi": Task(type="classify", multi_label=True),
                "tag": Task(type="tag"), "embed": Task(type="embed")}[kind]
        self.kit: Kit = kit(root, task, texts(kind), source, steps=40)
        self.report: Artifact = evaluate(
            data=self.kit.data, index=None, model=self.kit.model, run=self.kit.run, task=task, store=self.kit.store,
            spec=Evaluate(bootstrap_samples=200, labels=LabelEvaluate(latency_rows=0)), root=root)

    def go(self, releases: Path, spec: Release | None = None, *, force: bool = False, run: Artifact | None = None,
           report: Artifact | None = None) -> Path:
        one = self.kit
        return release(report=report or self.report, run=run or one.run, model=one.model, index=None, data=one.data,
                       task=one.task, rag=Rag(), spec=(spec or Release(gate=ANY, system="tuned")).but(name="desk"),
                       store=one.store, releases=releases, force=force, root=one.root)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    source = encoder(tmp_path_factory.mktemp("encoder"))
    made: dict[str, World] = {}

    def world(kind: str) -> World:
        if kind not in made:
            made[kind] = World(tmp_path_factory.mktemp(kind), kind, source)
        return made[kind]

    return world


@pytest.mark.parametrize("kind", ["single", "multi", "tag", "embed"])
def test_the_folder_loaded_afresh_gives_the_trained_model_s_logits_and_the_report_s_answers(worlds, tmp_path, kind):
    world = worlds(kind)
    folder = world.go(tmp_path)
    record = read_release(folder)
    assert record.labels is not None and record.systems == ("tuned",) and record.stage == "live"
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["agreement"] == 1 and parity["max_relative_difference"] <= 1e-5
    trained, released = load_label_model(world.kit.run.path / "best"), load_label_model(folder / "model")
    test = [replace(one, target=None) for one in texts(kind) if one.split == "test"]
    ask = predict.tag_logits if kind == "tag" else predict.logits
    for a, b in zip(ask(trained, trained.rows(test, targets=False)), ask(released, released.rows(test, targets=False))):
        assert np.array_equal(a, b)
    if kind == "single":  # not only the probes: every row of the report
        probs = predict.probabilities(predict.logits(released, released.rows(test, targets=False)),
                                      temperature=released.temperature)
        for row, told in zip(probs, read_predictions(world.report), strict=True):
            assert row.max() == pytest.approx(told["systems"]["tuned"]["probability"], abs=1e-4)
    if kind != "embed":
        assert parity["measured_rows"] == 8
    record.verify()


def test_temperature_threshold_and_labels_go_into_the_folder(worlds, tmp_path):
    world = worlds("single")
    folder = world.go(tmp_path)
    fitted = read_report(world.report)["calibration"]["temperature"]
    assert load_label_model(folder / "model").temperature == pytest.approx(fitted) and fitted != 1
    told = read_release(folder).labels
    assert told == {"names": ["login", "parcel", "refund"], "temperature": fitted, "thresholds": {}, "abstain": 0.2,
                    "onnx": False}
    facts = json.loads((folder / "model" / "network.json").read_text())
    assert facts["abstain"] == 0.2 and facts["temperature"] == fitted


def test_fitted_thresholds_are_released_where_they_are_asked_for(worlds, tmp_path):
    world = worlds("multi")
    told = read_release(world.go(tmp_path, Release(gate=ANY, system="tuned", thresholds="fitted"))).labels
    wanted = {row["label"]: row["threshold"] for row in read_report(world.report)["thresholds"]["labels"]}
    assert told is not None and told["thresholds"] == wanted and len(wanted) == 3


def test_the_model_card_says_labels_figures_calibration_and_limits(worlds, tmp_path):
    world = worlds("single")
    card = (world.go(tmp_path) / "MODEL_CARD.md").read_text()
    report = read_report(world.report)
    one = report["systems"]["tuned"]["metrics"]["accuracy"]
    for part in ("# desk, version 1", report["verdict"]["sentence"], "`login`, `parcel`, `refund`", "90 train rows",
                 f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})", "TF-IDF + logistic regression",
                 f"temperature {report['calibration']['temperature']:.3f}", "Below a probability of 0.2",
                 "40 rows", "## Limits", "It knows only its labels"):
        assert part in card, part


def test_what_does_not_beat_the_simple_systems_is_refused_and_force_is_recorded(worlds, tmp_path):
    world = worlds("multi")
    assert read_report(world.report)["verdict"]["choice"] != "tuned"
    with pytest.raises(GateRefused, match="beats"):
        world.go(tmp_path, Release(system="tuned"))
    assert [row["event"] for row in read_history(tmp_path / "desk")] == ["refused"]
    record = read_release(world.go(tmp_path, Release(system="tuned", force_reason="a trial"), force=True))
    assert record.choice == "tuned" and record.forced is not None and record.forced["reason"] == "a trial"
    assert "The gate was overruled" in (record.folder / "MODEL_CARD.md").read_text()


def test_a_linear_model_on_frozen_features_can_be_released_and_answers_as_measured(worlds, tmp_path):
    world = worlds("single")
    folder = world.go(tmp_path, Release(gate=ANY, system="features"))
    record = read_release(folder)
    assert record.choice == "features" and record.weights("features") == folder / "model"
    model = load_label_model(folder / "model")
    test = [one for one in texts("single") if one.split == "test"]
    probs = predict.probabilities(predict.logits(model, model.rows(test, targets=False)))
    measured = [row["systems"]["features"] for row in read_predictions(world.report)]
    said = [model.labels[int(row.argmax())] for row in probs]
    assert np.mean([[label] == row["said"] for label, row in zip(said, measured)]) >= 0.97
    assert max(abs(row.max() - told["probability"]) for row, told in zip(probs, measured)) < 0.05


def test_another_model_than_the_measured_one_is_never_released(worlds, tmp_path):
    from safetensors.torch import load_file, save_file

    from luthier.adapt.labelled import save_label_model

    world = worlds("single")

    def other(folder):
        save_label_model(load_label_model(world.kit.run.path / "best"), folder / "best")
        tensors = load_file(folder / "best" / WEIGHTS)
        tensors["head.1.weight"] = tensors["head.1.weight"].flip(0).contiguous()
        save_file(tensors, folder / "best" / WEIGHTS)
        return {}

    swapped = world.kit.store.build("train", version=1, spec={"other": 1}, inputs={"model": world.kit.model},
                                    make=other)
    with pytest.raises(ContractError, match="the report measured"):
        world.go(tmp_path, run=swapped)
    assert not list((tmp_path / "desk").glob("*/release.json"))


def test_the_same_inputs_change_nothing_and_a_rollback_goes_back(worlds, tmp_path):
    world = worlds("single")
    first = world.go(tmp_path)
    assert world.go(tmp_path) == first
    second = world.go(tmp_path, Release(gate=ANY, system="tuned", approved_by="Liv Marchetti"))
    assert second.name == "2" and live_release(tmp_path, "desk") == second
    assert rollback(tmp_path, "desk") == first and live_release(tmp_path, "desk") == first


def test_bfloat16_halves_the_weights_and_its_agreement_is_bounded(worlds, tmp_path):
    world = worlds("single")
    full, half = world.go(tmp_path), world.go(tmp_path, Release(gate=ANY, system="tuned", dtype="bfloat16"))
    sizes = [(folder / "model" / WEIGHTS).stat().st_size for folder in (full, half)]
    assert sizes[1] < 0.6 * sizes[0]
    check = next(check for check in read_release(half).gate if check["name"] == "min_agreement")
    assert check["outcome"] == "passed" and "probe rows" in check["sentence"]


@pytest.mark.parametrize(("kind", "spec", "field"), [
    ("tag", Release(thresholds="fitted"), "thresholds"), ("tag", Release(system="features"), "system"),
    ("single", Release(base_weights="copied"), "base_weights"), ("single", Release(system="retrieval"), "system"),
])
def test_settings_that_mean_nothing_here_are_refused(worlds, tmp_path, kind, spec, field):
    with pytest.raises(SpecError, match=f"release.{field}"):
        worlds(kind).go(tmp_path, spec)


def test_onnx_belongs_to_tasks_with_labels():
    with pytest.raises(SpecError, match=r"release.onnx"):
        Release(onnx=True).refuse_misfits(Task())


ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))


@pytest.mark.slow
@pytest.mark.skipif(not ONNX, reason="the extra `onnx` is not installed")
def test_onnx_answers_as_torch_does_for_any_number_of_rows_and_any_length(worlds, tmp_path):
    from luthier.adapt.labelled import open_label_model
    from luthier.release.export_onnx import check_onnx
    from luthier.serve.labels.predictor import Predictor

    world = worlds("single")
    folder = world.go(tmp_path, Release(gate=ANY, system="tuned", onnx=True))
    figures = json.loads((folder / "parity.json").read_text())["onnx"]
    assert figures["max_relative_difference"] <= 1e-4 and figures["decided_alike"] == figures["asked"]
    model = load_label_model(folder / "model")
    odd = [replace(one, input=" ".join([str(one.input)] * (1 + at % 5)))
           for at, one in enumerate(texts("single")[:11])]  # lengths and a number of rows that the export never saw
    assert check_onnx(model, folder / "model.onnx", model.rows(odd, targets=False))["max_relative_difference"] <= 1e-4
    words = ["my parcel is late", "login"]
    torch_side, onnx_side = (Predictor.open(read_release(folder), runtime=runtime) for runtime in ("torch", "onnx"))
    given = [np.stack(one.logits([row.row for row in one.texts(words)])) for one in (torch_side, onnx_side)]
    assert given[0] == pytest.approx(given[1], abs=1e-4)
    fresh = open_label_model(world.kit.model, model.labels)
    with pytest.raises(ContractError, match=r"model\.onnx answers otherwise"):
        check_onnx(fresh, folder / "model.onnx", fresh.rows(odd, targets=False))


def test_a_calibration_of_other_labels_is_refused(worlds, tmp_path):
    from luthier.errors import StoreError
    from luthier.release.labels import decisions

    world = worlds("single")

    def make(folder):
        write_json(folder / "calibration.json", {"temperature": 1.0, "thresholds": {}, "labels": ["a"]})
        return {}

    report = world.kit.store.build("evaluate", version=1, spec={"x": 1}, inputs={}, make=make)
    with pytest.raises(StoreError, match="other labels"):
        decisions(report, load_label_model(world.kit.run.path / "best"), Release(), "tuned")
