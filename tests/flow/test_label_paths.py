"""The whole path of every task with labels, as a user walks it: data in, project, run, report, release, answers.

The networks are tiny and random, so the gate refuses them and the release is forced; what is tested is that every
stage hands the next what it needs, that nothing is done twice, and that the released folder stands by itself.
"""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
from luthier.adapt import predict
from luthier.adapt.labelled import load_label_model
from luthier.evaluate.base import read_report
from luthier.prepare.base import read_examples
from luthier.project import Project
from luthier.project.check import check
from luthier.project.new import new
from luthier.project.trace import trace
from luthier.release.base import live_release, read_release
from luthier.testing import tiny_encoder

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
FAST = ("train.epochs=2", "train.batch_size=16", "evaluate.bootstrap_samples=200", "evaluate.labels.latency_rows=2",
        "release.gate.min_questions=1", "release.force_reason=a test")
WORDS = {"card": "my plastic card was stolen", "loan": "how much can I borrow", "visa": "do I need a stamp to travel"}


def write_rows(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def classify(folder: Path) -> Path:
    kinds = list(WORDS)
    rows = [{"text": f"{WORDS[kinds[at % 3]]} case {at}", "label": kinds[at % 3]} for at in range(90)]
    rows += [{"text": f"tell me a joke number {at}", "label": "oos"} for at in range(20)]
    return write_rows(folder / "rows.jsonl", rows)


def several(folder: Path) -> Path:
    kinds = list(WORDS)
    rows = []
    for at in range(90):
        mine = sorted({kinds[at % 3], kinds[(at // 3) % 3]}) if at % 10 else []
        rows.append({"text": " and ".join(WORDS[kind] for kind in mine) + f" case {at}", "labels": mine})
    return write_rows(folder / "rows.jsonl", rows)


def tagged(folder: Path) -> Path:
    rows = []
    for at in range(80):
        text = f"on day {at} the price was ${at}00 in all"
        start = text.index("$")
        rows.append({"text": text, "spans": [{"start": start, "end": start + len(f"${at}00"), "label": "MONEY"}]
                     if at % 4 else []})
    return write_rows(folder / "rows.jsonl", rows)


def pairs(folder: Path) -> Path:
    return write_rows(folder / "rows.jsonl", [{"question": f"what is item {at}", "answer": f"item {at} is thing {at}"}
                                              for at in range(80)])


def images(folder: Path) -> Path:
    from PIL import Image

    draw = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / "scans" / name).mkdir(parents=True)
        for at in range(30):
            pixels = draw.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[..., channel] = 255
            Image.fromarray(pixels).save(folder / "scans" / name / f"{at}.png")
    return folder / "scans"


def tiny_resnet(folder: Path) -> Path:
    import torch
    from transformers import ResNetConfig, ResNetModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
                    ).eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "do_resize": True, "size": {"height": 32, "width": 32}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}))
    return folder


@dataclass(frozen=True)
class Walked:
    """A walked path."""

    project: Project
    root: Path


DATA = {"classify": classify, "several": several, "tag": tagged, "embed": pairs, "image": images}


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """task -> its project after one forced run."""
    made: dict[str, Walked] = {}

    def walk(name: str) -> Walked:
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            data = DATA[name](root)
            task = "classify" if name == "several" else name
            new(root / "p", task=task, data=data)
            (tiny_resnet if task == "image" else tiny_encoder)(root / "p" / "tiny")
            project = Project.open(root / "p", overrides=(
                *FAST, "adapt.model=tiny", *(("adapt.image_size=32",) if task == "image" else ())))
            assert check(project).problems == []
            list(project.run(force=True))
            made[name] = Walked(project, root)
        return made[name]

    return walk


@pytest.mark.slow
@pytest.mark.parametrize("name", list(DATA))
def test_data_in_release_out(walked, name):
    project = walked(name).project
    report = read_report(project.artifact("evaluate"))
    verdict = report["verdict"]
    assert verdict["sentence"] and verdict["choice"] in report["systems"] and "tuned" in report["systems"]
    page = (project.artifact("evaluate").path / "report.html").read_text("utf-8")
    assert verdict["sentence"].split(",")[0].split("(")[0].strip()[:20] in page and "nan" not in page.lower().split()
    folder = live_release(project.releases, "p")
    record = read_release(folder)
    record.verify()
    model = load_label_model(folder / "model")
    tests = [row for row in read_examples(project.artifact("prepare"), "test") if "out-of-scope" not in row.tags]
    assert report["test"]["num_questions"] == len(tests) > 4
    if name == "image":
        model.processor.root = project.root
    ask = predict.tag_logits if name == "tag" else predict.logits
    answers = ask(model, model.rows(tests, targets=False))
    assert len(answers) == len(tests) and all(np.isfinite(row).all() for row in answers)
    wanted = {"classify": ("card", "loan", "visa"), "several": ("card", "loan", "visa"), "embed": (),
              "tag": ("O", "B-MONEY", "I-MONEY"), "image": ("blue", "red")}[name]
    assert tuple(model.labels) == wanted


@pytest.mark.slow
def test_rows_of_no_class_are_recognised_and_never_learnt(walked):
    project = walked("classify").project
    report = read_report(project.artifact("evaluate"))
    rows = [row for row in read_examples(project.artifact("prepare")) if "out-of-scope" in row.tags]
    held = [row for row in rows if row.split == "test"]
    assert len(rows) == 20 and report["out_of_scope"]["n"] == report["test"]["num_out_of_scope"] == len(held) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", list(DATA))
def test_a_row_is_traced_to_its_release_and_a_release_to_its_rows(walked, name):
    project = walked(name).project
    row = read_examples(project.artifact("prepare"), "train")[0]
    for what in (row.origin.where, row.id):
        assert trace(project, what)["type"] in ("example", "examples", "row", "rows", "source", "file"), what
    whole = trace(project, "data/red" if name == "image" else "data/rows.jsonl")
    assert whole["type"] == "file" and whole["rows"]["train"] > 10
    assert trace(project, "p/1")["type"] == "release"


@pytest.mark.slow
def test_a_second_run_does_nothing_quickly_and_without_torch(walked):
    root = walked("classify").project.root
    settings = [word for setting in (*FAST, "adapt.model=tiny") for word in ("-s", setting)]
    code = ("import sys; from luthier.cli import main; sys.argv = ['luthier', 'run', '--json', '--force', "
            f"*{settings!r}]\ntry:\n    main()\nfinally:\n    assert not {{'torch', 'transformers', 'sklearn'}} & set("
            "sys.modules)")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=ENV, capture_output=True, text=True, check=False)
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert done.returncode == 0, done.stderr[-2000:]
    assert not any(stage["made"] for stage in json.loads(done.stdout)["stages"])
    assert cpu < 4, cpu  # 1.7 s on an idle core
