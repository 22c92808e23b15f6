"""What routes share: who asks, the services, decoded path segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from pydantic import BeforeValidator

from emberbox.api_server import acting
from emberbox.api_server.auth import Principal
from emberbox.api_server.errors import SandboxNotFoundError
from emberbox.api_server.models import ErrorBody
from emberbox.api_server.routes.documenting import error_answers
from emberbox.api_server.services import Services
from emberbox.shared import correlation
from emberbox.shared.ids import short_sandbox_id
from emberbox.shared.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.applications import Starlette

_KEY_HEADER = "X-API-KEY"
_SCHEME = APIKeyHeader(name=_KEY_HEADER, auto_error=False)


def services_of(request: Request) -> Services:
    """The services that `app.build_app` was given."""
    app: Starlette = request.app
    return cast("Services", app.state.services)


async def authenticate(request: Request) -> Principal:
    """Who asks, and in whose name everything is done from now on. Raises UnauthorizedError."""
    presented = request.headers.get(_KEY_HEADER)
    principal = await services_of(request).authenticator.authenticate(presented)
    acting.act_as(acting.key(principal.key_id))
    return principal


class AuthenticatedRoute(APIRoute):
    """A route that looks at the key, and how often it was used, before it reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        """The framework's handler behind the checks."""
        handle = super().get_route_handler()

        async def authenticated(request: Request) -> Response:
            request.state.steps = steps = Steps()
            with steps.measure("auth"):
                principal = await authenticate(request)
            request.state.principal = principal
            route = f"{request.method} {self.path_format}"
            limits = services_of(request).rate_limits
            request.state.fields = await limits.check(principal.team.team_id, route)
            response = await handle(request)
            response.headers.update(request.state.fields)
            return response

        return authenticated


def authenticated_router(tag: str) -> APIRouter:
    """A router whose routes need a key and document the errors that any of them may answer."""
    return APIRouter(
        route_class=AuthenticatedRoute,
        dependencies=[Security(_SCHEME)],
        tags=[tag],
        responses={
            **error_answers(401, 429, 500),
            # Without it the framework documents its own 422, which nobody gets.
            "default": {"model": ErrorBody, "description": "Any other error"},
        },
    )


# Coroutines, though they wait for nothing: the framework runs functions in threads.
async def _principal(request: Request) -> Principal:
    return cast("Principal", request.state.principal)


async def _services(request: Request) -> Services:
    return services_of(request)


def _sandbox_id(value: str) -> str:
    """The id in a path segment, without the `-<clientID>` of old clients."""
    text = unquote(value)
    short = short_sandbox_id(text)
    if short is None:
        raise SandboxNotFoundError(text)
    correlation.bind(sandbox_id=short)
    return short


Caller = Annotated[Principal, Depends(_principal)]
Parts = Annotated[Services, Depends(_services)]
SandboxId = Annotated[str, BeforeValidator(_sandbox_id)]
