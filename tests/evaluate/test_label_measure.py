"""A whole evaluation of each labelled task: systems, verdict, files, page; deterministic, and on the frozen rows."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from label_kit import FOREIGN, Kit, encoder, example, kit, texts

from luthier.errors import DataError
from luthier.evaluate.base import Evaluate, evaluate, read_predictions, read_report
from luthier.evaluate.labels.base import Costs, LabelEvaluate
from luthier.release.gate import Gate
from luthier.store import Artifact
from luthier.task import Task


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("encoder"))


def measured(one: Kit, run: Any = "own", **spec: Any) -> Artifact:
    settings = {"bootstrap_samples": 300, "labels": LabelEvaluate(latency_rows=3), **spec}
    return evaluate(data=one.data, index=None, model=one.model, run=one.run if run == "own" else run, task=one.task,
                    spec=Evaluate(**settings), store=one.store, root=one.root)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Kit:
    rows = texts("single")
    rows += [example(f"foreign{i}", f"the {word} is now", "test", tags=("out-of-scope",))
             for i, word in enumerate(FOREIGN * 4)]
    return kit(tmp_path_factory.mktemp("single"), Task(type="classify"), rows, source)


@pytest.fixture(scope="module")
def report(single: Kit) -> Artifact:
    return measured(single)


def test_a_classifier_is_compared_with_what_needs_no_tuning(report: Artifact) -> None:
    found = read_report(report)
    assert [*found["systems"]] == ["features", "majority", "tfidf", "tuned"]
    assert found["test"]["num_questions"] == 40 and found["test"]["num_out_of_scope"] == 12
    assert found["verdict"]["choice"] in found["systems"] and report.summary["verdict"]["sentence"]
    for system in found["systems"].values():
        assert all(one["n"] == 40 and one["low"] <= one["value"] <= one["high"] for one in system["metrics"].values())
    assert found["systems"]["tuned"]["metrics"]["accuracy"]["value"] > 0.7
    compared = {(row["system"], row["against"]) for row in found["differences"] if row["metric"] == "accuracy"}
    assert compared == {("tfidf", "majority"), ("features", "majority"), ("features", "tfidf"), ("tuned", "majority"),
                        ("tuned", "tfidf"), ("tuned", "features")}
    assert set(found["slices"]) == {"group:language"} and set(found["slices"]["group:language"]) == {"en", "de"}
    assert found["gap"]["train"] == 0.97 and found["latency"]["n"] == 3


def test_figures_are_those_of_the_predictions(report: Artifact) -> None:
    found, rows = read_report(report), list(read_predictions(report))
    for system, told in found["systems"].items():
        right = np.mean([row["systems"][system]["said"] == row["right"] for row in rows])
        assert told["metrics"]["accuracy"]["value"] == pytest.approx(right, abs=1e-6)
    assert all(row["where"].startswith("data.csv:test") and row["text"] for row in rows)
    wrong = found["mistakes"]
    confidence = [row["systems"]["tuned"]["probability"] for row in wrong]
    assert confidence == sorted(confidence, reverse=True) and not any(row["systems"]["tuned"]["right"] for row in wrong)
    assert sum(row["n"] for row in found["classes"]) == 40
    assert np.trace(found["confusion"]["matrix"]) == sum(row["systems"]["tuned"]["right"] for row in rows)


def test_probabilities_are_calibrated_on_validation_rows(report: Artifact) -> None:
    found = read_report(report)
    kept = json.loads((report.path / "calibration.json").read_text("utf-8"))
    assert kept["temperature"] == found["calibration"]["temperature"] > 0
    assert found["calibration"]["fitted_on"] == 30
    assert found["systems"]["tuned"]["metrics"]["ece"]["value"] == pytest.approx(found["calibration"]["after"]["ece"])
    costs = [row["cost"] for row in found["thresholds"]["abstain"]]
    assert found["thresholds"]["abstain"][0]["name"] == "always answer" and min(costs) >= 0
    assert found["abstention"]["curve"][-1]["coverage"] == 1.0


def test_foreign_rows_are_told_apart_and_never_scored(report: Artifact) -> None:
    found = read_report(report)["out_of_scope"]
    assert found["n"] == 12 and {row["rule"] for row in found["rules"]} == {"max_probability", "margin", "energy",
                                                                          "centre"}
    for row in found["rules"]:
        assert 0 <= row["auroc"]["low"] <= row["auroc"]["value"] <= row["auroc"]["high"]
        assert 0.6 < row["kept"] <= 1
    assert max(row["auroc"]["value"] for row in found["rules"]) > 0.6


def test_the_page_stands_alone_and_tells_all(report: Artifact) -> None:
    page = (report.path / "report.html").read_text("utf-8")
    assert not re.search(r'(?:src|href)="(?!data:)', page) and "@import" not in page
    for heading in ("Accuracy of each system", "Does it learn or memorise?", "Each class", "What is confused with what",
                    "Mistakes made with most confidence", "Can its confidence be trusted?", "I do not know",
                    "Thresholds by cost", "Inputs that belong to no class", "By language", "How this was measured"):
        assert heading in page, heading
    assert "data.csv:test" in page and "nan" not in re.sub("<[^>]*>", "", page).split()


def test_text_of_the_user_cannot_run_in_the_page(tmp_path: Path, source: Path) -> None:
    rows = [*texts("single", train=30, test=20)]
    evil = "<script>alert(1)</script>"
    rows += [example(f"evil{i}", f"refund {evil}", "test", labels=("login",)) for i in range(3)]
    rows += [example("evil", "money", "train", labels=(evil,))]
    found = measured(kit(tmp_path, Task(type="classify"), rows, source, steps=5),
                     labels=LabelEvaluate(latency_rows=0, mistakes_shown=50))
    page = (found.path / "report.html").read_text("utf-8")
    assert evil not in page
    assert page.count("&lt;script&gt;") >= 4  # the texts, and the class of that name


def test_the_same_evaluation_again_is_the_same(single: Kit, report: Artifact, tmp_path: Path) -> None:
    again = measured(single, labels=LabelEvaluate(latency_rows=3, mistakes_shown=14))
    one, two = read_report(report), read_report(again)
    assert one["systems"]["tfidf"] == two["systems"]["tfidf"] and one["verdict"] == two["verdict"]
    assert (report.path / "predictions.jsonl").read_bytes() == (again.path / "predictions.jsonl").read_bytes()
    assert not measured(single).fresh


def test_without_a_run_the_simple_systems_are_compared(single: Kit) -> None:
    found = read_report(measured(single, run=None))
    assert "tuned" not in found["systems"] and "nothing was tuned" in found["verdict"]["sentence"]
    assert found["calibration"] is None and found["rival"] is not None


def test_systems_metrics_and_costs_are_honoured(single: Kit) -> None:
    labels = LabelEvaluate(systems=("majority", "tuned"), metrics=("mcc",),  # type: ignore[arg-type]
                           max_rows=15, latency_rows=0, costs=Costs(wrong=5, abstain=1), mistakes_shown=1)
    found = read_report(measured(single, labels=labels))
    assert set(found["systems"]) == {"majority", "tuned"} and set(found["metrics"]) == {"accuracy", "mcc"}
    assert found["test"]["num_questions"] == 15 and found["test"]["num_available"] == 40
    assert found["thresholds"]["abstain"][1]["threshold"] == 0.8 and found["latency"].get("n") is None
    assert len(found["mistakes"]) <= 1


def test_several_labels_a_row(tmp_path: Path, source: Path) -> None:
    one = kit(tmp_path, Task(type="classify", multi_label=True), texts("multi"), source)
    found = read_report(measured(one))
    assert found["metric"] == "micro_f1" and {"samples_f1", "hamming_loss"} <= set(found["metrics"])
    assert len(found["thresholds"]["labels"]) == 3 and "abstain" not in found["thresholds"]
    assert found["systems"]["tuned"]["metrics"]["micro_f1"]["value"] > 0.6
    assert "Cost at 0.5" in (measured(one).path / "report.html").read_text("utf-8")


def test_tags(tmp_path: Path, source: Path) -> None:
    found = measured(kit(tmp_path, Task(type="tag"), texts("tag"), source, steps=120))
    told = read_report(found)
    assert [*told["systems"]] == ["lookup", "tuned"] and told["metric"] == "span_f1"
    assert told["systems"]["lookup"]["metrics"]["span_f1"]["value"] > 0.8
    assert told["systems"]["tuned"]["metrics"]["span_f1"]["value"] > 0.6
    assert {row["label"] for row in told["classes"]} == {"login", "parcel", "refund"}
    assert "Worst misses" in (found.path / "report.html").read_text("utf-8")


def test_search(tmp_path: Path, source: Path) -> None:
    found = measured(kit(tmp_path, Task(type="embed"), texts("embed"), source))
    told = read_report(found)
    assert set(told["systems"]) == {"bm25", "base", "tuned"} and told["metric"] == "ndcg"
    assert told["test"]["num_candidates"] == 160
    rows = list(read_predictions(found))
    first = np.mean([1 / row["systems"]["tuned"]["place"] if row["systems"]["tuned"]["place"] <= 10 else 0
                     for row in rows])
    assert told["systems"]["tuned"]["metrics"]["mrr"]["value"] == pytest.approx(first, abs=1e-6)
    assert "furthest down" in (found.path / "report.html").read_text("utf-8")


def test_images_are_compared_and_shown(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import ResNetConfig, ResNetModel

    source = tmp_path / "resnet"
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
                ).save_pretrained(source)
    (source / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 1.0,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_normalize": True, "do_resize": True}))
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 40), ("validation", 12), ("test", 24)):
        for i in range(count):
            red = i % 2
            pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[..., 0] += np.uint8(100 * red)
            Image.fromarray(pixels).save(tmp_path / f"{split}{i}.png")
            wrong = split == "test" and i < 2
            rows.append(example(f"{split}{i}", "", split, image=f"{split}{i}.png",  # type: ignore[arg-type]
                                labels=("red" if red != wrong else "grey",)))
    found = measured(kit(tmp_path, Task(type="image"), rows, source, steps=30))
    told = read_report(found)
    assert [*told["systems"]] == ["features", "majority", "pixels", "tuned"]
    assert told["systems"]["pixels"]["metrics"]["accuracy"]["value"] == pytest.approx(22 / 24, abs=1e-3)
    assert len(told["thresholds"]["labels"]) == 1
    assert "data:image/jpeg;base64," in (found.path / "report.html").read_text("utf-8")


def test_data_without_test_rows_is_refused(tmp_path: Path, source: Path) -> None:
    rows = [one for one in texts("single", train=20) if one.split != "test"]
    with pytest.raises(DataError, match="no labelled test row"):
        measured(kit(tmp_path, Task(type="classify"), rows, source, steps=1))


def test_the_gate_reads_the_report(report: Artifact) -> None:
    found = read_report(report)
    checks = {check.name: check for check in Gate().judge(found, "tuned")}
    rival = found["rival"]
    gap = next(row for row in found["differences"] if row["metric"] == "accuracy"
               and (row["system"], row["against"]) == ("tuned", rival))
    assert checks["beats"].outcome == ("passed" if gap["low"] > 0 else "failed") and rival in checks["beats"].sentence
    assert checks["disjoint"].outcome == "passed" and checks["min_questions"].outcome == "passed"
    assert {checks["max_retention_rise"].outcome, checks["max_wrong_refusals"].outcome} == {"not applicable"}
    simple = {check.name: check for check in Gate().judge(found, "tfidf")}
    assert simple["beats"].outcome == "passed" and "must beat 'majority'" in simple["beats"].sentence
    nothing = {check.name: check for check in Gate().judge(found, "majority")}
    assert nothing["beats"].outcome == "failed" and "--force" in nothing["beats"].sentence


def test_a_piece_is_shown_as_found_only_with_its_own_tag() -> None:
    from luthier.evaluate.labels.report import _marked

    shown = _marked("on May 1 pay $5 <b>", [(3, 8, "DATE"), (13, 15, "MONEY")], [(3, 8, "MONEY"), (13, 15, "MONEY")])
    assert shown == 'on <mark class="true given">May 1</mark> pay <mark class="found">$5</mark> &lt;b&gt;'
