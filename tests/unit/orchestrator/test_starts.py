"""Turns of starts: so many at once, groups one after the other, nobody for too long."""

from __future__ import annotations

import asyncio

import pytest

from emberbox.orchestrator.errors import AdmissionRefused
from emberbox.orchestrator.sandboxes.starts import StartQueue


class Starts:
    """Starts that go on until they are told to end, in the order in which they began."""

    def __init__(self, queue: StartQueue) -> None:
        self.queue = queue
        self.began: list[str] = []
        self.going: dict[str, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def ask(self, *names: str) -> None:
        """Ask for starts; the first letter of a name is its group."""
        for name in names:
            turn = self.queue.join(name[0])
            self.tasks.append(asyncio.create_task(self._start(name, turn)))

    async def _start(self, name: str, turn: object) -> None:
        async with turn:  # type: ignore[attr-defined]
            self.began.append(name)
            self.going[name] = asyncio.Event()
            await self.going[name].wait()

    async def end(self, *names: str) -> None:
        """Let these end; returns when what may go on has begun."""
        for name in names:
            self.going.pop(name).set()
        await settle()


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_so_many_go_on_at_once_and_the_others_wait() -> None:
    starts = Starts(StartQueue(2, 30, first_use=0))
    starts.ask("a1", "a2", "a3", "a4")
    await settle()
    assert starts.began == ["a1", "a2"]
    await starts.end("a2")
    assert starts.began == ["a1", "a2", "a3"]
    await starts.end("a1", "a3")
    await starts.end("a4")
    await asyncio.gather(*starts.tasks)


async def test_who_asks_for_many_does_not_hold_up_who_asks_for_one() -> None:
    starts = Starts(StartQueue(1, 30, first_use=0))
    starts.ask("a1", "a2", "a3", "a4", "b1", "c1", "c2")
    await settle()
    for name in ("a1", "a2", "b1", "c1", "a3", "c2"):
        await starts.end(name)
    await starts.end("a4")
    assert starts.began == ["a1", "a2", "b1", "c1", "a3", "c2", "a4"]


async def test_who_gives_up_waiting_leaves_no_gap() -> None:
    starts = Starts(StartQueue(1, 30, first_use=0))
    starts.ask("a1", "a2", "a3")
    await settle()
    starts.tasks[1].cancel()
    await starts.end("a1")
    assert starts.began == ["a1", "a3"]
    await starts.end("a3")
    starts.ask("a4")
    await settle()
    assert starts.began[-1] == "a4"
    await starts.end("a4")


async def test_who_is_cancelled_in_the_moment_of_its_turn_gives_it_back() -> None:
    starts = Starts(StartQueue(1, 30, first_use=0))
    starts.ask("a1", "a2", "a3")
    await settle()
    starts.going.pop("a1").set()
    await asyncio.sleep(0)
    assert len(starts.queue._waiting["a"]) == 1  # the turn is a2's, which does not know it yet
    starts.tasks[1].cancel()
    await settle()
    assert starts.began == ["a1", "a3"]
    await starts.end("a3")


async def test_a_start_that_fails_gives_its_turn_on() -> None:
    queue = StartQueue(1, 30, first_use=0)
    with pytest.raises(ValueError, match="broken"):
        async with queue.join():
            raise ValueError("broken")
    async with queue.join():
        pass


async def test_who_would_wait_too_long_is_refused_and_told_when_to_come_again() -> None:
    starts = Starts(StartQueue(1, 2))  # a start is thought to take half a second
    starts.ask("a1", "a2", "a3", "a4", "a5")
    starts.queue._seconds = 1.5  # they take longer than was thought
    with pytest.raises(AdmissionRefused, match="EMBERBOX_START_WAIT=2") as refused:
        starts.ask("a6")
    assert refused.value.retry_after == 7.5 - 2
    # Another group does not wait for all of them.
    starts.queue._seconds = 0.5
    assert starts.queue.expected_wait("b") == 1.0
    starts.ask("b1")
    await settle()
    for task in starts.tasks:
        task.cancel()
    await asyncio.gather(*starts.tasks, return_exceptions=True)
    assert starts.queue.expected_wait("a") == 0


async def test_a_turn_that_does_not_come_in_time_is_refused() -> None:
    queue = StartQueue(1, 0.01)
    blocking = queue.join()
    async with blocking:
        queue._longest_wait = 10.0
        turn = queue.join()
        queue._longest_wait = 0.01
        with pytest.raises(AdmissionRefused, match=r"has waited 0\.01 s"):
            async with turn:
                raise AssertionError("it is not its turn")
    async with queue.join():
        pass


async def test_what_is_done_ahead_waits_for_a_quiet_moment() -> None:
    starts = Starts(StartQueue(2, 30, first_use=0))
    await starts.queue.idle()
    starts.ask("a1")
    await starts.queue.idle()  # one place is left
    starts.ask("a2", "a3")
    waiting = asyncio.create_task(starts.queue.idle())
    await starts_settled(starts)
    assert not waiting.done()
    await starts.end("a1")
    assert not waiting.done()  # a3 has taken the place
    await starts.end("a2")
    assert waiting.done()
    await starts.end("a3")


async def test_what_steps_in_takes_nobodys_turn_and_only_what_is_done_ahead_waits() -> None:
    starts = Starts(StartQueue(1, 30, first_use=0))
    with starts.queue.step_in(), starts.queue.step_in():
        waiting = asyncio.create_task(starts.queue.idle())
        starts.ask("a1")
        await settle()
        assert starts.began == ["a1"]
        await starts.end("a1")
        assert not waiting.done()
    await settle()
    assert waiting.done()


async def starts_settled(starts: Starts) -> None:
    await settle()
    assert starts.began == ["a1", "a2"]


async def test_what_is_done_ahead_waits_for_first_uses_that_fill_the_host() -> None:
    queue = StartQueue(4, 30, first_use=0.05)
    with queue.step_in():
        pass
    await queue.idle()  # half of the host is left
    async with queue.join():
        pass
    waiting = asyncio.create_task(queue.idle())
    await settle()
    assert not waiting.done()
    await waiting
