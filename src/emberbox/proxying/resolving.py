"""What a proxy decides about a request: the one interface between the engine and its programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from emberbox.proxying.replies import Reply
from emberbox.shared.protocol import ENVD_PORT

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from emberbox.proxying.heads import RequestHead

PoolKey = tuple[str, int]


class Finder(Protocol):
    """Knows where else a sandbox may be."""

    async def find_elsewhere(self, request: RequestHead, refused: Target) -> Decision:
        """Decide anew about `request`, which `refused` did not give to any sandbox: it has none
        of that name."""
        ...


class Target(NamedTuple):
    """Where a request goes.

    `pool_key` is None for a fresh connection; else a connection may be shared by all requests
    of that key, so the key must name one server for ever (an execution, never a bare address).
    `extra` are header lines added towards the upstream, each with its CRLF. `host` takes the place
    of the Host that the client sent, which becomes X-Forwarded-Host; None leaves it.
    With `tls` the server speaks TLS; its certificate is not verified.
    `allow_upgrade` lets a request turn the connection into a tunnel, in which the engine no
    longer sees requests.
    With `finder` the server is a proxy of ours, which may say that it does not have the sandbox:
    then the finder is asked. Nobody else's word to that effect is listened to.
    """

    address: str
    port: int
    sandbox_id: str
    sandbox_port: int
    execution_id: str = ""
    pool_key: PoolKey | None = None
    extra: bytes = b""
    allow_upgrade: bool = True
    host: bytes | None = None
    tls: bool = False
    finder: Finder | None = None

    @property
    def of_envd(self) -> bool:
        """Whether the request is for the sandbox's own daemon."""
        return self.sandbox_port == ENVD_PORT


Decision = Target | Reply


class Resolver(Protocol):
    """Routes requests, each anew. One instance serves all connections of a process."""

    def resolve(self, request: RequestHead, peer: str) -> Decision | Awaitable[Decision]:
        """Decide where `request` goes, or answer it. At once when that needs no waiting.

        The client is read no further than `Limits.read_ahead` while the engine waits; the
        awaitable is cancelled when the client goes away.
        """
        ...

    def unreachable(self, target: Target) -> Reply:
        """The answer when `target` took no connection or ended it before it answered."""
        ...
