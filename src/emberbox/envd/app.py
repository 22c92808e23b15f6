"""The ASGI application: which path goes where."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from emberbox.envd import rpc
from emberbox.envd.asgi import (
    ClientGoneError,
    Event,
    Receive,
    Request,
    Scope,
    Send,
    respond,
    respond_error,
    respond_json,
)
from emberbox.envd.auth import check_token
from emberbox.envd.errors import EnvdError, InternalError, NotFoundError
from emberbox.envd.files.compose import Compositions
from emberbox.envd.files.download import Downloads
from emberbox.envd.files.upload import Uploads
from emberbox.envd.state import VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from emberbox.envd.bridge import Bridges
    from emberbox.envd.filesystem_service import FilesystemService
    from emberbox.envd.init import Initializer
    from emberbox.envd.metrics import Metrics
    from emberbox.envd.process_service import ProcessService
    from emberbox.envd.state import State
    from emberbox.envd.telemetry import Telemetry
    from emberbox.envd.workers import Workers

    Endpoint = Callable[[Request, Send], Awaitable[None]]

logger = logging.getLogger(__name__)


class Application:
    """Checks the token, then hands the request to a service or an endpoint."""

    def __init__(
        self,
        *,
        state: State,
        workers: Workers,
        processes: ProcessService,
        filesystem: FilesystemService,
        initializer: Initializer,
        bridges: Bridges,
        metrics: Metrics,
        telemetry: Telemetry,
    ) -> None:
        self._state = state
        self._initializer = initializer
        self._bridges = bridges
        self._metrics = metrics
        self._telemetry = telemetry
        self._services = {
            "process.Process": rpc.process_app(processes),
            "filesystem.Filesystem": rpc.filesystem_app(filesystem),
        }
        downloads = Downloads(state, workers)
        self._endpoints: dict[tuple[str, str], Endpoint] = {
            ("GET", "/health"): self._health,
            ("GET", "/envs"): self._envs,
            ("GET", "/metrics"): self._read_metrics,
            ("GET", "/files"): downloads.handle,
            ("HEAD", "/files"): downloads.handle,
            ("POST", "/files"): Uploads(state, workers).handle,
            ("POST", "/files/compose"): Compositions(state, workers).handle,
            ("POST", "/init"): self._init,
            ("POST", "/bridge"): self._bridge,
            ("GET", "/telemetry"): self._read_telemetry,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"unexpected ASGI scope: {scope['type']}")
        request = Request(scope, receive)
        reply = _Started(send)
        try:
            token = request.headers.get("x-access-token")
            check_token(self._state, request.method, request.path, token)
            service = self._services.get(request.path[1:].partition("/")[0])
            if service is not None:
                await service(scope, receive, reply)
            else:
                await self._endpoint(request)(request, reply)
        except ClientGoneError:
            return
        except EnvdError as error:
            await _answer(reply, error)
        except Exception as error:
            logger.exception("unexpected error in %s %s", request.method, request.path)
            await _answer(reply, InternalError(f"internal error: {error}"))

    def _endpoint(self, request: Request) -> Endpoint:
        found = self._endpoints.get((request.method, request.path))
        if found is None:
            raise NotFoundError(f"no endpoint {request.method} {request.path}")
        return found

    async def _health(self, request: Request, send: Send) -> None:
        await respond(send, 204, headers=[(b"cache-control", b"no-store")])

    async def _envs(self, request: Request, send: Send) -> None:
        await respond_json(send, 200, self._state.environment())

    async def _read_metrics(self, request: Request, send: Send) -> None:
        await respond_json(send, 200, self._metrics.read())

    async def _read_telemetry(self, request: Request, send: Send) -> None:
        kind = [(b"content-type", b"application/json")]
        await respond(send, 200, self._telemetry.handle(request), kind)

    async def _init(self, request: Request, send: Send) -> None:
        await self._initializer.handle(request)
        await respond(send, 204, headers=[(b"x-envd-version", VERSION.encode())])

    async def _bridge(self, request: Request, send: Send) -> None:
        await respond_json(send, 200, await self._bridges.handle(request))


class _Started:
    """Remembers whether a response has begun: then an error can only cut it short."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Event) -> None:
        self.begun = True
        await self._send(message)


async def _answer(reply: _Started, error: EnvdError) -> None:
    if reply.begun:
        # uvicorn closes the connection of a response that ends without its last piece, and
        # the client sees that the body is not whole.
        raise error
    await respond_error(reply, error)
