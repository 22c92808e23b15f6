"""Reading protobuf JSON: absent fields have defaults, 64-bit integers are strings."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TypeAlias

from .errors import SandboxException

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | JsonObject | None"
JsonObject: TypeAlias = dict[str, JsonValue]

EPOCH = datetime.fromtimestamp(0, UTC)


def parse_object(text: bytes | str, what: str) -> JsonObject:
    """The JSON object in `text`. Raises SandboxException, naming `what`, when it is none."""
    value = parse_value(text, what)
    if not isinstance(value, dict):
        raise SandboxException(f"{what} is not a JSON object: {text[:200]!r}")
    return value


def parse_objects(text: bytes | str, what: str) -> list[JsonObject]:
    """The JSON array of objects in `text`. Raises SandboxException when it is none."""
    value = parse_value(text, what)
    if not isinstance(value, list):
        raise SandboxException(f"{what} is not a JSON array: {text[:200]!r}")
    return [item for item in value if isinstance(item, dict)]


def parse_value(text: bytes | str, what: str) -> JsonValue:
    """The JSON value in `text`. Raises SandboxException, naming `what`, when it is not JSON."""
    try:
        value: JsonValue = json.loads(text)
    except ValueError as error:
        raise SandboxException(f"{what} is not JSON: {text[:200]!r}") from error
    return value


def required(record: JsonObject, name: str) -> str:
    """A text field without which the record is useless. Raises SandboxException."""
    value = record.get(name)
    if not isinstance(value, str):
        raise SandboxException(f"the server's answer lacks {name!r}")
    return value


def text_or_none(record: JsonObject, name: str) -> str | None:
    """The text field, None when absent."""
    value = record.get(name)
    return value if isinstance(value, str) else None


def text(record: JsonObject, name: str) -> str:
    """The text field, empty when absent."""
    return text_or_none(record, name) or ""


def integer(record: JsonObject, name: str) -> int:
    """The integer field, written as a number or as a string; 0 when absent."""
    value = record.get(name)
    return int(value) if isinstance(value, int | float | str) and value != "" else 0


def number(record: JsonObject, name: str) -> float:
    """The number in a field; 0 when absent."""
    value = record.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def flag_or_none(record: JsonObject, name: str) -> bool | None:
    """The boolean field, None when absent."""
    value = record.get(name)
    return value if isinstance(value, bool) else None


def nested(record: JsonObject, name: str) -> JsonObject | None:
    """The message in a field, None when absent."""
    value = record.get(name)
    return value if isinstance(value, dict) else None


def repeated(record: JsonObject, name: str) -> list[JsonObject]:
    """The messages in a repeated field."""
    value = record.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def texts(record: JsonObject, name: str) -> list[str]:
    """The strings in a repeated field."""
    value = record.get(name)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def text_map(record: JsonObject, name: str) -> dict[str, str]:
    """The string-to-string map in a field."""
    return {
        key: value for key, value in (nested(record, name) or {}).items() if isinstance(value, str)
    }


def time(record: JsonObject, name: str) -> datetime:
    """The RFC 3339 time in a field; the epoch when absent."""
    value = text_or_none(record, name)
    return datetime.fromisoformat(value) if value else EPOCH
