from __future__ import annotations

import asyncio
import threading

import pytest

from emberbox.orchestrator import threads


async def test_a_result_or_error_comes_back() -> None:
    def fails() -> None:
        raise ValueError("broken")

    assert await threads.run_to_end(lambda: 7) == 7
    with pytest.raises(ValueError, match="broken"):
        await threads.run_to_end(fails)


@pytest.mark.parametrize("error", [None, ValueError("nobody asks for it")])
async def test_who_is_cancelled_waits_until_the_work_has_ended(error: Exception | None) -> None:
    started, finish, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        finish.wait(10)
        ended.set()
        if error is not None:
            raise error

    waiting = asyncio.create_task(threads.run_to_end(work))
    await asyncio.to_thread(started.wait, 10)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    finish.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
