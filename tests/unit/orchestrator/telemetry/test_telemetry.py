"""Sandboxes under watch, with stand-ins for their guests."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.errors import SandboxMissing
from emberbox.orchestrator.telemetry.observing import ObservedRoutes
from emberbox.orchestrator.telemetry.store import Retention, TelemetryStore
from emberbox.orchestrator.telemetry.telemetry import Telemetry

from .standin import ALL, FAST, SELDOM, World, messages, record, until

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.telemetry.guest import Report


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "telemetry")
    world.guest()
    return world


async def test_samples_one_after_another(world: World) -> None:
    async with world.program(FAST) as telemetry:
        await telemetry.begin(record())
        await until(lambda: len(world.guest().asked) > 4)
        samples = await telemetry.metrics("iabc", None, None)
        assert len(samples) >= 3
        assert all(sample.cpu_used_percent == 50 for sample in samples)
        assert telemetry.latest(["iabc", "iother"]).keys() == {"iabc"}
        assert await telemetry.metrics("iabc", 5, 6) == []


@pytest.mark.parametrize("sandbox_id", ["inone", "", ".", "..", "../telemetry", "i" * 64])
async def test_of_a_sandbox_that_left_nothing(world: World, sandbox_id: str) -> None:
    async with world.program() as telemetry:
        await telemetry.begin(record())
        with pytest.raises(SandboxMissing):
            await telemetry.metrics(sandbox_id, None, None)
        with pytest.raises(SandboxMissing):
            await telemetry.logs(sandbox_id, ALL)


async def test_a_log_that_is_asked_for_has_what_just_happened(world: World) -> None:
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await until(lambda: world.guest().asked != [])
        world.guest().entries += ["one", "two"]
        assert await messages(telemetry) == ["sandbox created", "one", "two"]
        world.guest().entries.append("three")
        assert (await messages(telemetry))[-2:] == ["two", "three"]


async def test_a_first_sample_waits_until_nobody_is_disturbed(world: World) -> None:
    world.quiet.clear()
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await world.waits_for_quiet.wait()
        assert world.guest().asked == []
        world.quiet.set()
        await until(lambda: world.guest().asked != [])


async def test_a_first_sample_does_not_wait_for_ever(world: World) -> None:
    world.quiet.clear()
    async with world.program(FAST) as telemetry:
        await telemetry.begin(record())
        await until(lambda: world.guest().asked != [])


async def test_many_who_ask_at_once_share_an_answer(world: World) -> None:
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await until(lambda: world.guest().asked != [])
        asked = len(world.guest().asked)
        await asyncio.gather(*(messages(telemetry) for _ in range(20)))
        assert len(world.guest().asked) - asked <= 2


async def test_more_entries_than_fit_an_answer(world: World) -> None:
    world.guest().page = 2
    world.guest().entries = [str(n) for n in range(7)]
    async with world.program() as telemetry:
        await telemetry.begin(record())
        assert (await messages(telemetry))[1:] == world.guest().entries


async def test_a_guest_that_never_comes_to_an_end_is_left(world: World) -> None:
    guest = world.guest()
    guest.page, guest.entries = 1, [str(n) for n in range(1000)]
    async with world.program() as telemetry:
        await telemetry.begin(record())
        assert len(await messages(telemetry)) < 50


async def test_entries_that_the_guest_dropped_are_counted(world: World) -> None:
    world.guest().entries = ["", "", "", "four"]
    async with world.program() as telemetry:
        await telemetry.begin(record())
        assert "3 entries of the guest were dropped: there were too many" in await messages(
            telemetry
        )


async def test_a_new_stream_of_the_guest_is_read_from_its_beginning(world: World) -> None:
    world.guest().entries = ["old 1", "old 2"]
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await messages(telemetry)
        world.guests["iabc"].stream, world.guests["iabc"].entries = "bb", ["new"]
        assert sorted(await messages(telemetry))[:3] == ["new", "old 1", "old 2"]


async def test_the_next_program_goes_on_where_the_last_one_ended(world: World) -> None:
    world.guest().entries = ["one"]
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await until(lambda: telemetry.latest(["iabc"]) != {})
        await messages(telemetry)
        before = await telemetry.metrics("iabc", None, None)
    world.guest().entries.append("two")
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await until(lambda: len(world.guest().asked) > 2)
        assert world.guest().asked[-1] == ("aa", 1)
        told = await messages(telemetry)
        assert sorted(told) == sorted(
            ["sandbox created", "one", "taken over by a restarted orchestrator", "two"]
        )
        assert (await telemetry.metrics("iabc", None, None))[: len(before)] == before


async def test_another_run_of_the_same_sandbox(world: World) -> None:
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await messages(telemetry)
        await telemetry.end(record())  # to be taken up again: nothing of its end
        await telemetry.begin(record(execution_id="run-2"))
        assert await messages(telemetry) == ["sandbox created", "sandbox resumed"]


async def test_the_end(world: World) -> None:
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await messages(telemetry)
        telemetry.deadline_moved("iabc", 86_400.0)
        world.guest().entries.append("last words")
        await telemetry.end(record(ended=("killed", "asked")))
        (moved,) = [e for e in await telemetry.logs("iabc", ALL) if "deadline" in e.message]
        assert moved.fields["end_time"] == "1970-01-02T00:00:00Z"
        told = await messages(telemetry)
        assert told[-1] == "sandbox killed: asked"
        assert "last words" in told
        assert await telemetry.metrics("iabc", None, None) == []
        assert telemetry.latest(["iabc"]) == {}
        asked = len(world.guest().asked)
        await messages(telemetry)
        assert len(world.guest().asked) == asked


async def test_a_crash_shows_the_console_and_asks_nobody(world: World) -> None:
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await messages(telemetry)
        asked = len(world.guest().asked)
        await telemetry.end(record(ended=("crashed", "the guest ended\nconsole:\nKernel\npanic")))
        assert len(world.guest().asked) == asked
        end = (await telemetry.logs("iabc", ALL))[-1]
        assert (end.level, end.message) == ("error", "sandbox crashed: the guest ended")
        assert end.fields["console"] == "Kernel\npanic"


async def test_an_end_that_a_crashed_orchestrator_wrote_down_is_told_once(world: World) -> None:
    over = record(ended=("killed", "asked"))
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await messages(telemetry)
        await telemetry.end(over)
    async with world.program() as telemetry:
        await telemetry.end(over)
        assert (await messages(telemetry)).count("sandbox killed: asked") == 1


async def test_a_sandbox_that_never_ran_leaves_nothing(world: World) -> None:
    async with world.program() as telemetry:
        await telemetry.end(record(ended=("failed", "no slot")))
        with pytest.raises(SandboxMissing):
            await telemetry.logs("iabc", ALL)


async def test_guests_that_are_stuck_delay_no_other(world: World) -> None:
    stuck = [f"istuck{n}" for n in range(30)]
    async with world.program(replace(FAST, sample=0.05)) as telemetry:
        for sandbox_id in stuck:
            world.guest(sandbox_id).stuck = True
            await telemetry.begin(record(sandbox_id))
        # Once each has failed to answer, they wait for one another only.
        await until(lambda: all(world.guests[one].asked for one in stuck))
        await telemetry.begin(record())
        await until(lambda: len(world.guest().asked) > 20)
        assert sum(len(world.guests[one].asked) for one in stuck) < 20 * len(stuck)


async def test_a_stuck_guest_costs_its_reader_and_its_end_a_bounded_time(world: World) -> None:
    async with world.program() as telemetry:
        world.guest().stuck = True
        await telemetry.begin(record())
        await until(lambda: world.guest().asked != [])  # its sample holds on for five seconds
        async with asyncio.timeout(3):
            assert await messages(telemetry) == ["sandbox created"]
            await telemetry.end(record(ended=("killed", "asked")))
        assert (await messages(telemetry))[-1] == "sandbox killed: asked"


async def test_nothing_is_asked_once_the_end_is_told(world: World) -> None:
    """The slot is soon another sandbox's: its guest must not be taken for this one."""
    slow = replace(SELDOM, sample=60, logs=60, last_words=0.01)
    async with world.program(slow) as telemetry:
        world.guest().stuck = True
        await telemetry.begin(record())
        await until(lambda: world.guest().asked != [])
        readers = [asyncio.create_task(messages(telemetry)) for _ in range(3)]
        await asyncio.sleep(0)
        await telemetry.end(record(ended=("killed", "asked")))
        async with asyncio.timeout(10):
            assert all("sandbox created" in told for told in await asyncio.gather(*readers))
        assert len(world.guest().asked) == 1
        assert world.guest().closed


async def test_a_reader_is_broken_off_by_the_end(world: World) -> None:
    async with world.program(replace(SELDOM, first=3600, logs=60)) as telemetry:
        await telemetry.begin(record())
        world.guest().stuck = True
        reader = asyncio.create_task(messages(telemetry))
        await until(lambda: world.guest().asked != [])
        await telemetry.end(record(ended=("crashed", "it is gone")))
        async with asyncio.timeout(10):
            await reader
        assert world.guest().broken_off == 1


async def test_a_defect_costs_one_sample(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = world.guest()
    whole = guest.report

    async def report(stream: str, after: int) -> Report:
        monkeypatch.setattr(guest, "report", whole)
        raise RuntimeError("a defect")

    monkeypatch.setattr(guest, "report", report)
    async with world.program(FAST) as telemetry:
        await telemetry.begin(record())
        await until(lambda: telemetry.latest(["iabc"]) != {})


async def test_a_long_log_that_lost_its_beginning_is_of_the_same_run(world: World) -> None:
    world.retention = Retention(log_bytes=4096)
    async with world.program() as telemetry:
        await telemetry.begin(record())
        for number in range(200):
            telemetry.deadline_moved("iabc", number)
        assert "sandbox created" not in await messages(telemetry)
    async with world.program() as telemetry:
        await telemetry.begin(record())
        told = await messages(telemetry)
    assert set(told) == {"deadline moved", "taken over by a restarted orchestrator"}


async def test_a_console_full_of_anything_leaves_room_for_the_end(world: World) -> None:
    async with world.program() as telemetry:
        await telemetry.begin(record())
        console = "\x1b\U0001f525" * 10_000
        await telemetry.end(record(ended=("crashed", f"{'why ' * 999}\nconsole:\n{console}")))
        end = (await telemetry.logs("iabc", ALL))[-1]
        assert end.message.startswith("sandbox crashed: why")
        assert "\x1b" not in end.fields["console"]


async def test_a_guest_that_answers_again_is_sampled_again(world: World) -> None:
    async with world.program(FAST) as telemetry:
        world.guest().failing = True
        await telemetry.begin(record())
        await until(lambda: len(world.guest().asked) > 2)
        assert await telemetry.metrics("iabc", None, None) == []
        world.guest().failing = False
        await until(lambda: telemetry.latest(["iabc"]) != {})


async def test_a_disk_that_takes_nothing_costs_no_sandbox(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    async with world.program(FAST) as telemetry:
        monkeypatch.setattr(os, "write", full)
        await telemetry.begin(record())
        await until(lambda: telemetry.latest(["iabc"]) != {})
        telemetry.deadline_moved("iabc", 5.0)
        await telemetry.end(record(ended=("killed", "asked")))


async def test_old_logs_are_swept_and_those_of_living_sandboxes_never(world: World) -> None:
    world.retention = Retention(days=1, sandboxes=2)
    for number in range(5):
        (world.directory / f"i{number}").mkdir(parents=True)
        log = world.directory / f"i{number}" / "log"
        log.touch()
        moment = 4e9 - number if number < 3 else 1000.0
        os.utime(log, (moment, moment))
    (world.directory / "iempty").mkdir()
    world.guest("i4")
    async with world.program() as telemetry:
        await telemetry.begin(record("i4"))
        telemetry.start()
        left = {"i0", "i1", "i4"}
        await until(lambda: {path.name for path in world.directory.iterdir()} == left)


async def test_nobody_but_root_reads_them(world: World) -> None:
    async with world.program() as telemetry:
        await telemetry.begin(record())
        await until(lambda: telemetry.latest(["iabc"]) != {})
    made = [world.directory, *world.directory.rglob("*")]
    assert {path.name for path in made} == {"telemetry", "iabc", "log", "metrics"}
    assert [path for path in made if path.stat().st_mode & 0o077] == []


class BeginsMeanwhile(set[str]):
    """Who lives, of whom one begins once it was looked who lives."""

    looked = False

    def __contains__(self, sandbox_id: object) -> bool:
        looked, self.looked = self.looked, True
        return looked


def test_a_sandbox_that_begins_beside_the_sweep_keeps_its_log(tmp_path: Path) -> None:
    (tmp_path / "iabc").mkdir()
    TelemetryStore(tmp_path, Retention(sandboxes=0)).sweep(BeginsMeanwhile())
    assert (tmp_path / "iabc").is_dir()


class FailingTelemetry(Telemetry):
    """As bad as it can be."""

    def __init__(self) -> None:
        pass

    async def begin(self, record: SandboxRecord) -> None:
        raise RuntimeError("begin")

    async def end(self, record: SandboxRecord) -> None:
        raise RuntimeError("end")


class RecordedRoutes:
    """Remembers what was opened and closed."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def open(self, _record: SandboxRecord, address: str) -> None:
        self.done.append(f"open {address}")

    async def close(self, _record: SandboxRecord) -> None:
        self.done.append("close")


async def test_sandboxes_start_and_end_whatever_becomes_of_telemetry() -> None:
    routes = RecordedRoutes()
    observed = ObservedRoutes(routes, FailingTelemetry())
    await observed.open(record(), "10.0.0.1")
    await observed.close(record())
    assert routes.done == ["open 10.0.0.1", "close"]
