"""Starting a VMM: own session, own unprivileged uid, own network namespace, nothing inherited
but what is named."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.network.netns import call_in
from emberbox.orchestrator.processes import (
    ProcessIdentity,
    how_it_ended,
    identify,
    kill_and_wait,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


_LAST_WORDS = 500
"""Bytes of what a VMM printed that ended at once."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """Where and as whom a VMM runs. `output` takes what it prints, which is a few lines.

    groups: the only further groups it has, such as that of /dev/kvm.
    """

    uid: int
    groups: tuple[int, ...]
    netns: Path
    output: Path


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
    with where.output.open("ab") as output:
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
    except ProcessLookupError:
        how = how_it_ended(child.wait())
        said = where.output.read_bytes()[-_LAST_WORDS:].decode(errors="replace").strip()
        raise ChildProcessError(f"it ended at once, {how}: {said or 'it said nothing'}") from None
    # The process is watched by pidfd and may outlive us: this object must not claim it.
    child.returncode = 0
    return identity
