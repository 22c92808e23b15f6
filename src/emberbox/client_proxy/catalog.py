"""Where each sandbox's host is."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class HostAddress(NamedTuple):
    """The data proxy of a host."""

    address: str
    port: int


class Catalog(Protocol):
    """Finds the host of a sandbox. One instance serves all requests of a process."""

    def find(self, sandbox_id: str) -> HostAddress | None:
        """The host that runs the sandbox, as far as is known at once."""
        ...

    async def look_up(self, sandbox_id: str) -> HostAddress | None:
        """The same, asked for where it is kept; None when no host runs it."""
        ...

    def learn(self, sandbox_id: str, host: HostAddress) -> None:
        """An API server says that it runs there."""
        ...

    def doubt(self, sandbox_id: str) -> None:
        """What is known of it has not held."""
        ...

    def only_host(self) -> HostAddress | None:
        """The host that runs every sandbox; None when there may be several hosts."""
        ...


class StaticCatalog:
    """One machine: every sandbox is on the one host, which knows itself whether it lives."""

    def __init__(self, host: HostAddress) -> None:
        self._host = host

    def find(self, sandbox_id: str) -> HostAddress | None:
        """That host."""
        return self._host

    async def look_up(self, sandbox_id: str) -> HostAddress | None:
        """That host."""
        return self._host

    def learn(self, sandbox_id: str, host: HostAddress) -> None:
        """Nothing to learn."""

    def doubt(self, sandbox_id: str) -> None:
        """No other host to ask for."""

    def only_host(self) -> HostAddress | None:
        """That host."""
        return self._host
