"""Signed file URLs that name no sandbox, through both proxies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import pytest
from e2b.sandbox.signature import get_signature

from emberbox.orchestrator.data_proxy.messages import Route
from emberbox.orchestrator.data_proxy.signatures import Signature
from emberbox.proxying.heads import parse_request_head
from emberbox.proxying.signed_urls import MOST_QUERY_BYTES, MOST_QUERY_FIELDS
from tests.unit.data_proxy.stage import ENVD_TEST_PORT, SECRET, Stage, inner_request

if TYPE_CHECKING:
    from tests.unit.proxying.peers import Backend, Connection, Message

SANDBOXES = (1, 2, 3)
WRONG = "/files?path=a&signature=v1_" + "A" * 43
REFUSED = b'{"code":401,"message":"invalid signature"}'


def token_of(number: int) -> str:
    return f"token-{number}"


def url(
    number: int,
    path: str = "/home/user/a b",
    operation: str = "read",
    user: str | None = None,
    expires_in: int | None = None,
) -> str:
    """The target of a signed URL as the official SDK makes it."""
    made = get_signature(path, operation, user, token_of(number), expires_in)  # type: ignore[arg-type]
    query = {
        "path": path,
        "username": user,
        "signature": made["signature"],
        "signature_expiration": made["expiration"],
    }
    given = {key: value for key, value in query.items() if value not in (None, "")}
    return "/files?" + urlencode(given, quote_via=quote)


def plain(target: str, method: str = "GET", *fields: str) -> bytes:
    """A request of a client that knows nothing but the URL."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1:3002", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def open_three(stage: Stage) -> tuple[Connection, dict[int, Backend]]:
    """A client, and the envds of three sandboxes; a fourth is open to all."""
    edge, _ = await stage.open()
    guests = {number: await stage.echoing_guest(number, ENVD_TEST_PORT) for number in SANDBOXES}
    stage.put(9)
    for number in SANDBOXES:
        stage.put(number, token="closed traffic", envd_token=token_of(number))
    return await stage.connect(edge), guests


async def ask(client: Connection, data: bytes, *, bodiless: bool = False) -> Message:
    await client.send(data)
    return await client.read_message(bodiless=bodiless)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", url(2)),
        ("GET", url(2, user="root", expires_in=60)),
        ("GET", url(2, path="/é%20?&=+:/x")),
        ("GET", url(2, expires_in=-60)),
        ("HEAD", url(2)),
        ("POST", url(2, operation="write")),
        ("POST", url(2, path="", operation="write")),
        ("OPTIONS", url(2)),
        ("OPTIONS", url(2, operation="write")),
    ],
)
async def test_url_reaches_the_sandbox_whose_token_signed_it(
    stage: Stage, method: str, target: str
) -> None:
    client, guests = await open_three(stage)
    answer = await ask(client, plain(target, method), bodiless=method == "HEAD")
    assert answer.status == 200
    assert [len(guest.seen) for guest in guests.values()] == [0, 1, 0]
    (seen,) = guests[2].seen
    assert seen.first_line == f"{method} {target} HTTP/1.1".encode()
    assert seen.fields == [(b"Host", b"127.0.0.1:3002")], "envd sees nothing of ours"


async def test_upload_carries_its_body(stage: Stage) -> None:
    client, guests = await open_three(stage)
    data = plain(url(3, operation="write"), "POST", "Content-Length: 5") + b"hello"
    assert (await ask(client, data)).body == b"hello"
    assert guests[3].seen[0].body == b"hello"


async def test_plus_that_was_not_encoded_is_understood(stage: Stage) -> None:
    client, _ = await open_three(stage)
    targets = (url(1, path=f"/{number}") for number in range(1000))
    target = next(target for target in targets if "%2B" in target)
    assert (await ask(client, plain(target.replace("%2B", "+")))).status == 200


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", WRONG),
        ("GET", "/files?signature="),
        ("GET", "/files?signature=v2_x&path=a"),
        ("GET", "/files?signature=v1_%ff%00"),
        ("GET", "/files?signature=v1_" + "A" * 44),
        ("GET", url(2) + "&signature_expiration=99999999999"),
        ("GET", url(2) + "&username=root"),
        ("GET", url(2, operation="write")),
        ("POST", url(2)),
        ("GET", url(7)),
    ],
)
async def test_url_that_nobody_signed_is_refused_as_envd_does(
    stage: Stage, method: str, target: str
) -> None:
    client, guests = await open_three(stage)
    answer = await ask(client, plain(target, method, "User-Agent: Mozilla/5.0"))
    assert (answer.status, answer.body) == (401, REFUSED)
    assert answer.get("content-type") == b"application/json; charset=utf-8"
    assert not any(guest.seen for guest in guests.values())


async def test_ended_sandbox_signs_nothing_any_more(stage: Stage) -> None:
    client, _ = await open_three(stage)
    stage.delete(2)
    assert (await ask(client, plain(url(2)))).status == 401


@pytest.mark.parametrize(
    ("method", "target", "host"),
    [
        ("PUT", WRONG, "127.0.0.1"),
        ("DELETE", WRONG, "127.0.0.1"),
        ("GET", WRONG.replace("/files", "/files/"), "127.0.0.1"),
        ("GET", WRONG.replace("/files", "//files"), "127.0.0.1"),
        ("GET", WRONG.replace("/files", "/%66iles"), "127.0.0.1"),
        ("GET", "/files?path=a", "127.0.0.1"),
        ("GET", "/files?path=signature=v1_x", "127.0.0.1"),
        ("GET", url(2), "49983-UPPER_.example.com"),
    ],
)
async def test_no_other_request_is_taken_for_one(
    stage: Stage, method: str, target: str, host: str
) -> None:
    client, guests = await open_three(stage)
    data = plain(target, method).replace(b"127.0.0.1:3002", host.encode())
    answer = await ask(client, data)
    assert (answer.status, answer.get("content-type")) == (400, b"text/plain; charset=utf-8")
    assert not any(guest.seen for guest in guests.values())


async def test_named_sandbox_is_the_one_that_is_asked(stage: Stage) -> None:
    client, guests = await open_three(stage)
    named = ["E2b-Sandbox-Id: i1", f"E2b-Sandbox-Port: {ENVD_TEST_PORT}"]
    assert (await ask(client, plain(url(2), "GET", *named))).status == 200
    assert [len(guest.seen) for guest in guests.values()] == [1, 0, 0], "envd judges for itself"


async def test_clients_cannot_forge_the_mark(stage: Stage) -> None:
    client, _ = await open_three(stage)
    answer = await ask(client, plain(url(1), "GET", "X-Emberbox-Signed-Url-From: 10.9.9.9"))
    assert answer.status == 200
    answer = await ask(client, plain("/health", "GET", "X-Emberbox-Signed-Url-From: 10.9.9.9"))
    assert answer.status == 400


@pytest.mark.parametrize(
    "more", ["&x=" + "y" * MOST_QUERY_BYTES, "&a" * MOST_QUERY_FIELDS], ids=["bytes", "fields"]
)
async def test_query_that_would_cost_too_much_is_refused(stage: Stage, more: str) -> None:
    client, _ = await open_three(stage)
    answer = await ask(client, plain(url(1) + more))
    assert (answer.status, json.loads(answer.body)["code"]) == (414, 414)


async def test_failures_are_limited_and_right_signatures_never(stage: Stage) -> None:
    client, _ = await open_three(stage)
    statuses = [(await ask(client, plain(WRONG))).status for _ in range(25)]
    assert statuses[:20] == [401] * 20
    assert statuses[-1] == 429
    limited = await ask(client, plain(WRONG))
    assert int(limited.get("retry-after") or b"0") >= 1
    assert json.loads(limited.body)["code"] == 429
    for _ in range(30):
        assert (await ask(client, plain(url(1)))).status == 200


async def test_one_clients_failures_are_not_anothers(stage: Stage) -> None:
    _, worker = await stage.open()
    client = await stage.connect(worker)

    async def fail(peer: str) -> int:
        mark = f"X-Emberbox-Signed-Url-From: {peer}"
        return (await ask(client, inner_request(1, 1, mark, path=WRONG))).status

    assert [await fail("10.0.0.1") for _ in range(25)][-1] == 429
    assert await fail("10.0.0.2") == 401


async def test_mark_without_the_secret_is_nothing(stage: Stage) -> None:
    _, worker = await stage.open()
    client = await stage.connect(worker)
    answer = await ask(client, plain(url(1), "GET", "X-Emberbox-Signed-Url-From: 10.0.0.1"))
    assert answer.status == 403
    assert SECRET.encode() not in answer.body


def test_each_token_is_tried_with_one_hash_and_no_more() -> None:
    """What bounds the cost: the query is hashed once, however many sandboxes there are."""
    routes = [Route(f"i{n}", "e", "10.0.0.1", None, token_of(n)) for n in range(1000)]
    signature = Signature.of(parse_request_head(plain(url(999))))
    assert signature is not None
    assert len(signature.around_token) == 1
    assert signature.find_signer(routes) is routes[999]
    assert signature.find_signer(routes[:999]) is None
