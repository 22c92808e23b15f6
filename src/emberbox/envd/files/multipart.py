"""multipart/form-data as a stream of events, on python-multipart's parser."""

from __future__ import annotations

import re
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from emberbox.envd.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class PartStart:
    """The headers of a part are complete."""

    name: str | None
    filename: str | None


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete."""


PartEvent = PartStart | PartEnd | memoryview


class Parts:
    """Fed with pieces of a body, gives events and views of their data."""

    def __init__(self, boundary: str) -> None:
        self._events: list[PartEvent] = []
        self._field = bytearray()
        self._value = bytearray()
        self._disposition = ""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._on_data,
                    "on_part_end": lambda: self._events.append(PartEnd()),
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidArgumentError(f"invalid multipart boundary: {error}") from error

    def feed(self, piece: bytes) -> list[PartEvent]:
        """The events in `piece`. Raises InvalidArgumentError."""
        self._events = []
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise InvalidArgumentError(f"invalid multipart body: {error}") from error
        return self._events

    def finish(self) -> None:
        """Raises InvalidArgumentError for a body that stopped in the middle."""
        if not self._ended:
            raise InvalidArgumentError("the multipart body ends too early")

    def _begin(self) -> None:
        self._disposition = ""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value.decode("utf-8", "replace")
        self._field.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        parameters = _parameters(self._disposition)
        self._events.append(PartStart(parameters.get("name"), parameters.get("filename")))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(memoryview(data)[start:end])

    def _end(self) -> None:
        self._ended = True


def boundary_of(content_type: str) -> str:
    """Raises InvalidArgumentError when it is missing."""
    boundary = _parameters(content_type).get("boundary")
    if not boundary:
        raise InvalidArgumentError("the multipart content type has no boundary")
    return boundary


_PARAMETER = re.compile(r';\s*([\w*!-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))')


def _parameters(header: str) -> dict[str, str]:
    """Parameters of a header. Percent-escapes stay: a file name may hold them itself."""
    found: dict[str, str] = {}
    for name, quoted, token in _PARAMETER.findall(header):
        found.setdefault(name.lower(), re.sub(r"\\([\"\\])", r"\1", quoted) or token)
    return found
