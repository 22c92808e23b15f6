"""What a sandbox may reach: in force from its start, replaced while it runs, kept by a pause."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Address, IPv4Network

import pytest

from emberbox.orchestrator.errors import RunConflict, SandboxMissing
from emberbox.orchestrator.network.errors import KernelRefusedError
from emberbox.orchestrator.network.policy import CLOSED, OPEN, EgressPolicy
from emberbox.orchestrator.sandboxes.lifecycle import PauseRequested, State
from emberbox.orchestrator.sandboxes.records import RECORD_FILE, SandboxRecord
from tests.unit.orchestrator.sandbox_world import (
    IDENTITY,
    Setting,
    live,
    record,
    request,
    setting,
)

__all__ = ["live", "setting"]  # fixtures

POLICY = EgressPolicy(
    allow=(IPv4Network("192.0.2.0/24"),),
    deny=(IPv4Network("0.0.0.0/0"),),
    dns_servers=(IPv4Address("192.0.2.53"),),
)


def recorded(setting: Setting) -> SandboxRecord:
    path = setting.host.directories.path("iabc") / RECORD_FILE
    return SandboxRecord.from_json(path.read_bytes())


async def test_it_is_in_force_before_the_machine_is_started(setting: Setting) -> None:
    starting = setting.world.hold("machine")
    creating = asyncio.create_task(setting.sandboxes.create(request(egress=POLICY)))
    while not setting.host.directories.path("iabc").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert setting.world.policy == POLICY
    assert "machine" not in setting.world.done
    starting.set()
    await creating
    assert recorded(setting).egress == POLICY
    await setting.sandboxes.end_all("test")


async def test_nothing_asked_for_is_open(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    assert setting.world.policy == OPEN
    await setting.sandboxes.end_all("test")


async def test_it_is_replaced_and_written_down(setting: Setting) -> None:
    sandbox = await setting.sandboxes.create(request())
    await setting.sandboxes.set_egress("iabc", "e-1", POLICY)
    assert setting.world.policy == recorded(setting).egress == sandbox.record.egress == POLICY
    assert setting.world.done[-2:] == ["open slot", "end forbidden"]
    assert "1 allowed, 1 denied, 1 DNS servers" in sandbox.story()[-1]
    await setting.sandboxes.end_all("test")


async def test_what_the_kernel_refused_is_as_before(setting: Setting) -> None:
    sandbox = await setting.sandboxes.create(request(egress=POLICY))
    setting.world.fails_at, setting.world.failure = "open slot", KernelRefusedError("replace", 22)
    with pytest.raises(KernelRefusedError):
        await setting.sandboxes.set_egress("iabc", "e-1", OPEN)
    assert setting.world.policy == recorded(setting).egress == sandbox.record.egress == POLICY
    await setting.sandboxes.end_all("test")


async def test_it_is_written_down_before_it_is_in_force(setting: Setting) -> None:
    """So that whoever adopts the sandbox after a crash brings the rules to what is written."""
    await setting.sandboxes.create(request(egress=POLICY))
    go = setting.world.hold("policy")
    changing = asyncio.create_task(setting.sandboxes.set_egress("iabc", "e-1", CLOSED))
    while recorded(setting).egress != CLOSED:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert setting.world.policy == POLICY
    go.set()
    await changing
    await setting.sandboxes.end_all("test")


async def test_changes_at_once_come_one_after_the_other(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    go = setting.world.hold("policy")
    policies = [EgressPolicy(deny=(IPv4Network(f"192.0.2.{n}"),)) for n in range(5)]
    changing = [
        asyncio.create_task(setting.sandboxes.set_egress("iabc", "e-1", policy))
        for policy in policies
    ]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*changing)
    assert setting.world.policy == recorded(setting).egress == policies[-1]
    await setting.sandboxes.end_all("test")


async def test_who_names_another_run_changes_nothing(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    with pytest.raises(RunConflict):
        await setting.sandboxes.set_egress("iabc", "e-2", CLOSED)
    with pytest.raises(SandboxMissing):
        await setting.sandboxes.set_egress("ixyz", None, CLOSED)
    assert setting.world.policy == OPEN
    await setting.sandboxes.end_all("test")


async def test_adoption_brings_the_rules_to_what_is_written(setting: Setting, live: object) -> None:
    setting.host.directories.create(record(process=live, egress=POLICY))
    await setting.sandboxes.adopt_all()
    assert setting.sandboxes.get("iabc").state is State.RUNNING
    assert setting.world.policy == POLICY
    await setting.sandboxes.end_all("test")


async def test_a_pause_keeps_what_holds_then(setting: Setting) -> None:
    await setting.sandboxes.create(request(egress=OPEN, mask_host="a.example"))
    await setting.sandboxes.set_egress("iabc", "e-1", POLICY)
    paused = await setting.sandboxes.pause("iabc", "e-1", PauseRequested("asked"))
    assert paused.snapshot.egress == POLICY
    with pytest.raises(SandboxMissing):
        await setting.sandboxes.set_egress("iabc", None, OPEN)

    identity = IDENTITY.__class__("iabc", "t", "e-2", "token", {})
    setting.world.policy = CLOSED
    await setting.sandboxes.create(request(identity=identity, snapshot=True, mask_host="b.example"))
    assert setting.world.policy == recorded(setting).egress == POLICY
    assert setting.world.routed[-1].mask_host == "b.example"
    await setting.sandboxes.end_all("test")


async def test_a_record_of_before_is_read(setting: Setting) -> None:
    fields = json.loads(record().to_json())
    del fields["egress"], fields["mask_host"]
    fields["internet"] = False
    assert SandboxRecord.from_json(json.dumps(fields).encode()).egress == CLOSED
