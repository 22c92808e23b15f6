"""Lists, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.sdk.config import ConnectionConfig
from emberbox.sdk.errors import SandboxException
from emberbox.sdk.sandbox_models import SandboxInfo, list_parameters
from emberbox.sdk.snapshot_models import SnapshotInfo, snapshot_parameters

from .control_plane import AsyncControlPlane

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from emberbox.sdk.config import ApiParams
    from emberbox.sdk.json_fields import JsonObject
    from emberbox.sdk.sandbox_models import SandboxListOrder, SandboxQuery


class AsyncPages:
    """Where a list has been read to."""

    def __init__(self, limit: int | None, next_token: str | None, opts: ApiParams) -> None:
        self.limit = limit
        self._config = ConnectionConfig(**opts)
        self._next_token = next_token
        self._has_next = True

    @property
    def has_next(self) -> bool:
        """Whether there may be another page."""
        return self._has_next

    @property
    def next_token(self) -> str | None:
        """Where the next page begins, to continue in another paginator."""
        return self._next_token

    def _check_next(self) -> None:
        if not self._has_next:
            raise SandboxException("No more items to fetch")

    async def _next_page(
        self, path: str, parameters: Mapping[str, str], opts: ApiParams
    ) -> list[JsonObject]:
        api = AsyncControlPlane(self._config.with_options(**opts))
        records, self._next_token = await api.page(path, parameters)
        self._has_next = self._next_token is not None
        return records


class AsyncSandboxPaginator(AsyncPages):
    """What `AsyncSandbox.list()` gives: call `next_items()` while `has_next`."""

    def __init__(
        self,
        query: SandboxQuery | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        order: SandboxListOrder | None = None,
        **opts: Unpack[ApiParams],
    ) -> None:
        super().__init__(limit, next_token, opts)
        self.query = query
        self.order = order

    async def next_items(self, **opts: Unpack[ApiParams]) -> list[SandboxInfo]:
        """The next page. Raises SandboxException when there is none."""
        self._check_next()
        parameters = list_parameters(self.query, self.limit, self._next_token, self.order)
        records = await self._next_page("/v2/sandboxes", parameters, opts)
        return [SandboxInfo.from_json(record) for record in records]


class AsyncSnapshotPaginator(AsyncPages):
    """What `AsyncSandbox.list_snapshots()` gives: call `next_items()` while `has_next`."""

    def __init__(
        self,
        sandbox_id: str | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        name: str | None = None,
        **opts: Unpack[ApiParams],
    ) -> None:
        super().__init__(limit, next_token, opts)
        self.sandbox_id = sandbox_id
        self.name = name

    async def next_items(self, **opts: Unpack[ApiParams]) -> list[SnapshotInfo]:
        """The next page. Raises SandboxException when there is none."""
        self._check_next()
        parameters = snapshot_parameters(self.sandbox_id, self.limit, self._next_token, self.name)
        records = await self._next_page("/snapshots", parameters, opts)
        return [SnapshotInfo.from_json(record) for record in records]
