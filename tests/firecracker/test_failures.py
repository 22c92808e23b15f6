"""What may go wrong with a VMM: each error is told, and nothing of it stays."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from emberbox.orchestrator.errors import MachineError, MachineGone, SnapshotUnusable
from emberbox.orchestrator.machines import saved_memory
from emberbox.orchestrator.machines.firecracker import api, dumps, machine, mounting
from emberbox.orchestrator.machines.firecracker.view import View
from emberbox.orchestrator.machines.watch import unless_ended
from emberbox.orchestrator.processes import is_alive
from tests.firecracker.world import (
    BOOT_CALLS,
    HARDWARE,
    ONLY_BARE,
    ONLY_JAILED,
    World,
    processes_of,
    saved_pages,
)

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import MachineSnapshot

LOAD_CALLS = [
    "PUT /logger",
    "PUT /metrics",
    "PUT /snapshot/load",
    "PATCH /drives/scratch",
    "PATCH /network-interfaces/eth0",
    "GET /",
    "PATCH /vm",
]


async def boot_fails(world: World, match: str) -> MachineError:
    place = world.place()
    with pytest.raises(MachineError, match=match) as raised:
        await world.driver.boot(HARDWARE, world.files, place)
    assert not processes_of(place.uid)
    world.leave(place)
    return raised.value


async def restore_fails(
    world: World, snapshot: MachineSnapshot, match: str, saved: Path | None = None
) -> MachineError:
    place = world.place()
    with pytest.raises(MachineError, match=match) as raised:
        await world.driver.restore(snapshot, place, saved)
    assert not processes_of(place.uid)
    world.leave(place)
    return raised.value


@ONLY_JAILED
@pytest.mark.parametrize("call", BOOT_CALLS)
async def test_each_refusal_of_a_boot_is_told(world: World, call: str) -> None:
    world.stand_in.go_wrong(refuse={call: "the reason of Firecracker"})
    error = await boot_fails(world, f"refused {call}: the reason of Firecracker")
    assert "[ERROR]" in error.console or call in BOOT_CALLS[:2]


@ONLY_JAILED
@pytest.mark.parametrize("call", LOAD_CALLS[:-2] + LOAD_CALLS[-1:])
async def test_each_refusal_of_a_load_is_told(world: World, call: str) -> None:
    snapshot = await world.template()
    world.stand_in.go_wrong(refuse={call: "the reason of Firecracker"})
    await restore_fails(world, snapshot, f"refused {call}: .*the reason of Firecracker")


@pytest.mark.parametrize("when", ["die_at", "die_after"])
@pytest.mark.parametrize("call", ["PUT /logger", "PUT /drives/scratch", "PUT /actions"])
async def test_a_vmm_that_dies_while_it_is_told_to_boot(world: World, when: str, call: str) -> None:
    world.stand_in.go_wrong(**{when: call})
    await boot_fails(world, "ended")


@ONLY_JAILED
@pytest.mark.parametrize("call", [*BOOT_CALLS[1:6], *BOOT_CALLS[7:9], *BOOT_CALLS[10:]])
async def test_a_vmm_that_dies_at_any_other_step_of_a_boot(world: World, call: str) -> None:
    world.stand_in.go_wrong(die_at=call)
    error = await boot_fails(world, "ended")
    assert "told to die" in error.console


@ONLY_JAILED
@pytest.mark.parametrize("call", LOAD_CALLS)
async def test_a_vmm_that_dies_at_a_step_of_a_load(world: World, call: str) -> None:
    snapshot = await world.template()
    world.stand_in.go_wrong(die_at=call)
    await restore_fails(world, snapshot, "ended")


async def test_a_vmm_that_dies_at_its_start(world: World) -> None:
    world.stand_in.go_wrong(dies_at_start=True)
    error = await boot_fails(world, "ended")
    assert "it was told to die" in error.console


@ONLY_JAILED
async def test_a_jailer_that_fails(world: World) -> None:
    world.stand_in.go_wrong(jailer_dies=True)
    error = await boot_fails(world, "ended")
    assert "told to die" in error.console


async def test_a_socket_that_never_appears(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SOCKET_SECONDS", 0.3)
    world.stand_in.go_wrong(silent=True)
    await boot_fails(world, "socket was not there after 0.3 s")


@ONLY_JAILED
async def test_something_else_in_the_place_of_its_socket(world: World) -> None:
    world.stand_in.go_wrong(no_socket=True)
    await boot_fails(world, "api.sock is not what Firecracker makes there")


@ONLY_JAILED
async def test_a_vmm_that_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "ANSWER_SECONDS", 0.3)
    world.stand_in.go_wrong(hang_at="PUT /boot-source")
    # The first that hangs; on a starved host one before it may be as slow.
    await boot_fails(world, r"did not answer PUT /[a-z-]+ in 0\.3 s")


@ONLY_JAILED
@pytest.mark.parametrize(
    "garbage",
    [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "x" * 100_000,
    ],
    ids=["no-http", "endless", "no-length", "no-head"],
)
async def test_answers_that_are_none(world: World, garbage: str) -> None:
    world.stand_in.go_wrong(garbage_at="PUT /boot-source", garbage=garbage)
    await boot_fails(world, "ended during PUT /boot-source")


@ONLY_JAILED
@pytest.mark.parametrize(
    ("garbage", "told"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{x}", "is no JSON"),
        ("HTTP/1.1 400 \r\nContent-Length: 3\r\n\r\n[1]", r"400 \[1\]"),
        ("HTTP/1.1 503 \r\nContent-Length: 4\r\n\r\nbusy", "503 busy"),
    ],
)
async def test_answers_in_other_words(world: World, garbage: str, told: str) -> None:
    world.stand_in.go_wrong(garbage_at="PUT /boot-source", garbage=garbage)
    await boot_fails(world, told)


async def test_a_body_over_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    large = {"level": "x" * 60_000}
    async with world.booted() as guest:
        speaking = api.Api(View.of(guest.place).open_socket())
        with pytest.raises(MachineError, match=r"has 600\d\d bytes; Firecracker takes 51200"):
            await speaking.put("/logger", large)
        # Firecracker's own words, were it sent.
        monkeypatch.setattr(api, "LARGEST_BODY", 1 << 20)
        with pytest.raises(MachineError, match=r"payload with size 600\d\d is too large"):
            await speaking.put("/logger", large)
        speaking.close()
        speaking.close()


async def test_no_kvm_is_told_at_the_start(world: World) -> None:
    world.stand_in.go_wrong(no_kvm=True)
    await boot_fails(world, "refused PUT /actions: .*Cannot open `/dev/kvm`")


@ONLY_JAILED
async def test_a_kernel_that_is_none(world: World) -> None:
    kernel = world.directory / "kernel"
    kernel.unlink()
    kernel.write_bytes(b"MZ no kernel at all")
    await boot_fails(world, "cannot boot this kernel: .* neither a bzImage nor an ELF")


async def test_a_file_that_is_missing(world: World) -> None:
    (world.directory / "root").unlink()
    await boot_fails(world, "cannot be started: .*No such file")


@ONLY_JAILED
async def test_a_start_that_is_broken_off(world: World) -> None:
    world.stand_in.go_wrong(hang_at="PUT /boot-source")
    place = world.place()
    booting = asyncio.create_task(world.driver.boot(HARDWARE, world.files, place))
    while not (View.of(place).host / "own/guest.sock").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    booting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await booting
    assert not processes_of(place.uid)
    world.leave(place)


# Saving


async def saves_whole_after(world: World, fault: dict[str, Any], match: str) -> None:
    """A save that fails by this loses no page: the next one takes all memory."""
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        await guest.write(3, 33)
        await guest.machine.pause()
        await guest.do(faults=fault)
        with pytest.raises(MachineError, match=match):
            await guest.machine.save(world.empty())
        assert not list((View.of(guest.place).host / "own").glob("[md]*"))
        await guest.do(faults=dict.fromkeys(fault))
        await guest.machine.resume()
        await guest.write(4, 44)
        saved = await guest.save()
        assert [await guest.read(page) for page in (0, 3, 4)] == [1, 33, 44]
    assert saved_pages(saved) == [3, 4]
    async with world.clone(snapshot, saved) as guest:
        assert [await guest.read(page) for page in (0, 1, 2, 3, 4)] == [1, 0, 3, 33, 44]
        await guest.write(5, 55)
        saved = await guest.save()
    async with world.clone(snapshot, saved) as guest:
        assert [await guest.read(page) for page in (0, 3, 4, 5)] == [1, 33, 44, 55]


async def test_a_dump_that_is_refused(world: World) -> None:
    refusal = {"refuse": {"PUT /snapshot/create": "no space"}}
    await saves_whole_after(world, {**refusal}, "refused PUT /snapshot/create: no space")


@ONLY_JAILED
async def test_a_dump_of_another_size(world: World) -> None:
    await saves_whole_after(world, {"short_dump": True}, "wrote 4096 bytes of memory")


@ONLY_BARE
async def test_a_state_without_end(world: World) -> None:
    await saves_whole_after(world, {"large_state": True}, "more than 67108864 bytes of state")


@ONLY_JAILED
async def test_a_vmm_may_write_no_more_than_its_disk_and_memory(world: World) -> None:
    # RLIMIT_FSIZE: the disk of one page, and 64 MiB.
    async with world.booted() as guest:
        await guest.machine.pause()
        await guest.do(faults={"large_state": True})
        with pytest.raises(MachineError, match=r"File too large|ended"):
            await guest.machine.save(world.empty())


async def test_a_link_in_the_place_of_a_dump_is_not_followed(world: World) -> None:
    target = world.stand_in.directory / "secret"
    target.write_bytes(b"secret")
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        await guest.machine.pause()
        await guest.do(faults={"link_dump": "/run/emberbox/vm/scratch"})
        with pytest.raises((MachineError, OSError)):
            await guest.machine.save(world.empty())


async def test_a_disk_that_is_full_while_it_is_saved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        await guest.write(3, 33)
        await guest.machine.pause()

        def full(*_arguments: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(saved_memory, "write_all", full)
            with pytest.raises(OSError, match="No space left"):
                await guest.machine.save(world.empty())
        saved = world.empty()
        await guest.machine.save(saved)
    async with world.clone(snapshot, saved) as guest:
        assert await guest.read(3) == 33


async def test_a_vmm_that_dies_while_it_saves(world: World) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        await guest.machine.pause()
        await guest.do(faults={"die_at": "PUT /snapshot/create"})
        with pytest.raises(MachineGone):
            await guest.machine.save(world.empty())


@ONLY_JAILED
async def test_a_file_system_with_coarse_holes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumps, "exact_holes", lambda _directory: False)
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        await guest.write(3, 33)
        saved = await guest.save()
    assert saved_pages(saved) == [3]
    async with world.clone(snapshot, saved) as guest:
        assert [await guest.read(page) for page in (0, 3)] == [1, 33]


@ONLY_JAILED
async def test_a_template_on_another_file_system(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = await world.template()

    def other_file_system(*_arguments: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_file_system)
    async with world.clone(snapshot) as guest:
        await guest.write(3, 33)
        saved = await guest.save()
    async with world.clone(snapshot, saved) as guest:
        await guest.write(4, 44)
        saved = await guest.save()
    assert saved_pages(saved) == [3, 4]


async def test_a_name_that_cannot_be_given(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = await world.template()
    place = world.place()

    def refused(*_arguments: object) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(OSError, match="Too many links"):
        await world.driver.restore(snapshot, place)
    world.leave(place)


# Loading


async def test_what_was_damaged_is_not_loaded(world: World) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        await guest.write(3, 33)
        saved = await guest.save()
    for name, position in (("memory", 0), ("memory", 70), ("memory", -1), ("devices", -1)):
        _flip(saved / name, position)
        error = await restore_fails(world, snapshot, "damaged|no saved memory", saved)
        assert isinstance(error, SnapshotUnusable)
        _flip(saved / name, position)
    async with world.clone(snapshot, saved) as guest:
        assert await guest.read(3) == 33


def _flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@ONLY_JAILED
async def test_memory_of_another_size_is_not_loaded(world: World) -> None:
    snapshot = await world.template()
    async with world.clone(snapshot) as guest:
        saved = await guest.save()
    larger = type(HARDWARE)(vcpu=1, ram_mb=2)
    other = type(snapshot)(snapshot.directory, larger, snapshot.boot, snapshot.made_with)
    await restore_fails(
        world, other, "1048576 bytes of memory were saved; this VM has 2 MiB", saved
    )


# Ending


async def test_a_guest_that_ends_is_noticed_and_its_console_kept(world: World) -> None:
    async with world.booted() as guest:
        waiting = asyncio.create_task(unless_ended(guest.machine, asyncio.sleep(30)))
        await guest.do(print="last words of the guest\n")
        await guest.do(log="last words of the VMM")
        with pytest.raises(EOFError):
            await guest.do(end=0)
        told = "its VMM ended: exit status 0: last words of the VMM"
        with pytest.raises(MachineGone, match=told) as gone:
            await waiting
        assert "last words of the guest" in gone.value.console
        await guest.machine.stop()
        assert "last words of the guest" in await guest.machine.console()


async def test_a_guest_cannot_fill_a_disk_and_its_vmm_never_waits(world: World) -> None:
    async with world.booted() as guest:
        waiting = asyncio.create_task(guest.machine.wait())
        for number in range(6):
            await guest.do(print=f"{number}" * 60_000)
        console = await guest.machine.console()
        assert len(console) <= 2 * 65536
        await guest.machine.pause()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_the_console_from_before_a_restart_is_there(world: World) -> None:
    async with world.booted() as guest:
        await guest.do(print="before the restart\n")
        await guest.machine.detach()
        await guest.do(print="while nobody listened\n")
        guest.machine = await world.new_driver().adopt(guest.machine.identity, guest.place)
        console = await guest.machine.console()
        assert "before the restart" in console
        assert "while nobody listened" in console


async def test_metrics_are_kept_for_people(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LOOK_SECONDS", 0.01)
    async with world.booted() as guest:
        waiting = asyncio.create_task(guest.machine.wait())
        kept = guest.place.directory / "metrics.json"
        while not kept.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert b'"stand_in": true' in kept.read_bytes()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_vmm_that_stands_still_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.booted() as guest:
        monkeypatch.setattr(api, "ANSWER_SECONDS", 0.2)
        identity = guest.machine.identity
        os.kill(identity.pid, signal.SIGSTOP)
        with pytest.raises(MachineError, match="did not answer"):
            await guest.machine.pause()
        await guest.machine.stop()
        assert not is_alive(identity)


def test_mounts_that_cannot_be_made_are_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"mount .*nowhere"):
        mounting._bind(mounting.Bind(tmp_path / "nothing", tmp_path / "nowhere"))
