"""Programs die, hang and restart; sandboxes do not notice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from emberbox import Sandbox, SandboxException
from emberbox.orchestrator.processes import is_alive
from tests.integration.vm.serving import MESSAGES, PAGES, echoes, serve_messages, serve_pages
from tests.stack import EMBERBOX, Stack, frozen, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]

COUNTER = "i=0; while true; do i=$((i+1)); echo $i > next; mv next count; sleep 0.2; done"


def test_sigkill_of_the_orchestrator_keeps_processes_files_and_deadlines(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandboxes = [create(timeout=100 + 10 * n) for n in range(3)]
    counters = {
        s.sandbox_id: s.commands.run(COUNTER, background=True, timeout=0) for s in sandboxes
    }
    for sandbox in sandboxes:
        sandbox.files.write("/home/user/kept", sandbox.sandbox_id)
    records = {s.sandbox_id: stack.record_of(s.sandbox_id) for s in sandboxes}

    stack.kill_program("orchestrator")
    killed = time.monotonic()
    for sandbox in sandboxes:
        assert sandbox.files.read("/home/user/kept") == sandbox.sandbox_id
    wait_until(lambda: all(_known(s, stack) for s in sandboxes), 10 - (time.monotonic() - killed))

    for sandbox in sandboxes:
        record = stack.record_of(sandbox.sandbox_id)
        assert record.process == records[sandbox.sandbox_id].process
        assert record.end_time == records[sandbox.sandbox_id].end_time
        pids = [process.pid for process in sandbox.commands.list()]
        assert counters[sandbox.sandbox_id].pid in pids
        _wait_until_it_counts_on(sandbox)

    # The deadline is the new orchestrator's to keep.
    sandboxes[0].set_timeout(1)
    wait_until(lambda: not sandboxes[0].is_running(), 10)
    create()


def test_a_deadline_that_passes_while_no_orchestrator_runs_is_kept_by_the_next(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create()
    sandbox.set_timeout(3)
    deadline = stack.record_of(sandbox.sandbox_id).end_time
    stack.kill_program("orchestrator")
    wait_until(lambda: time.time() > deadline, 10)
    wait_until(lambda: not sandbox.is_running(), 20)
    assert stack.wait_for_end_of(sandbox.sandbox_id)[0] == "expired"


def test_a_vm_that_dies_while_no_orchestrator_runs_is_reclaimed(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox, other = create(), create()
    vmm = stack.vmm_pid(sandbox.sandbox_id)
    orchestrator = stack.pid_of("orchestrator")
    os.kill(orchestrator, signal.SIGSTOP)
    os.kill(vmm, signal.SIGKILL)
    os.kill(orchestrator, signal.SIGKILL)
    wait_until(lambda: not sandbox.is_running(), 20)
    assert other.commands.run("echo alive").stdout == "alive\n"
    outcome, reason = stack.wait_for_end_of(sandbox.sandbox_id)
    assert outcome == "crashed"
    assert "while no orchestrator" in reason
    wait_until(lambda: not (stack.home.run_directories / sandbox.sandbox_id).exists(), 20)


@pytest.mark.exhaustive
def test_a_stopped_api_server_does_not_stop_the_data_plane(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create()
    running = sandbox.commands.run("sleep 2; echo done", background=True)
    serve_pages(sandbox)
    with frozen(stack.pid_of("api-server")), sandbox.http(PAGES) as client:
        assert sandbox.commands.run("echo works").stdout == "works\n"
        sandbox.files.write("/home/user/a", "b")
        assert sandbox.files.read("/home/user/a") == "b"
        assert running.wait().stdout == "done\n"
        assert client.get("/page").text == "from inside"


def test_stopped_proxies_do_not_stop_create(create: Callable[..., Sandbox], stack: Stack) -> None:
    with frozen(stack.pid_of("client-proxy")), frozen(*stack.data_proxy_pids()):
        sandbox = create()
    # The worker has yet to read of the route, and may read the request first.
    wait_until(lambda: _answers(sandbox), 10)


def test_a_killed_data_proxy_worker_comes_back_with_its_routes(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create()
    [worker] = stack.data_proxy_pids()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: _answers(sandbox), 20)


@pytest.mark.exhaustive
def test_a_stream_outlives_a_restart_of_the_orchestrator(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create()
    stream = sandbox.commands.run("for i in 1 2 3 4; do echo $i; sleep 1; done", background=True)
    stack.kill_program("orchestrator")
    assert stream.wait().stdout == "1\n2\n3\n4\n"
    wait_until(lambda: _known(sandbox, stack), 10)


@pytest.mark.exhaustive
def test_ports_answer_while_the_orchestrator_is_killed(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create()
    serve_pages(sandbox)
    serve_messages(sandbox)
    with sandbox.http(PAGES) as client, sandbox.websocket(MESSAGES) as opened_before:

        def all_answer() -> bool:
            opened_before.send("before")
            return (
                opened_before.recv(timeout=10) == "before"
                and client.get("/page").text == "from inside"
                and echoes(sandbox)
            )

        assert all_answer()
        stack.kill_program("orchestrator")
        assert all_answer()
        while not _known(sandbox, stack):
            assert all_answer()
        assert all_answer()


def test_nobody_can_write_the_ram_image_that_clones_share(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    """As the VMM's own uid, through the VMM's own descriptor: the way an escaped guest has."""
    sandbox = create()
    vmm = stack.vmm_pid(sandbox.sandbox_id)
    uid = os.stat(f"/proc/{vmm}").st_uid  # noqa: PTH116
    assert uid >= 100_000
    fds = [
        entry.name
        for entry in os.scandir(f"/proc/{vmm}/fd")
        if "emberbox-ram" in os.readlink(entry.path)  # noqa: PTH115
    ]
    attack = f"""
import mmap, os
os.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})
fd = int(os.environ["FD"])
def denied(what, call):
    try:
        call()
    except (PermissionError, OSError) as error:
        print(what, "refused", type(error).__name__)
    else:
        print(what, "WRITTEN")
denied("pwrite", lambda: os.pwrite(fd, b"x", 0))
denied("truncate", lambda: os.ftruncate(fd, 0))
denied("shared map", lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))
mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)[0] = 1
print("private map allowed")
"""
    assert fds
    ram = os.open(f"/proc/{vmm}/fd/{fds[0]}", os.O_RDWR)
    before = os.pread(ram, 4096, 0)
    try:
        result = subprocess.run(
            ["/usr/bin/python3", "-c", attack],
            pass_fds=[ram],
            env={"FD": str(ram)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.splitlines() == [
            "pwrite refused PermissionError",
            "truncate refused PermissionError",
            "shared map refused PermissionError",
            "private map allowed",
        ]
        assert os.pread(ram, 4096, 0) == before
    finally:
        os.close(ram)
    for saved in stack.home.templates.glob("*/*/snapshot/*"):
        assert saved.stat().st_uid == 0
        assert saved.stat().st_mode & 0o077 == 0


def test_a_vmm_is_confined(create: Callable[..., Sandbox], stack: Stack) -> None:
    status = _status(stack.vmm_pid(create().sandbox_id))
    assert status["Uid"].split()[0] != "0"
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0
    vmm = stack.vmm_pid(create().sandbox_id)
    ours, its = (os.readlink(f"/proc/{pid}/ns/net") for pid in ("self", vmm))  # noqa: PTH115
    assert ours != its
    assert os.getsid(vmm) == vmm


@pytest.mark.exhaustive
def test_up_takes_over_after_sigkill(create: Callable[..., Sandbox], stack: Stack) -> None:
    sandbox = create()
    process = stack.record_of(sandbox.sandbox_id).process
    stack.kill_up()
    stack.start()
    assert stack.record_of(sandbox.sandbox_id).process == process
    assert sandbox.commands.run("echo still here").stdout == "still here\n"
    second = subprocess.run(
        [EMBERBOX, "up"], env=stack.environment, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert second.stderr == (
        f"emberbox: emberbox up already runs on {stack.home.root} (pid {stack.facts['pid']}): "
        "stop it or pass --home\n"
    )


@pytest.mark.exhaustive
def test_up_keep_leaves_sandboxes_to_the_next_up(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    with stack.stopped():
        stack.start("--keep")
        sandbox = create()
        counter = sandbox.commands.run(COUNTER, background=True, timeout=0)
        process = stack.record_of(sandbox.sandbox_id).process
        assert process is not None
        assert stack.stop(signal.SIGTERM) == 0
        assert is_alive(process)
    assert stack.record_of(sandbox.sandbox_id).process == process
    assert counter.pid in [one.pid for one in sandbox.commands.list()]
    _wait_until_it_counts_on(sandbox)


@pytest.mark.exhaustive
def test_sigterm_of_up_ends_its_sandboxes(create: Callable[..., Sandbox], stack: Stack) -> None:
    sandbox = create()
    process = stack.record_of(sandbox.sandbox_id).process
    assert process is not None
    assert stack.stop(signal.SIGTERM) == 0
    assert not is_alive(process)
    assert not (stack.home.run_directories / sandbox.sandbox_id).exists()
    stack.start()
    assert not sandbox.is_running()
    outcome, reason = stack.wait_for_end_of(sandbox.sandbox_id)
    assert (outcome, reason) == ("killed", "the host was shut down")


def _wait_until_it_counts_on(sandbox: Sandbox) -> None:
    before = int(sandbox.files.read("/home/user/count"))
    wait_until(lambda: int(sandbox.files.read("/home/user/count")) > before, 30)


def _known(sandbox: Sandbox, stack: Stack) -> bool:
    """Whether an orchestrator answers for it, and envd in it."""
    try:
        return bool(stack.story_of(sandbox.sandbox_id)) and _answers(sandbox)
    except grpc.RpcError:
        return False


def _answers(sandbox: Sandbox) -> bool:
    try:
        return sandbox.commands.run("echo here").stdout == "here\n"
    except SandboxException:
        return False


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:  # noqa: PTH123
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
