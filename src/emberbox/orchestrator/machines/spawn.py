"""Starting a VMM: own session, own unprivileged uid, own network namespace, nothing inherited
but what is named."""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from emberbox.orchestrator.network.netns import call_in
from emberbox.orchestrator.processes import (
    ProcessIdentity,
    how_it_ended,
    identify,
    kill_and_wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import Joinable


_LAST_WORDS = 500
"""Bytes of what a VMM printed that ended at once."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """Where and as whom a VMM runs. `output`, a file or a pipe, takes what it prints.

    groups:  the only further groups it has, such as that of /dev/kvm
    prepare: called in the thread that starts it, in its network namespace
    share:   what it may take of the host
    """

    uid: int
    groups: tuple[int, ...]
    netns: Path
    output: Path
    prepare: Callable[[], object] | None = None
    share: Joinable | None = None


async def spawn(
    argv: Sequence[str], descriptors: Sequence[int], where: Confinement
) -> ProcessIdentity:
    """Start `argv` and name its process.

    The child is started from a thread that has entered the namespace and so is born in it; no
    wrapper program is needed and nothing of ours runs between fork and exec.
    Raises OSError when the binary cannot be started.
    """
    starting = asyncio.ensure_future(call_in(where.netns, lambda: _start(argv, descriptors, where)))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # The thread cannot be stopped, and the caller is about to close what the child inherits.
        await asyncio.wait({starting})
        if starting.exception() is None:
            await kill_and_wait(starting.result())
        raise


def _start(argv: Sequence[str], descriptors: Sequence[int], where: Confinement) -> ProcessIdentity:
    if where.prepare is not None:
        where.prepare()
    with _opened(where.output) as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=descriptors,
            start_new_session=True,
            user=where.uid,
            group=where.uid,
            extra_groups=where.groups,
            umask=0o077,
            cwd="/",
            env={},
        )
    try:
        identity = identify(child.pid)
        if where.share is not None:
            where.share.add(child.pid)
    except ProcessLookupError:
        how = how_it_ended(child.wait())
        said = _last_words(where.output) or "it said nothing"
        raise ChildProcessError(f"it ended at once, {how}: {said}") from None
    except OSError:
        child.kill()
        child.wait()
        raise
    # The process is watched by pidfd and may outlive us: this object must not claim it.
    child.returncode = 0
    return identity


def _last_words(output: Path) -> str:
    """Of a pipe nothing: its other end belongs to whoever reads the console."""
    said = b"" if output.is_fifo() else output.read_bytes()
    return said[-_LAST_WORDS:].decode(errors="replace").strip()


def _opened(output: Path) -> IO[bytes]:
    if output.is_fifo():
        # Both ends, so that it is never broken; full, it takes no more and nobody waits.
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        return os.fdopen(os.open(output, flags), "r+b", buffering=0)
    return output.open("ab")
