"""What paused sandboxes take of the disk: it is told, refused in time, and freed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from emberbox import Sandbox
from tests.stack import Stack, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.vm, pytest.mark.exhaustive, pytest.mark.timeout(600)]

MIB = 1 << 20


def listed(stack: Stack) -> dict[str, dict[str, int]]:
    """What `emberbox snapshots` says, by the name of what it lists."""
    return {one["name"]: one for one in json.loads(stack.emberbox("snapshots", "--json"))}


def taken(directory: Path) -> int:
    """Bytes on the disk of all files below; one that has two names counts once."""
    found = {
        (status.st_ino, status.st_blocks * 512)
        for path in directory.rglob("*")
        if path.is_file()
        for status in (path.stat(),)
    }
    return sum(size for _, size in found)


def test_layers_take_what_is_told_and_are_freed(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create(timeout=300)
    sandbox.files.write("/dev/shm/memory", os.urandom(8 * MIB), user="root")
    sandbox.files.write("/home/user/disk", os.urandom(4 * MIB))
    directory = stack.home.snapshots / sandbox.sandbox_id

    for number in range(3):
        sandbox.pause()
        told = listed(stack)[sandbox.sandbox_id]
        assert 8 * MIB < told["memory_bytes"] < 64 * MIB
        assert told["disk_bytes"] > 4 * MIB
        # Each pause takes the place of the one before: nothing piles up.
        assert abs(taken(directory) - told["memory_bytes"] - told["disk_bytes"]) < MIB, number
        sandbox.connect(timeout=300)
        wait_until(lambda: list(stack.home.snapshots.iterdir()) == [], 20)
        assert sandbox.sandbox_id not in listed(stack)

    scratch = stack.home.run_directories / sandbox.sandbox_id / "scratch.ext4"
    assert scratch.stat().st_nlink == 1
    sandbox.pause()
    sandbox.kill()
    assert list(stack.home.snapshots.iterdir()) == []
    assert listed(stack) == {}


def test_a_checkpoint_is_told_and_freed(create: Callable[..., Sandbox], stack: Stack) -> None:
    source = create(timeout=300)
    snapshot = source.create_snapshot()
    [told] = listed(stack).values()
    assert told["memory_bytes"] > 0
    child = create(template=snapshot.snapshot_id, timeout=300)
    child.pause()
    # The checkpoint, and the child, which stands on it.
    assert len(listed(stack)) == 2
    child.connect(timeout=300)
    assert child.commands.run("echo here").stdout == "here\n"
    child.kill()
    assert Sandbox.delete_snapshot(snapshot.snapshot_id, **stack.sdk)
    wait_until(lambda: listed(stack) == {}, 120)
    builds = [path for path in stack.home.templates.glob("*/*") if path.is_dir()]
    assert len(builds) == 1
