"""Laws of the general instructions: enough of them, well formed, and the replay set never shows the probe set."""

import json
import re
from pathlib import Path

import pytest

import luthier

ROOT = Path(luthier.__file__).parent
REPLAY, PROBE = ROOT / "train" / "data" / "general.jsonl", ROOT / "evaluate" / "data" / "general.jsonl"


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def words(text):
    return re.findall(r"\w+", text.lower())


def grams(text, n=8):
    found = words(text)
    return {tuple(found[at:at + n]) for at in range(len(found) - n + 1)}


def test_replay_is_large_and_well_formed():
    found = rows(REPLAY)
    assert len(found) >= 150
    assert len({row["instruction"] for row in found}) == len(found)
    for row in found:
        assert set(row) == {"instruction", "response"}
        assert row["instruction"].strip() and row["response"].strip()
    lengths = sorted(len(words(row["response"])) for row in found)
    assert lengths[len(lengths) // 2] <= 40, "short answers: replay must cost little"


def test_replay_and_probe_share_no_eight_words_in_a_row():
    """Otherwise the retention figure would measure memory of the replay set, not general skill."""
    if not PROBE.exists():
        pytest.skip("the probe set is not there")
    probe = {gram: row["instruction"] for row in rows(PROBE) for field in ("instruction", "response")
             for gram in grams(row[field])}
    shared = {(row["instruction"], probe[gram]) for row in rows(REPLAY) for field in ("instruction", "response")
              for gram in grams(row[field]) if gram in probe}
    assert not shared


def test_replay_and_probe_ask_different_things():
    if not PROBE.exists():
        pytest.skip("the probe set is not there")
    probe = [(set(words(row["instruction"] + " " + row["response"])), row["instruction"]) for row in rows(PROBE)]
    for row in rows(REPLAY):
        mine = set(words(row["instruction"] + " " + row["response"]))
        for theirs, instruction in probe:
            assert len(mine & theirs) / len(mine | theirs) < 0.45, (row["instruction"], instruction)
