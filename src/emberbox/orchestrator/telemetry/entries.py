"""Log entries of a sandbox, and which of them a caller asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emberbox.orchestrator.telemetry.journal import is_counter, is_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import JsonValue

LEVELS = ("debug", "info", "warn", "error")
ORCHESTRATOR = "orchestrator"
"""The logger of what the host itself says."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a sandbox's log. `at` is unix seconds.

    `source` is where the guest has it: its stream and the number there; None for the host's own.
    """

    at: float
    level: str
    logger: str
    message: str
    fields: dict[str, str] = field(default_factory=dict)
    source: tuple[str, int] | None = None

    def to_row(self) -> list[JsonValue]:
        """The form on disk."""
        source: list[JsonValue] = list(self.source) if self.source else []
        return [self.at, self.level, self.logger, self.message, {**self.fields}, source]

    @classmethod
    def from_row(cls, row: JsonValue) -> Entry | None:
        """What `to_row` gave; None for anything else."""
        match row:
            case [at, str(level), str(logger), str(message), dict(given), source] if is_number(at):
                texts = {name: text for name, text in given.items() if isinstance(text, str)}
                return cls(float(at), level, logger, message, texts, _source(source))
        return None


def _source(value: JsonValue) -> tuple[str, int] | None:
    match value:
        case [str(stream), number] if is_counter(number):
            return stream, number
    return None


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which entries: times in unix milliseconds, inclusive; `level` and worse."""

    start_ms: int | None = None
    end_ms: int | None = None
    limit: int = 1000
    newest_first: bool = False
    level: str = ""
    search: str = ""

    def select(self, entries: Iterable[Entry]) -> list[Entry]:
        """The first `limit` of those that match, in the order asked for."""
        wanted = LEVELS[LEVELS.index(self.level) :] if self.level in LEVELS else LEVELS
        found = [
            entry
            for entry in entries
            if self._in_time(entry) and entry.level in wanted and self.search in entry.message
        ]
        # The host's own come as they happen, a guest's when they are fetched.
        found.sort(key=lambda entry: entry.at)
        if self.newest_first:
            found.reverse()  # those of one moment as well
        return found[: self.limit]

    def _in_time(self, entry: Entry) -> bool:
        at = int(entry.at * 1000)
        after_start = self.start_ms is None or at >= self.start_ms
        return after_start and (self.end_ms is None or at <= self.end_ms)
