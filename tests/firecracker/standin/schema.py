"""Bodies checked against Firecracker's published interface, as its versions differ."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

Version = tuple[int, int]

_PUBLISHED = json.loads((Path(__file__).parent / "interface.json").read_text())
_TYPES = {"string": str, "boolean": bool, "integer": int, "array": list, "object": dict}

# What is not in all versions that are driven. The published description that is kept here is of
# 1.15; the rest is from the changelog.
_PATHS_SINCE: dict[str, Version] = {
    "/serial": (1, 14),
    "/hotplug/memory": (1, 14),
    "/pmem/{id}": (1, 14),
}
_FIELDS_SINCE: dict[str, dict[str, Version]] = {
    "SnapshotLoadParams": {"track_dirty_pages": (1, 13), "vsock_override": (1, 16)},
    "NetworkInterface": {"mtu": (1, 16)},
    "Balloon": {"free_page_reporting": (1, 14), "free_page_hinting": (1, 14)},
}
_ADDED: dict[str, dict[str, Any]] = {
    "SnapshotLoadParams": {
        "vsock_override": {"type": "object"},
        "clock_realtime": {"type": "boolean"},
    },
    "NetworkInterface": {"mtu": {"type": "integer"}},
}
_FIELDS_SINCE["SnapshotLoadParams"]["clock_realtime"] = (1, 16)


class RefusedError(Exception):
    """An error of the API: its text is the `fault_message`."""


def operation(version: Version, method: str, path: str) -> tuple[str, str | None]:
    """The path as published, and the name of the body's definition. Raises RefusedError."""
    for published, methods in _PUBLISHED["paths"].items():
        pattern = re.sub(r"\{\w+\}", "[A-Za-z0-9_]+", published)
        known = method in methods and version >= _PATHS_SINCE.get(published, version)
        if known and re.fullmatch(pattern, path):
            return published, methods[method]
    raise RefusedError(f"Invalid request method and/or path: {method} {path}.")


def check(version: Version, definition: str, body: object) -> dict[str, Any]:
    """A body that fits its definition. Raises RefusedError."""
    if not isinstance(body, dict):
        raise RefusedError("An error occurred when deserializing the json body of a request.")
    described = _PUBLISHED["definitions"][definition]
    properties = {**described["properties"], **_ADDED.get(definition, {})}
    since = _FIELDS_SINCE.get(definition, {})
    for name, value in body.items():
        known = name in properties and version >= since.get(name, version)
        if not known and not described.get("open"):
            raise RefusedError(f"unknown field `{name}`, expected one of {sorted(properties)}")
        if known:
            _check_value(version, name, properties[name], value)
    for name in described["required"]:
        if name not in body:
            raise RefusedError(f"missing field `{name}`")
    return body


def _check_value(version: Version, name: str, described: dict[str, Any], value: object) -> None:
    if "$ref" in described:
        named = described["$ref"]
        if "properties" in _PUBLISHED["definitions"][named]:
            check(version, named, value)
        else:
            _check_value(version, name, _PUBLISHED["definitions"][named], value)
        return
    wanted = _TYPES[described["type"]]
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise RefusedError(f"invalid type of `{name}`, expected {described['type']}")
    if value not in described.get("enum", [value]):
        raise RefusedError(f"unknown variant `{value}`, expected one of {described['enum']}")
    if isinstance(value, int) and not (
        described.get("minimum", value) <= value <= described.get("maximum", value)
    ):
        raise RefusedError(f"`{name}` is out of range: {value}")
    if isinstance(value, list) and "items" in described:
        for item in value:
            _check_value(version, name, described["items"], item)
