"""`emberbox snapshots` lists what is paused, also while no orchestrator runs."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

from emberbox.cli.commands import emberbox
from emberbox.orchestrator.snapshots.local import LocalSnapshotStore
from emberbox.shared.home import Home
from tests.unit.orchestrator.recorded import SNAPSHOT

if TYPE_CHECKING:
    from pathlib import Path


def paused(home: Path) -> None:
    store = LocalSnapshotStore(Home(home).snapshots)
    snapshot = dataclasses.replace(
        SNAPSHOT, memory_bytes=3 << 20, disk_bytes=1 << 20, envd_token="secret-token"
    )
    store.commit(store.begin(SNAPSHOT.sandbox_id), snapshot)


def run(home: Path, *flags: str) -> str:
    done = CliRunner().invoke(emberbox, ["snapshots", "--home", str(home), *flags])
    assert done.exit_code == 0, done.output
    return done.output


def test_paused_sandboxes_are_listed_with_their_sizes(tmp_path: Path) -> None:
    Home(tmp_path).orchestrator.mkdir()
    paused(tmp_path)
    told = run(tmp_path)
    assert "iabc" in told
    assert "1 snapshots, 4 MiB" in told
    [line] = json.loads(run(tmp_path, "--json"))
    assert (line["name"], line["memory_bytes"]) == ("iabc", 3 << 20)
    assert "secret-token" not in told


def test_a_home_without_any_is_left_as_it_is(tmp_path: Path) -> None:
    assert "0 snapshots" in run(tmp_path)
    assert list(tmp_path.iterdir()) == []
