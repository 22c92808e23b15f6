"""A machine's whole life under the driver, with the stand-in as its VMM."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.errors import MachineError, MachineGone, SnapshotUnusable
from emberbox.orchestrator.machines.firecracker.calls import Rates
from emberbox.orchestrator.processes import identify, is_alive
from tests.firecracker.world import (
    BOOT_CALLS,
    HARDWARE,
    ONLY_JAILED,
    PAGES,
    Guest,
    World,
    processes_of,
    saved_pages,
)

if TYPE_CHECKING:
    from emberbox.orchestrator.machines.driver import Machine

HOST_MOUNTS = Path("/proc/self/ns/mnt").stat().st_ino


async def test_a_boot_makes_its_calls_in_order(world: World) -> None:
    async with world.booted() as guest:
        assert await guest.do(calls=None) == BOOT_CALLS
        config = await guest.do(config=None)
        assert "nomodule" not in config["boot-source"]["boot_args"].split()
        assert list(config["drives"]) == ["root", "runtime", "scratch"]
        assert [drive["is_read_only"] for drive in config["drives"].values()] == [True, True, False]


async def test_it_is_confined(world: World) -> None:
    async with world.booted() as guest:
        process = Path(f"/proc/{guest.machine.identity.pid}")
        status = (process / "status").read_text()
        assert f"Uid:\t{guest.place.uid}" in status
        assert "CapEff:\t0000000000000000" in status
        assert (process / "ns/net").stat().st_ino == guest.place.slot.netns_path.stat().st_ino
        assert (process / "ns/mnt").stat().st_ino != HOST_MOUNTS
        root = {entry.name for entry in (process / "root").iterdir()}
        if world.jailed:
            assert root == {"firecracker", "dev", "run"}
            limits = (process / "limits").read_text()
            assert f"Max file size             {(64 << 20) + (1 << 20)}" in limits
        else:
            assert "etc" in root


async def test_what_is_shared_cannot_be_written(world: World) -> None:
    snapshot = await world.template()

    async def refused(guest: Guest, *names: str) -> None:
        for name in names:
            assert await guest.do(open_for_writing=f"/run/emberbox/vm/{name}") != "opened"
        assert await guest.do(open_for_writing="/run/emberbox/vm/scratch") == "opened"

    async with world.booted() as guest:
        await refused(guest, "root", "runtime", "kernel", "initrd")
    async with world.clone(snapshot) as guest:
        await refused(guest, "root", "runtime", "ram", "devices")


async def test_pause_and_resume_may_be_repeated(world: World) -> None:
    async with world.booted() as guest:
        await guest.machine.resume()
        for _ in range(2):
            await guest.machine.pause()
        with pytest.raises(AssertionError, match="stands still"):
            await guest.write(1, 1)
        for _ in range(2):
            await guest.machine.resume()
        await guest.write(1, 1)


async def test_a_clone_has_its_templates_memory_and_changes_nothing_of_it(world: World) -> None:
    snapshot = await world.template()
    before = (snapshot.directory / "ram").read_bytes()
    async with world.clone(snapshot) as first, world.clone(snapshot) as second:
        expected = await first.pages()
        assert expected[:5] == [1, 0, 3, 0, 5]
        await first.write(2, 77)
        await first.write(3, 78)
        assert (await second.read(2), await second.read(3)) == (3, 0)
    assert (snapshot.directory / "ram").read_bytes() == before


async def test_the_file_of_a_template_has_no_empty_pages(world: World) -> None:
    snapshot = await world.template()
    status = (snapshot.directory / "ram").stat()
    assert status.st_size == PAGES * 4096
    assert status.st_blocks * 512 <= PAGES // 2 * 4096 + 65536


async def test_a_saved_clone_goes_on_again_and_again(world: World) -> None:
    snapshot = await world.template()
    saved = None
    for turn in range(1, 4):
        async with world.clone(snapshot, saved) as guest:
            for before in range(1, turn):
                assert await guest.read(10 * before) == 100 + before
            await guest.write(10 * turn, 100 + turn)
            await guest.write(201, turn)
            saved = await guest.save()
            assert await guest.read(0) == 1
        # What was changed since the template, and not more.
        assert saved_pages(saved) == [*(10 * n for n in range(1, turn + 1)), 201]
    async with world.clone(snapshot, saved) as guest:
        assert [await guest.read(page) for page in (0, 10, 20, 30, 201)] == [1, 101, 102, 103, 3]


async def test_what_was_saved_while_it_runs_on_is_in_the_next_save_too(world: World) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        await guest.write(7, 70)
        first = await guest.save()
        await guest.machine.resume()
        await guest.write(8, 80)
        second = await guest.save()
    for saved, eighth in ((first, 9), (second, 80)):
        async with world.clone(snapshot, saved) as guest:
            assert [await guest.read(page) for page in (6, 7, 8)] == [7, 70, eighth]


async def test_a_booted_machine_is_saved_whole(world: World) -> None:
    snapshot = dataclasses.replace(await world.template(), directory=Path("/nonexistent"))
    async with world.booted() as guest:
        await guest.write(5, 50)
        first = await guest.save()
        await guest.machine.resume()
        await guest.write(6, 60)
        saved = await guest.save()
    for directory, sixth in ((first, 0), (saved, 60)):
        async with world.clone(snapshot, directory) as guest:
            assert [await guest.read(page) for page in (0, 5, 6, 7)] == [1, 50, sixth, 0]
            again = await guest.save()
        async with world.clone(snapshot, again) as guest:
            assert await guest.read(5) == 50


async def test_a_saved_clone_becomes_a_template_of_its_own(world: World) -> None:
    template = await world.template()
    async with world.clone(template) as guest:
        await guest.write(9, 90)
        saved = await guest.save()
    snapshot = await world.driver.materialise(template, saved, world.empty())
    (template.directory / "ram").unlink()
    (saved / "memory").unlink()
    async with world.clone(snapshot) as child:
        assert [await child.read(page) for page in (8, 9)] == [9, 90]
        await child.write(9, 91)
        again = await child.save()
    async with world.clone(snapshot, again) as child:
        assert await child.read(9) == 91
    world.driver.forget(snapshot)


async def test_another_orchestrator_takes_hold_of_it(world: World) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        await guest.write(3, 33)
        await guest.machine.save(await _paused(guest))
        await guest.machine.resume()
        await guest.write(4, 44)
        await guest.machine.detach()
        with pytest.raises(MachineGone):
            await guest.machine.pause()

        world.driver = world.new_driver()
        identity = guest.machine.identity
        guest.machine = await world.driver.adopt(identity, guest.place)
        saved = await guest.save()
        assert saved_pages(saved) == [3, 4]
        waiting = asyncio.create_task(guest.machine.wait())
        with pytest.raises(EOFError):
            await guest.do(end=0)
        assert "its VMM ended" in await waiting
        with pytest.raises(MachineGone):
            await world.driver.adopt(identity, guest.place)
    async with world.clone(snapshot, saved) as guest:
        assert [await guest.read(page) for page in (3, 4)] == [33, 44]


async def _paused(guest: Guest) -> Path:
    await guest.machine.pause()
    return guest.world.empty()


async def test_its_run_directory_may_be_called_otherwise(world: World) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        await guest.write(3, 33)
        moved = guest.place.directory.with_name("moved")
        guest.place.directory.rename(moved)
        guest.place = dataclasses.replace(
            guest.place, directory=moved, scratch=moved / guest.place.scratch.name
        )
        guest.machine.moved(moved)
        assert saved_pages(await guest.save()) == [3]
        await guest.machine.detach()
        identity = guest.machine.identity
        guest.machine = await world.new_driver().adopt(identity, guest.place)
        await guest.machine.resume()
        await guest.write(4, 44)
        assert saved_pages(await guest.save()) == [3, 4]


async def test_what_is_not_there_is_not_adopted(world: World) -> None:
    place = world.place()
    with pytest.raises(MachineGone, match="does not tell of a Firecracker"):
        await world.driver.adopt(identify(os.getpid()), place)
    world.leave(place)


async def test_the_last_moment_before_it_runs(world: World) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        saved = await guest.save()
    place = world.place()
    seen: list[str] = []

    async def before_running(machine: Machine) -> None:
        seen.append("called")
        with pytest.raises(AssertionError, match="stands still"):
            await Guest(world, machine, place).write(1, 1)  # type: ignore[arg-type]

    machine = await world.driver.restore(snapshot, place, saved, before_running)
    async with world.running(machine, place) as guest:
        assert seen == ["called"]
        await guest.write(1, 1)


async def test_a_refusal_in_the_last_moment_ends_it(world: World) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        saved = await guest.save()
    place = world.place()
    held: list[Machine] = []

    async def refuse(machine: Machine) -> None:
        held.append(machine)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        await world.driver.restore(snapshot, place, saved, refuse)
    assert not is_alive(held[0].identity)
    world.leave(place)


async def test_memory_of_another_vmm_is_not_loaded(world: World) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        saved = await guest.save()
    world.stand_in.go_wrong(version="1.16.2")
    world.driver = world.new_driver()
    place = world.place()
    for directory in (saved, None):
        with pytest.raises(SnapshotUnusable, match="another VMM"):
            await world.driver.restore(snapshot, place, directory)
    # The same place serves for a boot then.
    machine = await world.driver.boot(HARDWARE, world.files, place)
    async with world.running(machine, place) as guest:
        await guest.write(1, 1)


async def test_a_clone_of_an_upgraded_vmm_says_what_it_runs_under(world: World) -> None:
    snapshot = await world.template()
    before = world.driver.made_with
    async with world.clone(snapshot) as guest:
        world.stand_in.go_wrong(version="1.16.2")
        world.driver = world.new_driver()
        await guest.machine.detach()
        guest.machine = await world.driver.adopt(guest.machine.identity, guest.place)
        await guest.machine.pause()
        written = await guest.machine.save(world.empty())
        assert written.made_with == before != world.driver.made_with


@ONLY_JAILED
@pytest.mark.parametrize("version", ["1.12.0", "1.14.0", "1.17.0"])
async def test_every_version_gets_the_fields_that_it_knows(world: World, version: str) -> None:
    world.stand_in.go_wrong(version=version)
    world.driver = world.new_driver()
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        await guest.write(3, 3)
        saved = await guest.save()
    async with world.clone(snapshot, saved) as guest:
        assert await guest.read(3) == 3


@ONLY_JAILED
async def test_limits_are_set_anew_after_a_load(world: World) -> None:
    world.rates = Rates(disk_mb=10, disk_operations=100, network_mb=5)
    world.driver = world.new_driver()
    snapshot = await world.template()
    second = {"refill_time": 1000}
    async with world.clone(snapshot) as guest:
        config = await guest.do(config=None)
        assert config["drives"]["scratch"]["rate_limiter"] == {
            "bandwidth": {"size": 10 << 20, **second},
            "ops": {"size": 100, **second},
        }
        network = config["network"]["eth0"]
        assert network["tx_rate_limiter"] == {"bandwidth": {"size": 5 << 20, **second}}
        assert network["rx_rate_limiter"] == network["tx_rate_limiter"]
    world.rates = None
    world.driver = world.new_driver()
    async with world.clone(snapshot) as guest:
        assert (await guest.do(config=None))["drives"]["scratch"]["rate_limiter"] == {}


async def test_it_is_in_its_share_of_the_host_before_it_does_anything(world: World) -> None:
    joined: list[int] = []

    class Share:
        def add(self, pid: int) -> None:
            joined.append(pid)

    place = dataclasses.replace(world.place(), share=Share())
    machine = await world.driver.boot(HARDWARE, world.files, place)
    async with world.running(machine, place):
        assert joined == [machine.identity.pid]


async def test_a_share_that_cannot_be_joined_ends_it(world: World) -> None:
    class Share:
        def add(self, pid: int) -> None:
            raise OSError("no such group")

    place = dataclasses.replace(world.place(), share=Share())
    with pytest.raises(MachineError, match="cannot be started: no such group"):
        await world.driver.boot(HARDWARE, world.files, place)
    assert not processes_of(place.uid)
    world.leave(place)


async def test_a_clones_whole_memory_is_no_snapshot(world: World) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        with pytest.raises(MachineError, match="only a paused"):
            await guest.machine.save(world.empty())
        await guest.machine.pause()
        with pytest.raises(MachineError, match="a clone's memory"):
            await guest.machine.snapshot(world.empty())


async def test_a_save_says_what_it_may_take(world: World) -> None:
    snapshot = await world.template()
    async with world.booted() as guest:
        assert guest.machine.most_saved_mb(512) == 1024
    async with world.clone(snapshot) as guest:
        own = guest.machine.most_saved_mb(512)
        assert 0 < own < 200  # three times the memory of a Python program
