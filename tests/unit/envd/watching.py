"""Both ways of watching, for tests that hold for either."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.unit.envd.conftest import Client, Stream

SERVICE = "filesystem.Filesystem"
PATIENCE = 20.0
"""Seconds after which what should happen has failed to."""

Seen = tuple[str, str]
"""A type without its prefix, and a name."""


class Watched(ABC):
    """A directory that is being watched."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._numbers = itertools.count()

    @abstractmethod
    def more(self) -> list[dict[str, Any]]:
        """Events that came since; may be none."""

    def until(self, enough: Callable[[list[Seen]], bool]) -> list[Seen]:
        """All events up to those that are enough."""
        found: list[Seen] = []
        deadline = time.monotonic() + PATIENCE
        while not enough(found):
            assert time.monotonic() < deadline, found
            found += [seen(event) for event in self.more()]
        return found

    def now(self) -> list[Seen]:
        """All events of what happened before this call."""
        end = f".end{next(self._numbers)}"
        (self.root / end).touch()
        found = self.until(lambda events: ("CREATE", end) in events)
        return found[: found.index(("CREATE", end))]


class Polled(Watched):
    """By CreateWatcher and GetWatcherEvents."""

    def __init__(self, root: Path, client: Client, watcher_id: str) -> None:
        super().__init__(root)
        self._client = client
        self.id = watcher_id

    def more(self) -> list[dict[str, Any]]:
        answer = self._client.call(f"{SERVICE}/GetWatcherEvents", {"watcherId": self.id})
        assert answer.status_code == 200, answer.text
        events: list[dict[str, Any]] = answer.json().get("events", [])
        return events


class Streamed(Watched):
    """By WatchDir."""

    def __init__(self, root: Path, stream: Stream) -> None:
        super().__init__(root)
        self.stream = stream

    def more(self) -> list[dict[str, Any]]:
        message = self.stream.next()
        assert message.flags == 0, message.body
        return [message.body["filesystem"]]


def seen(event: dict[str, Any]) -> Seen:
    return event["type"].removeprefix("EVENT_TYPE_"), event["name"]


@contextmanager
def streaming(client: Client, path: Path, **options: Any) -> Iterator[Streamed]:
    headers = options.pop("headers", {})
    body = {"path": str(path), **options}
    with client.open_stream(f"{SERVICE}/WatchDir", body, **headers) as stream:
        first = stream.next()
        assert first.body == {"start": {}}, first.body
        yield Streamed(path, stream)


@contextmanager
def polling(client: Client, path: Path, **options: Any) -> Iterator[Polled]:
    headers = options.pop("headers", {})
    answer = client.call(f"{SERVICE}/CreateWatcher", {"path": str(path), **options}, **headers)
    assert answer.status_code == 200, answer.text
    watcher_id = answer.json()["watcherId"]
    assert watcher_id.startswith("w")
    yield Polled(path, client, watcher_id)
    assert client.call(f"{SERVICE}/RemoveWatcher", {"watcherId": watcher_id}).json() == {}


FLAVOURS = {"stream": streaming, "poll": polling}
