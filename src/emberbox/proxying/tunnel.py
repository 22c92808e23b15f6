"""What becomes of an exchange whose upgrade was granted: bytes both ways, until both ends end.

FIN, RST and full buffers pass through as they come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.proxying.replies import Reply
    from emberbox.proxying.sides import ClientSide
    from emberbox.proxying.upstream import UpstreamConnection


class Tunnel:
    """`sent` and `received` are bytes that went to the client and came from it; `over` is called
    once, at the end."""

    takes_data = True
    request_done = True
    answer_done = False
    holds_client_end = False

    def __init__(
        self,
        client: ClientSide,
        upstream: UpstreamConnection,
        execution_id: str,
        over: Callable[[Tunnel], None],
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._over = over
        self._upstream_finished = False
        self.execution_id = execution_id
        self.sent = 0
        self.received = 0

    def begin(self, data: bytes) -> None:
        """Take over both connections; `data` is what the upstream sent behind its head."""
        self._upstream.hand_over(self)
        self._client.hand_over(self)
        if data:
            self.on_upstream_data(data)
        self._client.pump()
        if self._client.finished:
            self._upstream.write_eof()

    # The client's side.

    def feed(self, data: bytes) -> bool:
        """Pass it on."""
        self.received += len(data)
        self._upstream.write(data)
        return True

    def client_finished(self) -> None:
        """Pass its FIN on."""
        self._upstream.write_eof()
        self._close_if_finished()

    def client_full(self, full: bool) -> None:
        """Hold the upstream."""
        self._upstream.pause(full)

    def client_lost(self, error: Exception | None) -> None:
        """End the upstream in the same way."""
        self._over(self)
        if error is None:
            self._upstream.abort()
        else:
            self._upstream.reset()

    # The upstream's side.

    def on_upstream_data(self, data: bytes) -> None:
        """Pass it on."""
        self.sent += len(data)
        self._client.write(data)

    def on_upstream_full(self, full: bool) -> None:
        """Hold the client."""
        self._client.hold(full)

    def on_upstream_eof(self) -> None:
        """Pass its FIN on."""
        self._upstream_finished = True
        self._client.write_eof()
        self._close_if_finished()

    def on_upstream_lost(self, error: Exception | None) -> None:
        """End the client in the same way."""
        self._over(self)
        if error is None:
            self._client.close()
        else:
            self._client.reset()

    # Both.

    def _close_if_finished(self) -> None:
        if self._client.finished and self._upstream_finished:
            self._over(self)
            self._upstream.close()
            self._client.close()

    def sandbox_ended(self, reply: Reply) -> None:
        """Reset both."""
        self._over(self)
        self._upstream.reset()
        self._client.reset()
