"""Making, finding and ending sandboxes with the official Python package."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from e2b import (
    AuthenticationException,
    FileNotFoundException,
    InvalidArgumentException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
    SandboxQuery,
    SandboxState,
    TimeoutException,
)

from tests.compatibility.covering import covers, covers_error
from tests.compatibility.flavours import Sdk, eventually
from tests.stack import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

WRONG_KEY = "e2b_" + "0" * 40
NO_SANDBOX = "i00000000000000000000"


@pytest.mark.smoke
@covers("Sandbox.create", "Sandbox.get_info")
async def test_create_with_everything(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    box = await new_box(
        "base",
        timeout=200,
        metadata={"purpose": "all options"},
        envs={"GREETING": "hello"},
        secure=True,
        allow_internet_access=False,
        lifecycle={"on_timeout": "kill"},
        idempotency_key=f"all-options-{sdk.flavour}",
    )
    info = await box.get_info()
    assert (info.sandbox_id, info.name) == (box.sandbox_id, "base")
    assert info.metadata == {"purpose": "all options"}
    assert info.state == SandboxState.RUNNING
    assert info.end_at - info.started_at > timedelta(seconds=150)
    assert (info.cpu_count, info.memory_mb) == (2, 512)
    assert (await box.commands.run("echo $GREETING")).stdout == "hello\n"


@covers("Sandbox.create")
async def test_one_idempotency_key_makes_one_sandbox(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    key = f"once-{sdk.flavour}"
    first = await new_box(idempotency_key=key)
    second = await new_box(idempotency_key=key)
    assert second.sandbox_id == first.sandbox_id


@pytest.mark.smoke
@covers("Sandbox.connect")
async def test_connect_extends_and_never_shortens(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    box = await new_box(timeout=200)
    before = (await box.get_info()).end_at
    again = await sdk.Sandbox.connect(box.sandbox_id, timeout=10)
    assert (await again.get_info()).end_at == before
    assert (await again.commands.run("echo again")).stdout == "again\n"
    await box.connect(timeout=400)
    assert (await box.get_info()).end_at > before


@covers("Sandbox.get_info", "Sandbox.set_timeout", "Sandbox.kill")
async def test_by_id_as_by_object(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    sandbox_id = (await new_box()).sandbox_id
    await sdk.Sandbox.set_timeout(sandbox_id, 500)
    end_at = (await sdk.Sandbox.get_info(sandbox_id)).end_at
    assert end_at - datetime.now(UTC) > timedelta(seconds=400)
    assert await sdk.Sandbox.kill(sandbox_id) is True
    assert await sdk.Sandbox.kill(sandbox_id) is False


@covers("Sandbox.set_timeout", "Sandbox.is_running")
async def test_a_timeout_may_be_shortened_and_ends_the_sandbox(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    assert await box.is_running()
    await box.set_timeout(1)

    async def gone() -> bool:
        return not await box.is_running()

    await eventually(gone)


@covers("Sandbox.kill", "Sandbox.is_running")
@covers_error(SandboxNotFoundException, "Sandbox.get_info", "Sandbox.set_timeout")
@covers_error(SandboxNotFoundException, "Sandbox.connect")
async def test_a_killed_sandbox_is_found_no_more(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    assert await box.kill() is True
    assert await box.kill() is False
    assert not await box.is_running()
    for call in (box.get_info(), box.set_timeout(10), box.connect()):
        with pytest.raises(SandboxNotFoundException, match=box.sandbox_id):
            await call


@pytest.mark.smoke
@covers("Sandbox.list", "SandboxPaginator.next_items")
async def test_list_page_by_page(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    metadata = {"list of": f"odd/{sdk.flavour}&=%"}
    made = [(await new_box(metadata=metadata)).sandbox_id for _ in range(3)]

    async def listed(**options: Any) -> list[str]:
        query = SandboxQuery(metadata=metadata, **options.pop("query", {}))
        pages = await sdk.Sandbox.list(query=query, **options)
        found = []
        while pages.has_next:
            items = await pages.next_items()
            assert len(items) <= options.get("limit", 100)
            found += [item.sandbox_id for item in items]
        return found

    assert await listed() == made[::-1]
    assert await listed(limit=1) == made[::-1]
    assert await listed(limit=2, order="asc") == made
    assert await listed(query={"state": [SandboxState.RUNNING], "template": "base"}) == made[::-1]
    assert await listed(query={"state": [SandboxState.PAUSED]}) == []
    assert await listed(query={"template": "no-such"}) == []
    assert await listed(query={"started_after": datetime.now(UTC)}) == []


@covers_error(InvalidArgumentException, "SandboxPaginator.next_items")
async def test_an_order_that_there_is_not(sdk: Sdk) -> None:
    pages = await sdk.Sandbox.list(order="sideways")
    with pytest.raises(InvalidArgumentException, match="asc"):
        await pages.next_items()


@covers_error(SandboxException, "SandboxPaginator.next_items")
async def test_a_page_token_of_somebody_else(sdk: Sdk) -> None:
    pages = await sdk.Sandbox.list(next_token="not one of ours")
    with pytest.raises(SandboxException, match="400: Invalid next token"):
        await pages.next_items()


@covers_error(AuthenticationException, "Sandbox.create", "Sandbox.connect", "Sandbox.get_info")
@covers_error(AuthenticationException, "Sandbox.kill", "Sandbox.set_timeout")
@covers_error(AuthenticationException, "Sandbox.get_metrics", "SandboxPaginator.next_items")
async def test_a_wrong_key(sdk: Sdk) -> None:
    options = {"api_key": WRONG_KEY}
    pages = await sdk.Sandbox.list()
    for call in (
        sdk.Sandbox.create(**options),
        sdk.Sandbox.connect(NO_SANDBOX, **options),
        sdk.Sandbox.get_info(NO_SANDBOX, **options),
        sdk.Sandbox.kill(NO_SANDBOX, **options),
        sdk.Sandbox.set_timeout(NO_SANDBOX, 10, **options),
        sdk.Sandbox.get_metrics(NO_SANDBOX, **options),
        pages.next_items(**options),
    ):
        with pytest.raises(AuthenticationException, match="401"):
            await call


@covers_error(AuthenticationException, "Sandbox.create")
async def test_no_key_at_all(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2B_API_KEY")
    with pytest.raises(AuthenticationException, match="API key"):
        await sdk.Sandbox.create()


@covers_error(InvalidArgumentException, "Sandbox.create")
async def test_arguments_that_the_package_refuses(sdk: Sdk) -> None:
    with pytest.raises(InvalidArgumentException, match=r"(?i)idempotency"):
        await sdk.Sandbox.create(idempotency_key="Not Allowed")


@covers_error(SandboxException, "Sandbox.create")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "no-such"}, "404: template 'no-such' not found"),
        ({"template": "base:none"}, "404: tag 'none' does not exist for template 'base'"),
        ({"template": "No Name!"}, "400: Invalid template reference"),
        ({"timeout": 0}, "400: Timeout must be greater than 0"),
        ({"timeout": 10**9}, "400: Timeout cannot be greater than"),
        ({"metadata": {"key": "x" * 300_000}}, "400: metadata"),
    ],
)
async def test_arguments_that_the_server_refuses(
    sdk: Sdk, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SandboxException, match=message):
        await sdk.Sandbox.create(**options)


@covers_error(RateLimitException, "Sandbox.create")
async def test_more_sandboxes_than_the_team_may_have(sdk: Sdk, stack: Stack) -> None:
    team = stack.sdk_of_new_team("--concurrent-sandboxes", "0")
    with pytest.raises(RateLimitException, match="429"):
        await sdk.Sandbox.create(api_key=team["api_key"], retries=0)


@covers_error(SandboxException, "Sandbox.connect", "Sandbox.set_timeout")
async def test_longer_than_a_sandbox_may_live(stack: Stack, sdk: Sdk) -> None:
    team = {"api_key": stack.sdk_of_new_team("--max-length-hours", "1")["api_key"]}
    box = await sdk.Sandbox.create(**team)
    try:
        for call in (box.connect(timeout=7200), box.set_timeout(7200)):
            with pytest.raises(SandboxException, match="400: Timeout cannot be greater than 1"):
                await call
    finally:
        await box.kill()


@covers_error(InvalidArgumentException, "Sandbox.connect")
async def test_a_way_to_resume_that_there_is_not(box: Any) -> None:
    with pytest.raises(InvalidArgumentException):
        await box.connect(on_resume="sideways")


@covers_error(TimeoutException, "Sandbox.is_running")
async def test_a_proxy_that_does_not_answer(box: Any, stack: Stack) -> None:
    with frozen(stack.pid_of("client-proxy")), pytest.raises(TimeoutException, match="timed out"):
        await box.is_running(request_timeout=0.5)


@covers("Sandbox.get_host")
async def test_a_port_of_the_sandbox(box: Any, stack: Stack) -> None:
    host = await box.get_host(8000)
    assert host.startswith(f"8000-{box.sandbox_id}.")
    await box.files.write("served/index.html", "from inside")
    await box.commands.run("cd served && python3 -m http.server 8000", background=True)
    async with httpx.AsyncClient(base_url=stack.sdk["sandbox_url"], timeout=60) as client:

        async def answers() -> bool:
            answer = await client.get("/", headers={"Host": host})
            return (answer.status_code, answer.text) == (200, "from inside")

        await eventually(answers)


@covers_error("502 while nothing listens", "Sandbox.get_host")
async def test_a_port_that_nothing_listens_on(box: Any, stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.sdk["sandbox_url"], timeout=60) as client:
        answer = await client.get("/", headers={"Host": await box.get_host(8001)})
    assert answer.status_code == 502
    assert answer.json() == {
        "sandboxId": box.sandbox_id,
        "message": "The sandbox is running but port is not open",
        "port": 8001,
        "code": 502,
    }


@covers_error("403 without the traffic token", "Sandbox.get_host")
async def test_a_port_behind_a_token(new_box: Callable[..., Any], stack: Stack) -> None:
    box = await new_box(network={"allow_public_traffic": False})
    host = {"Host": await box.get_host(8001)}
    token = {"e2b-traffic-access-token": box.traffic_access_token}
    async with httpx.AsyncClient(base_url=stack.sdk["sandbox_url"], timeout=60) as client:
        assert (await client.get("/", headers=host)).status_code == 403
        assert (await client.get("/", headers={**host, **token})).status_code == 502
    assert (await box.commands.run("echo envd needs none")).stdout == "envd needs none\n"


@covers("Sandbox.get_mcp_url", "Sandbox.get_mcp_token")
async def test_where_the_mcp_gateway_would_be(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    assert await box.get_mcp_url() == f"https://{await box.get_host(50005)}/mcp"
    await box.files.write("/etc/mcp-gateway/.token", "a token", user="root")
    assert await box.get_mcp_token() == "a token"


@covers_error(FileNotFoundException, "Sandbox.get_mcp_token")
async def test_no_mcp_gateway(box: Any) -> None:
    with pytest.raises(FileNotFoundException):
        await box.get_mcp_token()


@covers("E2B.Sandbox")
async def test_a_client_with_options_of_its_own(
    sdk: Sdk, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2B_API_KEY", WRONG_KEY)
    bound = sdk.client(**stack.sdk).Sandbox
    box = await bound.create()
    try:
        assert (await box.commands.run("echo bound")).stdout == "bound\n"
    finally:
        assert await box.kill()


@covers_error(AuthenticationException, "E2B.Sandbox", "E2B.Template", "E2B.Volume", "E2B.Secret")
async def test_a_client_with_a_wrong_key(sdk: Sdk) -> None:
    client = sdk.client(api_key=WRONG_KEY)
    for call in (
        client.Sandbox.create(),
        client.Template.exists("base"),
        client.Volume.list(),
        client.Secret.get_info("one"),
    ):
        with pytest.raises(AuthenticationException, match="401"):
            await call


@covers("Sandbox.is_running")
async def test_many_sandboxes_at_once_stay_apart(new_box: Callable[..., Any]) -> None:
    boxes = await asyncio.gather(new_box(), new_box())
    for number, box in enumerate(boxes):
        await box.files.write("number", str(number))
    assert [await box.files.read("number") for box in boxes] == ["0", "1"]
    assert all([await box.is_running() for box in boxes])
