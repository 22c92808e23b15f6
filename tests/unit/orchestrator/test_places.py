"""Files of sandboxes on a file system that several hosts share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network.policy import EgressPolicy
from emberbox.orchestrator.places import Places
from emberbox.orchestrator.snapshots.local import LocalSnapshotStore
from emberbox.orchestrator.snapshots.manifest import Snapshot
from emberbox.shared.errors import StartupError
from emberbox.shared.home import Home

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def snapshot() -> Snapshot:
    """What is recorded of a paused sandbox."""
    return Snapshot(
        sandbox_id="ione",
        execution_id="execution",
        template_id="base",
        build_id="build",
        vcpu=2,
        ram_mb=512,
        disk_mb=1024,
        driver="qemu",
        accelerator="tcg",
        made_with="QEMU",
        images={"root": "hash"},
        envd_version="0.6.13",
        egress=EgressPolicy(),
        paused_at=1.0,
        memory=True,
        based=True,
        memory_bytes=5,
        disk_bytes=7,
    )


def places(tmp_path: Path, node_id: str) -> Places:
    return Places.of(Home(tmp_path / "home" / node_id), tmp_path / "shared", node_id)


def store(tmp_path: Path, node_id: str) -> LocalSnapshotStore:
    own = places(tmp_path, node_id)
    return LocalSnapshotStore(own.snapshots, own.others)


def pause(on: LocalSnapshotStore, snapshot: Snapshot, disk: Path) -> None:
    disk.write_bytes(b"disk")
    draft = on.begin(snapshot.sandbox_id)
    on.take_disk(draft, disk)
    on.commit(draft, snapshot)


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


def test_a_snapshot_of_another_host_is_adopted_once(tmp_path: Path, snapshot: Snapshot) -> None:
    first, second = store(tmp_path, "a"), store(tmp_path, "b")
    pause(first, snapshot, tmp_path / "disk")
    assert second.adopt("iunknown") is None
    assert second.adopt(snapshot.sandbox_id) == snapshot
    second.give_disk(snapshot.sandbox_id, tmp_path / "given")
    assert (tmp_path / "given").read_bytes() == b"disk"
    assert first.find(snapshot.sandbox_id) is None
    assert first.adopt(snapshot.sandbox_id) == snapshot


def test_of_hosts_that_want_it_at_once_one_has_it(tmp_path: Path, snapshot: Snapshot) -> None:
    home, rivals = store(tmp_path, "home"), [store(tmp_path, f"rival-{n}") for n in range(4)]
    for _ in range(20):
        pause(home, snapshot, tmp_path / "disk")
        with ThreadPoolExecutor(5) as pool:
            consumed = pool.submit(consume, home, snapshot)
            for rival in rivals:
                pool.submit(rival.adopt, snapshot.sandbox_id)
        holders = [one for one in rivals if one.find(snapshot.sandbox_id) is not None]
        assert len(holders) + consumed.result() == 1
        for one in (home, *rivals):
            one.discard(snapshot.sandbox_id)


def consume(store: LocalSnapshotStore, snapshot: Snapshot) -> bool:
    """Whether its own host could begin to resume it."""
    try:
        store.consume(snapshot.sandbox_id, "run")
    except OSError:
        return False
    return True
