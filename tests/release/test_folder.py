"""Laws of the releases folder: history only grows, the pointer follows it, and a kill between steps loses nothing."""

import json
import os

import pytest

from luthier.errors import StoreError, UsageError
from luthier.release import folder as on_disk
from luthier.release.folder import (
    append,
    list_releases,
    live_release,
    next_version,
    promote,
    read_history,
    read_release,
    rollback,
    settle,
)


def make(releases, version, name="desk", **changes):
    folder = releases / name / str(version)
    folder.mkdir(parents=True)
    record = {
        "name": name, "version": version, "choice": "retrieval", "systems": ["base", "retrieval"], "forced": None,
        "approved_by": "", "created": "2026-11-21T10:00:00Z", "base": {"bundled": True}, "tuned": {"present": False},
        "task": {}, "rag": {}, "encoder": {}, "template": None, "stop_ids": [2], "dtype": "float32", "lineage": {},
        "gate": [], "files": {}, "key": f"key{version}", **changes,
    }
    (folder / "release.json").write_text(json.dumps(record))
    append(folder.parent, "released", version=version, key=record["key"])
    return folder


def go_live(releases, *versions):
    for version in versions:
        promote(make(releases, version))


def stages(releases):
    return [(record.version, record.stage) for record in list_releases(releases)]


def test_candidate_live_retired(tmp_path):
    folder = make(tmp_path, 1)
    assert stages(tmp_path) == [(1, "candidate")]
    promote(folder)
    assert stages(tmp_path) == [(1, "live")]
    go_live(tmp_path, 2)
    assert stages(tmp_path) == [(1, "retired"), (2, "live")]
    assert live_release(tmp_path) == tmp_path / "desk" / "2"


def test_rollback_goes_one_back_each_time(tmp_path):
    go_live(tmp_path, 1, 2, 3)
    assert rollback(tmp_path, "desk").name == "2"
    assert rollback(tmp_path, "desk").name == "1"
    with pytest.raises(UsageError, match="nothing to go back to"):
        rollback(tmp_path, "desk")
    assert live_release(tmp_path, "desk").name == "1"
    go_live(tmp_path, 4)
    assert rollback(tmp_path).name == "1", "versions that were rolled back from do not come back"


def test_history_only_grows(tmp_path):
    go_live(tmp_path, 1, 2)
    before = (tmp_path / "desk" / "history.jsonl").read_bytes()
    rollback(tmp_path, "desk")
    go_live(tmp_path, 3)
    after = (tmp_path / "desk" / "history.jsonl").read_bytes()
    assert after.startswith(before) and len(after) > len(before)
    assert [row["event"] for row in read_history(tmp_path / "desk")] == [
        "released", "live", "released", "live", "rollback", "released", "live"]


def test_a_line_cut_by_a_kill_is_skipped_and_kept(tmp_path):
    append(tmp_path, "released", version=1)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"at": "2026-11')
    append(tmp_path, "live", version=1)
    assert [row["event"] for row in read_history(tmp_path)] == ["released", "live"]
    assert '{"at": "2026-11\n' in (tmp_path / "history.jsonl").read_text()


@pytest.mark.parametrize("killed", ["promote", "rollback"])
def test_a_kill_between_history_and_pointer_is_finished_by_the_next_call(tmp_path, monkeypatch, killed):
    go_live(tmp_path, 1, 2)
    if killed == "promote":
        make(tmp_path, 3)

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(on_disk, "write_text", die)
        promote(tmp_path / "desk" / "3") if killed == "promote" else rollback(tmp_path, "desk")
    assert live_release(tmp_path).name == "2", "the old release serves until the change is complete"
    if killed == "promote":
        assert settle(tmp_path / "desk") == "live"
        assert live_release(tmp_path).name == "3"
    else:
        assert rollback(tmp_path, "desk").name == "1", "the repeated call completes the first one, not one more"


def test_the_pointer_is_replaced_in_one_step(tmp_path, monkeypatch):
    """A reader never sees an empty or half-written pointer: the new one is written aside and renamed."""
    go_live(tmp_path, 1)
    make(tmp_path, 2)

    def die(*_):
        assert (tmp_path / "desk" / "live").read_text() == "1\n"
        raise OSError("killed")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr(os, "replace", die)
        promote(tmp_path / "desk" / "2")
    assert live_release(tmp_path).name == "1"


def test_a_damaged_pointer_is_restored_from_the_history(tmp_path):
    go_live(tmp_path, 1, 2)
    (tmp_path / "desk" / "live").write_text("")
    with pytest.raises(StoreError, match="damaged"):
        live_release(tmp_path, "desk")
    settle(tmp_path / "desk")
    assert live_release(tmp_path, "desk").name == "2"


def test_version_numbers_are_never_used_twice(tmp_path):
    import shutil

    go_live(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "desk" / "2")
    assert next_version(tmp_path / "desk") == 3
    (tmp_path / "desk" / "7.part").mkdir()
    assert next_version(tmp_path / "desk") == 3, "an unfinished folder is no version"
    assert [record.version for record in list_releases(tmp_path)] == [1]


def test_nothing_live_is_one_clear_sentence(tmp_path):
    with pytest.raises(UsageError, match="nothing has been released yet"):
        live_release(tmp_path / "none")
    append(tmp_path / "desk", "refused", failed=[])
    with pytest.raises(UsageError, match="the gate refused 'desk'"):
        live_release(tmp_path, "desk")
    go_live(tmp_path, 1)
    promote(make(tmp_path, 1, name="other"))
    with pytest.raises(UsageError, match="desk, other; name one"):
        live_release(tmp_path)


def test_a_damaged_or_foreign_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match="not a release folder"):
        read_release(tmp_path)
    folder = make(tmp_path, 1)
    (folder / "release.json").write_text('{"name": "desk"')
    with pytest.raises(StoreError, match="damaged"):
        read_release(folder)


def test_verify_finds_a_changed_and_a_missing_file(tmp_path):
    folder = make(tmp_path, 1)
    (folder / "report.json").write_text("{}")
    record = json.loads((folder / "release.json").read_text())
    (folder / "release.json").write_text(json.dumps({**record, "files": {
        "report.json": on_disk.hash_files(folder)["report.json"]}}))
    read_release(folder).verify()
    (folder / "report.json").write_text("{ }")
    with pytest.raises(StoreError, match="changed"):
        read_release(folder).verify()
    (folder / "report.json").unlink()
    with pytest.raises(StoreError, match="missing"):
        read_release(folder).verify()


def test_two_processes_do_not_release_the_same_name_at_once(tmp_path):
    with on_disk.locked(tmp_path / "desk"), pytest.raises(StoreError, match="another luthier process"), \
            on_disk.locked(tmp_path / "desk"):
        pass
