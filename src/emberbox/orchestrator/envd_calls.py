"""The orchestrator's calls to envd that are one datagram each (see `emberbox.envd.host_calls`).

A guest that has just been loaded answers them several times faster than a request by HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING

from emberbox.orchestrator import envd_client
from emberbox.orchestrator.envd_client import SEED_BYTES, checked_version
from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.network.errors import NetworkError
from emberbox.orchestrator.network.slots import datagram_socket
from emberbox.shared.protocol import ENVD_PORT

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.network.addresses import Slot

_NUMBER_BYTES = 8
_MAX_ANSWER = 1024
_DONE = b"\0"
_ASK_AGAIN_SECONDS = 0.25
_CALL_SECONDS = 1.0
"""After which a guest that goes on is told by HTTP: an older envd knows no datagrams."""
_INTRODUCE_SECONDS = 3.0
"""The same for a guest that is to be another: it has more to do, of which all is new to it."""
_MOST = 1400
"""Bytes of a call: what a packet takes on any link."""


async def initialize(slot: Slot, identity: Identity, seconds: float, present: str = "") -> str:
    """As `envd_client.initialize`, for a machine that was cloned and so has an envd that answers.

    What a datagram has no room for, and a guest that does not answer one, is told by HTTP. Raises
    GuestUnreachable after `seconds`.
    """
    token = present.encode()
    rest = secrets.token_bytes(SEED_BYTES) + bytes([len(token)]) + token + _packed(identity)
    if len(rest) <= _MOST:
        with contextlib.suppress(GuestUnreachable):
            return await _tell(slot, b"I", rest, min(seconds, _INTRODUCE_SECONDS))
    return await envd_client.initialize(slot, identity, seconds, present)


def _packed(identity: Identity) -> bytes:
    """No name and no value has a NUL in it: the API server refuses such variables."""
    fields = envd_client.fields_of(identity)
    pairs = (*fields.items(), *identity.env_vars.items())
    return bytes([len(fields)]) + "".join(f"{name}\0{text}\0" for name, text in pairs).encode()


async def resume(slot: Slot, identity: Identity, seconds: float, present: str) -> str:
    """Tell a machine that goes on where it was of its new run; the version of its envd.

    `present` is the token that envd has in its memory. What a datagram has no room for, and a
    guest that does not answer one, is told by `/init`. Raises GuestUnreachable after `seconds`.
    """
    if present == identity.access_token and not identity.env_vars:
        with contextlib.suppress(GuestUnreachable):
            return await _resume(slot, identity, min(seconds, _CALL_SECONDS))
    return await envd_client.initialize(slot, identity, seconds, present)


async def sync(slot: Slot, seconds: float) -> None:
    """Have the guest write to its disks what it keeps for them in memory.

    Raises GuestUnreachable when it has not within `seconds`.
    """
    await _call(slot, b"S", lambda: b"", seconds)


async def _resume(slot: Slot, identity: Identity, seconds: float) -> str:
    run, token = identity.execution_id.encode(), identity.access_token.encode()
    rest = secrets.token_bytes(SEED_BYTES) + bytes([len(run)]) + run + token
    return await _tell(slot, b"R", rest, seconds)


async def _tell(slot: Slot, kind: bytes, rest: bytes, seconds: float) -> str:
    # Its clock is set by it, so each that is sent has its own time.
    answer = await _call(slot, kind, lambda: time.time_ns().to_bytes(8, "little") + rest, seconds)
    return checked_version(answer.decode("ascii", "replace"))


async def _call(slot: Slot, kind: bytes, body: Callable[[], bytes], seconds: float) -> bytes:
    """The text of the answer. Raises GuestUnreachable."""
    number = secrets.token_bytes(_NUMBER_BYTES)
    try:
        made = await datagram_socket(slot, ENVD_PORT)
        with made:
            async with asyncio.timeout(seconds):
                answer = await _ask(made, lambda: number + kind + body())
    except (OSError, NetworkError, TimeoutError) as error:
        raise GuestUnreachable(f"envd does not answer a call {kind!r}: {error!r}") from error
    if answer[:1] != _DONE:
        raise GuestUnreachable(f"envd refused a call {kind!r}")
    return answer[1:]


async def _ask(made: socket.socket, call: Callable[[], bytes]) -> bytes:
    """Send it, again and again, until it is answered."""
    loop = asyncio.get_running_loop()
    wait = _ASK_AGAIN_SECONDS
    while True:
        sent = call()
        try:
            await loop.sock_sendall(made, sent)
            async with asyncio.timeout(wait):
                return await _answer_to(made, sent[:_NUMBER_BYTES])
        except TimeoutError:
            wait *= 2
        except ConnectionError:
            await asyncio.sleep(wait)  # nobody listens: envd is being started again


async def _answer_to(made: socket.socket, number: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        answer = await loop.sock_recv(made, _MAX_ANSWER)
        if answer[:_NUMBER_BYTES] == number:
            return answer[_NUMBER_BYTES:]
