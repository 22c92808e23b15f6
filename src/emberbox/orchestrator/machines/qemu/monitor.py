"""QMP, QEMU's control socket, with our errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError

from emberbox.orchestrator.errors import MachineError, MachineGone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SOCKET_NAME = "qmp.sock"
ANSWER_SECONDS = 10.0
"""QEMU answers in microseconds unless the host is starved."""

# The library logs each broken connection with its traceback; we raise it instead.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


def listen(directory: Path) -> socket.socket:
    """The socket that QEMU inherits. Connections wait in its backlog until QEMU serves them.

    That of an earlier QEMU in the directory, which has ended, is replaced.
    """
    (directory / SOCKET_NAME).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short_name(directory) as name:
        listener.bind(name)
    listener.listen(1)
    return listener


class Monitor:
    """One connection to one QEMU."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, directory: Path) -> Monitor:
        """Connect and negotiate. Raises MachineGone when nobody listens any more."""
        client = QMPClient("vmm")
        # The library keeps every event for a reader that we do not have; a guest causes some.
        client.events.event_filter = lambda _event: False
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A VMM that stands still does not accept: never wait for it in the event loop.
        connection.setblocking(False)
        try:
            with _short_name(directory) as name:
                connection.connect(name)
            async with asyncio.timeout(ANSWER_SECONDS):
                await client.connect(connection)
        except (OSError, QMPError, TimeoutError) as error:
            connection.close()
            raise MachineGone(f"QEMU does not answer on its control socket: {error}") from error
        except BaseException:
            connection.close()
            raise
        return cls(client)

    async def execute(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """One command and its answer. Raises MachineError, or MachineGone when QEMU is gone."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._client.execute(command, named or None)
        except ExecuteError as error:
            raise MachineError(f"QEMU refused {command}: {error}") from error
        except TimeoutError as error:
            raise MachineError(f"QEMU did not answer {command} in {ANSWER_SECONDS} s") from error
        except (QMPError, OSError) as error:
            raise MachineGone(f"QEMU ended during {command}") from error

    async def hand_over(self, fd: int, name: str) -> None:
        """Give QEMU a descriptor under a name."""
        self._send(fd)
        await self.execute("getfd", fdname=name)

    @contextlib.asynccontextmanager
    async def lent(self, fd: int) -> AsyncIterator[str]:
        """A path by which QEMU can open a descriptor, with its access mode, inside the block."""
        self._send(fd)
        added = await self.execute("add-fd")
        try:
            yield f"/dev/fdset/{added['fdset-id']}"
        finally:
            with contextlib.suppress(MachineError):
                await self.execute("remove-fd", fdset_id=added["fdset-id"])

    @contextlib.asynccontextmanager
    async def events(self, *names: str) -> AsyncIterator[EventListener]:
        """Collect events of these names while the block runs, without missing one."""
        with self._client.listener(names) as listener:
            yield listener

    async def close(self) -> None:
        """Close the connection; QEMU goes on."""
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()

    def _send(self, fd: int) -> None:
        """The next command takes it."""
        try:
            self._client.send_fd_scm(fd)
        except (QMPError, OSError) as error:
            raise MachineGone("QEMU ended while it was handed a file") from error


def event_data(event: Message) -> dict[str, Any]:
    """The data of an event, empty when it has none."""
    data = event.get("data", {})
    return data if isinstance(data, dict) else {}


@contextlib.contextmanager
def _short_name(directory: Path) -> Iterator[str]:
    """A name for the socket within the 107 bytes that a Unix address may have."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)
