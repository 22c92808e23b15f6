"""Streams on which nothing happens for long, while programs restart around them.

`EMBERBOX_SOAK_IDLE_SECONDS` says how long: a moment among all tests, 30 minutes in `make soak`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import httpx
import pytest
from e2b import AsyncSandbox, PtySize

from emberbox.orchestrator.processes import identify, is_alive
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.stack import Stack

IDLE = float(os.environ.get("EMBERBOX_SOAK_IDLE_SECONDS", "6"))
"""Seconds of silence, and of them a third before each restart of the orchestrator."""

pytestmark = [pytest.mark.vm, pytest.mark.timeout(IDLE + 300)]

PORT = 8000
SLOW_SERVER = f"""
import http.server, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep({IDLE})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"late")
server = http.server.HTTPServer(("127.0.0.1", {PORT}), Slow)
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture
async def sandbox(stack: Stack) -> AsyncIterator[AsyncSandbox]:
    sandbox = await AsyncSandbox.create(timeout=int(IDLE) + 300, **stack.sdk)
    yield sandbox
    await sandbox.kill()


async def test_silent_streams_survive_restarts_of_the_orchestrator(
    stack: Stack, sandbox: AsyncSandbox
) -> None:
    typed = _Terminal()
    terminal = await sandbox.pty.create(PtySize(rows=24, cols=80), typed.take, timeout=0)
    shell = asyncio.create_task(terminal.wait())
    silent = await sandbox.commands.run(f"sleep {IDLE}; echo woke", background=True, timeout=0)
    woke = asyncio.create_task(silent.wait())
    late = asyncio.create_task(_ask_slow_server(sandbox, stack))

    for end in (signal.SIGKILL, signal.SIGTERM):
        # Time is what is tested here: nothing happens on the streams meanwhile.
        await asyncio.sleep(IDLE / 3)
        await asyncio.to_thread(_restart_orchestrator, stack, end)

    assert (await woke).stdout == "woke\n"
    assert await late == "late"
    assert not shell.done()
    await sandbox.pty.send_stdin(terminal.pid, b"echo $((6*7)); exit\n")
    assert (await shell).exit_code == 0
    assert "42\r\n" in typed.text


class _Terminal:
    """What a terminal printed."""

    def __init__(self) -> None:
        self.text = ""

    def take(self, data: bytes) -> None:
        self.text += data.decode()


async def _ask_slow_server(sandbox: AsyncSandbox, stack: Stack) -> str:
    """The answer of a server inside that takes its time, by a client without a limit."""
    await sandbox.files.write("/home/user/slow.py", SLOW_SERVER)
    ready = asyncio.Event()
    server = await sandbox.commands.run(
        "python3 slow.py", background=True, timeout=0, on_stdout=lambda _line: ready.set()
    )
    await ready.wait()
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(PORT)}
    async with httpx.AsyncClient(base_url=stack.sdk["sandbox_url"], timeout=None) as http:
        answer = await http.get("/", headers=headers)
    await server.kill()
    return answer.text


def _restart_orchestrator(stack: Stack, end: signal.Signals) -> None:
    """`up` starts it again; afterwards it serves."""
    before = identify(stack.pid_of("orchestrator"))
    os.kill(before.pid, end)
    wait_until(lambda: not is_alive(before), 30)
    wait_until(stack.template_ready, 60)
