"""Snapshots in a directory: whole or not there, whatever comes in between."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.snapshots import local
from emberbox.orchestrator.snapshots.local import MANIFEST_FILE, LocalSnapshotStore
from tests.unit.orchestrator.recorded import SNAPSHOT

if TYPE_CHECKING:
    from emberbox.orchestrator.snapshots.manifest import Snapshot


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


@pytest.fixture
def store(root: Path) -> LocalSnapshotStore:
    return LocalSnapshotStore(root)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"written in the sandbox")
    return path


def commit(store: LocalSnapshotStore, disk: Path, snapshot: Snapshot = SNAPSHOT) -> None:
    draft = store.begin(snapshot.sandbox_id)
    (draft.memory / "memory").write_text("pages")
    store.take_disk(draft, disk)
    store.commit(draft, snapshot)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_what_is_committed_is_there_and_its_disk_is_the_very_one(
    store: LocalSnapshotStore, root: Path, disk: Path, tmp_path: Path
) -> None:
    draft = store.begin("iabc")
    (draft.memory / "memory").write_text("pages")
    assert store.take_disk(draft, disk) == disk.stat().st_blocks * 512
    assert store.find("iabc") is None
    assert store.all() == []
    store.commit(draft, SNAPSHOT)
    assert store.find("iabc") == SNAPSHOT
    assert store.all() == [SNAPSHOT]
    assert (store.memory("iabc") / "memory").read_text() == "pages"
    store.give_disk("iabc", tmp_path / "of the run")
    assert (tmp_path / "of the run").stat().st_ino == disk.stat().st_ino
    assert (root / "iabc" / MANIFEST_FILE).stat().st_mode & 0o777 == 0o600


def test_a_draft_takes_the_place_of_what_was_left_and_can_be_abandoned(
    store: LocalSnapshotStore, root: Path
) -> None:
    (store.begin("iabc").memory / "half").write_text("x")
    draft = store.begin("iabc")
    assert list(draft.memory.iterdir()) == []
    store.abandon(draft)
    store.abandon(draft)
    assert names(root) == []


def test_what_is_consumed_can_be_put_back_until_it_is_dropped(
    store: LocalSnapshotStore, root: Path, disk: Path
) -> None:
    commit(store, disk)
    store.consume("iabc", "e-2")
    assert store.find("iabc") is None
    assert store.all() == []
    assert store.consumed("iabc", "e-2") == SNAPSHOT
    assert store.consumed("iabc", "e-3") is None
    store.put_back("iabc", "e-2")
    store.put_back("iabc", "e-2")
    assert store.find("iabc") == SNAPSHOT
    store.consume("iabc", "e-2")
    store.drop_consumed("iabc", "e-2")
    store.drop_consumed("iabc", "e-2")
    assert names(root) == []


def test_what_is_missing_cannot_be_consumed(store: LocalSnapshotStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.consume("iabc", "e-2")


def test_a_rename_that_does_not_become_durable_is_undone(
    store: LocalSnapshotStore, root: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_path: Path) -> None:
        raise OSError("broken disk")

    with monkeypatch.context() as patched:
        patched.setattr(local, "sync_directory", broken)
        with pytest.raises(OSError, match="broken disk"):
            commit(store, disk)
    assert names(root) == [".draft-iabc"]
    commit(store, disk)
    monkeypatch.setattr(local, "sync_directory", broken)
    with pytest.raises(OSError, match="broken disk"):
        store.consume("iabc", "e-2")
    assert names(root) == ["iabc"]


def test_a_rename_that_can_be_neither_made_durable_nor_undone_stands(
    store: LocalSnapshotStore, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def broken(_path: Path) -> None:
        monkeypatch.setattr(Path, "rename", read_only)
        raise OSError("broken disk")

    def read_only(*_arguments: object) -> Path:
        raise OSError("read-only file system")

    monkeypatch.setattr(local, "sync_directory", broken)
    commit(store, disk)
    monkeypatch.setattr(Path, "rename", rename)
    assert store.find("iabc") == SNAPSHOT


def test_all_is_on_the_disk_before_it_has_its_name(
    store: LocalSnapshotStore, root: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(fd: int) -> None:
        fsync(fd)
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)

    def noted_rename(source: Path, target: Path) -> Path:
        synced.append(f"{source.name} is {target.name}")
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    commit(store, disk)
    named = synced.index(".draft-iabc is iabc")
    assert set(synced[:named]) >= {"scratch.ext4", MANIFEST_FILE, ".draft-iabc"}
    assert root.name in synced[named:]


def test_builds_are_found_under_whichever_name(
    store: LocalSnapshotStore, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, disk)
    other = dataclasses.replace(SNAPSHOT, sandbox_id="iother", build_id="b-2")
    commit(store, disk, other)
    store.consume("iother", "e-2")
    assert store.builds() == {"b-1", "b-2"}
    read = local._read

    def consumed_first(directory: Path) -> Snapshot | None:
        monkeypatch.setattr(local, "_read", read)
        store.consume("iabc", "e-3")
        return read(directory)

    monkeypatch.setattr(local, "_read", consumed_first)
    assert store.builds() == {"b-1", "b-2"}


def test_what_cannot_be_read_is_left_for_a_person(
    store: LocalSnapshotStore, root: Path, disk: Path
) -> None:
    commit(store, disk)
    (root / "iabc" / MANIFEST_FILE).write_text("{")
    assert (store.find("iabc"), store.all(), store.builds()) == (None, [], set())
    store.consume("iabc", "e-2")
    store.sweep(set())
    assert names(root) == ["iabc~e-2"]


def test_files_of_a_run_that_is_gone_are_kept_without_memory(
    store: LocalSnapshotStore, root: Path, disk: Path
) -> None:
    commit(store, disk)
    store.consume("iabc", "e-2")
    store.give_back("iabc", "e-2")
    kept = store.find("iabc")
    assert kept is not None
    assert (kept.memory, kept.memory_bytes, kept.lost) == (False, 0, local.MEMORY_LOST)
    assert sorted(p.name for p in (root / "iabc").iterdir()) == ["scratch.ext4", MANIFEST_FILE]


def test_a_newer_snapshot_wins_over_one_that_is_given_back(
    store: LocalSnapshotStore, root: Path, disk: Path
) -> None:
    commit(store, disk)
    store.consume("iabc", "e-2")
    newer = dataclasses.replace(SNAPSHOT, execution_id="e-3")
    commit(store, disk, newer)
    store.give_back("iabc", "e-2")
    assert store.find("iabc") == newer
    assert names(root) == ["iabc"]


def test_the_snapshot_of_a_run_drops_what_the_run_began_with(
    store: LocalSnapshotStore, root: Path, disk: Path
) -> None:
    commit(store, disk)
    store.consume("iabc", "e-2")
    commit(store, disk, dataclasses.replace(SNAPSHOT, execution_id="e-2"))
    assert names(root) == ["iabc"]


def test_a_sweep_leaves_what_runs_and_what_is_whole(
    store: LocalSnapshotStore, root: Path, disk: Path
) -> None:
    for name in ("iabc", "ione", "itwo"):
        commit(store, disk, dataclasses.replace(SNAPSHOT, sandbox_id=name))
    store.begin("ithree")
    (root / ".trash-0").mkdir()
    store.consume("ione", "e-2")
    store.consume("itwo", "e-2")
    store.sweep({("ione", "e-2")})
    assert names(root) == ["iabc", "ione~e-2", "itwo"]


def test_a_discard_takes_all_of_a_sandbox_and_nothing_of_others(
    store: LocalSnapshotStore, root: Path, disk: Path
) -> None:
    commit(store, disk)
    commit(store, disk, dataclasses.replace(SNAPSHOT, sandbox_id="iabcd"))
    store.consume("iabc", "e-2")
    commit(store, disk)
    assert store.discard("iabc")
    assert not store.discard("iabc")
    assert names(root) == ["iabcd"]
