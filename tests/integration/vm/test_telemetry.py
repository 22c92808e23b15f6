"""Metrics and logs of real sandboxes, by the official SDK and over REST."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import e2b
import httpx
import pytest

from tests.stack import Stack, frozen, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emberbox import Sandbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]

GIB = 1 << 30
BUSY = "while :; do :; done"


@pytest.fixture
def official(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three variables that a user of the official SDK sets."""
    for name, value in stack.sdk.items():
        monkeypatch.setenv(f"E2B_{name.upper()}", value)


@pytest.fixture
def rest(stack: Stack) -> Iterator[httpx.Client]:
    """The REST API with the stack's key."""
    sdk = stack.sdk
    headers = {"X-API-KEY": sdk["api_key"]}
    with httpx.Client(base_url=sdk["api_url"], headers=headers, timeout=20) as client:
        yield client


def metrics_of(sandbox_id: str, at_least: int = 1) -> list[e2b.SandboxMetrics]:
    """Once there are so many samples."""
    wait_until(lambda: len(e2b.Sandbox.get_metrics(sandbox_id)) >= at_least, 60)
    return e2b.Sandbox.get_metrics(sandbox_id)


def log_of(rest: httpx.Client, sandbox_id: str) -> list[dict[str, Any]]:
    answer = rest.get(f"/v2/sandboxes/{sandbox_id}/logs")
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["logs"]
    return entries


def wait_for_entry(rest: httpx.Client, sandbox_id: str, ending: str) -> None:
    """A guest of a busy machine may be too slow for one question."""
    wait_until(lambda: any(m.endswith(ending) for m in messages_of(rest, sandbox_id)), 60)


def messages_of(rest: httpx.Client, sandbox_id: str) -> list[str]:
    return [entry["message"] for entry in log_of(rest, sandbox_id)]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("official")
def test_what_a_busy_sandbox_uses(create: Callable[..., Sandbox], stack: Stack) -> None:
    began = datetime.now(UTC)
    sandbox_id = create().sandbox_id
    (idle, *_) = metrics_of(sandbox_id)
    sandbox = e2b.Sandbox.connect(sandbox_id)
    sandbox.commands.run(BUSY, background=True)
    wait_until(lambda: sandbox.get_metrics()[-1].cpu_used_pct > 20, 60)
    samples = sandbox.get_metrics()
    assert [s.timestamp for s in samples] == sorted(s.timestamp for s in samples)
    for sample in samples:
        assert sample.cpu_count == 2
        assert 0 <= sample.cpu_used_pct <= 100
        assert 0 < sample.mem_used < sample.mem_total <= 512 << 20
        assert 0 < sample.mem_cache < sample.mem_total
        assert 0 < sample.disk_used < sample.disk_total <= 11 * GIB
    assert began < idle.timestamp < datetime.now(UTC)
    assert (
        sandbox.get_metrics(start=began - timedelta(hours=2), end=began - timedelta(hours=1)) == []
    )
    last = samples[-1].timestamp
    assert sandbox.get_metrics(start=last, end=last)[-1] == samples[-1]


@pytest.mark.usefixtures("official")
async def test_the_async_flavour_and_a_sandbox_that_is_gone(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    sandbox = create()
    samples = metrics_of(sandbox.sandbox_id)
    assert (await e2b.AsyncSandbox.get_metrics(sandbox.sandbox_id))[: len(samples)] == samples
    sandbox.kill()
    with pytest.raises(e2b.SandboxNotFoundException):
        await e2b.AsyncSandbox.get_metrics(sandbox.sandbox_id)


@pytest.mark.exhaustive
def test_metrics_of_several(create: Callable[..., Sandbox], rest: httpx.Client) -> None:
    ids = [create().sandbox_id for _ in range(2)]

    def latest() -> dict[str, Any]:
        answer = rest.get("/sandboxes/metrics", params={"sandbox_ids": ",".join([*ids, "i0"])})
        found: dict[str, Any] = answer.json()["sandboxes"]
        return found

    wait_until(lambda: latest().keys() == set(ids), 60)
    assert all(sample["memUsed"] > 0 for sample in latest().values())


def test_the_log_tells_what_just_happened(
    create: Callable[..., Sandbox], rest: httpx.Client
) -> None:
    sandbox = create(envs={"SECRET": "do-not-tell"})
    handle = sandbox.commands.run(
        "echo $MINE; exit 3", envs={"MINE": "do-not-tell"}, background=True, cwd="/tmp"
    )
    wait_for_entry(rest, sandbox.sandbox_id, f"process {handle.pid} ended: exit status 3")
    entries = log_of(rest, sandbox.sandbox_id)
    text = json.dumps(entries)
    assert "do-not-tell" not in text
    created, *_ = entries
    assert created["message"] == "sandbox created"
    assert created["fields"]["logger"] == "orchestrator"
    (began,) = (e for e in entries if e["message"] == f"process {handle.pid} started")
    assert began["fields"] == {
        "logger": "process",
        "pid": str(handle.pid),
        "cmd": "/bin/bash -l -c echo $MINE; exit 3",
        "user": "user",
        "cwd": "/tmp",
    }
    moments = [datetime.fromisoformat(e["timestamp"]) for e in entries]
    assert moments == sorted(moments)
    assert abs(moments[-1] - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_form_that_the_cli_reads(create: Callable[..., Sandbox], rest: httpx.Client) -> None:
    sandbox = create()
    sandbox.commands.run("true")
    wait_for_entry(rest, sandbox.sandbox_id, "ended: exit status 0")
    path = f"/sandboxes/{sandbox.sandbox_id}/logs"
    found = rest.get(path).json()
    lines = [json.loads(log["line"]) for log in found["logs"]]
    assert all({"level", "logger", "message"} <= line.keys() for line in lines)
    assert [line["message"] for line in lines] == [e["message"] for e in found["logEntries"]]
    assert len(rest.get(path, params={"limit": 1}).json()["logs"]) == 1
    last = datetime.fromisoformat(found["logs"][-1]["timestamp"])
    later = {"start": int(last.timestamp() * 1000) + 1}
    assert rest.get(path, params=later).json() == {"logs": [], "logEntries": []}


def test_the_log_stays_after_a_kill(create: Callable[..., Sandbox], rest: httpx.Client) -> None:
    sandbox = create()
    sandbox.set_timeout(100)
    sandbox.commands.run("sleep 999", background=True)
    wait_for_entry(rest, sandbox.sandbox_id, "started")
    sandbox.kill()
    messages = messages_of(rest, sandbox.sandbox_id)
    assert "deadline moved" in messages
    assert messages[-1].startswith("sandbox killed: ")
    assert any(message.endswith("started") for message in messages)


def test_the_log_tells_of_a_crash(
    create: Callable[..., Sandbox], rest: httpx.Client, stack: Stack
) -> None:
    sandbox = create()
    sandbox.commands.run("echo c | sudo tee /proc/sysrq-trigger", background=True)
    stack.wait_for_end_of(sandbox.sandbox_id, 40)
    end = log_of(rest, sandbox.sandbox_id)[-1]
    assert end["level"] == "error"
    assert end["message"].startswith("sandbox crashed: ")
    assert "Kernel" in end["fields"]["console"], "the last lines of what the guest printed"


@pytest.mark.exhaustive
@pytest.mark.usefixtures("official")
def test_both_survive_the_orchestrator(
    create: Callable[..., Sandbox], rest: httpx.Client, stack: Stack
) -> None:
    sandbox = create()
    sandbox.commands.run("true")
    before = metrics_of(sandbox.sandbox_id)
    wait_for_entry(rest, sandbox.sandbox_id, "started")
    stack.kill_program("orchestrator")
    wait_until(lambda: _answers(rest, sandbox.sandbox_id), 30)
    after = metrics_of(sandbox.sandbox_id, len(before) + 1)
    assert after[: len(before)] == before
    sandbox.commands.run("true")
    messages = messages_of(rest, sandbox.sandbox_id)
    assert "taken over by a restarted orchestrator" in messages
    assert len(messages) == len(set(messages)), "nothing is told twice"


@pytest.mark.exhaustive
def test_a_guest_that_stands_still_delays_nobody(
    create: Callable[..., Sandbox], rest: httpx.Client, stack: Stack
) -> None:
    stuck, well = create(), create()
    with frozen(stack.vmm_pid(stuck.sandbox_id)):
        assert "sandbox created" in messages_of(rest, stuck.sandbox_id)
        well.commands.run("true")
        wait_for_entry(rest, well.sandbox_id, "started")


def test_nobody_but_the_host_asks_envd(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    with sandbox.http(49983) as client:
        assert client.get("/telemetry").status_code == 404
    inside = sandbox.commands.run(
        "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:49983/telemetry"
        " || python3 -c 'import urllib.request, urllib.error\ntry:"
        ' urllib.request.urlopen("http://127.0.0.1:49983/telemetry")\n'
        "except urllib.error.HTTPError as error: print(error.code)'"
    )
    assert inside.stdout.strip().endswith("403")


def test_a_killed_vmm_is_told_of(
    create: Callable[..., Sandbox], rest: httpx.Client, stack: Stack
) -> None:
    sandbox = create()
    os.kill(stack.vmm_pid(sandbox.sandbox_id), signal.SIGKILL)
    stack.wait_for_end_of(sandbox.sandbox_id)
    assert "its VMM ended" in messages_of(rest, sandbox.sandbox_id)[-1]


def _answers(rest: httpx.Client, sandbox_id: str) -> bool:
    return rest.get(f"/sandboxes/{sandbox_id}/metrics").status_code == 200
