"""A core round with the official package of the generation before (2.45): its own program, as two
versions cannot be in one process. It ends with an assertion error or prints what it used."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any

from e2b import AsyncSandbox, NotFoundException, Sandbox, SandboxQuery, TimeoutException


def in_sync() -> None:
    """The sync flavour."""
    sandbox: Any = Sandbox.create(timeout=120, metadata={"generation": "old"}, envs={"A": "b"})
    try:
        assert sandbox.is_running()
        assert sandbox.commands.run("echo $A").stdout == "b\n"
        sandbox.files.write("dir/file", "content")
        assert sandbox.files.read("dir/file") == "content"
        assert [entry.name for entry in sandbox.files.list("dir")] == ["file"]
        assert not sandbox.files.exists("none")
        _time_limits(sandbox)
        _found_again(sandbox)
    finally:
        assert sandbox.kill()
    assert not sandbox.kill()
    assert not sandbox.is_running()
    _expect(NotFoundException, lambda: Sandbox.connect(sandbox.sandbox_id))


def _time_limits(sandbox: Any) -> None:
    _expect(TimeoutException, lambda: sandbox.commands.run("sleep 60", timeout=1))
    before = sandbox.get_info().end_at
    sandbox.set_timeout(300)
    assert sandbox.get_info().end_at > before


def _found_again(sandbox: Any) -> None:
    again: Any = Sandbox.connect(sandbox.sandbox_id, timeout=60)
    handle = again.commands.run("cat", background=True, stdin=True)
    again.commands.send_stdin(handle.pid, "typed\n")
    again.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == "typed\n"
    listed = Sandbox.list(query=SandboxQuery(metadata={"generation": "old"})).next_items()
    assert [one.sandbox_id for one in listed] == [sandbox.sandbox_id]


async def in_async() -> None:
    """The async flavour."""
    sandbox: Any = await AsyncSandbox.create(timeout=120)
    try:
        assert (await sandbox.commands.run("echo async")).stdout == "async\n"
        await sandbox.files.write("file", "content")
        assert await sandbox.files.read("file") == "content"
        again: Any = await AsyncSandbox.connect(sandbox.sandbox_id)
        await again.set_timeout(300)
    finally:
        assert await sandbox.kill()


def _expect(error: type[Exception], call: Any) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


if __name__ == "__main__":
    in_sync()
    asyncio.run(in_async())
    json.dump({"e2b": version("e2b")}, sys.stdout)
