"""Which sandbox and port a request is for: a pure function of its head."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from emberbox.proxying.errors import BadRouteError, NoRouteError
from emberbox.shared.ids import short_sandbox_id
from emberbox.shared.protocol import ENVD_PORT

_SANDBOX_LABEL = re.compile(rb"(\d+)-([a-z0-9]+)(?:-[^.]*)?\Z")
_LIKE_A_SANDBOX = re.compile(rb"\d+-")
_HOST_PORT = re.compile(rb":\d*\Z")
_PORT = re.compile(rb"\d{1,5}\Z")
_CONTROL_ROUTES = frozenset(
    {
        *(b"init", b"freeze", b"unfreeze", b"collapse", b"fsfreeze", b"fsthaw", b"upgrade"),
        *(b"bridge", b"telemetry"),
    }
)
_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+\Z")
"""Paths that are what they seem, as nearly all are."""
_DECODINGS = 8
"""Layers of percent-encoding that are taken off; what still holds some is not served by envd."""


class SandboxAddress(NamedTuple):
    """A port of a sandbox as a request names it."""

    sandbox_id: str
    port: int


@lru_cache(maxsize=4096)
def address_of(host: bytes, sandbox_id: bytes | None, port: bytes | None) -> SandboxAddress:
    """Read `<port>-<id>[-suffix].<domain>` from Host (in lower case), else the two E2b-Sandbox
    headers: `address_of(*request.fields.routing)`.

    Official proxies read the headers for a few hosts only; here any host whose first label does
    not name a sandbox will do, so that a proxy works under whatever name it is reached by.
    Raises BadRouteError, or NoRouteError when nothing is named, with one of the protocol's texts.
    """
    label, dot, _ = _HOST_PORT.sub(b"", host).partition(b".")
    match = _SANDBOX_LABEL.match(label)
    if match is not None and dot:
        return SandboxAddress(match.group(2).decode(), _port(match.group(1)))
    if match is None and (sandbox_id is not None or port is not None):
        return _from_headers(sandbox_id, port)
    text = _why_not(label, dot)
    raise BadRouteError(text) if _LIKE_A_SANDBOX.match(label) else NoRouteError(text)


@lru_cache(maxsize=512)
def is_control_route(target: bytes) -> bool:
    """Whether envd might take the path of `target` for a route of the host's, however spelled."""
    return _cleaned(target).strip(b"/").lower() in _CONTROL_ROUTES


def cleaned_path(target: bytes) -> str:
    """The path of `target`, decoded, without empty and dot segments."""
    return _cleaned(target).decode("utf-8", "replace")


def is_envd(address: SandboxAddress) -> bool:
    """Whether the request is for the sandbox's own daemon."""
    return address.port == ENVD_PORT


def _from_headers(sandbox_id: bytes | None, port: bytes | None) -> SandboxAddress:
    if sandbox_id is None or port is None:
        raise BadRouteError("missing header")
    short = short_sandbox_id(sandbox_id.decode("latin-1"))
    if short is None:
        raise BadRouteError("Invalid sandbox ID")
    return SandboxAddress(short, _port(port))


def _port(text: bytes) -> int:
    port = int(text) if _PORT.match(text) else 0
    if not 1 <= port <= 65535:
        raise BadRouteError("Invalid sandbox port")
    return port


def _why_not(label: bytes, dot: bytes) -> str:
    port, dash, _ = label.partition(b"-")
    if not dot or not dash:
        return "Invalid host"
    return "Invalid sandbox ID" if port.isdigit() else "Invalid sandbox port"


def _cleaned(target: bytes) -> bytes:
    path = target.partition(b"?")[0]
    if _PLAIN_PATH.match(path):
        return path
    for _ in range(_DECODINGS):
        if b"%" not in path:
            break
        path = unquote_to_bytes(path)
    # What a decoded "?", "#" or ";" would cut off for some router is cut off here as well.
    path = re.split(rb"[?#;\x00]", path.replace(b"\\", b"/"), maxsplit=1)[0]
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment.strip() not in (b"", b"."):
            kept.append(segment.strip())
    return b"/" + b"/".join(kept)
