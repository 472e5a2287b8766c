"""The whole evaluation on a tiny model: what it writes, what it reuses, how it survives, what it refuses."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from luthier.adapt.base import Adapt, adapt, open_model
from luthier.adapt.full import Full
from luthier.errors import DataError
from luthier.evaluate import Evaluate, Retention, evaluate, read_predictions, read_report
from luthier.evaluate.systems import Opened, Subject
from luthier.evaluate.testset import disjoint, test_set
from luthier.index.base import Index, index
from luthier.index.rag import Rag
from luthier.store import Artifact, Store
from luthier.task import Task
from luthier.testing import tiny_chat_model
from luthier.types import Example, Message, Origin

_spec = importlib.util.spec_from_file_location("evaluate_helpers", Path(__file__).with_name("helpers.py"))
helpers = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(helpers)  # type: ignore[union-attr]

RAG = Rag(top_k=2, max_context_tokens=60, instruction="Use these. Else say: {refusal}")
TASK = Task(metric="answer_loss", system="Be brief.")
SPEC = Evaluate(max_new_tokens=12, latency_questions=2, bootstrap_samples=400, examples_shown=6, worthwhile=0.02,
                retention=Retention(max_items=20, max_rise=10.0))


class Project:
    """Data, index, adapted tiny model and a run that learned the test answers by heart."""

    def __init__(self, folder: Path):
        self.root, self.store = folder, Store(folder / "store")
        self.passages, self.examples = helpers.town(TASK)
        self.data = helpers.data_artifact(self.store, self.passages, self.examples)
        self.index = index(self.data, Index(mode="keywords"), store=self.store, root=folder)
        tiny_chat_model(folder / "model")
        self.model = adapt(TASK, Adapt(model="model", dtype="float32", method=Full()), store=self.store, root=folder)
        self.run = self.train("first", 40)

    def train(self, name: str, steps: int) -> Artifact:
        def make(folder: Path) -> dict[str, Any]:
            import torch

            from luthier.train.render import render

            torch.manual_seed(0)
            model = open_model(self.model)
            rows = [render(model.tokenizer, e, stop_id=model.stop_ids[0], system=TASK.system)
                    for e in self.examples if e.split == "test"]
            longest = max(len(row.ids) for row in rows)
            ids = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in rows])
            labels = torch.tensor([[i if m else -100 for i, m in zip(row.ids, row.loss)]
                                   + [-100] * (longest - len(row.ids)) for row in rows])
            optimiser = torch.optim.AdamW(model.module.parameters(), lr=3e-3)
            for _ in range(steps):
                model.module(input_ids=ids, labels=labels).loss.backward()
                optimiser.step()
                optimiser.zero_grad()
            model.method.save(model.module, dict(model.module.named_parameters()), folder / "best")
            return {}

        return self.store.build("train", version=1, spec={"name": name}, inputs={"model": self.model}, make=make)

    def evaluate(self, **changes: Any) -> Artifact:
        told = {"data": self.data, "index": self.index, "model": self.model, "run": self.run, "task": TASK, "rag": RAG,
                "spec": SPEC, "store": self.store, "root": self.root, **changes}
        return evaluate(**told)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("town"))


@pytest.fixture(scope="module")
def done(project: Project) -> Artifact:
    return project.evaluate()


def test_a_model_that_learned_the_answers_wins_and_says_so(done: Artifact) -> None:
    report = read_report(done)
    assert report["verdict"]["choice"] == done.summary["verdict"]["choice"] == "tuned"
    assert report["verdict"]["sentence"].startswith("Release the tuned model: it beats the base model on answer loss")
    row = next(row for row in report["differences"]
               if (row["system"], row["against"], row["metric"]) == ("tuned", "base", "answer_loss"))
    assert row["high"] < -1 and row["relative"]["high"] < -0.15
    losses = {system: told["metrics"]["answer_loss"]["value"] for system, told in report["systems"].items()}
    assert row["value"] == pytest.approx(losses["tuned"] - losses["base"], abs=1e-5)
    assert any("Answer loss, the tuned model" in line for line in report["verdict"]["improvements"])


def test_report_keeps_the_contract(done: Artifact) -> None:
    report = read_report(done)
    assert set(report["systems"]) == {"base", "retrieval", "tuned", "tuned_retrieval"}
    assert {"num_questions", "num_unanswerable", "num_documents", "disjoint", "hash"} <= set(report["test"])
    assert report["test"]["num_questions"] == 28 and report["test"]["num_unanswerable"] == 4
    assert report["test"]["num_documents"] == 6 and report["metric"] == "answer_loss"
    for told in report["systems"].values():
        assert all({"value", "low", "high", "n"} <= set(one) for one in told["metrics"].values())
        assert told["latency_s"]["p50"] <= told["latency_s"]["p95"] and told["latency_s"]["n"] == 2
        assert told["tokens_per_s"] > 0 and told["cpu_s_per_1000_answers"] > 0 and told["memory_mb"] > 0
    assert {"base", "tuned", "relative_rise", "low", "high", "n"} <= set(report["retention"]["token_loss"])
    assert report["retrieval"]["recall@1"]["n"] == 24 and report["retrieval"]["recall@10"]["value"] > 0.9
    assert set(report["slices"]) == {"maker", "answerable", "document"}
    assert set(report["slices"]["answerable"]) == {"answerable"}, "four unanswerable questions are below min_slice"
    answers = report["slices"]["maker"]["document"]
    assert answers["base"]["n"] == 12 and answers["tuned_minus_base"]["value"] < 0
    assert any("similarity" in note for note in report["notes"]) or "similarity" in report["metrics"]


def test_predictions_carry_lineage_scores_and_passages(project: Project, done: Artifact) -> None:
    rows = list(read_predictions(done))
    assert len(rows) == 28 * 4
    held = {passage.id for passage in project.passages}
    for row in rows:
        assert bool(row["passages"]) == ("retrieval" in row["system"])
        assert {one["id"] for one in row["passages"]} <= held and len(row["passages"]) <= 2
        assert row["origin"]["passages"] and row["sources"][0]["citation"].startswith("town")
        assert row["scores"]["answer_loss"] > 0 and row["finish"] in ("stop", "length")
    report = read_report(done)
    for system in ("base", "tuned"):
        mine = [row["scores"]["token_f1"] for row in rows if row["system"] == system]
        assert report["systems"][system]["metrics"]["token_f1"]["value"] == pytest.approx(sum(mine) / 28, abs=1e-5)


def test_retrieval_loss_is_measured_behind_the_rag_prompt(project: Project, done: Artifact) -> None:
    import torch

    from luthier.adapt.base import open_base
    from luthier.index.base import open_index
    from luthier.models.generate import encode_prompt

    model = open_base(project.model)
    row = next(row for row in read_predictions(done) if row["system"] == "retrieval")
    hits = open_index(project.index.path, root=project.root).search([row["question"]], 2)[0]
    prompt = encode_prompt(model.tokenizer, RAG.messages(row["question"], [hit.passage for hit in hits], TASK.system,
                                                         refusal=TASK.refusal))
    answer = [*model.tokenizer(row["reference"], add_special_tokens=False)["input_ids"], model.stop_ids[0]]
    labels = torch.tensor([[-100] * len(prompt) + answer])
    loss = model.module(input_ids=torch.tensor([prompt + answer]), labels=labels).loss.item()
    assert row["scores"]["answer_loss"] == pytest.approx(loss, rel=1e-4)
    assert [one["id"] for one in row["passages"]] == [p.id for p in RAG.fit([hit.passage for hit in hits])]


def test_page_is_self_contained_and_escapes_what_models_say(project: Project, done: Artifact) -> None:
    page = (done.path / "report.html").read_text("utf-8")
    report = read_report(done)
    assert report["verdict"]["sentence"].split(",")[0].replace("'", "&#39;") in page
    assert not re.search(r"""(src|href)\s*=|@import|url\(|<script""", page)
    assert page.count("<svg") > 20 and "prefers-color-scheme: dark" in page
    from luthier.evaluate.report import render

    rows = [{**row, "answer": "<script>alert(1)</script>", "question": "<b>who</b>"} for row in read_predictions(done)]
    hostile = render(report, rows)
    assert "<script" not in hostile and "<b>who" not in hostile


def test_second_call_is_found_and_another_run_reuses_the_base(project: Project, done: Artifact, monkeypatch) -> None:
    assert not project.evaluate().fresh
    opened: list[str] = []
    original = Subject.opened.fget

    def watch(self: Subject) -> Opened:
        opened.append("tuned" if "tuned" in self.key else "base")
        return original(self)  # type: ignore[misc]

    monkeypatch.setattr(Subject, "opened", property(watch))
    again = project.evaluate(run=project.train("second", 5))
    assert again.fresh and set(opened) == {"tuned"}
    first, second = ({(row["example"], row["system"]): row["answer"] for row in read_predictions(one)}
                     for one in (done, again))
    assert all(first[key] == second[key] for key in first if key[1] in ("base", "retrieval"))


def test_a_killed_evaluation_continues_where_it_stopped(project: Project, done: Artifact, monkeypatch,
                                                        tmp_path: Path) -> None:
    store = Store(tmp_path)
    asked: list[int] = []
    original = Subject._generate

    def dying(self: Subject, prompts: Any, limit: int) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return original(self, prompts, limit)

    monkeypatch.setattr(Subject, "_generate", dying)
    with pytest.raises(KeyboardInterrupt):
        project.evaluate(store=store)
    saved = sum(asked)
    monkeypatch.setattr(Subject, "_generate", lambda self, prompts, limit: (
        asked.append(len(prompts)), original(self, prompts, limit))[1])
    finished = project.evaluate(store=store)
    assert saved > 16 and sum(asked) == 28 * 4
    old, new = ({(row["example"], row["system"]): row["scores"] for row in read_predictions(one)}
                for one in (done, finished))
    assert old == new, "a fresh store and an interruption change no score"


def test_systems_without_their_parts_are_left_out_and_named(project: Project) -> None:
    alone = read_report(project.evaluate(run=None, index=None))
    assert set(alone["systems"]) == {"base"} and alone["verdict"]["choice"] == "base"
    assert any("tuned" in note and "no trained run" in note for note in alone["notes"])
    assert "relative_rise" not in alone["retention"]["token_loss"]
    fewer = read_report(project.evaluate(spec=SPEC.but(systems=("tuned",), latency_questions=0)))
    assert list(fewer["systems"]) == ["base", "tuned"] and "latency_s" not in fewer["systems"]["base"]


def test_fields_of_the_spec_take_effect(project: Project) -> None:
    report = read_report(project.evaluate(spec=SPEC.but(
        systems=("base", "tuned"), metrics=(), max_questions=9, max_new_tokens=3, latency_questions=0, examples_shown=0,
        retention=Retention(instructions="none", choices="none"))))
    assert set(report["metrics"]) == {"answer_loss", "refused_wrongly"}
    assert report["test"]["num_questions"] == 9 and report["test"]["num_available"] == 28
    assert report["verdict"]["conclusive"] is False and "too small to tell" in report["verdict"]["sentence"]
    assert report["retention"] == {"limit": 0.05}
    assert report["systems"]["base"]["mean_answer_tokens"] <= 3


def test_a_completion_task_is_compared_by_loss(project: Project) -> None:
    task = Task(type="completion", metric="answer_loss")
    texts = [Example(id=str(i), input=passage.text, target=None, split="test",
                     origin=Origin(maker="document", step="text", documents=(passage.document,),
                                   passages=(passage.id,))) for i, passage in enumerate(project.passages)]
    data = helpers.data_artifact(project.store, project.passages, texts, "texts")
    report = read_report(project.evaluate(data=data, task=task))
    assert set(report["systems"]) == {"base", "tuned"} and set(report["metrics"]) == {"answer_loss", "perplexity"}
    assert report["systems"]["base"]["metrics"]["answer_loss"]["n"] == 12


def test_an_empty_test_set_is_one_sentence(project: Project) -> None:
    data = helpers.data_artifact(project.store, [], [e for e in project.examples if e.split == "train"], "none")
    with pytest.raises(DataError, match="no test question"):
        project.evaluate(data=data)


def chat(question: str, *, split: str = "test", tags: tuple[str, ...] = (), documents: tuple[str, ...] = (),
         passages: tuple[str, ...] = (), target: str | None = "Nine.") -> Example:
    return Example(id=question, input=(Message(role="user", content=question),), target=target, split=split, tags=tags,
                   origin=Origin(maker="human", step="t", documents=documents, passages=passages))


def test_the_test_set_counts_what_it_leaves_out_and_never_depends_on_order() -> None:
    prompt = RAG.messages("When?", helpers.passages(1))[-1].content
    examples = [chat("a"), chat("b"), chat("c", tags=("grounded",)), chat(prompt), chat("d", tags=("replay",)),
                chat("e", target=None), chat("f", split="train")]
    found = test_set(examples, [], Task(), max_questions=50, seed=0)
    assert [e.id for e in found.examples] == ["a", "b"]
    assert found.facts["excluded"] == {"grounded": 2, "replayed": 1, "without an answer": 1}
    many = [chat(f"q{i}") for i in range(30)]
    one = {e.id for e in test_set(many, [], Task(), max_questions=7, seed=1).examples}
    two = {e.id for e in test_set(many[::-1], [], Task(), max_questions=7, seed=1).examples}
    assert one == two and len(one) == 7
    assert one != {e.id for e in test_set(many, [], Task(), max_questions=7, seed=2).examples}


def test_disjointness_is_the_strictest_level_that_holds() -> None:
    test = [chat("a", documents=("d1",), passages=("p1",))]
    assert disjoint(test, [chat("x", documents=("d2",), passages=("p2",))]) == "document"
    assert disjoint(test, [chat("x", documents=("d1",), passages=("p2",))]) == "passage"
    assert disjoint(test, [chat("x", documents=("d1",), passages=("p1",))]) == "question"
    assert disjoint(test, [chat("A ?", documents=("d1",), passages=("p1",))]) == "none"
    mixed = [*test, chat("b")]  # a pair that stands in no document counts by its wording
    assert disjoint(mixed, [chat("x", documents=("d2",), passages=("p2",))]) == "document"
    assert disjoint(mixed, [chat("b", documents=("d2",), passages=("p2",))]) == "none"
    assert disjoint([chat("b")], [chat("x", documents=("d2",))]) == "question"


def test_earlier_turns_stay_in_front_of_the_retrieved_prompt(project: Project) -> None:
    from luthier.evaluate.measure import _Retrieval

    turns = (Message(role="user", content="Hi"), Message(role="assistant", content="Hello"),
             Message(role="user", content="When does the library open?"))
    example = Example(id="t", input=turns, target="7", split="test", origin=Origin(maker="human", step="t"))
    tests = test_set([example], project.passages, TASK, max_questions=5, seed=0)
    prompt = _Retrieval(tests, None, RAG, TASK).prompt(example, project.passages[:1])
    assert [message.role for message in prompt] == ["system", "user", "assistant", "user"]
    assert prompt[0].content == "Be brief." and "[1] town0.md" in prompt[-1].content


def test_spec_survives_yaml_and_orders_its_systems() -> None:
    import yaml

    from luthier.spec import parse

    spec = Evaluate(systems=("tuned", "retrieval"), metrics=("rouge_l", {"kind": "token_f1"}))  # type: ignore[arg-type]
    assert spec.systems == ("base", "retrieval", "tuned")
    assert parse(Evaluate, yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(spec.dump()))))) == spec
    bare = [name for name in Evaluate.model_fields if not Evaluate.field_help().get(name)]
    assert not bare


def test_the_judge_is_part_of_the_report_and_its_failure_is_not_the_evaluations(project: Project, monkeypatch) -> None:
    from luthier.errors import ModelError
    from luthier.evaluate import Judge
    from luthier.models.base import Completion

    class Fake:
        name = "fake"

        def __init__(self, fails: bool):
            self.fails = fails

        def complete(self, prompts, **options):
            if self.fails:
                raise ModelError("the endpoint is down")
            return [Completion("TIE", 1, 1, "stop", 0.0) for _ in prompts]

    told = Judge(base_url="http://localhost:1/v1", model="m")
    few = SPEC.but(systems=("base", "tuned"), latency_questions=0)
    monkeypatch.setattr(Judge, "open", lambda self: Fake(fails=True))
    down = project.evaluate(spec=few.but(judge=told))
    assert read_report(down)["judge"]["skipped"] == "the endpoint is down"
    assert "The judge was left out: the endpoint is down" in (down.path / "report.html").read_text("utf-8")
    monkeypatch.setattr(Judge, "open", lambda self: Fake(fails=False))
    up = project.evaluate(spec=few.but(judge=told.but(max_questions=9)))
    assert read_report(up)["judge"]["systems"]["tuned"]["ties"] == 9
    assert "opinion" in (up.path / "report.html").read_text("utf-8")
