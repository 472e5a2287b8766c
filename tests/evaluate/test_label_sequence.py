"""The report's section "What was kept": its figures are those of the stages' answers to the test rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from label_kit import FILLER, WORDS, encoder, example, prepared

from luthier.adapt.base import Adapt, adapt
from luthier.evaluate.base import Evaluate, evaluate
from luthier.evaluate.labels.base import LabelEvaluate
from luthier.evaluate.labels.sequence_view import grid, view
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.train.base import Train, train
from luthier.train.plans.head import HeadOnly
from luthier.train.strategies.sequence import TaskSequence
from luthier.types import Example

TASKS = {topic: tuple(sorted(words)) for topic, words in WORDS.items()}


def rows() -> list[Example]:
    """The label is the one telling word; each topic is a task of three labels."""
    rng, found = np.random.default_rng(0), []
    for split, count in (("train", 90), ("validation", 36), ("test", 72)):
        for at in range(count):
            topic = [*WORDS][at % 3]
            word = str(rng.choice(WORDS[topic]))
            filler = [str(one) for one in rng.choice(FILLER, 5)]
            found.append(example(f"{split}{at}", " ".join([*filler[:2], word, *filler[2:]]), split,  # type: ignore[arg-type]
                                 labels=(word,), groups={"topic": topic}))
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact]:
    """The run and its evaluation."""
    folder = tmp_path_factory.mktemp("kept")
    store, task = Store(folder / "store"), Task(type="classify", metric="accuracy")
    data = prepared(store, task, rows())
    model = adapt(task, Adapt(model=str(encoder(folder / "model"))), store=store, root=folder)
    strategy = TaskSequence(by="topic", order=("login", "refund", "parcel"), heads="own", compare_orders=1)
    run = train(model, data, Train(strategy=strategy, plan=HeadOnly(), epochs=2, verify_resume=False), store=store,
                root=folder)
    spec = Evaluate(labels=LabelEvaluate(systems=("majority", "tuned"), latency_rows=0), bootstrap_samples=200)
    return run, evaluate(data=data, index=None, model=model, run=run, task=task, spec=spec, store=store, root=folder)


def report_of(found: Artifact) -> dict[str, Any]:
    return json.loads((found.path / "report.json").read_text("utf-8"))


def test_the_matrices_are_those_of_the_stages_answers(made: tuple[Artifact, Artifact]) -> None:
    run, found = made
    told = report_of(found)["sequence"]
    assert told["tasks"] == ["login", "refund", "parcel"] and told["n"] == [24, 24, 24]
    answers = [json.loads(line) for line in (found.path / "predictions.jsonl").read_text("utf-8").splitlines()]
    last = [np.mean([row["systems"]["tuned"]["right"] for row in answers if row["groups"]["topic"] == task])
            for task in told["tasks"]]
    assert told["modes"]["class_incremental"]["matrix"][-1] == pytest.approx(last, abs=1e-6)
    named = np.array(told["modes"]["task_incremental"]["matrix"], dtype=float)
    blind = np.array(told["modes"]["class_incremental"]["matrix"], dtype=float)
    assert np.all(named[np.tril_indices(3)] >= blind[np.tril_indices(3)] - 1e-9)
    assert named[2, 0] == named[0, 0], "own heads on a frozen base model keep the first task"
    figures = told["modes"]["task_incremental"]["figures"]
    assert figures["forgetting"]["value"] == 0 and figures["plasticity"]["value"] == pytest.approx(
        named.diagonal().mean(), abs=1e-6)
    assert "forward_transfer" not in figures
    network = json.loads((run.path / "best" / "network.json").read_text("utf-8"))
    assert {name: tuple(sorted(labels)) for name, labels in network["parts"].items()} == TASKS


def test_the_page_shows_what_was_kept(made: tuple[Artifact, Artifact]) -> None:
    page = (made[1].path / "report.html").read_text("utf-8")
    assert page.count('<svg class="grid-map"') == 2 and "What was kept" in page
    assert "Nobody names the task" in page and "Did the order matter?" in page
    section = page.split("What was kept")[1].split("</section>")[0]
    assert "nothing measurable was forgotten" in section and "http" not in section


def test_a_run_that_was_no_sequence_has_no_such_section() -> None:
    assert view(None) is None


def test_the_heat_map_escapes_names_and_shows_holes() -> None:
    shown = grid([[0.5, None], [0.25, 1.0]], ["<b>", "two"], start=[0.1, None], title="x")
    assert "<b>" not in shown and shown.count("–</text>") == 2 and "before the first" in shown
    assert shown.count('class="new"') == 2 and shown.count('class="later"') == 3 and shown.count('class="kept"') == 1
