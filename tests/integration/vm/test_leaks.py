"""Sandboxes come and go, or fail to start; the host is afterwards what it was before."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import e2b
import pytest

import emberbox
from emberbox import Sandbox
from tests import leaks
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

WARM_UP, CYCLES = 3, 15
POOL = 4
"""Slots that an idle orchestrator keeps ready: EMBERBOX_SLOT_POOL's default."""
THREADS = 3 + min(32, (os.cpu_count() or 1) + 4)
"""Those of the program itself, and asyncio's pool for blocking calls when it has grown to its size;
that happens when it happens, so fewer are no news."""


def test_sandboxes_that_come_and_go_leave_nothing(stack: Stack) -> None:
    _burst(stack)
    _cycles(stack, WARM_UP)
    before = _settled_holdings(stack)
    _cycles(stack, CYCLES - WARM_UP)
    _assert_nothing_grew(stack, before)


def test_a_start_from_a_damaged_snapshot_says_so_and_leaves_nothing(stack: Stack) -> None:
    _burst(stack)
    before = _settled_holdings(stack)
    [devices] = stack.home.templates.glob("*/[!.]*/snapshot/devices")
    with _cut_in_half(devices):
        for _ in range(3):
            for sdk in (emberbox, e2b):
                with pytest.raises(sdk.SandboxException, match=r"500: .*QEMU") as refused:
                    sdk.Sandbox.create(**stack.sdk)
                assert refused.value.status_code == 500
    assert Sandbox.list(**stack.sdk).next_items() == []
    _cycles(stack, 1)
    _assert_nothing_grew(stack, before)


def test_a_start_on_a_full_disk_says_so_and_leaves_nothing(stack: Stack) -> None:
    with _small_disk(stack.home.run_directories), stack.restarted(EMBERBOX_DISK_RESERVE_MB="0"):
        _resize(stack.home.run_directories, "1g")
        _burst(stack)
        before = _settled_holdings(stack)
        _resize(stack.home.run_directories, "64k")
        with ThreadPoolExecutor(4) as threads:
            errors = list(threads.map(lambda _: _error_of_create(stack), range(8)))
        for error in errors:
            assert "disk is full" in error, errors
        assert Sandbox.list(**stack.sdk).next_items() == []
        _resize(stack.home.run_directories, "1g")
        _cycles(stack, 1)
        _assert_nothing_grew(stack, before)


def _cycles(stack: Stack, count: int) -> None:
    for number in range(count):
        sandbox = Sandbox.create(timeout=120, **stack.sdk)
        assert sandbox.commands.run(f"echo {number}").stdout == f"{number}\n"
        assert sandbox.kill()


def _burst(stack: Stack) -> None:
    """More at once than there are slots ready: thread and connection pools reach their size."""

    def one(_number: int) -> None:
        sandbox = Sandbox.create(timeout=120, **stack.sdk)
        assert sandbox.commands.run("echo here").stdout == "here\n"
        assert sandbox.kill()

    with ThreadPoolExecutor(2 * POOL) as threads:
        list(threads.map(one, range(2 * POOL)))


def _error_of_create(stack: Stack) -> str:
    with pytest.raises(emberbox.SandboxException) as refused:
        Sandbox.create(**stack.sdk)
    return str(refused.value)


def _settled_holdings(stack: Stack) -> dict[str, int]:
    """What the programs hold once the pools are as they are when idle."""
    slots = POOL + len(stack.wait_for_warm_clones())
    wait_until(lambda: _holdings(stack)["namespaces"] == slots, 30)
    return _holdings(stack)


def _holdings(stack: Stack) -> dict[str, int]:
    """Counts of everything that a sandbox takes."""
    process = Path(f"/proc/{stack.pid_of('orchestrator')}")
    workers = [Path(f"/proc/{pid}") for pid in stack.data_proxy_pids()]
    machine = leaks.Machine.now(stack.home.root)
    network = stack.network
    namespaces = [n for n in machine.namespaces if network.index_of_netns(n) is not None]
    targets = _descriptors(process)
    return {
        "descriptors": len(targets),
        "memory files": sum("memfd:" in target for target in targets),
        "pidfds": sum("pidfd" in target for target in targets),
        "threads": max(_threads(process), THREADS),
        "children": len((process / "task" / process.name / "children").read_text().split()),
        "workers' descriptors": sum(len(_descriptors(worker)) for worker in workers),
        "vms": sum(f" emberbox-{network.tag}-" in vm for vm in machine.vms),
        "namespaces": len(namespaces),
        "links": sum(network.index_of_link(link) is not None for link in machine.links),
        "taps": sum(_taps_in(namespace) for namespace in namespaces),
        "tables": sum(network.table in table for table in machine.tables),
        "run directories": len(list(stack.home.run_directories.iterdir())),
        "warm clones": len(stack.warm_clones()),
    }


def _assert_nothing_grew(stack: Stack, before: dict[str, int]) -> None:
    def grown() -> list[str]:
        now = _holdings(stack)
        return [f"{k}: {before[k]} → {now[k]}" for k in before if now[k] > before[k]]

    stack.wait_for_warm_clones()
    left = leaks.wait_until_none(grown)
    assert not left, left


def _descriptors(process: Path) -> list[str]:
    found = []
    for fd in (process / "fd").iterdir():
        try:
            found.append(str(fd.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def _threads(process: Path) -> int:
    """Without gRPC's own, which come and go."""
    names = [(task / "comm").read_text().strip() for task in (process / "task").iterdir()]
    return sum(not name.startswith(("event_engine", "grpc", "lifeguard")) for name in names)


def _taps_in(namespace: str) -> int:
    listed = subprocess.run(
        ["ip", "-n", namespace, "-o", "link", "show", "type", "tun"],
        capture_output=True,
        text=True,
        check=False,  # the slot may go while we look
        timeout=10,
    )
    return len(listed.stdout.splitlines())


@contextmanager
def _cut_in_half(path: Path) -> Iterator[None]:
    whole = path.with_name("aside")
    path.rename(whole)
    try:
        content = whole.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        yield
    finally:
        os.replace(whole, path)  # noqa: PTH105 - over what stands there


@contextmanager
def _small_disk(directory: Path) -> Iterator[None]:
    """A file system of its own over `directory`, of a size that `_resize` changes."""
    subprocess.run(["mount", "-t", "tmpfs", "small", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def _resize(directory: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", directory], check=True)
