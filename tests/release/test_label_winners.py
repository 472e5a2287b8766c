"""Where tuning is not worth it, the simple system that wins is released, and answers exactly as it was measured."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluate"))
from label_kit import encoder, example, kit, texts  # pyright: ignore[reportMissingImports]

from luthier.adapt import predict
from luthier.adapt.backbones.ngrams import Ngrams
from luthier.adapt.labelled import load_label_model
from luthier.errors import GateRefused, ModelError, SpecError
from luthier.evaluate.base import Evaluate, evaluate, read_predictions, read_report
from luthier.evaluate.labels import baselines
from luthier.evaluate.labels.base import LabelEvaluate
from luthier.evaluate.labels.baselines import Split
from luthier.index.rag import Rag
from luthier.release.base import Gate, Release, read_release, release, released_as
from luthier.release.labels import set_root
from luthier.serve.errors import ApiError
from luthier.serve.labels.explain import Explainer
from luthier.serve.labels.predictor import Predictor
from luthier.task import Task

TASKS = {"single": Task(type="classify", abstain=0.2), "multi": Task(type="classify", multi_label=True),
         "embed": Task(type="embed"), "image": Task(type="image")}


def squares(folder: Path) -> list:
    """Red, green and blue squares with noise; every tenth is labelled wrongly."""
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 60), ("validation", 20), ("test", 30)):
        for i in range(count):
            colour = int(rng.integers(3))
            pixels = rng.integers(0, 140, (40, 40, 3))
            pixels[..., colour] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{split}{i}.png")
            said = colour if i % 10 else (colour + 1) % 3
            rows.append(example(f"{split}{i}", "", split, image=f"{split}{i}.png",  # type: ignore[arg-type]
                                labels=(["red", "green", "blue"][said],)))
    return rows


def network(folder: Path) -> Path:
    """A ConvNeXt of random weights."""
    import torch
    from transformers import ConvNextConfig, ConvNextModel

    torch.manual_seed(0)
    ConvNextModel(ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1])).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 1.0,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_normalize": True, "do_resize": True}))
    return folder


class World:
    """A task's artifacts up to its report, and `go`, which releases."""

    def __init__(self, root: Path, kind: str):
        image = kind == "image"
        rows = squares(root) if image else texts(kind, train=240, test=80)
        source = (network if image else encoder)(root / "base")
        self.kit = kit(root, TASKS[kind], rows, source, steps=1)
        self.rows = [row for row in rows if row.split == "test"]
        self.report = evaluate(data=self.kit.data, index=None, model=self.kit.model, run=self.kit.run,
                               task=self.kit.task, store=self.kit.store, root=root,
                               spec=Evaluate(bootstrap_samples=200, labels=LabelEvaluate(latency_rows=0)))

    def go(self, releases: Path, spec: Release | None = None, *, force: bool = False) -> Path:
        one = self.kit
        return release(report=self.report, run=one.run, model=one.model, index=None, data=one.data, task=one.task,
                       rag=Rag(), spec=(spec or Release()).but(name="desk"), store=one.store, releases=releases,
                       force=force, root=one.root)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    made: dict[str, World] = {}

    def world(kind: str) -> World:
        if kind not in made:
            made[kind] = World(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return world


def said(world: World, folder: Path) -> np.ndarray:
    """Probabilities of every test row, by the released folder alone."""
    model = load_label_model(folder / "model")
    set_root(model, world.kit.root)
    rows = model.rows([replace(one, target=None) for one in world.rows], targets=False)
    return predict.probabilities(predict.logits(model, rows), multi_label=model.task.multi_label)


@pytest.mark.parametrize(("kind", "system"), [("single", "tfidf"), ("multi", "tfidf"), ("image", "pixels"),
                                              ("single", "features")])
def test_the_released_answers_are_those_of_the_report(worlds, tmp_path, kind, system):
    world = worlds(kind)
    folder = world.go(tmp_path, Release(system=system, gate=Gate(beats=None)))
    labels = load_label_model(folder / "model").labels
    worst = 0.0
    for row, told in zip(said(world, folder), read_predictions(world.report), strict=True):
        worst = max(worst, *(abs(float(row[labels.index(label)]) - value)
                             for label, value in told["systems"][system]["top"]))
    assert worst < 2e-4  # the report keeps four digits
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["agreement"] == 1 and parity["measured_rows"] == 8 and parity["max_alone_difference"] < 1e-5
    record = read_release(folder)
    assert record.choice == system and record.tuned["present"] is False and record.weights(record.choice).is_dir()
    record.verify()


@pytest.mark.parametrize(("kind", "system"), [("single", "tfidf"), ("image", "pixels")])
def test_a_run_ends_with_the_verdict_s_choice_and_not_with_a_refusal(worlds, tmp_path, kind, system):
    world = worlds(kind)
    verdict = read_report(world.report)["verdict"]
    assert verdict["choice"] == system and verdict["sentence"].startswith("Do not tune: ")
    folder = world.go(tmp_path)
    record = read_release(folder)
    assert record.stage == "live" and record.forced is None
    assert released_as(folder) == f"released as {system}: tuning is not worth it here"
    beats = next(check for check in record.gate if check["name"] == "beats")
    assert beats["outcome"] == "passed" and f"'{system}' must beat 'majority'" in beats["sentence"]
    card = (folder / "MODEL_CARD.md").read_text()
    kind_of = {"tfidf": ": TF-IDF + logistic regression.", "pixels": ": pixels + logistic regression."}
    for part in (verdict["sentence"], kind_of[system], "It contains no base model", "No weights of a base model",
                 "a logistic regression on", "nothing was tuned"):
        assert part in card, part
    assert world.go(tmp_path) == folder  # nothing changed, nothing is made


def test_an_untouched_encoder_that_wins_is_released_with_its_own_vectors(worlds, tmp_path):
    world = worlds("embed")
    folder = world.go(tmp_path, Release(system="base", gate=Gate(beats=None)))
    from luthier.adapt.labelled import open_label_model

    base, released = open_label_model(world.kit.model, ()), load_label_model(folder / "model")
    rows = [replace(row, target=None) for row in world.rows]
    assert np.array_equal(predict.logits(base, base.rows(rows, targets=False)),
                          predict.logits(released, released.rows(rows, targets=False)))
    assert "nothing was trained" in (folder / "MODEL_CARD.md").read_text()


def test_the_tuned_model_is_still_refused_where_the_verdict_is_against_it_unless_forced(worlds, tmp_path):
    world = worlds("single")
    with pytest.raises(GateRefused, match=r"'tuned' must beat 'tfidf'"):
        world.go(tmp_path, Release(system="tuned"))
    record = read_release(world.go(tmp_path, Release(system="tuned", force_reason="a trial"), force=True))
    assert record.choice == "tuned" and record.forced is not None and record.forced["reason"] == "a trial"
    assert released_as(record.folder) == "released as tuned"


@pytest.mark.parametrize(("system", "why"), [("majority", "commonest class"), ("lookup", "list of words"),
                                             ("bm25", "search index"), ("zero_shot", "ask it directly")])
def test_what_is_no_model_is_refused_with_what_to_do(system, why):
    report = {"task": {"type": "classify"}, "metric": "accuracy", "differences": [], "test": {"num_questions": 99},
              "systems": {system: {"metrics": {"accuracy": {"value": 0.5}}}}, "rival": system}
    check = next(check for check in Gate().judge(report, system) if check.name == "beats")
    assert check.outcome == "failed" and why in check.sentence and "--force" in check.sentence


@pytest.mark.parametrize(("low", "passes"), [(0.01, True), (-0.01, False)])
def test_an_untouched_encoder_must_surely_beat_keyword_search(low, passes):
    value = {"metrics": {"ndcg": {"value": 0.5}}}
    gap = {"metric": "ndcg", "system": "base", "against": "bm25", "value": 0.05, "low": low, "high": 0.1, "n": 99}
    report = {"task": {"type": "embed"}, "metric": "ndcg", "test": {"num_questions": 99}, "differences": [gap],
              "systems": {"bm25": value, "base": value, "tuned": value}, "rival": "base"}
    check = next(check for check in Gate().judge(report, "base") if check.name == "beats")
    assert check.outcome == ("passed" if passes else "failed") and "'base' must beat 'bm25'" in check.sentence


def test_onnx_is_refused_where_the_features_are_made_outside_of_the_network(worlds, tmp_path):
    with pytest.raises(SpecError, match=r"release\.onnx: 'tfidf' is released"):
        worlds("single").go(tmp_path, Release(onnx=True))
    assert not list((tmp_path / "desk").glob("*/release.json"))


@pytest.mark.parametrize(("kind", "system"), [("single", "pixels"), ("image", "tfidf"), ("single", "base"),
                                              ("embed", "features")])
def test_systems_of_other_tasks_are_refused(worlds, tmp_path, kind, system):
    with pytest.raises(SpecError, match=r"release\.system"):
        Release(system=system).refuse_misfits(TASKS[kind])


def test_words_that_speak_for_a_label_are_told_by_occlusion_and_nothing_is_cut(worlds, tmp_path):
    predictor = Predictor.open(read_release(worlds("single").go(tmp_path)))
    asked = predictor.texts(["my courier is late " * 200, "please, the refund"])
    assert not any(one.truncated for one in asked)
    explainer = Explainer(predictor)
    told = explainer.explain(asked[1], "refund", "occlusion", 1)["tokens"]
    assert told[0]["text"] == "refund" and told[0]["contribution"] > 0.5
    with pytest.raises(ApiError, match="occlusion"):
        explainer.explain(asked[1], "refund", "integrated_gradients", 1)


def test_a_small_picture_is_explained_by_occlusion(worlds, tmp_path):
    world = worlds("image")
    predictor = Predictor.open(read_release(world.go(tmp_path)))
    asked = predictor.image((world.kit.root / "test1.png").read_bytes(), most_pixels=10_000)
    heat = Explainer(predictor).explain(asked, predictor.labels[0], "occlusion", 1)["heatmap"]
    assert np.shape(heat) == (7, 7)
    with pytest.raises(ApiError, match="occlusion"):
        Explainer(predictor).explain(asked, predictor.labels[0], "integrated_gradients", 1)


ODD = ["", "  ", "a", "I'm  here\tnow\n", "Straße İstanbul ΣΊΣΥΦΟΣ naïve 東京 🙂🙂", "x y z", "___ --- 1,000.5",
       "a\u2028b", "Ein Wort, ein Wort; EIN wort."]


def test_runs_are_counted_as_scikit_learn_counts_them(tmp_path):
    train = [f"{a} {b}" for a in ODD for b in ("the refund is late", "Wort für Wort", "")]
    (words, letters), inside = baselines.counted(Split([example(str(i), text, "train") for i, text
                                                        in enumerate(train)], np.zeros(len(train), dtype=int)))
    Ngrams([*words.get_feature_names_out()], [*letters.get_feature_names_out()], words.idf_,
           letters.idf_).save(tmp_path)
    ngrams = Ngrams.restore(tmp_path)
    from scipy.sparse import hstack

    for text in [*train, *ODD, "unknown zebra refund"]:
        wanted = hstack([maker.transform([text]) for maker in (words, letters)]).toarray()[0]
        columns, values = ngrams.read(text)
        given = np.zeros(ngrams.columns)
        given[columns] = values
        assert given == pytest.approx(wanted, abs=1e-6), text
    assert inside.shape[1] == ngrams.columns
    (tmp_path / "ngrams.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="release the model again"):
        Ngrams.restore(tmp_path)


@pytest.mark.parametrize("targets", [np.array([0, 1] * 10), np.array([0, 2] * 10), np.array([1] * 20),
                                     np.array([0, 1, 3, 1] * 5), np.array([[1, 0, 1], [0, 0, 1]] * 10, dtype=bool)])
def test_the_linear_layer_gives_scikit_learn_s_probabilities(targets):
    values = np.random.default_rng(0).normal(size=(20, 5))
    train = Split([example(str(i), "", "train") for i in range(20)], targets)
    classes = 3 if targets.ndim == 2 else 4
    wanted = baselines.logistic(values, train, values, train, values, classes, (1.0,)).test
    weight, bias = baselines.linear(values, train, classes, 1.0)
    given = predict.probabilities(values @ weight.T + bias, multi_label=targets.ndim == 2)
    assert given == pytest.approx(wanted, abs=1e-12)
