"""Asking a guest's envd for GET /telemetry, whose answer whoever is root there may make up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from emberbox.orchestrator.envd_connection import EnvdConnection
from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.telemetry.entries import Entry
from emberbox.shared.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.network.addresses import Slot

_Counter = Annotated[int, Field(ge=0, lt=1 << 63)]
_Name = Annotated[str, Field(max_length=64)]
_Text = Annotated[str, Field(max_length=1024)]
_Level = Literal["debug", "info", "warn", "error"]
_Fields = Annotated[dict[_Name, _Text], Field(max_length=16)]
_Row = tuple[_Counter, float, _Level, _Name, _Text, _Fields]
_LONGEST_PAST = 366 * 86_400.0
_LOGGERS = frozenset({"process", "envd"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=False, allow_inf_nan=False)


class Usage(_Part):
    """What the guest uses, in bytes, and its CPU counters in clock ticks since boot.

    The base is what they were when this run began: a clone's counters begin with its template's.
    """

    cpu_count: Annotated[int, Field(ge=1, le=65535)]
    cpu_busy: _Counter
    cpu_ticks: _Counter
    cpu_busy_base: _Counter = 0
    cpu_ticks_base: _Counter = 0
    mem_used: _Counter
    mem_total: _Counter
    mem_cache: _Counter
    disk_used: _Counter
    disk_total: _Counter


class Report(_Part):
    """The whole answer. `more`: entries are waiting behind these."""

    metrics: Usage
    stream: Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
    more: bool = False
    entries: Annotated[list[_Row], Field(max_length=4096)]

    def log_entries(self, now: float) -> Iterator[Entry]:
        """The entries as the host keeps them, none of them later than `now`."""
        for number, at, level, logger, message, fields in self.entries:
            moment = min(max(at, now - _LONGEST_PAST), now)
            # Nobody in a guest speaks as a part of the host.
            name = logger if logger in _LOGGERS else "guest"
            texts = {printable(key): printable(text) for key, text in fields.items()}
            yield Entry(moment, level, name, printable(message), texts, (self.stream, number))


_REPORT = TypeAdapter(Report)


def parse(body: bytes) -> Report:
    """Raises GuestUnreachable when the answer is not what our envd would say."""
    try:
        return _REPORT.validate_json(body)
    except ValidationError as error:
        raise GuestUnreachable(
            f"envd's telemetry is broken: {error.error_count()} errors"
        ) from None


class SlotGuest:
    """The guest behind a network slot. For one caller at a time, who closes it."""

    def __init__(self, slot: Slot) -> None:
        self._connection = EnvdConnection(slot)

    async def report(self, stream: str, after: int) -> Report:
        """What it uses, and its entries behind that number. Raises GuestUnreachable."""
        path = f"/telemetry?stream={stream}&after={after}"
        answer = await self._connection.get(path)
        if answer.status != 200:
            raise GuestUnreachable(f"envd refused /telemetry: {answer.status}")
        return parse(answer.body)

    def close(self) -> None:
        """Drop the connection."""
        self._connection.close()
