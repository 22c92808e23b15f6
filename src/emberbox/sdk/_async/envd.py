"""Requests to the daemon in one sandbox, through the client proxy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx2

from emberbox.sdk.connect_protocol import RpcError, call_headers, encode_frame, encode_message
from emberbox.sdk.error_mapping import (
    HTTP_ERRORS,
    RPC_ERRORS,
    Health,
    health_of_response,
    http_exception,
    is_ambiguous,
    lost_connection,
    request_timed_out,
    rpc_error_of_response,
    rpc_exception,
)
from emberbox.sdk.json_fields import JsonObject, parse_object
from emberbox.sdk.transport_options import BROKEN, TIMED_OUT, limits

from .event_stream import AsyncEventStream
from .transport import PooledTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from emberbox.sdk.config import ConnectionConfig
    from emberbox.sdk.error_mapping import ErrorTable, StatusTable
    from emberbox.sdk.upload_data import FormFile

HEALTH_SECONDS = 5.0
STREAM_MARGIN_SECONDS = 15.0
"""The server ends a stream at its timeout; this much later the client stops believing in it."""


class AsyncEnvd:
    """The daemon's Connect calls and plain HTTP requests, with errors as users see them."""

    def __init__(self, config: ConnectionConfig, base_url: str, headers: Mapping[str, str]) -> None:
        self._config = config
        self._http = httpx2.AsyncClient(
            base_url=base_url,
            headers={"User-Agent": config.headers["User-Agent"], **headers},
            transport=PooledTransport(config.proxy),
        )

    async def call(
        self,
        procedure: str,
        message: Mapping[str, object],
        *,
        user: str | None = None,
        request_timeout: float | None = None,
        errors: ErrorTable = RPC_ERRORS,
    ) -> JsonObject:
        """One unary call; `procedure` is `package.Service/Method`."""
        limit = self._config.timeout(request_timeout)
        request = self._http.build_request(
            "POST",
            f"/{procedure}",
            content=encode_message(message),
            headers=call_headers(streaming=False, timeout=limit, user=user),
            timeout=limits(limit),
        )
        response = await self._send(request)
        if response.status_code != 200:
            error = rpc_error_of_response(response.status_code, response.content)
            raise await self._explain(error, errors)
        return parse_object(response.content or b"{}", f"the answer of {procedure}")

    async def stream(
        self,
        procedure: str,
        message: Mapping[str, object],
        *,
        user: str | None = None,
        timeout: float | None,
        errors: ErrorTable = RPC_ERRORS,
    ) -> AsyncEventStream:
        """One server stream, limited to `timeout` seconds; None or 0 for no limit."""
        return await self._open_stream(
            procedure, encode_frame(message), user=user, timeout=timeout, errors=errors
        )

    async def send_stream(
        self,
        procedure: str,
        messages: AsyncIterator[Mapping[str, object]],
        *,
        timeout: float | None,
    ) -> None:
        """One client stream whose answer says nothing but that all of it was taken.

        An error is raised when the messages have ended, or when sending fails because of it.
        """
        deadline = time.monotonic() + timeout if timeout else None

        async def frames() -> AsyncIterator[bytes]:
            async for message in messages:
                if deadline is not None and time.monotonic() > deadline:
                    raise request_timed_out("timeout")
                yield encode_frame(message)

        answers = await self._open_stream(
            procedure, frames(), user=None, timeout=timeout, errors=RPC_ERRORS
        )
        try:
            async for _answer in answers:
                pass
        finally:
            await answers.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: AsyncIterator[bytes] | None = None,
        files: Sequence[FormFile] | None = None,
        timeout: httpx2.Timeout,
        stream: bool = False,
        errors: StatusTable = HTTP_ERRORS,
    ) -> httpx2.Response:
        """One plain HTTP request; answers other than 2xx are raised."""
        request = self._http.build_request(
            method,
            path,
            params=params,
            headers=headers,
            content=content,
            files=files,
            timeout=timeout,
        )
        response = await self._send(request, stream=stream)
        if not response.is_success:
            body = await self._read_rest(response)
            raise http_exception(response.status_code, body, errors)
        return response

    def request_limit(self, request_timeout: float | None) -> float | None:
        """Seconds that a request may take, given what its caller said; None for no limit."""
        return self._config.timeout(request_timeout)

    async def is_healthy(self, request_timeout: float | None = None) -> bool:
        """Whether the sandbox runs: False when the proxy knows none or its daemon is away.

        Raises what any request would for other answers, and TimeoutException without one.
        """
        try:
            response = await self._get_health(self._config.timeout(request_timeout))
        except httpx2.TransportError as error:
            raise await self.explain_lost(error) from error
        if response.status_code == 502:
            return False
        if not response.is_success:
            raise http_exception(response.status_code, response.content)
        return True

    async def explain_lost(self, error: httpx2.TransportError) -> Exception:
        """What to raise for a connection that failed: the sandbox's health decides."""
        if isinstance(error, TIMED_OUT):
            return request_timed_out()
        return lost_connection(error, await self._health())

    async def _open_stream(
        self,
        procedure: str,
        content: bytes | AsyncIterator[bytes],
        *,
        user: str | None,
        timeout: float | None,
        errors: ErrorTable,
    ) -> AsyncEventStream:
        limit = timeout + STREAM_MARGIN_SECONDS if timeout else None
        request = self._http.build_request(
            "POST",
            f"/{procedure}",
            content=content,
            headers=call_headers(streaming=True, timeout=timeout, user=user),
            timeout=limits(limit, connect=self._config.request_timeout),
        )
        response = await self._send(request, stream=True)
        if response.status_code != 200:
            body = await self._read_rest(response)
            raise await self._explain(rpc_error_of_response(response.status_code, body), errors)

        async def explain(error: Exception) -> Exception:
            return await self._explain(error, errors)

        return AsyncEventStream(response, explain, limit)

    async def _send(self, request: httpx2.Request, *, stream: bool = False) -> httpx2.Response:
        self._config.log("Request %s %s", request.method, request.url)
        try:
            response = await self._http.send(request, stream=stream)
        except httpx2.TransportError as error:
            raise await self.explain_lost(error) from error
        self._config.log("Response %s", response.status_code)
        return response

    async def _read_rest(self, response: httpx2.Response) -> bytes:
        try:
            return await response.aread()
        except httpx2.TransportError as error:
            raise await self.explain_lost(error) from error
        finally:
            await response.aclose()

    async def _explain(self, error: Exception, errors: ErrorTable) -> Exception:
        if isinstance(error, httpx2.TransportError):
            return await self.explain_lost(error)
        if not isinstance(error, RpcError):
            return error
        if is_ambiguous(error):
            health = await self._health()
            if health in (Health.GONE, Health.NO_ANSWER, Health.PORT_CLOSED):
                return lost_connection(error, health)
        return rpc_exception(error, errors)

    async def _health(self) -> Health:
        try:
            response = await self._get_health(HEALTH_SECONDS)
        except httpx2.TransportError:
            return Health.NO_ANSWER
        return health_of_response(response.status_code, response.content)

    async def _get_health(self, limit: float | None) -> httpx2.Response:
        """Ask once more if the connection broke: a kept one may have died with the sandbox."""
        try:
            return await self._http.get("/health", timeout=limits(limit))
        except BROKEN:
            return await self._http.get("/health", timeout=limits(limit))
