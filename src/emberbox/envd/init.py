"""The orchestrator tells the machine who it is: by POST /init, or by one datagram (`host_calls`).

It does after every boot, restore and resume, before anything is routed to the sandbox.
A field that is absent leaves what is set; `accessToken: null` takes the token away.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from emberbox.envd.auth import same
from emberbox.envd.errors import (
    InvalidArgumentError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from emberbox.envd.system import tolerated

if TYPE_CHECKING:
    from collections.abc import Collection

    from emberbox.envd.asgi import Request
    from emberbox.envd.state import State
    from emberbox.envd.system import System
    from emberbox.envd.telemetry import Telemetry

_TIMESTAMP = re.compile(r"([^.]+?)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE)
_MOST_OF_HOSTNAME = 64


@dataclass(frozen=True, slots=True)
class Changes:
    """The body of the call after validation; None means absent.

    timestamp: nanoseconds since the epoch
    """

    strings: dict[str, str]
    access_token: tuple[str | None] | None
    env_vars: dict[str, str] | None
    timestamp: int | None
    seed: bytes | None


class Initializer:
    """Applies /init. `peers` are the addresses it is accepted from."""

    def __init__(
        self, state: State, system: System, peers: Collection[str], telemetry: Telemetry
    ) -> None:
        self._state = state
        self._system = system
        self._telemetry = telemetry
        self._peers = frozenset(peers)

    async def handle(self, request: Request) -> None:
        """Raises PermissionDenied-, Unauthenticated- or InvalidArgumentError."""
        if request.peer not in self._peers:
            raise PermissionDeniedError("/init is not accepted from this address")
        current = self._state.access_token
        given = request.headers.get("x-access-token", "")
        if current is not None and not same(given, current):
            raise UnauthenticatedError("access token is missing or wrong")
        self.apply(read_changes(await request.json()))
        self._telemetry.begin(self._state.lifecycle_id)

    def apply(self, changes: Changes) -> None:
        """Be who these say; for any thread, while no request is under way."""
        self._change_system(changes)
        self._change_state(changes)

    def _change_system(self, changes: Changes) -> None:
        system = self._system
        with tolerated("set the clock"):
            if changes.timestamp is not None:
                system.set_clock(changes.timestamp)
        with tolerated("feed the random generator"):
            if changes.seed is not None:
                system.add_entropy(changes.seed)
        with tolerated("set the host name"):
            if name := changes.strings.get("hostname"):
                system.set_hostname(name)
        sandbox_id = changes.strings.get("sandboxId")
        if sandbox_id and sandbox_id != self._state.sandbox_id:
            system.renew_machine_id()

    def _change_state(self, changes: Changes) -> None:
        state, given = self._state, changes.strings
        state.sandbox_id = given.get("sandboxId", state.sandbox_id)
        state.template_id = given.get("templateId", state.template_id)
        state.lifecycle_id = given.get("lifecycleId", state.lifecycle_id)
        state.default_user = given.get("defaultUser", state.default_user)
        state.default_workdir = given.get("defaultWorkdir", state.default_workdir)
        if changes.env_vars is not None:
            state.env_vars = changes.env_vars
        if changes.access_token is not None:
            (state.access_token,) = changes.access_token


_STRINGS = (
    "sandboxId",
    "templateId",
    "lifecycleId",
    "defaultUser",
    "defaultWorkdir",
    "hostname",
)


def read_changes(
    body: dict[str, object], timestamp: int | None = None, seed: bytes | None = None
) -> Changes:
    """Check what was sent. Time and seed are those of the body, where it has them.

    Raises InvalidArgumentError.
    """
    strings = {name: text for name in _STRINGS if (text := _string(body, name)) is not None}
    if "hostname" in strings and not _is_hostname(strings["hostname"]):
        raise InvalidArgumentError("field 'hostname' is not a host name")
    token = (_string(body, "accessToken") or None,) if "accessToken" in body else None
    told_time, told_seed = _string(body, "timestamp"), _string(body, "randomSeed")
    return Changes(
        strings,
        token,
        _env_vars(body),
        timestamp if told_time is None else parse_timestamp(told_time),
        seed if told_seed is None else _decode_seed(told_seed),
    )


def _is_hostname(text: str) -> bool:
    ends = text[:1] + text[-1:]
    inner = text.replace(".", "").replace("-", "")
    return len(text) <= _MOST_OF_HOSTNAME and text.isascii() and ends.isalnum() and inner.isalnum()


def _string(body: dict[str, object], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidArgumentError(f"field '{name}' must be a string")
    return value


def _env_vars(body: dict[str, object]) -> dict[str, str] | None:
    value = body.get("envVars")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InvalidArgumentError("field 'envVars' must map strings to strings")
    return dict(value)


def _decode_seed(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)[:512]
    except binascii.Error as error:
        raise InvalidArgumentError("field 'randomSeed' is not base64") from error


def parse_timestamp(text: str) -> int:
    """RFC 3339, with up to nanoseconds, to nanoseconds since the epoch.

    Raises InvalidArgumentError.
    """
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        raise InvalidArgumentError("field 'timestamp' is not RFC 3339")
    seconds, fraction, zone = found.groups()
    try:
        offset = "+00:00" if zone in {"Z", "z"} else zone
        moment = datetime.fromisoformat(seconds + offset).astimezone(UTC)
    except ValueError as error:
        raise InvalidArgumentError("field 'timestamp' is not RFC 3339") from error
    return int(moment.timestamp()) * 10**9 + int((fraction or "0").ljust(9, "0"))
