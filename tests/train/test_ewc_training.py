"""Laws of elastic weight consolidation over trainings: what is remembered, and that less is forgotten."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ewc_kit import QUICK, Said, move
from fit_kit import Bench, rows
from train_kit import adapted, data_artifact
from train_kit import examples as chats

from luthier.adapt.base import Adapt, adapt, open_base, open_model, trainable
from luthier.adapt.full import Full
from luthier.adapt.grow import grown
from luthier.adapt.labelled import load_label_model, save_label_model
from luthier.adapt.lora import LoRA
from luthier.store import Store
from luthier.task import Task
from luthier.testing import tiny_chat_model
from luthier.train.base import Train, train
from luthier.train.labelled.fit import fit_once
from luthier.train.labelled.score import validate
from luthier.train.past import Past, load_past, save_past
from luthier.train.plans.head import HeadOnly
from luthier.train.regularizers import Setting
from luthier.train.regularizers._weights import all_weights, training_weights
from luthier.train.regularizers.ewc import EWC
from luthier.train.render import render

LABELS = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("ewc"), dropout=0.0)


def follow(bench: Bench, fitted: Any, folder: Path, *, labels: Any = LABELS, method: Any = None) -> dict[str, Any]:
    """What a job that begins from a finished fit has other than the base model's, by way of the disk."""
    save_label_model(fitted.model, folder / "best")
    save_past(folder / "memory", **fitted.memory)
    past = load_past(folder / "memory", lambda: load_label_model(folder / "best"))
    return {"past": past, "warm": False,
            "open": lambda seed: grown(load_label_model(folder / "best"), labels, method=method or Full(), seed=seed)}


def remembered(fitted: Any) -> dict[str, torch.Tensor]:
    return dict(fitted.memory["kept"]["ewc"])


def test_online_adds_up_and_offline_keeps_apart(bench: Bench, tmp_path: Path) -> None:
    first, second = rows(12), rows(12, first=50)
    found = {}
    for mode, decay in (("online", 0.5), ("offline", 1.0)):
        ewc = EWC(strength=1.0, mode=mode, decay=decay, samples=8, fisher="exact")
        one = fit_once(bench.job(f"{mode}-1", first, (), regularizers=(ewc,), **QUICK))
        start = follow(bench, one, tmp_path / mode)
        assert all(torch.equal(start["past"].kept["ewc"][n], v.float()) for n, v in remembered(one).items())
        two = fit_once(bench.job(f"{mode}-2", second, (), regularizers=(ewc,), **QUICK).but(**start))
        model = two.model
        alone = ewc.remember(Setting(model=model, rows=model.rows(second), seed=0))
        found[mode] = remembered(one), remembered(two), alone, start["past"].kept["ewc"]
        assert 0 < two.summary["penalties"]["ewc"] < 1
    one, two, alone, kept = found["online"]
    assert one.keys() == two.keys() and all(name.startswith("fisher/") for name in one)
    assert all(torch.allclose(two[n], 0.5 * kept[n] + alone[n], rtol=1e-6, atol=0) for n in two)
    one, two, alone, kept = found["offline"]
    anchors = sorted({name.split("/")[0] for name in two if "/anchor/" in name})
    assert anchors == ["0", "1"] and all(torch.equal(two[n], kept[n]) for n in kept)
    assert all(torch.equal(two[f"1{n[1:]}"], v) for n, v in alone.items())
    assert any(not torch.equal(two[n], two[f"1{n[1:]}"]) for n in kept if "/anchor/" in n)


def test_rounding_to_bfloat16_is_no_distance_from_an_anchor(bench: Bench, tmp_path: Path) -> None:
    ewc = EWC(strength=1.0, mode="offline", samples=8)
    one = fit_once(bench.job("low-1", rows(12), (), regularizers=(ewc,), **QUICK))
    start = follow(bench, one, tmp_path)
    model = start["open"](0)
    model.module.to(torch.bfloat16)
    penalty = ewc.bind(Setting(model=model, rows=(), past=start["past"]))
    assert penalty is not None and float(penalty().detach()) == 0.0
    two = fit_once(bench.job("low-2", rows(12, first=60), (), regularizers=(ewc,), precision="bfloat16", **QUICK).but(
        **start))
    assert two.summary["precision"] == "bfloat16" and two.summary["penalties"]["ewc"] > 0


def test_what_is_saved_and_read_again_gives_the_same_training(bench: Bench, tmp_path: Path) -> None:
    ewc = EWC(strength=1e3, samples=10)
    one = fit_once(bench.job("saved-1", rows(18), (), regularizers=(ewc,), **QUICK))
    start = follow(bench, one, tmp_path)
    job = bench.job("saved-2", rows(18, first=60), (), regularizers=(ewc,), **QUICK).but(**start)
    unsaved = start["past"].but(kept={"ewc": remembered(one)})
    first = fit_once(job)
    again = fit_once(job.but(folder=tmp_path / "again", past=unsaved))
    assert all(torch.equal(value, again.model.module.state_dict()[name])
               for name, value in first.model.module.state_dict().items())


def test_a_lora_champion_is_merged_and_its_importances_meet_fresh_adapters(bench: Bench, tmp_path: Path) -> None:
    lora = LoRA(rank=2)

    def opened(seed: int) -> Any:
        model = bench.open(seed)
        return model.but(method=lora, module=lora.attach(model.module, seed=seed).eval())  # type: ignore[arg-type]

    ewc = EWC(strength=1e3, samples=10, fisher="exact")
    one = fit_once(bench.job("lora-1", rows(18), (), regularizers=(ewc,), **QUICK).but(open=opened))
    start = follow(bench, one, tmp_path, method=lora)
    model = start["open"](0)
    names = {f"fisher/{weight.name}" for weight in training_weights(model.module)}
    assert names == set(start["past"].kept["ewc"]) and any("query.weight" in name for name in names)
    penalty = ewc.bind(Setting(model=model, rows=(), past=start["past"]))
    assert penalty is not None and float(penalty().detach()) == 0.0
    two = fit_once(bench.job("lora-2", rows(18, first=60), (), regularizers=(ewc,), **QUICK).but(**start))
    assert two.summary["penalties"]["ewc"] > 0 and remembered(two).keys() == remembered(one).keys()
    full = EWC(strength=1e3)  # from LoRA to full: what LoRA did not measure is measured on stored rows
    begun = follow(bench, one, tmp_path)
    stored = begun["past"].but(rows=rows(6))
    model = begun["open"](0)
    progress = Said()
    full.bind(Setting(model=model, rows=(), past=stored, progress=progress))
    count = len([w for w in training_weights(model.module) if "pooler" not in w.name])
    assert f"holds {count} of" in progress.lines[-1]


def test_new_outputs_have_no_importance_and_old_ones_keep_theirs(bench: Bench, tmp_path: Path) -> None:
    ewc = EWC(strength=2.0, samples=10, fisher="exact")
    one = fit_once(bench.job("grow-1", rows(18), (), regularizers=(ewc,), **QUICK))
    labels = ("bat", "cat", "ant", "bee")
    start = follow(bench, one, tmp_path, labels=labels)
    model, fisher = start["open"](0), start["past"].kept["ewc"]["fisher/head.1.weight"]
    penalty = ewc.bind(Setting(model=model, rows=(), past=start["past"]))
    last = model.module.head[-1]
    assert penalty is not None
    for at, label in enumerate(labels):
        with torch.no_grad():
            last.weight[at, 5] += 0.5
        old = {"ant": 0, "bee": 1, "cat": 2}.get(label)
        wanted = 0.0 if old is None else 2.0 / 2 * float(fisher[old, 5]) * 0.25
        assert float(penalty().detach()) == pytest.approx(wanted, rel=1e-4)
        with torch.no_grad():
            last.weight[at, 5] -= 0.5
    assert float(fisher[0, 5]) > 0
    two = fit_once(bench.job("grow-2", rows(16, first=60, labels=labels), (), regularizers=(ewc,), **QUICK).but(
        **start))
    alone = ewc.remember(Setting(model=two.model, rows=two.model.rows(rows(16, first=60, labels=labels)), seed=0))
    added = remembered(two)["fisher/head.1.weight"] - alone["fisher/head.1.weight"]
    assert torch.allclose(added, torch.stack([0 * fisher[0], fisher[2], fisher[0], fisher[1]]), atol=1e-7)
    assert two.model.labels == labels and added.abs().max() > 1e-4


def test_importance_is_measured_on_stored_rows_where_none_was_saved(bench: Bench, tmp_path: Path) -> None:
    ewc = EWC(strength=1e3, fisher="exact")
    one = fit_once(bench.job("rows-1", rows(12), (), regularizers=(ewc,), **QUICK))
    start = follow(bench, one, tmp_path)
    model = start["open"](0)
    saved = ewc.bind(Setting(model=model, rows=(), past=start["past"]))
    measured = ewc.bind(Setting(model=model, rows=(), past=start["past"].but(kept={}, rows=rows(12))))
    move(model)
    assert saved is not None and measured is not None
    assert float(saved().detach()) == pytest.approx(float(measured().detach()), rel=1e-4)
    assert float(saved().detach()) > 0.1


def test_finished_features_have_importances_of_the_head(bench: Bench, tmp_path: Path) -> None:
    ewc = EWC(strength=1e3)
    one = fit_once(bench.job("head-1", rows(18), (), regularizers=(ewc,), plan=HeadOnly(), **QUICK))
    assert one.summary["cached_features"] and remembered(one).keys() == {"fisher/head.1.weight", "fisher/head.1.bias"}
    start = follow(bench, one, tmp_path)
    two = fit_once(bench.job("head-2", rows(18, first=60), (), regularizers=(ewc,), plan=HeadOnly(), **QUICK).but(
        **start))
    assert two.summary["cached_features"] and two.summary["penalties"]["ewc"] > 0


def test_strength_zero_is_absence_but_remembers(bench: Bench, tmp_path: Path) -> None:
    one = fit_once(bench.job("zero-1", rows(12), (), regularizers=(EWC(strength=0.0),), **QUICK))
    start = follow(bench, one, tmp_path)
    off, absent = (fit_once(bench.job(f"zero-{len(kinds)}-2", rows(12, first=60), (), regularizers=kinds, **QUICK).but(
        **start)) for kinds in ((EWC(strength=0.0),), ()))
    assert all(torch.equal(value, absent.model.module.state_dict()[name])
               for name, value in off.model.module.state_dict().items())
    assert "penalties" not in off.summary and remembered(off)


def test_a_sequence_of_two_tasks_is_forgotten_less(tmp_path: Path) -> None:
    """In the second task the letters of the first mean the opposite, and other letters tell as much: naive training
    unlearns the first task, a protected one learns the other letters."""
    bench = Bench(tmp_path, dropout=0.0, labels=("ant", "bee"))
    first, second = lettered(96, flip=0.1), lettered(96, first=100, flip=0.1, second=True)
    held, other = lettered(60, first=500), lettered(60, first=700, second=True)
    settings = {**QUICK, "epochs": 6, "learning_rate": 1e-3, "batch_size": 8}

    def accuracy(fitted: Any, some: Any) -> float:
        return validate(fitted.model, some, fitted.model.rows(some))[0]

    one = fit_once(bench.job("one", first, (), regularizers=(EWC(),), **settings))
    start = follow(bench, one, tmp_path / "begun", labels=("ant", "bee"))
    naive, protected = (fit_once(bench.job(f"two-{strength:g}", second, (), regularizers=(EWC(strength=strength),),
                                           **settings).but(**start)) for strength in (0.0, 1e4))
    assert accuracy(one, held) >= 0.95
    assert accuracy(naive, held) <= 0.5, "without protection the first task is forgotten"
    assert accuracy(protected, held) >= 0.75
    assert accuracy(naive, other) >= 0.95 and accuracy(protected, other) >= 0.8, "and the second is learned"


def lettered(num: int, *, first: int = 0, second: bool = False, flip: float = 0.0) -> list[Any]:
    """Texts that mean ant with x and bee with y; in the second task v and w mean that, and x and y the opposite. A
    share `flip` of the labels is wrong: a model without any doubt has no Fisher information."""
    rng, found = np.random.default_rng([first, 4]), []
    for at, one in enumerate(rows(num, first=first, labels=("ant", "bee"), noise=True)):
        place = at % 2
        letters = [*rng.choice([*"klmnop"], size=8), *("xy"[1 - place if second else place] * 3)]
        letters += [*("vw"[place] * 3)] if second else []
        rng.shuffle(letters)
        label = ("ant", "bee")[1 - place if rng.random() < flip else place]
        found.append(dataclasses.replace(one, input="".join(letters), labels=(label,)))
    return found


@pytest.mark.parametrize("method", [LoRA(rank=2), Full()])
def test_a_language_model_remembers_and_is_held_after_a_reload(tmp_path: Path, method: Any) -> None:
    tiny_chat_model(tmp_path / "model")  # with tied embeddings
    store = Store(tmp_path / "store")
    model = open_model(adapt(Task(), Adapt(model=str(tmp_path / "model"), method=method), store=store))
    move(model)
    some = chats(6, 0, 0)
    read = [render(model.tokenizer, row, stop_id=model.stop_ids[0]) for row in some]
    ewc = EWC(strength=1e3, samples=4)
    kept = dict(ewc.remember(Setting(model=model, rows=read)))
    trained = {name: p.detach().clone() for name, p in model.module.named_parameters() if p.requires_grad}
    method.save(model.module, trained, tmp_path / "best")
    save_past(tmp_path / "memory", kept={"ewc": kept})
    def opened() -> Any:
        base = open_base(model.artifact)
        return trainable(base, method.restore(base.module, tmp_path / "best"))

    again = opened()
    if method.kind == "full":
        again = trainable(again, method.attach(again.module, seed=0))
    past = load_past(tmp_path / "memory", lambda: again)
    assert {f"fisher/{weight.name}" for weight in training_weights(again.module)} == past.kept["ewc"].keys()
    penalty = ewc.bind(Setting(model=again, rows=read, past=past))
    assert penalty is not None and float(penalty().detach()) == 0.0
    unsaved = ewc.bind(Setting(model=model, rows=read, past=past.but(kept={"ewc": kept})))
    move(model, 11)
    move(again, 11)
    assert unsaved is not None
    assert float(penalty().detach()) == pytest.approx(float(unsaved().detach()), rel=1e-4)
    assert float(penalty().detach()) > 0
    measured = ewc.bind(Setting(model=again, rows=read, past=Past(open=opened, rows=some)))
    assert measured is not None and len(all_weights(again.module)) >= len(training_weights(again.module))


def test_a_chat_model_trained_twice_is_held_where_the_first_run_left_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    model = adapted(tmp_path, store, method=LoRA(rank=4))
    data, more = data_artifact(store, chats(8)), data_artifact(store, chats(8), "more")
    settings: dict[str, Any] = {"max_steps": 4, "learning_rate": 1e-3, **QUICK}
    one = train(model, data, Train(regularizers=(EWC(samples=8),), **settings), store=store)
    assert "penalties" not in one.summary
    found = []
    for strength in (1.0, 1e6):
        two = train(model, more, Train(regularizers=(EWC(strength=strength, samples=8),), **settings), store=store,
                    start=one)
        found.append(two.summary["penalties"]["ewc"] / strength)
        kept = [load_past(run.path / "memory", lambda: None).kept["ewc"] for run in (one, two)]
        assert kept[0].keys() == kept[1].keys()
        assert all(bool((kept[1][name] >= kept[0][name]).all()) for name in kept[0]), "importances add up"
    assert 0 < found[1] < 0.5 * found[0]
