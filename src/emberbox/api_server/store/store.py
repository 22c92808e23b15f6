"""The stores of the control plane over one database."""

from __future__ import annotations

from typing import Self

from emberbox.api_server.store.builds import BuildStore
from emberbox.api_server.store.cluster import ClusterStore
from emberbox.api_server.store.database import Database
from emberbox.api_server.store.events import EventStore
from emberbox.api_server.store.keys import KeyStore
from emberbox.api_server.store.migrate import migrate
from emberbox.api_server.store.nodes import NodeStore
from emberbox.api_server.store.sandboxes import SandboxStore
from emberbox.api_server.store.snapshots import SnapshotStore
from emberbox.api_server.store.teams import TeamStore
from emberbox.api_server.store.templates import TemplateStore


class Store:
    """Everything that is in the database, by subject."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.cluster = ClusterStore(database)
        self.teams = TeamStore(database)
        self.keys = KeyStore(database)
        self.templates = TemplateStore(database)
        self.builds = BuildStore(database)
        self.snapshots = SnapshotStore(database)
        self.nodes = NodeStore(database)
        self.sandboxes = SandboxStore(database)
        self.events = EventStore(database)

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect and bring the schema up to date. Raises StartupError."""
        database = Database(url)
        try:
            await migrate(database)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        """Return every connection."""
        await self.database.close()
