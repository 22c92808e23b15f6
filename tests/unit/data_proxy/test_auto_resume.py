"""Traffic for a sandbox that is not there: the API server is asked, the request waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from emberbox.orchestrator.data_proxy.messages import Put, Route
from emberbox.proxying import auto_resume
from emberbox.proxying.auto_resume import ResumeClient, Traffic
from emberbox.proxying.replies import Reply
from emberbox.shared.protocol import ENVD_PORT
from tests.unit.data_proxy.stage import SECRET, Stage, guest_address, request
from tests.unit.proxying.peers import BLOCK, PATIENCE, Silent
from tests.unit.proxying.resumes import Api, RefusalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from emberbox._gen.emberbox.api.v1 import api_pb2 as pb

NOT_FOUND = b'{"sandboxId":"i1","message":"The sandbox was not found","code":502}'


class Play:
    """A stage whose worker asks an API server."""

    def __init__(self, stage: Stage, api: Api) -> None:
        self.stage = stage
        self.api = api
        self.edge = 0

    async def ask(self, *fields: str, port: int = 8000) -> tuple[int, bytes]:
        """Status and body of the answer to a GET for sandbox i1."""
        client = await self.stage.connect(self.edge)
        await client.send(request(1, port, *fields))
        answer = await client.read_message()
        return answer.status, answer.body

    async def resume(self, asked: pb.ResumeSandboxRequest) -> str:
        """Decide that sandbox i1 runs from now on."""
        self.stage.put(1)
        return "e1"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api(SECRET)
    yield api
    await api.stop()


@pytest.fixture
async def play(api: Api) -> AsyncIterator[Play]:
    client = ResumeClient(await api.start(), SECRET)
    stage = Stage(client)
    play = Play(stage, api)
    play.edge, _ = await stage.open()
    yield play
    await stage.close()
    await client.close()


async def test_the_same_request_is_served_once_it_runs(play: Play) -> None:
    guest = await play.stage.echoing_guest(1, 8000)
    play.api.decide = play.resume
    client = await play.stage.connect(play.edge)
    body = b"x" * 3000
    head = b"POST /p HTTP/1.1\r\nHost: 8000-i1.example.com\r\nContent-Length: 3000\r\n\r\n"
    for _ in range(2):
        await client.send(head + body)
        assert (await client.read_message()).body == body
    assert [seen.first_line for seen in guest.seen] == [b"POST /p HTTP/1.1"] * 2
    assert len(play.api.asked) == 1, "one that runs is not asked about"


async def test_what_is_asked(play: Play) -> None:
    await play.ask("E2B-Traffic-Access-Token: t", "X-Access-Token: e", port=ENVD_PORT)
    await play.ask()
    first, second = play.api.asked
    assert (first.sandbox_id, first.port) == ("i1", ENVD_PORT)
    assert (first.traffic_access_token, first.envd_access_token) == ("t", "e")
    assert (second.traffic_access_token, second.envd_access_token) == ("", "")


async def test_a_client_that_waits_is_not_read(play: Play) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def decide(request: pb.ResumeSandboxRequest) -> str:
        asked.set()
        await go_on.wait()
        return await play.resume(request)

    await play.stage.echoing_guest(1, 8000)
    play.api.decide = decide
    client = await play.stage.connect(play.edge)
    body = BLOCK * 20
    head = f"POST / HTTP/1.1\r\nHost: 8000-i1.example.com\r\nContent-Length: {len(body)}\r\n\r\n"
    await client.send(head.encode())
    await asked.wait()
    (waiting,) = play.stage.worker.engine.connections
    assert waiting._transport is not None
    assert not waiting._transport.is_reading()
    sending = asyncio.create_task(client.send(body))
    go_on.set()
    assert (await client.read_message()).body == body
    await sending


async def test_websocket_waits_too(play: Play) -> None:
    async def echo(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    play.api.decide = play.resume
    async with serve(echo, guest_address(1), 8765):
        headers = {"E2b-Sandbox-Id": "i1", "E2b-Sandbox-Port": "8765"}
        uri = f"ws://127.0.0.1:{play.edge}/"
        async with connect(uri, additional_headers=headers) as websocket:
            await websocket.send("hello")
            assert await websocket.recv() == "hello"


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("NOT_FOUND", 502, b"The sandbox was not found"),
        ("PERMISSION_DENIED", 403, b"can't be resumed with the credentials provided"),
        ("RESOURCE_EXHAUSTED", 429, b"Sandbox limit reached"),
        ("ABORTED", 409, b"The sandbox is still transitioning. Try again in a moment."),
        ("DEADLINE_EXCEEDED", 409, b"The sandbox is still transitioning. Try again in a moment."),
        ("UNAVAILABLE", 503, b"paused and could not be resumed now"),
        ("UNAUTHENTICATED", 503, b"paused and could not be resumed now"),
    ],
)
async def test_refusals(play: Play, code: str, status: int, text: bytes) -> None:
    async def refuse(asked: pb.ResumeSandboxRequest) -> str:
        raise RefusalError(grpc.StatusCode[code], "10.0.0.1: a secret of the host")

    play.api.decide = refuse
    told, body = await play.ask()
    assert (told, text in body) == (status, True), body
    assert body.startswith(b'{"sandboxId":"i1","message":"')
    assert body.endswith(b'"code":%d}' % status)
    assert b"secret" not in body


async def test_sdks_take_no_conflict_on_envds_port(play: Play) -> None:
    async def refuse(asked: pb.ResumeSandboxRequest) -> str:
        raise RefusalError(grpc.StatusCode.ABORTED)

    play.api.decide = refuse
    status, body = await play.ask(port=ENVD_PORT)
    assert (status, b"still transitioning" in body) == (503, True)


async def test_without_an_api_server(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_resume, "_CONNECT_WITHIN", 0.1)
    await play.stage.echoing_guest(2, 8000)
    play.stage.put(2)
    await play.api.stop()
    status, body = await play.ask()
    assert (status, b"the API server, which could resume it, does not answer" in body) == (
        503,
        True,
    )
    client = await play.stage.connect(play.edge)
    await client.send(request(2))
    assert (await client.read_message()).status == 200, "what runs needs none"


async def test_requests_at_once_ask_once(play: Play) -> None:
    go_on = asyncio.Event()

    async def decide(asked: pb.ResumeSandboxRequest) -> str:
        await go_on.wait()
        return await play.resume(asked)

    await play.stage.echoing_guest(1, 8000)
    play.api.decide = decide
    asking = [asyncio.create_task(play.ask()) for _ in range(5)]
    async with asyncio.timeout(PATIENCE):
        while len(play.stage.worker.engine.connections) < 5:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
    asking[0].cancel()
    go_on.set()
    assert [await one for one in asking[1:]] == [(200, b"")] * 4
    assert len(play.api.asked) == 1


async def test_those_who_wait_are_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    never = asyncio.Event()

    async def wait(asked: pb.ResumeSandboxRequest) -> str:
        await never.wait()
        return "e1"

    monkeypatch.setattr(auto_resume, "_MOST_WAITING", 1)
    api.decide = wait
    client = ResumeClient(await api.start(), SECRET)
    first = asyncio.create_task(client.resume(Traffic("i1", 8000)))
    await asyncio.sleep(0)
    refused = await client.resume(Traffic("i2", 8000))
    assert isinstance(refused, Reply)
    assert (refused.status, refused.retry_after) == (503, 1)
    await client.close()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_run_that_the_api_server_still_believes_in(play: Play) -> None:
    async def over(asked: pb.ResumeSandboxRequest) -> str:
        return "e1"

    play.api.decide = over
    assert await play.ask() == (502, NOT_FOUND)


async def test_one_that_is_paused_as_soon_as_it_runs(play: Play) -> None:
    runs = iter(["e1", "e2", "e3"])

    async def decide(asked: pb.ResumeSandboxRequest) -> str:
        run = next(runs)
        if run == "e3":
            play.stage.put(1, execution=run)
        return run

    await play.stage.echoing_guest(1, 8000)
    play.api.decide = decide
    assert (await play.ask())[0] == 200


async def test_one_that_does_not_come(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emberbox.orchestrator.data_proxy.resolver.PATIENCE", 0.1)
    never = asyncio.Event()

    async def wait(asked: pb.ResumeSandboxRequest) -> str:
        await never.wait()
        return "e1"

    play.api.decide = wait
    status, body = await play.ask()
    assert (status, b"still transitioning" in body) == (409, True)


async def test_the_tokens_of_a_resumed_one_hold(play: Play) -> None:
    async def decide(asked: pb.ResumeSandboxRequest) -> str:
        play.stage.put(1, token="right")
        return "e1"

    play.api.decide = decide
    status, body = await play.ask()
    assert (status, b"is missing" in body) == (403, True)


async def test_a_request_that_no_guest_got_survives_a_pause(play: Play) -> None:
    """Its port is asked for of an envd that stands still, and it goes to the next run."""
    silent = Silent(b"")
    await play.stage.guest(1, ENVD_PORT, silent)
    play.stage.put(1, execution="before")
    asking = asyncio.create_task(play.ask())
    await silent.reached.wait()
    await play.stage.echoing_guest(1, 8000)
    play.api.decide = play.resume
    play.stage.delete(1, execution="before")
    assert (await asking)[0] == 200


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 502)])
async def test_a_request_that_a_guest_got_survives_if_it_may_be_repeated(
    play: Play, method: str, status: int
) -> None:
    silent = Silent(b"")
    await play.stage.guest(1, 8000, silent)
    await play.stage.echoing_guest(2, 8000)
    play.stage.put(1, execution="before")
    client = await play.stage.connect(play.edge)
    await client.send(request(1).replace(b"GET", method.encode()))
    await silent.reached.wait()

    async def decide(asked: pb.ResumeSandboxRequest) -> str:
        address = guest_address(2)
        play.stage.worker.apply(Put(9, Route("i1", "e1", address)))
        return "e1"

    play.api.decide = decide
    play.stage.delete(1, execution="before")
    assert (await client.read_message()).status == status
    assert len(play.api.asked) == (status == 200)
