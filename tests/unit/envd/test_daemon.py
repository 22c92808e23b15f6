"""The program itself: `python -m emberbox.envd`."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.envd.conftest import START, output, start_request
from tests.unit.envd.daemons import daemon, open_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_serves_and_ends_on_sigterm_with_clients_connected() -> None:
    with daemon("--init-peer", "127.0.0.1", "--init-peer", "127.0.0.2") as (_, client):
        assert client.post("/init", json={"accessToken": "t"}).status_code == 204
        assert client.get("/envs").status_code == 401


def test_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "emberbox.envd", "--address", "127.0.0.1", "--port", port]
        ended = subprocess.run(command, check=False, stderr=subprocess.PIPE, timeout=30)
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}".encode() in ended.stderr


def test_needs_only_the_wheels_of_its_group() -> None:
    """What the runtime image does not hold must not be imported."""
    script = (
        "import sys, emberbox.envd.__main__; "
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    found = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE)
    allowed = {
        "emberbox", "connectrpc", "protobuf", "protobuf_ext", "pyqwest", "uvicorn", "httptools",
        "click", "python_multipart", "opentelemetry", "typing_extensions",
    }  # fmt: skip
    site = {"__main__", "_distutils_hack", "_virtualenv", "__editables_finder"}
    site.add("cython_runtime")  # a name that httptools makes, of no file
    modules = {m for m in found.stdout.decode().split() if not m.startswith("_")}
    assert modules - allowed - site == set()


def test_nothing_is_left_of_what_came_and_went(tmp_path: Path) -> None:
    with daemon() as (process, client):
        client.run("/bin/true")
        before = open_descriptors(process)
        for number in range(20):
            client.run("/bin/sh", "-c", "ulimit -n", stdin=True)
            client.run("/bin/true", pty={})
            client.run("/no/such")
            client.get("/files", params={"path": "/etc/passwd"})
            client.get("/files", params={"path": "/no/such"})
            client.post(
                "/files",
                params={"path": f"{tmp_path}/{number}"},
                content=b"no gzip",
                headers={"content-type": "application/octet-stream", "content-encoding": "gzip"},
            )
            with client.open_stream(START, start_request("/bin/sleep", "600")) as stream:
                pid = stream.next().event["start"]["pid"]
            client.call("process.Process/SendSignal", {"process": {"pid": pid}, "signal": 9})
        deadline = time.monotonic() + 10
        while open_descriptors(process) > before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        assert children == ""


def test_processes_have_the_usual_limit_of_descriptors() -> None:
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with daemon() as (_, client):
        found = output(client.run("/bin/sh", "-c", "sleep 0.1; exec prlimit --nofile -o SOFT"))
    assert int(found.split()[1]) == usual


def cgroup2() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, options = line.split()[:4]
        if kind == "cgroup2" and "rw" in options.split(",") and os.access(mount, os.W_OK):
            return Path(mount)
    return None


@pytest.fixture
def cgroup_root() -> Iterator[Path]:
    mount = cgroup2()
    if mount is None:
        pytest.skip("no writable cgroup2")
    root = mount / f"envd-test-{os.getpid()}"
    root.mkdir()
    yield root
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
    root.rmdir()


def members(group: Path) -> list[int]:
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


def group_of(pid: int, users: Path) -> Path:
    (found,) = (path for path in users.iterdir() if path.is_dir() and pid in members(path))
    return found


def groups_in(users: Path) -> list[Path]:
    return [path for path in users.iterdir() if path.is_dir()]


def test_each_process_has_a_cgroup(cgroup_root: Path) -> None:
    users = cgroup_root / "emberbox-user"
    with daemon("--cgroup-root", str(cgroup_root)) as (process, client):
        ready, children = len(groups_in(users)), []
        for _ in range(5):
            messages = client.run("/bin/sh", "-c", "sleep 600 >&- 2>&- & echo $!")
            children.append(int(output(messages)))
        assert members(cgroup_root / "emberbox-envd") == [process.pid]
        groups = [group_of(child, users) for child in children]
        assert len(set(groups)) == 5, "a group stays while a child of its process lives"
        for child in children:
            os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while len(groups_in(users)) > ready:
            client.run("/bin/true")
            time.sleep(0.1)  # they are removed while nobody waits
            assert time.monotonic() < deadline, "groups are left"
