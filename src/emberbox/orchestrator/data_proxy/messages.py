"""The route feed's messages: JSON, one object a line.

The orchestrator sends a numbered snapshot first, then numbered puts and deletes; a worker answers
each with an ack of its number once it is applied.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import cast

from emberbox.orchestrator.data_proxy.errors import BadFeedError

LONGEST_LINE = 64 * 1024 * 1024
"""Bytes; a snapshot of 100,000 routes is about 20 MB."""


@dataclass(frozen=True, slots=True)
class Route:
    """How one execution of a sandbox is reached from the host.

    `address` is an IPv4 address at which every port of the VM answers. Requests to other ports
    than envd's must show `traffic_token` when there is one. Signed URLs are signed with
    `envd_token`, which envd itself asks for; None when envd is open to all. `mask_host` is the Host
    that servers on other ports than envd's see; None: the client's. `${PORT}` in it is the port.
    Servers on `https_ports` speak TLS.
    """

    sandbox_id: str
    execution_id: str
    address: str
    traffic_token: str | None = field(default=None, repr=False)
    envd_token: str | None = field(default=None, repr=False)
    mask_host: str | None = None
    https_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All routes there are: others are gone."""

    number: int
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Put:
    """A route is new, or replaces the sandbox's last one."""

    number: int
    route: Route


@dataclass(frozen=True, slots=True)
class Delete:
    """An execution ended. It says nothing about a later one of the same sandbox."""

    number: int
    sandbox_id: str
    execution_id: str


@dataclass(frozen=True, slots=True)
class Ack:
    """Everything up to `number` is applied."""

    number: int


Message = Snapshot | Put | Delete | Ack
_NAMES: dict[type[Message], str] = {
    Snapshot: "snapshot",
    Put: "put",
    Delete: "delete",
    Ack: "ack",
}


def encode(message: Message) -> bytes:
    """One line, with its end."""
    fields = {"type": _NAMES[type(message)], **asdict(message)}
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Read one line. Raises BadFeedError."""
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise BadFeedError(line, "not JSON") from error
    try:
        return _read(cast("dict[str, object]", fields))
    except (KeyError, TypeError, AttributeError) as error:
        raise BadFeedError(line, repr(error)) from error


def _read(fields: dict[str, object]) -> Message:
    number = _whole(fields["number"])
    match fields["type"]:
        case "snapshot":
            routes = cast("list[dict[str, object]]", fields["routes"])
            return Snapshot(number, tuple(_route(route) for route in routes))
        case "put":
            return Put(number, _route(cast("dict[str, object]", fields["route"])))
        case "delete":
            return Delete(number, _text(fields["sandbox_id"]), _text(fields["execution_id"]))
        case "ack":
            return Ack(number)
        case unknown:
            raise TypeError(f"type {unknown!r}")


def _route(fields: dict[str, object]) -> Route:
    return Route(
        sandbox_id=_text(fields["sandbox_id"]),
        execution_id=_text(fields["execution_id"]),
        address=_text(fields["address"]),
        traffic_token=_text_or_none(fields["traffic_token"]),
        # An older orchestrator does not send these.
        envd_token=_text_or_none(fields.get("envd_token")),
        mask_host=_text_or_none(fields.get("mask_host")),
        https_ports=_ports(fields.get("https_ports", [])),
    )


def _ports(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError("a list is expected")
    return tuple(_whole(port) for port in value)


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("number is not a number")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a string is expected")
    return value
