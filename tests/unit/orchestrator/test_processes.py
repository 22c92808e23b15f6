from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator import pidfd_info
from emberbox.orchestrator.processes import (
    ProcessIdentity,
    exit_status,
    how_it_ended,
    identify,
    is_alive,
    kill_and_wait,
    open_pidfd,
    send_signal,
    wait_gone,
)
from tests import kernel

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
    return subprocess.Popen(
        ["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 3", "exit status 3"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill -40 $$", "killed by signal 40"),
    ],
)
async def test_how_a_child_ended_is_told(script: str, told: str) -> None:
    with shell(f"read -r _; {script}") as child:
        identity = identify(child.pid)
        waiting = asyncio.create_task(exit_status(identity))
        await asyncio.sleep(0)
        assert child.stdin is not None
        child.stdin.close()
        assert how_it_ended(await waiting) == told
        assert how_it_ended(await exit_status(identity)) == "nobody knows how"
        child.returncode = 0  # it is reaped


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child of its own, which it reaps."""
    with shell("sleep 60 & echo $!; wait") as process:
        yield process
        process.kill()


def grandchild(parent: subprocess.Popen[bytes]) -> ProcessIdentity:
    assert parent.stdout is not None
    return identify(int(parent.stdout.readline()))


async def killed(identity: ProcessIdentity) -> int | None:
    waiting = asyncio.create_task(exit_status(identity))
    await asyncio.sleep(0)
    assert send_signal(identity, signal.SIGKILL)
    return await waiting


@pytest.mark.skipif(not kernel.TELLS_ENDS, reason="Linux before 6.15 tells the parent alone")
async def test_how_anothers_child_ended_is_told_as_well(parent: subprocess.Popen[bytes]) -> None:
    assert await killed(grandchild(parent)) == -signal.SIGKILL


async def test_a_parent_that_does_not_reap_is_not_waited_for_long(
    parent: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pidfd_info, "_REAPED_SECONDS", 0.05)
    identity = grandchild(parent)
    os.kill(parent.pid, signal.SIGSTOP)
    assert await killed(identity) is None


async def test_a_kernel_that_does_not_tell_is_not_waited_for(
    parent: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pidfd_info, "_GET_INFO", 0xFF << 8)  # no request of a pidfd's
    identity = grandchild(parent)
    os.kill(parent.pid, signal.SIGSTOP)
    assert await killed(identity) is None
