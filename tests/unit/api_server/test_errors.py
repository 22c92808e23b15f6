"""Every error has the protocol's form."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from .harness import eventually, running, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .harness import World
    from .standin import Standin


def has_form(answer: httpx.Response, status: int) -> str:
    """The message of a well-formed error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["code"] == status
    assert set(body) <= {"code", "message", "error_code"}
    message: str = body["message"]
    assert message
    return message


@pytest.mark.parametrize("path", ["/", "/nothing", "/sandboxes/a/b/c", "/v2/sandboxes/"])
async def test_unknown_paths(world: World, path: str) -> None:
    has_form(await world.http.get(path), 404)


async def test_wrong_method(world: World) -> None:
    answer = await world.http.patch("/v2/sandboxes")
    has_form(answer, 405)
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "Error when parsing request: "),
        (b"", "Error when parsing request: "),
        (b"[]", "Error when parsing request: "),
        (b'{"templateID": 1}', "templateID"),
        (b"{}", "templateID"),
        (b'{"templateID":"base","metadata":{"a":1}}', "metadata.a"),
        (b'{"templateID":"base","timeout":"soon"}', "timeout"),
        (b'{"templateID":"base","metadata":{"a":"\\u0000"}}', "NUL"),
        (b'{"templateID":"base","metadata":{"a":"\\ud800"}}', "metadata"),
        (b'{"templateID":"base","metadata":{"\\ud800":1}}', "metadata"),
        (b"\xff\xfe", ""),
    ],
)
@pytest.mark.parametrize("path", ["/sandboxes", "/v2/sandboxes"])
async def test_bodies_that_do_not_parse(world: World, path: str, body: bytes, part: str) -> None:
    answer = await world.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert part in has_form(answer, 400)


async def test_a_chunked_body_is_fine(world: World) -> None:
    async def body() -> AsyncIterator[bytes]:
        for byte in json.dumps({"templateID": "base"}).encode():
            yield bytes([byte])

    answer = await world.http.post(
        "/v2/sandboxes", content=body(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_above_the_cap(tmp_path: Path, host: Standin, announced: bool) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    settings = settings_for(tmp_path, host, max_body_bytes=1000)
    async with running(settings, host) as world:
        answer = await world.http.post(
            "/v2/sandboxes",
            content=b" " * 2000 if announced else stream(),
            headers={"Content-Type": "application/json"},
        )
        assert "1000 bytes" in has_form(answer, 413)


async def test_an_unexpected_exception(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_args: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(type(world.services.living), "get", broken)
    message = has_form(await world.http.get("/sandboxes/iabc"), 500)
    assert "secret detail" not in message
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "Invalid API key: give it in the X-API-KEY header"),
        ("nonsense", "Invalid API key format"),
        ("e2b_xyz", "Invalid API key format"),
        ("e2b_", "Invalid API key format"),
        ("e2b_" + "00" * 20, "Cannot get the team for the given API key"),
    ],
)
@pytest.mark.parametrize("path", ["/v2/sandboxes", "/sandboxes/i1", "/templates", "/sandboxes"])
async def test_keys_that_are_wrong(world: World, path: str, key: str | None, message: str) -> None:
    headers = {} if key is None else {"X-API-KEY": key}
    async with httpx.AsyncClient(base_url=world.url, headers=headers) as http:
        assert has_form(await http.get(path), 401) == message


async def test_the_key_is_checked_before_the_body(world: World) -> None:
    async with httpx.AsyncClient(base_url=world.url) as http:
        has_form(await http.post("/v2/sandboxes", content=b"{"), 401)


async def test_a_revoked_key_is_refused(world: World) -> None:
    await world.created()
    (key,) = await world.store.keys.list()
    assert await world.store.keys.revoke(key.key_id, world.now())
    clock = world.services.authenticator._clock
    world.services.authenticator._clock = lambda: clock() + timedelta(seconds=4)
    has_form(await world.create(), 401)


async def test_the_use_of_a_key_is_noted(world: World) -> None:
    await world.http.get("/v2/sandboxes")

    async def noted() -> bool:
        return (await world.store.keys.list())[0].last_used_at is not None

    await eventually(noted)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v3/templates"),
        ("GET", "/templates/t/files/abc"),
        ("POST", "/v2/templates/t/builds/b"),
        ("GET", "/templates/t/builds/b/status"),
        ("GET", "/templates/aliases/ns%2Fname"),
        ("GET", "/templates"),
        ("POST", "/templates/tags"),
        ("DELETE", "/templates/tags"),
        ("GET", "/templates/ns%2Fname/tags"),
        ("PATCH", "/v2/templates/t"),
        ("GET", "/volumes"),
        ("POST", "/volumes"),
        ("DELETE", "/volumes/v"),
        ("PUT", "/volumecontent/v/file"),
        ("GET", "/secrets"),
        ("DELETE", "/secrets/s"),
        ("GET", "/teams"),
        ("GET", "/teams/t/metrics"),
        ("GET", "/api-keys"),
        ("GET", "/nodes"),
    ],
)
async def test_parts_of_later(world: World, method: str, path: str) -> None:
    answer = await world.http.request(method, path)
    assert ": not available in Emberbox yet" in has_form(answer, 501)
    assert answer.json()["error_code"] == "not_implemented"


async def test_the_openapi_document_says_what_the_routes_do(world: World) -> None:
    document = (await world.http.get("/openapi.json")).json()
    create = document["paths"]["/v2/sandboxes"]["post"]
    assert create["operationId"] == "createSandboxV2"
    assert {"201", "400", "401", "404", "429", "500", "503"} <= set(create["responses"])
    for status in ("400", "401", "404", "429", "500", "503", "422"):
        schema = create["responses"][status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorBody"}
    answer = document["components"]["schemas"]["SandboxAnswer"]
    assert {"templateID", "sandboxID", "clientID", "envdVersion"} == set(answer["required"])
    assert "envdAccessToken" in answer["properties"]
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids)) == 24
    assert "HTTPValidationError" not in document["components"]["schemas"]
