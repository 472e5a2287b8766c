"""Laws of the store: same inputs, same artifact; a kill leaves nothing half-made; two processes never collide."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import StoreError
from luthier.store import Store, write_text


def test_same_inputs_are_found_and_changed_ones_are_made(tmp_path):
    store, calls = Store(tmp_path), []

    def make(folder: Path):
        calls.append(folder)
        write_text(folder / "x.txt", "x")
        return {"n": 1}

    first = store.build("s", version=1, spec={"a": 1}, inputs={"i": "x"}, make=make)
    again = store.build("s", version=1, spec={"a": 1}, inputs={"i": "x"}, make=make)
    assert first.fresh and not again.fresh and first == again and len(calls) == 1
    assert (again.path / "x.txt").read_text() == "x" and again.summary["n"] == 1
    for change in ({"version": 2}, {"spec": {"a": 2}}, {"inputs": {"i": "y"}}):
        other = store.build("s", **{"version": 1, "spec": {"a": 1}, "inputs": {"i": "x"}, **change}, make=make)
        assert other.id != first.id
    assert len(calls) == 4


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_key_ignores_the_order_of_keys(data):
    backwards = dict(reversed(list(data.items())))
    assert Store.key("s", version=1, spec=data, inputs={}) == Store.key("s", version=1, spec=backwards, inputs={})


def test_an_artifact_as_input_counts_by_its_id(tmp_path):
    store = Store(tmp_path)
    a = store.build("a", version=1, spec={}, inputs={}, make=lambda f: {})
    b = store.build("b", version=1, spec={}, inputs={"from": a}, make=lambda f: {})
    assert b.inputs == {"from": f"a/{a.id}"}
    assert [found.id for found in store.artifacts()] == [a.id, b.id]


def test_a_failed_stage_leaves_its_part_for_the_next_try(tmp_path):
    store = Store(tmp_path)

    def breaks(folder: Path):
        (folder / "half").write_text("1")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.build("s", version=1, spec={}, inputs={}, make=breaks)
    assert list(store.artifacts()) == []
    made = store.build("s", version=1, spec={}, inputs={}, make=lambda f: {"resumed": (f / "half").read_text()})
    assert made.summary["resumed"] == "1"


def test_kill_9_in_the_middle_loses_nothing_and_holds_no_lock(tmp_path):
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from luthier.store import Store
        def make(folder):
            (folder / "progress").write_text("7")
            os.kill(os.getpid(), signal.SIGKILL)
        Store({str(tmp_path)!r}).build("s", version=1, spec={{}}, inputs={{}}, make=make)
    """)
    dead = subprocess.run([sys.executable, "-c", script], check=False)
    assert dead.returncode == -signal.SIGKILL
    store = Store(tmp_path)
    assert list(store.artifacts()) == []
    made = store.build("s", version=1, spec={}, inputs={}, make=lambda f: {"at": (f / "progress").read_text()})
    assert made.summary["at"] == "7"


def test_a_second_process_is_refused_while_the_first_works(tmp_path):
    store = Store(tmp_path)

    def make(folder: Path):
        with pytest.raises(StoreError, match="another luthier process"):
            Store(tmp_path).build("s", version=1, spec={}, inputs={}, make=lambda f: {})
        return {}

    assert store.build("s", version=1, spec={}, inputs={}, make=make).fresh


def test_a_full_disk_is_one_sentence(tmp_path):
    def full(folder: Path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"is full .* free some space and run again"):
        Store(tmp_path).build("s", version=1, spec={}, inputs={}, make=full)


def test_a_damaged_artifact_says_which_folder(tmp_path):
    store = Store(tmp_path)
    made = store.build("s", version=1, spec={}, inputs={}, make=lambda f: {})
    (made.path / "spec.json").write_text("{")
    with pytest.raises(StoreError, match=r"damaged .* delete that folder"):
        store.find("s", made.id)


def test_writes_are_whole_or_absent(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    write_text(file, "old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(errno.EIO, "cut")))
    with pytest.raises(OSError, match="cut"):
        write_text(file, "new")
    assert file.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_cache_returns_what_was_put(tmp_path):
    cache = Store(tmp_path).cache("c")
    assert cache.get("abcd") is None
    cache.put("abcd", json.dumps([1]).encode())
    assert cache.get("abcd") == b"[1]"
