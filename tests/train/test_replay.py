"""Law: replay mixes its share of general examples in, refuses bad rows by line, and helps against forgetting."""

from __future__ import annotations

import json

import pytest
from train_kit import adapted, chat, data_artifact, examples

from luthier.errors import DataError
from luthier.store import Store
from luthier.train.base import Train, train
from luthier.train.replay import BUILTIN, Replay


def test_the_builtin_rows_read_and_are_unique(tmp_path):
    rows = Replay().read(tmp_path)
    assert len(rows) >= 100 and len({row.id for row in rows}) == len(rows) and BUILTIN.is_file()


@pytest.mark.parametrize("line", ['{"instruction": "x"}', "nonsense", '{"instruction": "x", "response": " "}', "[1]"])
def test_a_bad_row_is_named_by_line(tmp_path, line):
    (tmp_path / "own.jsonl").write_text('{"instruction": "a", "response": "b"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"own\.jsonl:2"):
        Replay(source="own.jsonl").read(tmp_path)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"train.replay.source 'no.jsonl'"):
        Replay(source="no.jsonl").identity(tmp_path)


def test_the_share_is_kept_in_every_epoch(tmp_path):
    assert Replay(share=0.25).count(30) == 10
    store = Store(tmp_path / "store")
    run = train(adapted(tmp_path, store), data_artifact(store, examples(30)),
                Train(epochs=1, batch_size=8, replay=Replay(share=0.25), verify_resume=False), store=store)
    steps = [json.loads(line) for line in (run.path / "steps.jsonl").read_text().splitlines()]
    assert sum(step["examples"] for step in steps) == 40


@pytest.mark.slow
def test_replay_keeps_what_was_replayed(tmp_path):
    """Effect: general answers are forgotten less with replay than without, at the same number of own updates."""
    general = [{"instruction": f"What is {n}?", "response": "ZZ" * (1 + n % 3)} for n in range(10)]
    (tmp_path / "general.jsonl").write_text("\n".join(map(json.dumps, general)))
    probe = [chat(200 + n, split="validation", answer="ZZ" * (1 + n % 3)) for n in range(4)]
    losses = {}
    for name, replay in (("with", Replay(share=0.5, source="general.jsonl")), ("without", None)):
        store = Store(tmp_path / name)
        run = train(adapted(tmp_path, store), data_artifact(store, examples(20, 0, 0) + probe),
                    Train(epochs=6, learning_rate=5e-3, replay=replay, patience=0), store=store, root=tmp_path)
        steps = [json.loads(line) for line in (run.path / "steps.jsonl").read_text().splitlines()]
        losses[name] = [step["validation"] for step in steps if step["validation"]][-1]
    assert losses["with"] < losses["without"] - 0.3, losses
