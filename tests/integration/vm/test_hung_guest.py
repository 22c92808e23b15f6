"""A guest whose daemon hangs is paused, and comes back with its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emberbox import SandboxException, ServiceBusyException
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox import Sandbox

pytestmark = [pytest.mark.vm, pytest.mark.exhaustive, pytest.mark.timeout(600)]

HANG = "sudo sh -c '(sleep 1; kill -STOP $(pgrep -f emberbox.envd)) > /dev/null 2>&1 &'"


def hangs(sandbox: Sandbox) -> bool:
    try:
        return not sandbox.is_running(request_timeout=2)
    except SandboxException:
        return True


def test_a_hung_guest_loses_no_files(create: Callable[..., Sandbox]) -> None:
    sandbox = create(timeout=500)
    boot = sandbox.files.read("/proc/sys/kernel/random/boot_id")
    sandbox.files.write("/home/user/kept", "on disk")
    sandbox.commands.run("sync")
    sandbox.commands.run(HANG)
    wait_until(lambda: hangs(sandbox), 30)
    with pytest.raises(ServiceBusyException):
        sandbox.pause(strict=True, retries=0)
    assert sandbox.get_info().state == "running"
    assert sandbox.pause()
    # With its memory it would hang again.
    with pytest.raises(SandboxException):
        sandbox.connect(timeout=500, retries=0)
    sandbox.connect(timeout=500)
    assert sandbox.files.read("/proc/sys/kernel/random/boot_id") != boot
    assert sandbox.files.read("/home/user/kept") == "on disk"


def test_a_reboot_at_once(create: Callable[..., Sandbox]) -> None:
    sandbox = create(timeout=500)
    sandbox.files.write("/home/user/kept", "on disk")
    sandbox.commands.run("sync")
    sandbox.commands.run(HANG)
    wait_until(lambda: hangs(sandbox), 30)
    assert sandbox.pause()
    sandbox.connect(timeout=500, on_resume="reboot")
    assert sandbox.files.read("/home/user/kept") == "on disk"
