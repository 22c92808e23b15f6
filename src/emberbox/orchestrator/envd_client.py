"""The orchestrator's own calls to envd by HTTP: health and /init.

They are made from inside the sandbox's network namespace, so that they come from the gateway's
address, which no proxy and no other sandbox can use.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.http_answers import MAX_ANSWER, Answer, length_of, read_head
from emberbox.orchestrator.network.errors import KernelRefusedError, NetworkError
from emberbox.orchestrator.network.slots import connect
from emberbox.shared.protocol import ENVD_PORT, HEADER_ACCESS_TOKEN
from emberbox.shared.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emberbox.orchestrator.network.addresses import Slot

_ATTEMPT_SECONDS = 5.0
_RETRY_SECONDS = 0.02
SEED_BYTES = 64
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,32}")
_MOST_TOLD = 300
"""Bytes of a refusal that are repeated."""
_UNAUTHENTICATED = 401
_NO_ANSWER = (
    OSError,
    EOFError,
    NetworkError,
    # What somebody who is root in the guest put in envd's place may send.
    ValueError,
    asyncio.LimitOverrunError,
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes one VM this sandbox: sent to envd before any route or user code."""

    sandbox_id: str
    template_id: str
    execution_id: str
    access_token: str
    env_vars: Mapping[str, str]


async def initialize(slot: Slot, identity: Identity, seconds: float, present: str = "") -> str:
    """Make a VM this sandbox; the version of its envd.

    `present` is the token that envd has in its memory, if it has one.
    Tries again until envd answers or `seconds` have passed. Raises GuestUnreachable.
    """
    # Both: when the answer of an attempt was lost, envd has the new one by now.
    tokens = dict.fromkeys((present or identity.access_token, identity.access_token))
    for token in tokens:
        answer = await _until_answered(
            slot, "POST", "/init", lambda: _init_body(identity), seconds, token=token
        )
        if answer.status != _UNAUTHENTICATED:
            break
    if answer.status != 204:
        told = printable(answer.body[:_MOST_TOLD].decode(errors="replace"))
        raise GuestUnreachable(f"envd refused /init: {answer.status} {told}")
    return checked_version(answer.headers.get("x-envd-version", ""))


def checked_version(told: str) -> str:
    """What a guest says of its envd when it looks like a version, else nothing: it goes into
    records and databases, and a resumed guest may have put another envd there."""
    return told if _VERSION.fullmatch(told) else ""


async def wait_healthy(slot: Slot, seconds: float) -> None:
    """Return when envd answers. Raises GuestUnreachable after `seconds`."""
    answer = await _until_answered(slot, "GET", "/health", lambda: b"", seconds)
    if answer.status >= 300:
        raise GuestUnreachable(f"envd is not healthy: {answer.status}")


async def call(slot: Slot, path: str, body: bytes, content_type: str, seconds: float) -> Answer:
    """One POST to envd without a token: of its gateway's own, or before its first /init.

    Raises GuestUnreachable when there is no whole answer within `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _exchange(slot, _request("POST", path, body, content_type=content_type))
    except (*_NO_ANSWER, TimeoutError) as error:
        raise GuestUnreachable(f"envd does not answer {path}: {error!r}") from error


def fields_of(identity: Identity) -> dict[str, str]:
    """What an identity sets in envd, by the fields of /init, besides the variables.

    An empty `accessToken` takes the token away.
    """
    return {
        "sandboxId": identity.sandbox_id,
        "templateId": identity.template_id,
        "lifecycleId": identity.execution_id,
        "accessToken": identity.access_token,
        "defaultUser": "user",
        "defaultWorkdir": "/home/user",
        "hostname": identity.sandbox_id,
    }


def _init_body(identity: Identity) -> bytes:
    body: dict[str, object] = {
        **fields_of(identity),
        "randomSeed": base64.b64encode(secrets.token_bytes(SEED_BYTES)).decode(),
        # The guest sets its clock by it, so a body is made for each attempt.
        "timestamp": datetime.now(UTC).isoformat(),
    }
    # Left out it is what a resumed sandbox has, and empty in a new one.
    if identity.env_vars:
        body["envVars"] = dict(identity.env_vars)
    return json.dumps(body).encode()


async def _until_answered(
    slot: Slot,
    method: str,
    path: str,
    body: Callable[[], bytes],
    seconds: float,
    *,
    token: str = "",
) -> Answer:
    last: Exception | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                request = _request(method, path, body(), token=token)
                try:
                    async with asyncio.timeout(_ATTEMPT_SECONDS):
                        return await _exchange(slot, request)
                except (*_NO_ANSWER, TimeoutError) as error:
                    if isinstance(error, KernelRefusedError) and error.nothing_is_there:
                        raise GuestUnreachable(f"its network is gone: {error}") from error
                    last = error
                await asyncio.sleep(_RETRY_SECONDS)
    except TimeoutError:
        raise GuestUnreachable(f"envd did not answer {path} in {seconds:.0f} s: {last!r}") from last


async def _exchange(slot: Slot, request: bytes) -> Answer:
    connection = await connect(slot, ENVD_PORT)
    reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_ANSWER)
    try:
        writer.write(request)
        await writer.drain()
        return await _read_answer(reader)
    finally:
        writer.close()


def _request(
    method: str,
    path: str,
    body: bytes,
    *,
    content_type: str = "application/json",
    token: str = "",
) -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: envd\r\nConnection: close\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    )
    if token:
        head += f"{HEADER_ACCESS_TOKEN}: {token}\r\n"
    return head.encode() + b"\r\n" + body


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    status, headers = await read_head(reader)
    if status == 204:
        body = b""
    elif "content-length" in headers:
        body = await reader.readexactly(length_of(headers))
    else:
        body = await _read_to_end(reader)
    return Answer(status, headers, body)


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while part := await reader.read(MAX_ANSWER):
        body += part
        if len(body) > MAX_ANSWER:
            raise EOFError(f"envd answered more than {MAX_ANSWER} bytes")
    return bytes(body)
