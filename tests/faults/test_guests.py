"""VMs and guests that break: each ends with its reason, or goes on."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from emberbox import CommandExitException, Sandbox, SandboxException
from emberbox.orchestrator.processes import identify
from tests import kernel
from tests.faults import invariants
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(420)]

HOG = "python3 -c \"b = []\nwhile True: b.append(b'x' * (1 << 20))\""


def ended(stack: Stack, sandbox: Sandbox) -> dict[str, str]:
    """The last event of a sandbox, once it is over."""
    stack.wait_for_end_of(sandbox.sandbox_id, 240)
    return invariants.told(stack, sandbox.sandbox_id)


@pytest.mark.smoke
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_vmm_that_is_killed(
    create: Callable[..., Sandbox], stack: Stack, number: signal.Signals
) -> None:
    sandbox, other = create(), create()
    os.kill(stack.vmm_pid(sandbox.sandbox_id), number)
    end = ended(stack, sandbox)
    assert end["event"] == "crashed"
    assert end["reason"].startswith(f"its VMM ended: killed by {number.name}")
    assert other.commands.run("echo well").stdout == "well\n"


@pytest.mark.smoke
def test_a_vmm_that_is_killed_after_its_orchestrator_was(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    """It is no child of the orchestrator that has taken it over."""
    sandbox = create()
    stack.kill_program("orchestrator")
    wait_until(stack.template_ready, invariants.RECOVERY)
    os.kill(stack.vmm_pid(sandbox.sandbox_id), signal.SIGKILL)
    end = ended(stack, sandbox)
    assert end["event"] == "crashed"
    how = "killed by SIGKILL" if kernel.TELLS_ENDS else "nobody knows how"
    assert end["reason"].startswith(f"its VMM ended: {how}")
    assert "vmdescription" not in end["reason"]


@pytest.mark.smoke
def test_a_kernel_that_panics_is_told_with_its_console(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create()
    sandbox.commands.run("echo c | sudo tee /proc/sysrq-trigger", background=True)
    end = ended(stack, sandbox)
    assert end["event"] == "crashed"
    first, *console = end["reason"].splitlines()
    assert "kernel panic: sysrq triggered crash" in first
    assert console[0] == "console:"
    assert len(console) > 5


def test_a_guest_that_powers_off_says_so(create: Callable[..., Sandbox], stack: Stack) -> None:
    sandbox = create()
    sandbox.commands.run("echo o | sudo tee /proc/sysrq-trigger", background=True)
    end = ended(stack, sandbox)
    assert end["event"] == "crashed"
    assert "it powered itself off" in end["reason"]


def test_a_guest_out_of_memory_kills_the_program_and_not_the_sandbox(
    create: Callable[..., Sandbox],
) -> None:
    sandbox = create(timeout=600)
    with pytest.raises(CommandExitException) as killed:
        sandbox.commands.run(HOG, timeout=300)
    assert killed.value.error == "signal: killed"
    assert sandbox.commands.run("echo well").stdout == "well\n"
    sandbox.files.write("/home/user/after", "x")


def test_a_guest_that_panics_when_out_of_memory_is_told(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create(timeout=600)
    # 2: also when the limit is a control group's.
    sandbox.commands.run("sudo sysctl -w vm.panic_on_oom=2")
    sandbox.commands.run(HOG, background=True, timeout=0)
    end = ended(stack, sandbox)
    assert end["event"] == "crashed"
    assert "out of memory" in end["reason"].lower()


def test_inotify_limits_of_a_guest_are_told(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    sandbox.commands.run("sudo sysctl -w fs.inotify.max_user_watches=0")
    with pytest.raises(SandboxException, match=r"(?i)watch|space|inotify|limit") as refused:
        sandbox.files.watch_dir("/home/user")
    invariants.assert_refusals_are_explained([refused.value])
    assert sandbox.commands.run("echo well").stdout == "well\n"


def test_a_guests_clock_may_jump(create: Callable[..., Sandbox], stack: Stack) -> None:
    sandbox = create()
    deadline = stack.record_of(sandbox.sandbox_id).end_time
    for date in ("2001-01-01", "2037-12-31"):
        sandbox.commands.run(f"sudo date -s {date}")
        assert sandbox.commands.run("sleep 0.2; echo well", timeout=60).stdout == "well\n"
        sandbox.files.write("/home/user/at", date)
    assert stack.record_of(sandbox.sandbox_id).end_time == deadline
    sandbox.set_timeout(1)
    end = ended(stack, sandbox)
    assert (end["event"], end["actor"]) == ("expired", "deadline")


def test_a_vm_that_stands_still_is_killed_all_the_same(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create()
    vmm = identify(stack.vmm_pid(sandbox.sandbox_id))
    os.kill(vmm.pid, signal.SIGSTOP)
    assert sandbox.kill()
    end = ended(stack, sandbox)
    assert end["event"] == "killed"
    assert end["actor_name"].startswith("API key")
    wait_until(lambda: not os.path.exists(f"/proc/{vmm.pid}"), 10)  # noqa: PTH110
