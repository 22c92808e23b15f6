"""Pausing, connecting again, and what happens at the deadline, with the official Python package."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from e2b import (
    AuthenticationException,
    InvalidArgumentException,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxQuery,
    SandboxState,
)

from tests.compatibility.covering import covers, covers_error
from tests.compatibility.flavours import boot_of, eventually
from tests.stack import TIME_TO_BOOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.compatibility.flavours import Sdk
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

NO_SANDBOX = "i00000000000000000000"
WRONG_KEY = {"api_key": "e2b_" + "0" * 40}
FILES_ALONE = {"action": "pause", "mode": "filesystem"}
RESUMES_BY_TRAFFIC = {"on_timeout": "pause", "auto_resume": True}


async def begin_life(box: Any) -> str:
    """Start a process that holds a secret in its memory; what identifies boot and process."""
    await box.files.write("/dev/shm/kept", "in memory")
    await box.files.write("kept", "on disk")
    keeper = await box.commands.run("exec -a keeper sleep 1000", background=True)
    # When its stream is cut, the SDK asks for the sandbox's health: traffic, which resumes it.
    await keeper.disconnect()
    return await lives(box)


async def lives(box: Any) -> str:
    """Boot and process as they are now."""
    script = "cat /proc/sys/kernel/random/boot_id /dev/shm/kept; pgrep -f '^keeper'"
    return str((await box.commands.run(script)).stdout)


async def becomes_paused(sdk: Sdk, sandbox_id: str) -> None:
    async def is_paused() -> bool:
        return bool((await sdk.Sandbox.get_info(sandbox_id)).state == SandboxState.PAUSED)

    await eventually(is_paused)


@pytest.mark.smoke
@covers("Sandbox.pause", "Sandbox.connect", "Sandbox.get_info", "Sandbox.is_running")
async def test_all_that_was_in_memory_goes_on(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    box = await new_box(metadata={"kept": "too"}, envs={"GIVEN": "at create"})
    before = await begin_life(box)
    assert await box.pause() is True
    assert await box.pause() is False
    info = await box.get_info()
    assert info.state == SandboxState.PAUSED
    assert info.metadata == {"kept": "too"}
    assert not await box.is_running()
    again = await sdk.Sandbox.connect(box.sandbox_id, timeout=200)
    assert again.sandbox_id == box.sandbox_id
    assert await lives(again) == before
    assert await box.files.read("kept") == "on disk"
    assert (await box.commands.run("echo $GIVEN")).stdout == "at create\n"
    clock = int((await box.commands.run("date +%s")).stdout)
    assert abs(clock - time.time()) < 10
    info = await box.get_info()
    assert info.state == SandboxState.RUNNING
    assert 100 < (info.end_at - info.started_at).total_seconds() <= 200


@covers("Sandbox.pause", "Sandbox.beta_pause", "Sandbox.connect")
async def test_by_id_as_by_object(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    box = await new_box()
    before = await begin_life(box)
    for pause in (sdk.Sandbox.pause, sdk.Sandbox.beta_pause):
        assert await pause(box.sandbox_id, strict=True) is True
        assert await (await sdk.Sandbox.connect(box.sandbox_id)).is_running()
    assert await box.beta_pause() is True
    assert (await box.connect()).sandbox_id == box.sandbox_id
    assert await lives(box) == before


@covers("Sandbox.pause", "Sandbox.beta_pause", "Sandbox.connect")
async def test_files_alone_are_kept_when_that_is_asked_for(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    for pause in (box.pause(mode="filesystem"), box.beta_pause(False)):
        boot = await boot_of(box)
        await box.files.write("kept", boot)
        await box.files.write("/dev/shm/lost", "")
        assert await pause is True
        await box.connect(request_timeout=TIME_TO_BOOT)
        assert await boot_of(box) != boot
        assert await box.files.read("kept") == boot
        assert not await box.files.exists("/dev/shm/lost")


@covers("Sandbox.connect")
async def test_a_reboot_instead_of_the_memory(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    boot = await boot_of(box)
    await box.files.write("kept", boot)
    await box.pause(mode="full")
    await box.connect(on_resume="reboot", request_timeout=TIME_TO_BOOT)
    assert await boot_of(box) != boot
    assert await box.files.read("kept") == boot


@covers_error(SandboxNotRunningException, "CommandHandle.wait")
@covers("Commands.connect")
async def test_connections_end_and_processes_go_on(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    script = "until [ -e go ]; do sleep 0.1; done; echo went on"
    handle = await box.commands.run(script, background=True)
    end = asyncio.ensure_future(handle.wait())
    await box.commands.list()
    await box.pause()
    with pytest.raises(SandboxNotRunningException, match=r"(?i)not found|end of life"):
        await end
    await box.connect()
    handle = await box.commands.connect(handle.pid)
    await box.files.write("go", "")
    assert (await handle.wait()).stdout == "went on\n"


@covers("Sandbox.list", "SandboxPaginator.next_items", "Sandbox.kill")
async def test_a_paused_one_is_listed_until_it_is_killed(
    sdk: Sdk, new_box: Callable[..., Any]
) -> None:
    metadata = {"paused list": sdk.flavour}
    paused, running = await new_box(metadata=metadata), await new_box(metadata=metadata)
    await paused.pause()

    async def listed(*states: SandboxState) -> set[str]:
        query = SandboxQuery(metadata=metadata, state=list(states) or None)
        items = await (await sdk.Sandbox.list(query=query)).next_items()
        return {item.sandbox_id for item in items}

    assert await listed() == {paused.sandbox_id, running.sandbox_id}
    assert await listed(SandboxState.PAUSED) == {paused.sandbox_id}
    assert await listed(SandboxState.RUNNING) == {running.sandbox_id}
    assert await paused.kill() is True
    assert await paused.kill() is False
    assert await listed(SandboxState.PAUSED) == set()
    with pytest.raises(SandboxNotFoundException):
        await paused.connect()


@covers_error(SandboxNotFoundException, "Sandbox.set_timeout")
async def test_a_paused_one_has_no_time_limit(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    await box.pause()
    with pytest.raises(SandboxNotFoundException):
        await box.set_timeout(100)


@covers_error(SandboxNotFoundException, "Sandbox.pause", "Sandbox.beta_pause")
@covers_error(AuthenticationException, "Sandbox.pause", "Sandbox.beta_pause")
@covers_error(InvalidArgumentException, "Sandbox.pause", "Sandbox.beta_pause")
async def test_what_pause_refuses(sdk: Sdk) -> None:
    for pause in (sdk.Sandbox.pause, sdk.Sandbox.beta_pause):
        with pytest.raises(SandboxNotFoundException, match=NO_SANDBOX):
            await pause(NO_SANDBOX)
        with pytest.raises(AuthenticationException, match="401"):
            await pause(NO_SANDBOX, **WRONG_KEY)
        with pytest.raises(InvalidArgumentException, match="mode"):
            await pause(NO_SANDBOX, mode="half")


# At the deadline


@pytest.mark.smoke
@covers("Sandbox.create", "Sandbox.get_info", "Sandbox.is_running", "Filesystem.read")
async def test_it_is_paused_at_its_deadline_and_traffic_resumes_it(
    sdk: Sdk, new_box: Callable[..., Any]
) -> None:
    box = await new_box(lifecycle=RESUMES_BY_TRAFFIC)
    before = await begin_life(box)
    info = await box.get_info()
    assert info.lifecycle == {"on_timeout": "pause", "auto_resume": True}
    await box.set_timeout(1)
    await becomes_paused(sdk, box.sandbox_id)
    assert await box.is_running()
    info = await box.get_info()
    assert info.state == SandboxState.RUNNING
    assert (info.end_at - info.started_at).total_seconds() == 300
    assert await lives(box) == before
    await box.pause()
    assert await box.files.read("/dev/shm/kept") == "in memory"


@covers("Sandbox.get_host")
async def test_a_request_to_a_port_resumes_it(
    sdk: Sdk, new_box: Callable[..., Any], stack: Stack
) -> None:
    box = await new_box(lifecycle=RESUMES_BY_TRAFFIC)
    await box.files.write("served/index.html", "from inside")
    await box.commands.run("cd served && exec python3 -m http.server 8000", background=True)
    headers = {"Host": await box.get_host(8000)}
    async with httpx.AsyncClient(base_url=stack.sdk["sandbox_url"], timeout=60) as client:

        async def answers() -> bool:
            return (await client.get("/", headers=headers)).status_code == 200

        await eventually(answers)
        await box.pause()
        answer = await client.get("/", headers=headers)
        assert (answer.status_code, answer.text) == (200, "from inside")


@covers_error("403 without the traffic token while paused", "Sandbox.get_host")
async def test_a_private_one_is_resumed_for_those_who_have_its_tokens(
    sdk: Sdk, new_box: Callable[..., Any], stack: Stack
) -> None:
    network = {"allow_public_traffic": False}
    box = await new_box(lifecycle=RESUMES_BY_TRAFFIC, network=network)
    await box.pause()
    headers = {"Host": await box.get_host(8000)}
    token = {"e2b-traffic-access-token": box.traffic_access_token}
    async with httpx.AsyncClient(base_url=stack.sdk["sandbox_url"], timeout=60) as client:
        answer = await client.get("/", headers=headers)
        assert (answer.status_code, answer.json()) == (
            403,
            {
                "sandboxId": box.sandbox_id,
                "message": "This sandbox can't be resumed with the credentials provided. "
                "Check your access token and try again.",
                "code": 403,
            },
        )
        assert (await box.get_info()).state == SandboxState.PAUSED
        assert (await client.get("/", headers={**headers, **token})).status_code == 502
    assert (await box.get_info()).state == SandboxState.RUNNING
    await box.pause()
    assert (await box.commands.run("echo by its token")).stdout == "by its token\n"


@covers("Sandbox.create", "Sandbox.connect")
async def test_without_auto_resume_it_waits_for_connect(
    sdk: Sdk, new_box: Callable[..., Any]
) -> None:
    box = await new_box(lifecycle={"on_timeout": "pause"})
    before = await begin_life(box)
    await box.set_timeout(1)
    await becomes_paused(sdk, box.sandbox_id)
    assert not await box.is_running()
    assert (await box.get_info()).lifecycle == {"on_timeout": "pause", "auto_resume": False}
    await box.connect()
    assert await lives(box) == before


@covers("Sandbox.create", "Sandbox.connect")
async def test_files_alone_at_the_deadline(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    box = await new_box(lifecycle={"on_timeout": FILES_ALONE})
    boot = await boot_of(box)
    await box.files.write("kept", boot)
    await box.set_timeout(1)
    await becomes_paused(sdk, box.sandbox_id)
    await box.connect(request_timeout=TIME_TO_BOOT)
    assert await boot_of(box) != boot
    assert await box.files.read("kept") == boot


@covers_error(InvalidArgumentException, "Sandbox.create")
@pytest.mark.parametrize(
    "lifecycle",
    [
        {"on_timeout": "sleep"},
        {"on_timeout": "kill", "auto_resume": True},
        {"on_timeout": {"action": "kill", "mode": "full"}},
        {"on_timeout": FILES_ALONE, "auto_resume": True},
    ],
)
async def test_lifecycles_that_cannot_be(sdk: Sdk, lifecycle: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentException):
        await sdk.Sandbox.create(lifecycle=lifecycle)


@covers_error(SandboxException, "Sandbox.connect")
async def test_longer_than_the_team_may_have_it(sdk: Sdk, stack: Stack) -> None:
    team = {"api_key": stack.sdk_of_new_team("--max-length-hours", "1")["api_key"]}
    box = await sdk.Sandbox.create(**team)
    try:
        await box.pause()
        with pytest.raises(SandboxException, match="400: Timeout cannot be greater than 1"):
            await box.connect(timeout=7200)
        assert (await box.get_info()).state == SandboxState.PAUSED
    finally:
        await box.kill()
