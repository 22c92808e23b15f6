"""`up` with real processes: three stand-ins in place of the servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.processes import ProcessIdentity, is_alive, send_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import FreePorts

SCRIPT = Path(__file__).with_name("standin_up.py")
PATIENCE = 30.0


@dataclass
class Ups:
    """The `up`s of one test, on one home and one set of ports."""

    home: Path
    ports: list[int]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *flags: str) -> subprocess.Popen[str]:
        words = [sys.executable, SCRIPT, self.home, *self.ports, *flags]
        stderr = (self.home / f"up{len(self.processes)}.stderr").open("w")
        process = subprocess.Popen(
            list(map(str, words)), stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        stderr.close()
        self.processes.append(process)
        return process

    def ready(self, *flags: str) -> subprocess.Popen[str]:
        """Start one and wait for its line of JSON."""
        process = self.start(*flags)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, self.stderr()
        facts = json.loads(line)
        assert facts["pid"] == process.pid
        return process

    def stderr(self) -> str:
        return (self.home / f"up{len(self.processes) - 1}.stderr").read_text()

    def programs(self) -> dict[str, ProcessIdentity]:
        record = json.loads((self.home / "up.json").read_text())
        return {
            name: ProcessIdentity.from_json(fields) for name, fields in record["programs"].items()
        }

    def end_all(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        if (self.home / "up.json").exists():
            for identity in self.programs().values():
                send_signal(identity, signal.SIGKILL)


@pytest.fixture
def ups(tmp_path: Path, free_ports: FreePorts) -> Iterator[Ups]:
    made = Ups(tmp_path, free_ports(api=1, internal=1, proxy=2, orchestrator=1, data=1))
    yield made
    made.end_all()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def healthy(port: int) -> bool:
    with contextlib.suppress(OSError):
        url = f"http://127.0.0.1:{port}/health"
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    return False


def test_one_line_of_json_when_all_is_ready_and_nothing_left_after_sigterm(ups: Ups) -> None:
    process = ups.start()
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    api_port, _, proxy_port, orchestrator_port, _ = ups.ports
    assert facts == {
        "api_url": f"http://127.0.0.1:{api_port}",
        "sandbox_url": f"http://127.0.0.1:{proxy_port}",
        "api_key": "e2b_" + "0" * 40,
        "domain": f"localhost:{proxy_port}",
        "orchestrator": f"127.0.0.1:{orchestrator_port}",
        "home": str(ups.home),
        "pid": process.pid,
    }
    assert healthy(api_port)
    running = ups.programs()
    assert set(running) == {"orchestrator", "api-server", "client-proxy"}
    assert all(os.getpgid(identity.pid) == identity.pid for identity in running.values())

    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert process.stdout.read() == ""
    assert not any(is_alive(identity) for identity in running.values())
    assert not (ups.home / "up.json").exists()
    assert json.loads((ups.home / "shutdown.json").read_text()) == {"keep": False}
    assert "orchestrator: building images, step 1" in ups.stderr()
    assert "stopping; ending 2 sandboxes" in ups.stderr()


def test_keep_asks_the_orchestrator_to_keep_the_sandboxes(ups: Ups) -> None:
    process = ups.ready("--keep")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    assert json.loads((ups.home / "shutdown.json").read_text()) == {"keep": True}
    assert "2 sandboxes left running for the next up" in ups.stderr()


def test_a_killed_server_is_started_again(ups: Ups) -> None:
    ups.ready()
    first = ups.programs()["api-server"]
    send_signal(first, signal.SIGKILL)
    until(lambda: ups.programs().get("api-server", first) != first and healthy(ups.ports[0]))
    until(lambda: "api-server is ready again" in ups.stderr())
    assert "api-server died (signal SIGKILL); it starts again in" in ups.stderr()


def test_the_next_up_takes_over_from_a_killed_one(ups: Ups) -> None:
    first = ups.ready()
    left = ups.programs()
    first.kill()
    first.wait(PATIENCE)
    assert all(is_alive(identity) for identity in left.values())

    second = ups.ready()
    for name, identity in left.items():
        assert not is_alive(identity)
        assert f"stopping {name} (pid {identity.pid}) that an earlier up left" in ups.stderr()
    assert not (ups.home / "shutdown.json").exists()  # sandboxes live on
    assert set(ups.programs()) == set(left)
    assert second.poll() is None


def test_two_ups_on_one_home_are_refused(ups: Ups) -> None:
    first = ups.ready()
    second = ups.start()
    assert second.wait(PATIENCE) == 1
    assert ups.stderr() == (
        f"emberbox: emberbox up already runs on {ups.home} (pid {first.pid}): "
        "stop it or pass --home\n"
    )


def test_a_busy_port_is_named_with_its_holder(ups: Ups) -> None:
    with socket.create_server(("127.0.0.1", ups.ports[3])):
        refused = ups.start()
        assert refused.wait(PATIENCE) == 1
    said = ups.stderr()
    assert said.startswith(f"emberbox: port {ups.ports[3]} is taken by pid {os.getpid()} (")
    assert said.endswith("): stop it or pass --orchestrator-port\n")
    assert not (ups.home / "up.json").exists()


def test_a_server_that_cannot_start_ends_up_with_the_tail_of_its_log(ups: Ups) -> None:
    (ups.home / "broken-client-proxy").touch()
    process = ups.start()
    assert process.wait(PATIENCE) == 1
    how = "exit status 1, client-proxy is broken on purpose"
    assert f"client-proxy died ({how}); it starts again in 0.25 s" in ups.stderr()
    assert "emberbox: client-proxy is broken on purpose" in ups.stderr()
    assert f"client-proxy died 3 times ({how}): giving up" in ups.stderr()
    assert not (ups.home / "shutdown.json").exists()
    assert not (ups.home / "up.json").exists()


def test_a_second_ctrl_c_does_not_wait_for_the_sandboxes(ups: Ups) -> None:
    process = ups.ready("--hang")
    running = ups.programs()
    process.send_signal(signal.SIGINT)
    until((ups.home / "shutdown.json").exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    assert "not waiting for sandboxes to end" in ups.stderr()
    assert not any(is_alive(identity) for identity in running.values())
