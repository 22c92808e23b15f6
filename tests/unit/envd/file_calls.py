"""Calls of /files, and the form of their refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

    from tests.unit.envd.conftest import Client

OCTETS = {"content-type": "application/octet-stream"}


def put(client: Client, path: object, content: Any, **headers: str) -> httpx2.Response:
    named = OCTETS | {name.replace("_", "-"): value for name, value in headers.items()}
    given = [(name.encode(), value.encode()) for name, value in named.items()]
    return client.post("/files", params={"path": str(path)}, content=content, headers=given)


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    body = answer.json()
    assert body.keys() == {"code", "message"}
    assert body["code"] == answer.status_code
    return body["code"], body["message"]
