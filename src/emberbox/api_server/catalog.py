"""Tells the client proxies where sandboxes run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from emberbox.api_server.store.rows import Sandbox


class Catalog(Protocol):
    """Where running sandboxes are."""

    async def put(self, row: Sandbox) -> None:
        """A run of it has begun. Never fails: who does not find it asks an API server."""
        ...

    async def remove(self, row: Sandbox) -> None:
        """That run is over; an entry of a later one stays. Never fails."""
        ...

    async def rebuild(self, rows: Iterable[Sandbox]) -> None:
        """Put back what is missing of these, which run on one node. Never fails."""
        ...


class NoCatalog:
    """One machine: the client proxy knows the one host."""

    async def put(self, row: Sandbox) -> None:
        """Nobody asks."""

    async def remove(self, row: Sandbox) -> None:
        """Nobody asks."""

    async def rebuild(self, rows: Iterable[Sandbox]) -> None:
        """Nobody asks."""
