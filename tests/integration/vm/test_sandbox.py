"""What a user sees: one sandbox, its commands, files and ports, and its end."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import time
from typing import TYPE_CHECKING

import pytest

from emberbox import (
    AsyncSandbox,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
    SandboxNotFoundException,
)
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox import Sandbox
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]


def test_it_has_a_kernel_of_its_own_and_an_unprivileged_user(
    create: Callable[..., Sandbox],
) -> None:
    sandbox = create()
    inside = sandbox.commands.run("uname -r; id -un; pwd").stdout.split()
    assert inside[0] != platform.release()
    assert inside[1:] == ["user", "/home/user"]
    assert sandbox.commands.run("sudo id -u").stdout == "0\n"


def test_environment_of_create_reaches_every_process(create: Callable[..., Sandbox]) -> None:
    sandbox = create(envs={"GREETING": "hello there"})
    command = 'echo "$GREETING, $E2B_SANDBOX_ID"'
    assert sandbox.commands.run(command).stdout == f"hello there, {sandbox.sandbox_id}\n"


def test_a_command_that_fails_says_how(create: Callable[..., Sandbox]) -> None:
    with pytest.raises(CommandExitException) as failed:
        create().commands.run("echo out; echo err >&2; exit 3")
    assert (failed.value.exit_code, failed.value.stdout, failed.value.stderr) == (
        3,
        "out\n",
        "err\n",
    )


def test_a_background_command_takes_stdin(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    sandbox.commands.send_stdin(handle.pid, "one line\n")
    sandbox.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == "one line\n"


@pytest.mark.exhaustive
def test_a_large_file_comes_back_as_it_was(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    content = secrets.token_bytes(8 << 20)
    sandbox.files.write("/home/user/blob", content, request_timeout=120)
    inside = sandbox.commands.run("sha256sum /home/user/blob").stdout.split()[0]
    assert inside == hashlib.sha256(content).hexdigest()
    assert sandbox.files.read("/home/user/blob", format="bytes", request_timeout=120) == content


def test_two_clones_share_nothing(create: Callable[..., Sandbox]) -> None:
    first, second = create(), create()
    first.files.write("/home/user/mine", "first")
    assert not second.files.exists("/home/user/mine")
    seen = [
        s.commands.run(
            "cat /proc/sys/kernel/random/uuid /etc/hostname /etc/machine-id; date +%s"
        ).stdout.split()
        for s in (first, second)
    ]
    for one, other in zip(seen[0][:3], seen[1][:3], strict=True):
        assert one != other
    for line in seen:
        assert abs(int(line[3]) - time.time()) < 30


def test_one_sandbox_does_not_answer_to_the_token_of_another(
    create: Callable[..., Sandbox],
) -> None:
    first, second = create(), create()
    with second.http(49983) as client:
        answer = client.get("/envs", headers={"X-Access-Token": _token(first)})
    assert answer.status_code == 401


def test_control_routes_of_envd_are_closed_from_outside(create: Callable[..., Sandbox]) -> None:
    with create().http(49983) as client:
        for path in ("/init", "/bridge", "/%69nit", "/%2e/init", "/x%2f../init"):
            assert client.post(path, json={}).status_code == 404, path


def test_a_path_outside_permission_is_a_clear_error(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    with pytest.raises(SandboxException, match=r"permission.*/etc/shadow|/etc/shadow.*permission"):
        sandbox.files.read("/etc/shadow")
    with pytest.raises(SandboxException, match=r"/root"):
        sandbox.files.write("/root/../root/x", "no")
    with pytest.raises(NotFoundException):
        sandbox.files.read("/no/such/file")
    with pytest.raises(InvalidArgumentException):
        sandbox.commands.run("true", cwd="/no/such/directory")


@pytest.mark.exhaustive
def test_a_port_on_localhost_inside_is_reached_from_outside(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    sandbox.files.write("/home/user/site/index.html", "from inside")
    server = "python3 -m http.server 8000 --bind 127.0.0.1 --directory /home/user/site"
    sandbox.commands.run(server, background=True, timeout=0)
    with sandbox.http(8000) as client:
        wait_until(lambda: client.get("/").status_code == 200, 60)
        assert client.get("/").text == "from inside"


def test_a_closed_port_is_the_protocols_502(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    with sandbox.http(4321) as client:
        answer = client.get("/")
    assert answer.status_code == 502
    assert answer.json() == {
        "sandboxId": sandbox.sandbox_id,
        "message": "The sandbox is running but port is not open",
        "port": 4321,
        "code": 502,
    }


def test_a_killed_sandbox_is_gone_at_once(create: Callable[..., Sandbox], stack: Stack) -> None:
    sandbox = create()
    vmm = stack.vmm_pid(sandbox.sandbox_id)
    assert sandbox.kill()
    assert not os.path.exists(f"/proc/{vmm}")  # noqa: PTH110
    with sandbox.http(49983) as client:
        answer = client.get("/health")
    assert answer.status_code == 502
    assert answer.json() == {
        "sandboxId": sandbox.sandbox_id,
        "message": "The sandbox was not found",
        "code": 502,
    }
    assert not sandbox.is_running()
    assert not sandbox.kill()
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()
    outcome, reason = stack.wait_for_end_of(sandbox.sandbox_id)
    assert outcome == "killed"
    assert reason.startswith("killed by request of API key ")


def test_its_deadline_ends_it(create: Callable[..., Sandbox], stack: Stack) -> None:
    sandbox = create()
    sandbox.set_timeout(1)
    wait_until(lambda: not sandbox.is_running(), 10)
    assert stack.wait_for_end_of(sandbox.sandbox_id) == ("expired", "its deadline passed")


def test_a_vmm_that_dies_is_noticed(create: Callable[..., Sandbox], stack: Stack) -> None:
    sandbox = create()
    os.kill(stack.vmm_pid(sandbox.sandbox_id), 9)
    wait_until(lambda: not sandbox.is_running(), 10)
    outcome, reason = stack.wait_for_end_of(sandbox.sandbox_id)
    assert outcome == "crashed"
    assert "its VMM ended" in reason


@pytest.mark.parametrize("trigger", ["o", "c"], ids=["powers off", "panics"])
def test_a_guest_that_ends_is_noticed(
    create: Callable[..., Sandbox], stack: Stack, trigger: str
) -> None:
    sandbox = create()
    sandbox.commands.run(f"echo {trigger} | sudo tee /proc/sysrq-trigger", background=True)
    wait_until(lambda: not sandbox.is_running(), 30)
    outcome, reason = stack.wait_for_end_of(sandbox.sandbox_id)
    assert outcome == "crashed"
    assert "the guest ended" in reason


async def test_the_async_flavour(stack: Stack) -> None:
    async with await AsyncSandbox.create(timeout=120, **stack.sdk) as sandbox:
        result = await sandbox.commands.run("echo $((6 * 7))")
        assert result.stdout == "42\n"
        await sandbox.files.write("/home/user/a", "b")
        assert await sandbox.files.read("/home/user/a") == "b"
        await sandbox.kill()


def _token(sandbox: Sandbox) -> str:
    token = sandbox._access.envd_access_token
    assert token
    return token
