"""What the connections and the exchange between them ask of one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from emberbox.proxying.bodies import Piece
    from emberbox.proxying.heads import ResponseHead


class ClientSide(Protocol):
    """What an exchange does to its client."""

    peer: str
    closing: bool
    finished: bool
    ahead: bytes

    def write(self, data: bytes) -> None:
        """Send."""
        ...

    def write_pieces(self, pieces: list[Piece]) -> None:
        """Send several pieces of data."""
        ...

    def write_eof(self) -> None:
        """Say that no more comes."""
        ...

    def hold(self, held: bool) -> None:
        """Stop or resume reading: what it sends has nowhere to go for now."""
        ...

    def pump(self) -> None:
        """Hand over what was read ahead: the exchange takes data again."""
        ...

    def await_upgrade(self) -> None:
        """Its end is held until an upgrade is decided: give the client up if that takes long."""
        ...

    def reset(self) -> None:
        """Close with RST."""
        ...

    def close(self) -> None:
        """Close after what is queued is sent."""
        ...

    def linger(self) -> None:
        """Close after what is queued is sent, reading away what still comes."""
        ...

    def exchange_over(self, keep_alive: bool) -> None:
        """Both messages are complete: the next request may follow, or the end."""
        ...


class UpstreamUser(Protocol):
    """Who uses the connection now. No call follows `on_upstream_lost`."""

    def on_response_head(self, head: ResponseHead, *, more: bool) -> None:
        """A head came: 1xx ones first, then the final one or 101.

        With `more`, data or the end of the response follow at once.
        """
        ...

    def on_response_data(self, pieces: list[Piece]) -> None:
        """Payload of the body, perhaps none of it yet, or bytes of the tunnel after 101."""
        ...

    def on_response_complete(self, trailers: bytes) -> None:
        """The body ended as its framing says."""
        ...

    def on_upstream_eof(self) -> None:
        """In a tunnel: the upstream writes no more."""
        ...

    def on_upstream_lost(self, error: Exception | None) -> None:
        """The connection ended, or answered what we do not forward, before its response did."""
        ...

    def on_upstream_full(self, full: bool) -> None:
        """The upstream takes no more data for now, or takes it again."""
        ...
