"""Law: how long a stage takes is forecast from what it took here with the same base model, else from shipped rates."""

import json
from types import SimpleNamespace

import pytest

from luthier.project import Project, forecast


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(forecast, "_computes_in_bfloat16", lambda: True)
    forecast.rates_of.cache_clear()
    (tmp_path / "luthier.yaml").write_text("name: x\n")
    yield Project.open(tmp_path)
    forecast.rates_of.cache_clear()


def seconds(project, stage="train", made=None):
    forecast.rates_of.cache_clear()
    return forecast.seconds_of(project, stage, 3000.0, made or {})


def noted(project, *rows):
    folder = project.root / "cache"
    folder.mkdir(exist_ok=True)
    (folder / "rates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_tiny_models_speed_says_nothing_about_another(project):
    shipped = seconds(project)
    assert shipped == 3000 / forecast.DEFAULT_RATES["train"]
    noted(project, *({"stage": stage, "units": 1e6, "seconds": 1.0} for stage in ("train:tiny", "train")))
    assert seconds(project) == shipped
    noted(project, *({"stage": "train:starter:chat", "units": 600.0, "seconds": s} for s in (10.0, 20.0, 30.0)))
    assert seconds(project) == 3000 / 30 and seconds(project, "evaluate") == 3000 / forecast.DEFAULT_RATES["evaluate"]


def test_a_larger_model_and_an_older_processor_take_longer(project, monkeypatch):
    adapted = {"adapt": SimpleNamespace(summary={"parameters": 10 * forecast.RATED_MODEL})}
    assert seconds(project, made=adapted) == pytest.approx(10 * seconds(project))
    fast = seconds(project)
    monkeypatch.setattr(forecast, "_computes_in_bfloat16", lambda: False)
    assert seconds(project) == pytest.approx(3 * fast)
    assert seconds(project, "index") == 3000 / forecast.DEFAULT_RATES["index"]
