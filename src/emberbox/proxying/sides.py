"""What the connections and what runs between them ask of one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from emberbox.proxying.bodies import Piece
    from emberbox.proxying.heads import ResponseHead


class ClientSide(Protocol):
    """What an exchange or a tunnel does to its client."""

    peer: str
    number: int
    requests: int
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
        """Hand over what was read ahead: its user takes data again."""
        ...

    def await_upgrade(self) -> None:
        """Its end is held until an upgrade is decided: give the client up if that takes long."""
        ...

    def hand_over(self, user: ClientUser) -> None:
        """From now on another takes what the client sends."""
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


class ClientUser(Protocol):
    """Who takes what the client sends now."""

    @property
    def takes_data(self) -> bool:
        """Whether what the client sends now is for it and has somewhere to go."""
        ...

    @property
    def request_done(self) -> bool:
        """Whether the client may end without cutting anything short."""
        ...

    @property
    def answer_done(self) -> bool:
        """Whether all of the answer was written."""
        ...

    @property
    def holds_client_end(self) -> bool:
        """Whether the end of a client that has finished cannot be passed on yet."""
        ...

    def feed(self, data: bytes) -> bool:
        """Take bytes of the client, and give back what is for another by `ahead`.

        False: nothing goes on.
        """
        ...

    def client_finished(self) -> None:
        """The client sends no more, after a whole request or in a tunnel."""
        ...

    def client_full(self, full: bool) -> None:
        """The client takes no more data for now, or takes it again."""
        ...

    def client_lost(self, error: Exception | None) -> None:
        """The client's connection is gone."""
        ...


class UpstreamUser(Protocol):
    """Who uses the connection to an upstream now. No call follows `on_upstream_lost`."""

    def on_upstream_lost(self, error: Exception | None) -> None:
        """The connection ended, or answered what we do not forward, before its response did."""
        ...

    def on_upstream_full(self, full: bool) -> None:
        """The upstream takes no more data for now, or takes it again."""
        ...


class Answered(UpstreamUser, Protocol):
    """Gets a response in parts."""

    def on_interim_head(self, head: ResponseHead) -> None:
        """A head with a status below 200 came, other than 101."""
        ...

    def on_switch(self, head: ResponseHead, data: bytes) -> None:
        """101 came, as it was asked for, and `data` behind it: a tunnel is to take over."""
        ...

    def on_response_head(
        self, head: ResponseHead, pieces: list[Piece], trailers: bytes | None
    ) -> None:
        """The final head came, and with it what `on_response_data` would be told."""
        ...

    def on_response_data(self, pieces: list[Piece], trailers: bytes | None) -> None:
        """Payload of the body, perhaps none of it yet. With `trailers` it ended, as its framing
        says."""
        ...


class TunnelEnd(UpstreamUser, Protocol):
    """Gets bytes."""

    def on_upstream_data(self, data: bytes) -> None:
        """The upstream wrote."""
        ...

    def on_upstream_eof(self) -> None:
        """The upstream writes no more."""
        ...
