"""A host that runs out of something, or whose kernel refuses: it says so, loses nothing, and goes
on when it is over."""

from __future__ import annotations

import resource
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from emberbox import Sandbox
from tests import holdings, leaks, small_disk
from tests.faults import invariants
from tests.faults.invariants import REFUSALS
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

_RECORDS = 64
"""More than have room in what the file of a sandbox's record takes on the disk already."""


def _write_records(sandbox: Sandbox) -> None:
    for _ in range(_RECORDS):
        sandbox.set_timeout(100)


def refusal(stack: Stack) -> str:
    """What a create is refused with."""
    with pytest.raises(REFUSALS) as refused:
        Sandbox.create(timeout=60, **stack.sdk)
    invariants.assert_refusals_are_explained([refused.value])
    return str(refused.value)


def test_a_full_disk_refuses_creates_and_loses_nothing(stack: Stack) -> None:
    """Of the run directories: a record that cannot be written is no reason to lose a sandbox."""
    place = stack.home.run_directories
    assert list(place.iterdir()) == []  # what is below the mount would be out of reach
    with (
        small_disk.mounted(place),
        stack.restarted(
            EMBERBOX_DISK_RESERVE_MB="0", EMBERBOX_POOL_SIZE="0", EMBERBOX_POOL_LEAST="0"
        ),
    ):
        sandbox = Sandbox.create(timeout=600, **stack.sdk)
        sandbox.files.write("/home/user/kept", "kept")
        small_disk.fill(place)
        assert "disk is full" in refusal(stack)
        # Its record cannot be written, and it must be reachable and end all the same.
        assert sandbox.files.read("/home/user/kept") == "kept"
        # The refused one gives its room back.
        wait_until(lambda: len(list(place.iterdir())) == 1, 30)
        small_disk.fill(place)
        with pytest.raises(REFUSALS) as refused:
            _write_records(sandbox)
        invariants.assert_refusals_are_explained([refused.value])
        assert sandbox.kill()
        assert invariants.told(stack, sandbox.sandbox_id)["event"] == "killed"
        small_disk.resize(place, "1g")
        Sandbox.create(timeout=60, **stack.sdk).kill()


@pytest.mark.smoke
def test_descriptors_that_run_out_refuse_creates(stack: Stack) -> None:
    # Without warm clones, of which there would be more after a demand.
    with stack.restarted(EMBERBOX_POOL_SIZE="0", EMBERBOX_POOL_LEAST="0"):
        _run_out_of_descriptors(stack)


def _run_out_of_descriptors(stack: Stack) -> None:
    sandbox = Sandbox.create(timeout=600, **stack.sdk)
    # The proxies keep the connection that a command takes, the host that of its samples.
    sandbox.commands.run("true")
    wait_until(lambda: bool(sandbox.get_metrics()), 30)
    orchestrator = stack.pid_of("orchestrator")
    before = holdings.settled(stack)
    limits = resource.prlimit(orchestrator, resource.RLIMIT_NOFILE)
    held = before["descriptors of orchestrator"]
    resource.prlimit(orchestrator, resource.RLIMIT_NOFILE, (held + 2, limits[1]))
    try:
        assert "open files" in refusal(stack)
        assert sandbox.commands.run("echo well").stdout == "well\n"
    finally:
        resource.prlimit(orchestrator, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: _creates(stack), 60)
    invariants.assert_whole(stack)
    holdings.assert_nothing_grew(stack, before)
    sandbox.kill()


def test_a_slot_that_vanished_is_refused_or_replaced(stack: Stack) -> None:
    """Somebody removes the namespaces that wait for sandboxes: the kernel knows them no more."""
    holdings.settled(stack)
    for name in leaks.Machine.now(stack.home.root).namespaces:
        if stack.network.index_of_netns(name) is not None:
            subprocess.run(["ip", "netns", "delete", name], check=True)
    errors: list[Exception] = []

    def created() -> bool:
        try:
            Sandbox.create(timeout=60, **stack.sdk).kill()
        except REFUSALS as error:
            errors.append(error)
            return False
        return True

    wait_until(created, 60)
    invariants.assert_refusals_are_explained(errors)
    assert len(errors) <= holdings.POOL
    invariants.assert_whole(stack)


def test_a_slow_disk_makes_creates_slow_and_nothing_else(
    stack: Stack, create: Callable[..., Sandbox]
) -> None:
    sandbox = create()
    with _slow_disk(stack.home.root):
        for _ in range(3):
            other = create()
            assert other.commands.run("echo well", timeout=60).stdout == "well\n"
            assert other.kill()
        assert sandbox.commands.run("echo well", timeout=60).stdout == "well\n"
    invariants.assert_whole(stack)


def _creates(stack: Stack) -> bool:
    try:
        return Sandbox.create(timeout=60, **stack.sdk).kill()
    except REFUSALS:
        return False


@contextmanager
def _slow_disk(directory: Path) -> Iterator[None]:
    """Others write and sync without end beside it."""
    stop = threading.Event()

    def write(number: int) -> None:
        path = directory / f"noise-{number}"
        while not stop.is_set():
            with path.open("wb") as file:
                file.write(b"\0" * (8 << 20))
            subprocess.run(["sync", path], check=True)
        path.unlink()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
