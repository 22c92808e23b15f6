"""Steps of the tests of pausing and resuming."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from emberbox.orchestrator.sandboxes.lifecycle import PauseRequested, State
from tests.unit.orchestrator.sandbox_world import IDENTITY, ended, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.orchestrator.sandboxes.beginning import CreateRequest
    from emberbox.orchestrator.sandboxes.sandbox import Sandbox
    from emberbox.orchestrator.snapshots.manifest import Snapshot
    from tests.unit.orchestrator.sandbox_world import Setting


def resuming(execution_id: str = "e-2", **more: Any) -> CreateRequest:
    identity = dataclasses.replace(IDENTITY, execution_id=execution_id)
    return request(identity=identity, snapshot=True, **more)


async def pause(setting: Setting, execution_id: str = "e-1", **more: Any) -> Snapshot:
    wanted = PauseRequested("asked", **more)
    return (await setting.sandboxes.pause("iabc", execution_id, wanted)).snapshot


async def paused(setting: Setting, **more: Any) -> Snapshot:
    """A sandbox that was made and paused, and of which nothing else is left."""
    await setting.sandboxes.create(request())
    snapshot = await pause(setting, **more)
    await ended(setting)
    return snapshot


def files(setting: Setting) -> list[str]:
    """What there is of snapshots."""
    return sorted(path.name for path in setting.snapshots.iterdir())


async def until_pausing(setting: Setting) -> Sandbox:
    sandbox = setting.sandboxes.get("iabc")
    await until(lambda: sandbox.state is State.PAUSING)
    return sandbox


async def until(condition: Callable[[], bool]) -> None:
    """Return when it is so; fails after a while."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never was so")
