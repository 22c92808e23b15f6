"""Parts of the protocol that Emberbox does not offer yet: a typed refusal for each (2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from starlette.routing import Route

from emberbox.api_server.errors import NotAvailableYetError
from emberbox.api_server.routes.dependencies import authenticate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

_KEYED: tuple[tuple[str, str, str], ...] = (
    ("GET", "/templates", "Listing templates"),
    ("GET", "/v2/templates", "Listing templates"),
    ("GET", "/default-templates", "Listing templates"),
    ("POST", "/templates", "Building templates"),
    ("POST", "/v2/templates", "Building templates"),
    ("POST", "/v3/templates", "Building templates"),
    ("GET", "/templates/aliases/{alias}", "Looking up template names"),
    ("POST", "/templates/tags", "Template tags"),
    ("DELETE", "/templates/tags", "Template tags"),
    ("GET", "/templates/{template_id}", "Looking at templates"),
    ("POST", "/templates/{template_id}", "Building templates"),
    ("PATCH", "/templates/{template_id}", "Changing templates"),
    ("PATCH", "/v2/templates/{template_id}", "Changing templates"),
    ("GET", "/templates/{template_id}/tags", "Template tags"),
    ("GET", "/templates/{template_id}/tags/{part:path}", "Template tags"),
    ("GET", "/templates/{template_id}/files/{files_hash}", "Building templates"),
    ("POST", "/templates/{template_id}/builds/{build_id}", "Building templates"),
    ("POST", "/v2/templates/{template_id}/builds/{build_id}", "Building templates"),
    ("GET", "/templates/{template_id}/builds/{build_id}/status", "Building templates"),
    ("GET", "/templates/{template_id}/builds/{build_id}/logs", "Building templates"),
    ("POST", "/volumes", "Volumes"),
    ("GET", "/volumes", "Volumes"),
    ("GET", "/volumes/{volume_id}", "Volumes"),
    ("DELETE", "/volumes/{volume_id}", "Volumes"),
    ("GET", "/secrets", "Secrets"),
    ("POST", "/secrets", "Secrets"),
    ("GET", "/secrets/{secret}", "Secrets"),
    ("POST", "/secrets/{secret}", "Secrets"),
    ("DELETE", "/secrets/{secret}", "Secrets"),
    ("GET", "/teams/{team_id}/metrics", "Team metrics"),
    ("GET", "/teams/{team_id}/metrics/max", "Team metrics"),
)
"""What clients call with an API key."""

_MANY = ("GET", "POST", "PUT", "PATCH", "DELETE")
_OTHERWISE_KEYED: tuple[tuple[str, str, str], ...] = (
    ("GET", "/teams", "Logging in by browser (use an API key)"),
    *((method, "/volumecontent/{rest:path}", "Volumes") for method in _MANY),
    *(
        (method, path, f"{what} over REST (use the emberbox command)")
        for root, what in (
            ("/api-keys", "Managing API keys"),
            ("/access-tokens", "Managing access tokens"),
            ("/nodes", "Managing hosts"),
            ("/admin", "Administration"),
        )
        for path in (root, f"{root}/{{rest:path}}")
        for method in _MANY
    ),
)
"""What needs another credential than an API key, so none is looked at."""


def _refusal(what: str, *, keyed: bool) -> Callable[[Request], Awaitable[NoReturn]]:
    async def refuse(request: Request) -> NoReturn:
        if keyed:
            await authenticate(request)
        raise NotAvailableYetError(what)

    return refuse


def _routes(table: tuple[tuple[str, str, str], ...], *, keyed: bool) -> list[Route]:
    return [
        Route(path, _refusal(what, keyed=keyed), methods=[method]) for method, path, what in table
    ]


# Plain routes: nothing of them is in the document, and building the framework's own ones would
# delay the first request by a quarter of a second.
routes = [*_routes(_KEYED, keyed=True), *_routes(_OTHERWISE_KEYED, keyed=False)]
