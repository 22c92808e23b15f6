"""The routing table of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.orchestrator.data_proxy.messages import Ack, Delete, Put, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.data_proxy.messages import Message, Route


class RouteTable:
    """Sandbox id to route. Each change returns the routes that ended by it."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())

    def get(self, sandbox_id: str) -> Route | None:
        """The route of the sandbox's present execution."""
        return self._routes.get(sandbox_id)

    def apply(self, message: Message) -> list[Route]:
        """Make the change that a message of the feed says."""
        match message:
            case Snapshot(_, routes):
                return self._replace(routes)
            case Put(_, route):
                return self._put(route)
            case Delete(_, sandbox_id, execution_id):
                return self._delete(sandbox_id, execution_id)
            case Ack():
                return []

    def _replace(self, routes: tuple[Route, ...]) -> list[Route]:
        old, self._routes = self._routes, {route.sandbox_id: route for route in routes}
        return [route for route in old.values() if not self._is_live(route.sandbox_id, route)]

    def _put(self, route: Route) -> list[Route]:
        old = self._routes.get(route.sandbox_id)
        self._routes[route.sandbox_id] = route
        if old is None or self._is_live(route.sandbox_id, old):
            return []
        return [old]

    def _delete(self, sandbox_id: str, execution_id: str) -> list[Route]:
        route = self._routes.get(sandbox_id)
        if route is None or route.execution_id != execution_id:
            return []
        return [self._routes.pop(sandbox_id)]

    def _is_live(self, sandbox_id: str, route: Route) -> bool:
        """Whether connections made under `route` may go on."""
        now = self._routes.get(sandbox_id)
        return (
            now is not None
            and now.execution_id == route.execution_id
            and now.address == route.address
        )
