"""Memory survives: machines are saved, their VMMs end, and what ran in them goes on."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.errors import MachineError, SnapshotUnusable
from emberbox.orchestrator.machines.watch import unless_ended
from emberbox.orchestrator.processes import is_alive
from tests.integration.vm.machines import DRIVERS, Guest, MachineHost, machine_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.exhaustive, pytest.mark.timeout(300)]

# Its count is in memory alone until it is asked for by the signal.
COUNTER = """
import os, signal, time
count, ballast = 0, os.urandom(%d)
def tell(*_):
    with open("/dev/shm/told", "w") as told:
        told.write(f"{count} {hash(ballast)}")
    os.rename("/dev/shm/told", "/dev/shm/count")
signal.signal(signal.SIGUSR1, tell)
open("/dev/shm/ready", "w").close()
while True:
    time.sleep(0.01)
    count += 1
"""
ROUNDS = 3
SECONDS = 60.0


@pytest.fixture(params=DRIVERS)
async def host(
    stack: Stack, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[MachineHost]:
    async with machine_host(stack, tmp_path, request.param) as made:
        yield made


class Counter:
    """A process in the guest that counts in its memory, and files in tmpfs and on the disk."""

    def __init__(self, guest: Guest, mib: int) -> None:
        self._guest, self._mib = guest, mib
        self._pid, self._sums, self._ballast = "", "", ""
        self._last = 0

    async def start(self) -> None:
        program = COUNTER % 4096
        self._pid = await self._guest.run(
            f"set -e; cat > /root/counter.py <<'END'\n{program}\nEND\n"
            f"head -c {self._mib}M /dev/urandom > /dev/shm/data\n"
            f"head -c {self._mib}M /dev/urandom > /root/data; sync\n"
            "setsid python3 /root/counter.py > /dev/null 2>&1 < /dev/null & echo $!\n"
            "until [ -e /dev/shm/ready ]; do sleep 0.05; done"
        )
        self._sums = await self._guest.run("sha256sum /dev/shm/data /root/data")
        self._last, self._ballast = await self._ask()

    async def check(self) -> None:
        """It lives, has forgotten nothing and counts on; the files are as they were."""
        assert await self._guest.run("sha256sum /dev/shm/data /root/data") == self._sums
        deadline = time.monotonic() + SECONDS
        before = self._last
        while self._last < before + 5:
            assert time.monotonic() < deadline, "it does not count"
            count, ballast = await self._ask()
            assert ballast == self._ballast
            assert count >= self._last
            self._last = count

    async def _ask(self) -> tuple[int, str]:
        told = await self._guest.run(
            f"rm -f /dev/shm/count; kill -USR1 {self._pid}; "
            "until [ -e /dev/shm/count ]; do sleep 0.02; done; cat /dev/shm/count"
        )
        count, ballast = told.split()
        return int(count), ballast


def image_hash(guest: Guest) -> str:
    """Of the template's RAM as its clones map it: a file of memory, or the very file."""
    for link in Path(f"/proc/{guest.machine.identity.pid}/fd").iterdir():
        if str(link.readlink()).startswith("/memfd:emberbox-ram"):
            with link.open("rb") as memory:
                return hashlib.file_digest(memory, "sha256").hexdigest()
    with (guest.host.template.snapshot.directory / "ram").open("rb") as ram:
        return hashlib.file_digest(ram, "sha256").hexdigest()


async def test_a_clone_goes_on_after_its_vmm_has_ended_three_times(host: MachineHost) -> None:
    async with host.clone() as guest:
        assert host.template.hardware.vcpu == 2
        before = await asyncio.to_thread(image_hash, guest)
        counter = Counter(guest, mib=64)
        await counter.start()
        sizes = []
        for _ in range(ROUNDS):
            saved = await guest.away_and_back()
            await counter.check()
            sizes.append((saved / "memory").stat().st_size >> 20)
        assert await asyncio.to_thread(image_hash, guest) == before
        # What was dirtied and not what there is, however often it was saved.
        assert all(64 <= size < 400 for size in sizes), sizes
        await _adopted_and_again(host, guest, counter)
        await _ends_when_told(guest)


async def _adopted_and_again(host: MachineHost, guest: Guest, counter: Counter) -> None:
    """Another orchestrator process takes hold of the continued machine and saves it too."""
    identity = guest.machine.identity
    await guest.machine.detach()
    host.restarted()
    guest.machine = await host.driver.adopt(identity, guest.place)
    await guest.away_and_back()
    await counter.check()


async def _ends_when_told(guest: Guest) -> None:
    """The watch of a continued machine sees its guest end."""
    await guest.run("(sleep 0.5; echo b > /proc/sysrq-trigger) > /dev/null 2>&1 &")
    async with asyncio.timeout(SECONDS):
        assert "ended" in await guest.machine.wait()
    with pytest.raises(MachineError):
        await guest.machine.save(guest.host.empty())


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of so many KiB."""
    point = tmp_path / "small"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", point], check=True)
    yield point
    subprocess.run(["umount", point], check=True)


async def test_a_save_that_fails_leaves_a_machine_that_can_go_on(
    host: MachineHost, small_disk: Path
) -> None:
    async with host.clone() as guest:
        counter = Counter(guest, mib=4)
        await counter.start()

        with pytest.raises(MachineError, match="only a paused"):
            await guest.machine.save(host.empty())

        await guest.machine.pause()
        (small_disk / "memory-fails").mkdir()
        with pytest.raises(OSError, match="No space left"):
            await guest.machine.save(small_disk / "memory-fails")
        await guest.machine.resume()
        await counter.check()

        await guest.machine.pause()
        (small_disk / "devices-fail").mkdir()
        fill(small_disk)
        with pytest.raises((MachineError, OSError), match=r"refused|No space left"):
            await guest.machine.save(small_disk / "devices-fail")
        with pytest.raises(MachineError, match="a clone's memory"):
            await guest.machine.snapshot(host.empty())
        await guest.machine.resume()
        await counter.check()

        await guest.away_and_back()
        await counter.check()


def fill(directory: Path) -> None:
    with (
        (directory / "filler").open("wb", buffering=0) as filler,
        pytest.raises(OSError, match="No space left"),
    ):
        filler.writelines(bytes(4096) for _ in range(1000))


async def test_what_cannot_be_loaded_is_refused_and_the_rest_still_can(host: MachineHost) -> None:
    async with host.clone() as guest:
        counter = Counter(guest, mib=4)
        await counter.start()
        saved = await guest.save()
        await guest.machine.stop()
        guest.place = await host.moved(guest.place)
        for name, place in (("devices", -1), ("memory", 0), ("memory", -1)):
            flip(saved / name, place)
            with pytest.raises(SnapshotUnusable, match=r"damaged|no saved memory"):
                await host.driver.restore(host.template.snapshot, guest.place, saved)
            flip(saved / name, place)
        guest.machine = await host.driver.restore(host.template.snapshot, guest.place, saved)
        await guest.healthy()
        await counter.check()


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("layered", [True, False])
async def test_a_saved_clone_becomes_a_snapshot_of_many(
    host: MachineHost, *, layered: bool
) -> None:
    async with host.clone() as guest:
        counter = Counter(guest, mib=16)
        await counter.start()
        saved = await guest.save()
        await guest.machine.stop()
        snapshot = await host.driver.materialise(
            host.template.snapshot, saved, host.empty(), layered=layered
        )
        shutil.rmtree(saved)
        assert (snapshot.base is not None) is layered

        places = [await host.place(guest.place.scratch) for _ in range(2)]
        children = [Guest(host, await host.driver.restore(snapshot, p), p) for p in places]
        async with children[0].running(), children[1].running():
            for child in children:
                counter._guest = child
                await counter.check()
                counter._last = 0
            # A child can be saved like any clone, over what it is a clone of.
            again = await children[0].save()
            grandchild = await host.driver.materialise(snapshot, again, host.empty(), layered=True)
            assert grandchild.base == (snapshot.base or snapshot.directory)
        host.driver.forget(snapshot)


async def test_a_booted_machine_is_saved_whole_and_goes_on_twice(host: MachineHost) -> None:
    place = await host.place(host.template.boot_scratch)
    machine = await host.driver.boot(host.template.hardware, host.template.boot, place)
    guest = Guest(host, machine, place)
    async with guest.running():
        counter = Counter(guest, mib=4)
        await counter.start()
        for _ in range(2):
            await guest.away_and_back()
            await counter.check()
        # Its RAM is still a file of its own.
        await guest.machine.pause()
        await guest.machine.snapshot(host.empty())
        assert is_alive(guest.machine.identity)


async def test_a_wait_for_a_saved_machine_ends_with_it(host: MachineHost) -> None:
    async with host.clone() as guest:
        await guest.save()
        waiting = asyncio.create_task(unless_ended(guest.machine, asyncio.sleep(SECONDS)))
        await guest.machine.stop()
        with pytest.raises(MachineError, match="the VM ended"):
            await waiting
