"""Input in the order in which an iterable yields it.

The asynchronous flavour has a handle with a task that sends while the program goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.sdk.errors import InvalidArgumentException
from emberbox.sdk.process_messages import (
    INPUT_STREAM_SECONDS,
    InputKind,
    input_stream_data,
    input_stream_start,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .processes import Processes


class TakesInputStream:
    """What `commands` and `pty` have in common: `stream_input`."""

    _processes: Processes

    def stream_input(
        self,
        pid: int,
        data: Iterable[str | bytes],
        *,
        timeout: float | None = INPUT_STREAM_SECONDS,
    ) -> None:
        """Write what `data` yields, as it yields it; returns when all is written.

        The process's input stays open. `timeout` limits the whole, in seconds; 0 or None for
        no limit. It is looked at when `data` yields, so it does not interrupt an iterable that
        waits. What the sandbox refuses is heard at the end of `data`.

        Raises:
            NotFoundException: there is no such process.
            TimeoutException: it took longer than `timeout`.
            SandboxException: the process takes no input.
            InvalidArgumentException: `data` is one `str` or `bytes`, or yields something else.
        """
        if isinstance(data, str | bytes | bytearray | memoryview):
            raise InvalidArgumentException(
                "data must be an iterable of str or bytes: put a single piece into a list"
            )
        self._processes.stream_input(_messages(pid, self._processes.kind, data), timeout)


def _messages(
    pid: int, kind: InputKind, data: Iterable[str | bytes]
) -> Iterator[dict[str, object]]:
    yield input_stream_start(pid)
    for piece in data:
        yield from input_stream_data(kind, piece)
