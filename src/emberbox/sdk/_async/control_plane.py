"""Requests to the control plane."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx2

from emberbox.sdk.error_mapping import api_exception, api_unreachable, request_timed_out
from emberbox.sdk.errors import SandboxException, SandboxNotFoundException
from emberbox.sdk.json_fields import parse_object, parse_objects
from emberbox.sdk.metrics_models import SandboxMetrics, range_parameters
from emberbox.sdk.retry import TOTAL_WITHOUT_TIMEOUT_SECONDS, idempotency_key, retry_delay
from emberbox.sdk.sandbox_models import SandboxAccess, SandboxInfo, connect_body
from emberbox.sdk.snapshot_models import SnapshotInfo, fork_result
from emberbox.sdk.transport_options import BROKEN, TIMED_OUT, limits

from .flavour import sleep
from .transport import PooledTransport

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from emberbox.sdk.config import ConnectionConfig
    from emberbox.sdk.json_fields import JsonObject
    from emberbox.sdk.sandbox_models import SandboxOnResume


class AsyncControlPlane:
    """The control plane with one configuration. Raises AuthenticationException without a key.

    Every method can raise AuthenticationException, RateLimitException, ServiceBusyException,
    TimeoutException, ApiUnreachableException and, for other refusals, SandboxException.
    """

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._http = httpx2.AsyncClient(
            base_url=config.api_url,
            headers={**config.headers, "X-API-KEY": config.require_api_key()},
            transport=PooledTransport(config.proxy),
        )

    async def create(self, body: Mapping[str, object], key: str | None) -> SandboxAccess:
        """Create a sandbox; `key` is the idempotency key, without which a fresh one is used."""
        headers = {"Idempotency-Key": idempotency_key(key)}
        response = await self._request("POST", "/v2/sandboxes", json=body, headers=headers)
        return SandboxAccess.from_json(parse_object(response.content, "the answer to create"))

    async def connect(
        self, sandbox_id: str, timeout: int | None, on_resume: SandboxOnResume
    ) -> SandboxAccess:
        """Resume the sandbox if it is paused; its tokens. Raises SandboxNotFoundException."""
        path = f"/v2/sandboxes/{_segment(sandbox_id)}/connect"
        body = connect_body(timeout, on_resume)
        missing = f"Paused sandbox {sandbox_id} not found"
        response = await self._request("POST", path, json=body, missing=missing)
        return SandboxAccess.from_json(parse_object(response.content, "the answer to connect"))

    async def info(self, sandbox_id: str) -> SandboxInfo:
        """The sandbox's details. Raises SandboxNotFoundException."""
        path = f"/sandboxes/{_segment(sandbox_id)}"
        response = await self._request("GET", path, missing=f"Sandbox {sandbox_id} not found")
        return SandboxInfo.from_json(parse_object(response.content, "the sandbox's details"))

    async def kill(self, sandbox_id: str) -> bool:
        """End the sandbox; False when there is none."""
        path = f"/sandboxes/{_segment(sandbox_id)}"
        return await self._delete(path, f"Sandbox {sandbox_id} not found")

    async def set_timeout(self, sandbox_id: str, timeout: int) -> None:
        """Let the sandbox end in `timeout` seconds. Raises SandboxNotFoundException."""
        path = f"/sandboxes/{_segment(sandbox_id)}/timeout"
        missing = f"Sandbox {sandbox_id} not found"
        await self._request("POST", path, json={"timeout": timeout}, missing=missing)

    async def metrics(
        self, sandbox_id: str, start: datetime | None, end: datetime | None
    ) -> list[SandboxMetrics]:
        """Samples of what the sandbox used, oldest first. Raises SandboxNotFoundException."""
        path = f"/sandboxes/{_segment(sandbox_id)}/metrics"
        missing = f"Sandbox {sandbox_id} not found"
        parameters = range_parameters(start, end)
        response = await self._request("GET", path, params=parameters, missing=missing)
        samples = parse_objects(response.content, "the sandbox's metrics")
        return [SandboxMetrics.from_json(sample) for sample in samples]

    async def pause(self, sandbox_id: str, body: Mapping[str, object]) -> bool:
        """Pause the sandbox; False when it is paused. Raises SandboxNotFoundException."""
        path = f"/sandboxes/{_segment(sandbox_id)}/pause"
        missing = f"Sandbox {sandbox_id} not found"
        try:
            await self._request("POST", path, json=body, missing=missing)
        except SandboxException as refused:
            if refused.status_code == 409:
                return False
            raise
        return True

    async def fork(
        self, sandbox_id: str, body: Mapping[str, object]
    ) -> list[SandboxAccess | Exception]:
        """Start children of the sandbox: each, or why it did not start.

        Raises SandboxNotFoundException.
        """
        path = f"/sandboxes/{_segment(sandbox_id)}/fork"
        missing = f"Sandbox {sandbox_id} not found"
        response = await self._request("POST", path, json=body, missing=missing, once=True)
        return [fork_result(one) for one in parse_objects(response.content, "the answer to fork")]

    async def create_snapshot(self, sandbox_id: str, body: Mapping[str, object]) -> SnapshotInfo:
        """Make a snapshot of the sandbox. Raises SandboxNotFoundException."""
        path = f"/sandboxes/{_segment(sandbox_id)}/snapshots"
        missing = f"Sandbox {sandbox_id} not found"
        response = await self._request("POST", path, json=body, missing=missing, once=True)
        return SnapshotInfo.from_json(parse_object(response.content, "the snapshot"))

    async def delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete the snapshot; False when there is none."""
        path = f"/templates/{_segment(snapshot_id)}"
        return await self._delete(path, f"Snapshot {snapshot_id} not found")

    async def page(
        self, path: str, parameters: Mapping[str, str]
    ) -> tuple[list[JsonObject], str | None]:
        """One page of a list, and the token of the next page if there is one."""
        response = await self._request("GET", path, params=parameters)
        token = response.headers.get("x-next-token") or None
        return parse_objects(response.content, f"the list at {path}"), token

    async def _delete(self, path: str, missing: str) -> bool:
        try:
            await self._request("DELETE", path, missing=missing)
        except SandboxNotFoundException:
            return False
        return True

    async def _request(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        missing: str | None = None,
        once: bool = False,
    ) -> httpx2.Response:
        """The answer, after repeats while the server refuses for now; `missing` explains a 404.

        With `once` a request whose answer was lost is not sent again. All attempts and waits
        together stay within the request timeout.
        """
        allowed = self._config.request_timeout or TOTAL_WITHOUT_TIMEOUT_SECONDS
        deadline = time.monotonic() + allowed
        for attempt in range(self._config.retries + 1):
            left = deadline - time.monotonic()
            limit = left if self._config.request_timeout or attempt else None
            response = await self._send(
                self._http.build_request(
                    method, path, json=json, params=params, headers=headers, timeout=limits(limit)
                ),
                once=once,
            )
            delay = retry_delay(response.status_code, response.headers, attempt)
            last = attempt == self._config.retries
            if last or delay is None or time.monotonic() + delay >= deadline:
                break
            await sleep(delay)
        if response.status_code == 404 and missing is not None:
            raise SandboxNotFoundException(missing, status_code=404)
        if not response.is_success:
            raise api_exception(response.status_code, response.content)
        return response

    async def _send(self, request: httpx2.Request, *, once: bool) -> httpx2.Response:
        self._config.log("Request %s %s", request.method, request.url)
        send = self._http.send if once else self._send_again_if_broken
        try:
            response = await send(request)
        except TIMED_OUT as error:
            raise request_timed_out() from error
        except httpx2.TransportError as error:
            raise api_unreachable(self._config.api_url, error) from error
        self._config.log("Response %s", response.status_code)
        return response

    async def _send_again_if_broken(self, request: httpx2.Request) -> httpx2.Response:
        """Nearly every request can be sent twice: a create has its key, others set a state."""
        try:
            return await self._http.send(request)
        except BROKEN:
            return await self._http.send(request)


def _segment(text: str) -> str:
    return quote(text, safe="")
