"""Sandboxes come and go, or fail to start; the host is afterwards what it was before.

EMBERBOX_LEAK_CYCLES: how many come and go; 1,000 in `make leaks`.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import e2b
import pytest

import emberbox
from emberbox import Sandbox
from tests import holdings, report, small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stack import Stack

CYCLES = int(os.environ.get("EMBERBOX_LEAK_CYCLES", "50"))
WARM_UP = max(10, CYCLES // 10)
SAMPLES = 5 if CYCLES > 100 else 1

GROWTH = 8 * 1024
"""KiB that a program may take more after any number of cycles: what Python's allocator keeps, and
the bounded memory of what was seen last. A leak of 10 KiB for each sandbox would be seen."""

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300 + 6 * CYCLES)]


@pytest.fixture(scope="module")
def poolless(stack: Stack) -> Iterator[Stack]:
    """The stack without warm clones: their number follows demand, which is no leak."""
    with stack.restarted(EMBERBOX_POOL_SIZE="0", EMBERBOX_POOL_LEAST="0"):
        yield stack


def test_sandboxes_that_come_and_go_leave_nothing(poolless: Stack) -> None:
    _assert_flat(poolless, "0")


@pytest.mark.exhaustive
def test_a_start_from_a_damaged_snapshot_says_so_and_leaves_nothing(poolless: Stack) -> None:
    stack = poolless
    _burst(stack)
    before = holdings.settled(stack)
    [devices] = stack.home.templates.glob("*/[!.]*/snapshot/devices")
    with _cut_in_half(devices):
        for _ in range(3):
            for sdk in (emberbox, e2b):
                with pytest.raises(sdk.SandboxException, match=r"500: .*QEMU") as refused:
                    sdk.Sandbox.create(**stack.sdk)
                assert refused.value.status_code == 500
    assert Sandbox.list(**stack.sdk).next_items() == []
    _cycles(stack, 1)
    holdings.assert_nothing_grew(stack, before)


@pytest.mark.exhaustive
def test_a_start_on_a_full_disk_says_so_and_leaves_nothing(stack: Stack) -> None:
    place = stack.home.run_directories
    with (
        small_disk.mounted(place),
        stack.restarted(
            EMBERBOX_DISK_RESERVE_MB="0", EMBERBOX_POOL_SIZE="0", EMBERBOX_POOL_LEAST="0"
        ),
    ):
        small_disk.resize(place, "1g")
        _burst(stack)
        _meet_a_full_disk(stack, place)  # threads that only this needs are there from now on
        before = holdings.settled(stack)
        _meet_a_full_disk(stack, place)
        holdings.assert_nothing_grew(stack, before)


@pytest.mark.exhaustive
def test_sandboxes_that_are_warm_clones_leave_nothing(stack: Stack) -> None:
    """As many warm clones in the end as at the beginning."""
    with stack.restarted(EMBERBOX_POOL_SIZE="2", EMBERBOX_POOL_LEAST="2"):
        _assert_flat(stack, "2")


def _assert_flat(stack: Stack, pool: str) -> None:
    _burst(stack)
    _cycles(stack, WARM_UP)
    _wait_for_pool(stack, pool)
    before, memory = holdings.settled(stack), _memory(stack)
    began = time.monotonic()
    _cycles(stack, CYCLES - WARM_UP)
    seconds = time.monotonic() - began
    _wait_for_pool(stack, pool)
    holdings.assert_nothing_grew(stack, before)
    growth = {name: kib - memory[name] for name, kib in _memory(stack).items()}
    report.add(
        "leaks",
        cycles=CYCLES,
        pool=pool,
        seconds=round(seconds, 1),
        held=holdings.count(stack),
        resident_kib=memory,
        growth_kib=growth,
    )
    too_much = {name: kib for name, kib in growth.items() if kib > GROWTH}
    assert not too_much, f"resident memory grew by KiB: {growth}"


def _wait_for_pool(stack: Stack, pool: str) -> None:
    if pool != "0":
        stack.wait_for_warm_clones()


def _memory(stack: Stack) -> dict[str, int]:
    samples = []
    for _ in range(SAMPLES):
        _cycles(stack, 1)
        samples.append(holdings.memory(stack))
    return holdings.typical(samples)


def _cycles(stack: Stack, count: int) -> None:
    """Two at a time, as there are two cores."""
    _come_and_go(stack, count, at_once=2)


def _burst(stack: Stack) -> None:
    """More at once than there are slots ready: thread and connection pools reach their size."""
    _come_and_go(stack, 2 * holdings.POOL, at_once=2 * holdings.POOL)


def _come_and_go(stack: Stack, count: int, *, at_once: int) -> None:
    def one(number: int) -> None:
        sandbox = Sandbox.create(timeout=120, **stack.sdk)
        assert sandbox.commands.run(f"echo {number}").stdout == f"{number}\n"
        assert sandbox.kill()

    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(one, range(count)))


def _meet_a_full_disk(stack: Stack, place: Path) -> None:
    small_disk.resize(place, "64k")
    with ThreadPoolExecutor(4) as threads:
        errors = list(threads.map(lambda _: _error_of_create(stack), range(8)))
    for error in errors:
        assert "disk is full" in error, errors
    assert Sandbox.list(**stack.sdk).next_items() == []
    small_disk.resize(place, "1g")
    _cycles(stack, 1)


def _error_of_create(stack: Stack) -> str:
    with pytest.raises(emberbox.SandboxException) as refused:
        Sandbox.create(**stack.sdk)
    return str(refused.value)


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
