"""Traffic finds a paused sandbox running, whatever kind of traffic it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import emberbox
from emberbox import SandboxException, SandboxState
from tests.integration.vm.serving import PAGES, echoes, serve_messages, serve_pages
from tests.stack import TIME_TO_BOOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox import Sandbox
    from emberbox.sdk.create_options import SandboxLifecycle
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

BY_TRAFFIC: SandboxLifecycle = {"on_timeout": "pause", "auto_resume": True}
MIB = 1 << 20


def is_paused(sandbox: Sandbox) -> bool:
    return sandbox.get_info().state is SandboxState.PAUSED


@pytest.mark.exhaustive
def test_every_kind_of_traffic_resumes_it(create: Callable[..., Sandbox]) -> None:
    sandbox = create(lifecycle=BY_TRAFFIC)
    serve_pages(sandbox)
    serve_messages(sandbox)
    with sandbox.http(PAGES) as client:
        client.timeout = 60
        for _ in range(2):
            assert sandbox.pause()
            assert client.get("/page").text == "from inside"
    assert sandbox.pause()
    assert echoes(sandbox)
    upload = bytes(range(256)) * (8 * MIB // 256)
    assert sandbox.pause()
    sandbox.files.write("upload", upload)
    assert sandbox.pause()
    assert sandbox.files.read("upload", format="bytes") == upload
    assert sandbox.pause()
    assert sandbox.commands.run("echo resumed").stdout == "resumed\n"
    assert not is_paused(sandbox)


@pytest.mark.exhaustive
def test_requests_at_once_are_all_served(create: Callable[..., Sandbox], stack: Stack) -> None:
    sandbox = create(lifecycle=BY_TRAFFIC)
    serve_pages(sandbox)
    assert sandbox.pause()

    def get(_number: int) -> str:
        with sandbox.http(PAGES) as client:
            client.timeout = 60
            return client.get("/page").text

    with ThreadPoolExecutor(20) as threads:
        assert set(threads.map(get, range(20))) == {"from inside"}
    begun = [line for line in stack.story_of(sandbox.sandbox_id) if "Started" in line]
    assert len(begun) == 1, "another run would have a story of its own"


def test_a_deadline_cuts_streams_and_the_process_goes_on(create: Callable[..., Sandbox]) -> None:
    sandbox = create(lifecycle=BY_TRAFFIC)
    script = "echo begun; until [ -e go ]; do sleep 0.1; done; echo went on"
    handle = sandbox.commands.run(script, background=True)
    assert next(iter(handle))[0] == "begun\n"
    sandbox.set_timeout(1)
    # The SDK asks for its health, which resumes it, and is told that it lives or is late.
    with pytest.raises(emberbox.SandboxUnreachableException):
        handle.wait()
    handle = sandbox.commands.connect(handle.pid)
    sandbox.files.write("go", "")
    assert handle.wait().stdout == "went on\n"


@pytest.mark.exhaustive
def test_what_traffic_does_not_resume(create: Callable[..., Sandbox]) -> None:
    waits = create(lifecycle={"on_timeout": "pause"})
    files = create(lifecycle=BY_TRAFFIC)
    assert waits.pause()
    assert files.pause(mode="filesystem")
    for sandbox in (waits, files):
        with sandbox.http(PAGES) as client:
            answer = client.get("/")
        assert (answer.status_code, answer.json()) == (
            502,
            {"sandboxId": sandbox.sandbox_id, "message": "The sandbox was not found", "code": 502},
        )
        assert not sandbox.is_running()
        assert is_paused(sandbox)
        sandbox.connect(request_timeout=TIME_TO_BOOT)
        assert sandbox.is_running()


@pytest.mark.exhaustive
def test_a_team_at_its_limit(stack: Stack) -> None:
    team = stack.sdk_of_new_team("--concurrent-sandboxes", "1")
    first = emberbox.Sandbox.create(timeout=120, lifecycle=BY_TRAFFIC, **team)
    assert first.pause()
    second = emberbox.Sandbox.create(timeout=120, **team)
    try:
        with first.http(PAGES) as client:
            answer = client.get("/")
        assert answer.status_code == 429
        assert "Sandbox limit reached" in answer.json()["message"]
        with pytest.raises(emberbox.RateLimitException):
            first.connect()
        assert second.kill()
        assert first.is_running()
    finally:
        second.kill()
        first.kill()


@pytest.mark.exhaustive
def test_it_is_still_there_after_a_restart(create: Callable[..., Sandbox], stack: Stack) -> None:
    sandbox = create(lifecycle=BY_TRAFFIC)
    sandbox.files.write("/dev/shm/kept", "in memory")
    assert sandbox.pause()
    with stack.stopped():
        pass
    assert sandbox.files.read("/dev/shm/kept") == "in memory"


@pytest.mark.exhaustive
def test_while_its_host_is_away_the_answer_says_so(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create(lifecycle=BY_TRAFFIC)
    assert sandbox.pause()
    stack.kill_program("orchestrator")
    with sandbox.http(PAGES) as client:
        answer = client.get("/")
    # Either it was asked before the orchestrator was back, or after.
    assert answer.status_code in (502, 503)
    if answer.status_code == 503:
        assert "could not be resumed now" in answer.json()["message"]

    def answers() -> bool:
        try:
            return sandbox.is_running()
        except SandboxException:
            return False

    wait_until(answers, 60)
