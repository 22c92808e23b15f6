"""The list of sandboxes, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.sdk.config import ConnectionConfig
from emberbox.sdk.errors import SandboxException
from emberbox.sdk.sandbox_models import list_parameters

from .control_plane import AsyncControlPlane

if TYPE_CHECKING:
    from typing import Unpack

    from emberbox.sdk.config import ApiParams
    from emberbox.sdk.sandbox_models import SandboxInfo, SandboxListOrder, SandboxQuery


class AsyncSandboxPaginator:
    """What `AsyncSandbox.list()` gives: call `next_items()` while `has_next`."""

    def __init__(
        self,
        query: SandboxQuery | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        order: SandboxListOrder | None = None,
        **opts: Unpack[ApiParams],
    ) -> None:
        self.query = query
        self.limit = limit
        self.order = order
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

    async def next_items(self, **opts: Unpack[ApiParams]) -> list[SandboxInfo]:
        """The next page. Raises SandboxException when there is none."""
        if not self._has_next:
            raise SandboxException("No more items to fetch")
        parameters = list_parameters(self.query, self.limit, self._next_token, self.order)
        api = AsyncControlPlane(self._config.with_options(**opts))
        sandboxes, self._next_token = await api.page(parameters)
        self._has_next = self._next_token is not None
        return sandboxes
