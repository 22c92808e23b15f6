"""Where each sandbox runs."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Place(NamedTuple):
    """The data proxy of a host, and the run of a sandbox there; empty when that is not known."""

    address: str
    port: int
    execution_id: str = ""


class Catalog(Protocol):
    """Finds the host of a sandbox. One instance serves all requests of a process."""

    def find(self, sandbox_id: str) -> Place | None:
        """The host that runs the sandbox, as far as is known at once."""
        ...

    async def look_up(self, sandbox_id: str) -> Place | None:
        """The same, asked for where it is kept; None when no host runs it."""
        ...

    def learn(self, sandbox_id: str, host: Place) -> None:
        """An API server says that it runs there."""
        ...

    def doubt(self, sandbox_id: str) -> None:
        """What is known of it has not held."""
        ...

    def only_host(self) -> Place | None:
        """The host that runs every sandbox; None when there may be several hosts."""
        ...


class StaticCatalog:
    """One machine: every sandbox is on the one host, which knows itself whether it lives."""

    def __init__(self, host: Place) -> None:
        self._host = host

    def find(self, sandbox_id: str) -> Place | None:
        """That host."""
        return self._host

    async def look_up(self, sandbox_id: str) -> Place | None:
        """That host."""
        return self._host

    def learn(self, sandbox_id: str, host: Place) -> None:
        """Nothing to learn."""

    def doubt(self, sandbox_id: str) -> None:
        """No other host to ask for."""

    def only_host(self) -> Place | None:
        """That host."""
        return self._host
