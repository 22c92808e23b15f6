from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.processes import (
    ProcessIdentity,
    how_it_ended,
    identify,
    is_alive,
    kill_and_wait,
    open_pidfd,
    send_signal,
    wait_gone,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        yield process
        process.kill()


def reused(identity: ProcessIdentity) -> ProcessIdentity:
    """Another process that had the same pid before."""
    return dataclasses.replace(identity, start_time_ticks=identity.start_time_ticks - 1)


def test_an_identity_survives_its_record(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    assert ProcessIdentity.from_json(identity.to_json()) == identity
    assert is_alive(identity)


def test_a_reused_pid_is_another_process(child: subprocess.Popen[bytes]) -> None:
    other = reused(identify(child.pid))
    assert not is_alive(other)
    assert not send_signal(other, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        open_pidfd(other)
    assert child.poll() is None


def test_another_boot_is_another_process(child: subprocess.Popen[bytes]) -> None:
    assert not is_alive(dataclasses.replace(identify(child.pid), boot_id="another"))


def test_a_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(identity)
    with pytest.raises(ProcessLookupError):
        identify(child.pid)


async def test_killing_waits_until_it_is_gone_and_reaps(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    await kill_and_wait(identity)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


async def test_waiting_for_the_dead_returns(child: subprocess.Popen[bytes]) -> None:
    await wait_gone(reused(identify(child.pid)))


def shell(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 3", "exit status 3"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill -40 $$", "killed by signal 40"),
    ],
)
async def test_how_a_child_ended_is_told_to_the_first_who_waits(script: str, told: str) -> None:
    child = shell(f"read -r _; {script}")
    identity = identify(child.pid)
    waiting = asyncio.create_task(wait_gone(identity))
    await asyncio.sleep(0)
    assert child.stdin is not None
    child.stdin.close()
    assert how_it_ended(await waiting) == told
    assert how_it_ended(await wait_gone(identity)) == ""
    child.returncode = 0  # it is reaped
