"""Files of sandboxes on a file system that several hosts share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.places import Places
from emberbox.orchestrator.snapshots.local import LocalSnapshotStore
from emberbox.shared.errors import StartupError
from emberbox.shared.home import Home
from tests.unit.orchestrator.recorded import SNAPSHOT

if TYPE_CHECKING:
    from pathlib import Path


def places(tmp_path: Path, node_id: str) -> Places:
    return Places.of(Home(tmp_path / "home" / node_id), tmp_path / "shared", node_id)


def store(tmp_path: Path, node_id: str) -> LocalSnapshotStore:
    own = places(tmp_path, node_id)
    return LocalSnapshotStore(own.snapshots, own.others)


def pause(on: LocalSnapshotStore, disk: Path) -> None:
    disk.write_bytes(b"disk")
    draft = on.begin(SNAPSHOT.sandbox_id)
    on.take_disk(draft, disk)
    on.commit(draft, SNAPSHOT)


def test_without_a_shared_directory_all_is_below_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert Places.of(home, None, "any/name") == Places(home.run_directories, home.snapshots)


def test_hosts_of_one_file_system_know_that_it_is_one(tmp_path: Path) -> None:
    first, second = places(tmp_path, "a"), places(tmp_path, "b")
    assert first.shared_id == second.shared_id != ""
    assert first.snapshots != second.snapshots
    assert first.run_directories.parent == first.snapshots.parent


def test_a_name_that_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="EMBERBOX_NODE_ID"):
        places(tmp_path, "../a")


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file")
    with pytest.raises(StartupError, match="EMBERBOX_SHARED_DIRECTORY"):
        places(tmp_path, "a")


def test_a_snapshot_of_another_host_is_adopted_once(tmp_path: Path) -> None:
    first, second = store(tmp_path, "a"), store(tmp_path, "b")
    pause(first, tmp_path / "disk")
    assert second.adopt("iunknown") is None
    assert second.adopt(SNAPSHOT.sandbox_id) == SNAPSHOT
    second.give_disk(SNAPSHOT.sandbox_id, tmp_path / "given")
    assert (tmp_path / "given").read_bytes() == b"disk"
    assert first.find(SNAPSHOT.sandbox_id) is None
    assert first.adopt(SNAPSHOT.sandbox_id) == SNAPSHOT


def test_of_hosts_that_want_it_at_once_one_has_it(tmp_path: Path) -> None:
    home, rivals = store(tmp_path, "home"), [store(tmp_path, f"rival-{n}") for n in range(4)]
    for _ in range(20):
        pause(home, tmp_path / "disk")
        with ThreadPoolExecutor(5) as pool:
            consumed = pool.submit(consume, home)
            for rival in rivals:
                pool.submit(rival.adopt, SNAPSHOT.sandbox_id)
        holders = [one for one in rivals if one.find(SNAPSHOT.sandbox_id) is not None]
        assert len(holders) + consumed.result() == 1
        for one in (home, *rivals):
            one.discard(SNAPSHOT.sandbox_id)


def consume(store: LocalSnapshotStore) -> bool:
    """Whether its own host could begin to resume it."""
    try:
        store.consume(SNAPSHOT.sandbox_id, "run")
    except OSError:
        return False
    return True
