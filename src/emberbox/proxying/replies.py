"""Answers that a proxy gives itself. Their texts are part of the protocol: SDKs look for them."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from emberbox.shared.protocol import HEADER_NOT_HERE

if TYPE_CHECKING:
    from emberbox.proxying.heads import RequestHead

_BROWSER = re.compile(rb"mozilla|chrome|safari|firefox|edge|opera|msie", re.IGNORECASE)
_NOT_NAVIGATING = frozenset({b"cors", b"no-cors", b"same-origin", b"websocket"})
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{status} {reason}</title></head>
<body><h1>{reason}</h1><p>{message}</p></body>
</html>
"""

Payload = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Reply:
    """A JSON answer (a page for a browser that navigates) or, with `text`, text of `kind`.

    `json_only` answers stand for envd's, which knows no pages. `retry_after` is in seconds.
    `not_here` tells another proxy of ours that the sandbox may run on another host.
    """

    status: int
    payload: Payload | None = None
    text: str = ""
    kind: str = "text/plain"
    json_only: bool = False
    retry_after: int | None = None
    not_here: bool = False

    def to_bytes(self, request: RequestHead | None, *, close: bool) -> bytes:
        """The whole response to `request`; None when its head could not be read."""
        kind, body = self._content(request)
        retry = "" if self.retry_after is None else f"Retry-After: {self.retry_after}\r\n"
        mark = f"{HEADER_NOT_HERE}: 1\r\n" if self.not_here else ""
        ending = "Connection: close\r\n\r\n" if close else "\r\n"
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"Content-Type: {kind}; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"{retry}{mark}{ending}"
        ).encode("ascii")
        return head if request is not None and request.method == b"HEAD" else head + body

    def _content(self, request: RequestHead | None) -> tuple[str, bytes]:
        if self.payload is None:
            return self.kind, self.text.encode()
        if request is not None and not self.json_only and navigates(request):
            return "text/html", self._page().encode()
        return "application/json", _compact(self.payload)

    def _page(self) -> str:
        message = "" if self.payload is None else str(self.payload.get("message", ""))
        return _PAGE.format(
            status=self.status,
            reason=html.escape(HTTPStatus(self.status).phrase),
            message=html.escape(message),
        )


def navigates(request: RequestHead) -> bool:
    """Whether a person's browser asks for a page (protocol reference, proxy error bodies)."""
    if not _BROWSER.search(request.get(b"user-agent") or b""):
        return False
    accept = (request.get(b"accept") or b"").lower()
    if b"application/json" in accept and b"text/html" not in accept:
        return False
    mode = (request.get(b"sec-fetch-mode") or b"").lower()
    if mode in _NOT_NAVIGATING:
        return False
    return mode == b"navigate" or request.get(b"x-requested-with") is None


def not_found(sandbox_id: str) -> Reply:
    """Never existed, was killed, or is paused and does not resume by itself."""
    return _about(sandbox_id, 502, "The sandbox was not found")


def port_closed(sandbox_id: str, port: int) -> Reply:
    """Nothing listens on the port, or what does failed before it answered."""
    message = "The sandbox is running but port is not open"
    return Reply(502, {"sandboxId": sandbox_id, "message": message, "port": port, "code": 502})


def host_unreachable(sandbox_id: str) -> Reply:
    """The sandbox's host does not answer: the sandbox may well live.

    The text holds neither `was not found` nor `port is not open`, so SDKs take the sandbox for
    unreachable and not for ended.
    """
    return _about(sandbox_id, 502, "The host of the sandbox does not answer; try again")


def traffic_token_missing(sandbox_id: str) -> Reply:
    """A sandbox with closed traffic, asked without its token."""
    return _about(
        sandbox_id,
        403,
        "Sandbox is secured with traffic access token. "
        "Token header 'e2b-traffic-access-token' is missing",
    )


def traffic_token_invalid(sandbox_id: str) -> Reply:
    """A sandbox with closed traffic, asked with another token."""
    return _about(
        sandbox_id,
        403,
        "Sandbox is secured with traffic access token. "
        "Provided token in header 'e2b-traffic-access-token' is invalid",
    )


def resume_refused(sandbox_id: str) -> Reply:
    """A paused sandbox that is private, asked without its token."""
    return _about(
        sandbox_id,
        403,
        "This sandbox can't be resumed with the credentials provided. "
        "Check your access token and try again.",
    )


def sandbox_limit(sandbox_id: str) -> Reply:
    """A paused sandbox whose team may not have another that runs."""
    message = "Sandbox limit reached: the sandbox is paused and its team may not run another now"
    return _about(sandbox_id, 429, message)


def transitioning(sandbox_id: str, *, of_envd: bool) -> Reply:
    """A sandbox that is being paused or resumed and does not settle.

    From envd's port it is 503: SDKs take a 409 there for envd's own "already exists".
    """
    message = "The sandbox is still transitioning. Try again in a moment."
    return _later(_about(sandbox_id, 503 if of_envd else 409, message))


def not_resumed(sandbox_id: str) -> Reply:
    """A paused sandbox that its host cannot resume."""
    message = "The sandbox is paused and could not be resumed now. Try again in a moment."
    return _later(_about(sandbox_id, 503, message))


def nobody_resumes(sandbox_id: str) -> Reply:
    """No sandbox of this name runs, and whether one is paused cannot be asked."""
    message = (
        "The sandbox does not run, and the API server, which could resume it, does not answer. "
        "Try again in a moment."
    )
    return _later(_about(sandbox_id, 503, message))


def too_many_wait(sandbox_id: str) -> Reply:
    """More requests wait for sandboxes than a proxy holds."""
    message = "Too many requests wait for sandboxes to be resumed. Try again in a moment."
    return _later(_about(sandbox_id, 503, message))


def control_route_closed(path: str) -> Reply:
    """A route by which the host drives envd."""
    message = (
        "This endpoint is reserved for the E2B control plane "
        "and is not reachable through the sandbox URL"
    )
    return Reply(404, {"message": message, "path": path, "code": 404})


def signature_invalid() -> Reply:
    """No sandbox here signed the URL: what envd says about a wrong signature."""
    return _like_envd(401, "invalid signature")


def signature_limited(seconds: int) -> Reply:
    """Too many URLs with wrong signatures; right ones are served all the same."""
    message = f"too many requests with an invalid signature: try again in {seconds} s"
    return replace(_like_envd(429, message), retry_after=seconds)


def signed_query_too_long(most_bytes: int, most_fields: int) -> Reply:
    """A query that is refused before it costs anything."""
    return _like_envd(
        414,
        f"the query of a signed URL may have {most_bytes} bytes and {most_fields} fields at most",
    )


def signed_url_names_no_sandbox() -> Reply:
    """A signed URL to the bare address, where many hosts could have its sandbox."""
    return _like_envd(
        400,
        "the URL names no sandbox: reach the proxy by a wildcard domain "
        "(<port>-<sandboxID>.<domain>) or send the headers E2b-Sandbox-Id and E2b-Sandbox-Port",
    )


def too_many_of_sandbox(sandbox_id: str, limit: int, *, of_envd: bool) -> Reply:
    """As many requests for a sandbox as it may have at a time.

    From envd's port it is 503: SDKs take a 429 there for the end of the sandbox.
    """
    message = f"The sandbox has too many concurrent incoming connections (limit: {limit})"
    status = 503 if of_envd else 429
    reply = _about(sandbox_id, status, message)
    return _later(replace(reply, payload={**(reply.payload or {}), "connectionLimit": limit}))


def too_many_of_client(limit: int) -> Reply:
    """As many connections of a client as it may have."""
    message = f"Your address has too many connections to this proxy (limit: {limit})"
    return _later(Reply(429, {"message": message, "code": 429, "connectionLimit": limit}))


def full() -> Reply:
    """As many connections as the proxy may have."""
    message = "The proxy has as many connections as it can hold. Try again in a moment."
    return _later(Reply(503, {"message": message, "code": 503}))


def internal_only() -> Reply:
    """A caller of an internal port that does not show the programs' shared secret."""
    return Reply(403, {"message": "This port serves the client proxy only", "code": 403})


def internal_error() -> Reply:
    """A defect of ours; the log has it."""
    return Reply(500, {"message": "The proxy failed to route the request", "code": 500})


def _about(sandbox_id: str, status: int, message: str) -> Reply:
    return Reply(status, {"sandboxId": sandbox_id, "message": message, "code": status})


def _later(reply: Reply) -> Reply:
    return replace(reply, retry_after=1)


def _like_envd(status: int, message: str) -> Reply:
    return Reply(status, {"code": status, "message": message}, json_only=True)


def _compact(payload: Payload) -> bytes:
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
