"""Messages of `process.ProcessEvent`, as protobuf JSON has them."""

from __future__ import annotations

import base64
from typing import Any

START = "/process.Process/Start"
CONNECT = "/process.Process/Connect"

STARTED = {"event": {"start": {"pid": 7}}}
KEEPALIVE: dict[str, Any] = {"event": {"keepalive": {}}}


def data(stream: str, raw: bytes) -> dict[str, Any]:
    return {"event": {"data": {stream: base64.b64encode(raw).decode()}}}


def end(code: int = 0, **more: object) -> dict[str, Any]:
    """An exit code of 0 is left out."""
    return {"event": {"end": {"exited": True, **({"exitCode": code} if code else {}), **more}}}
