"""Create: answers, refusals, quota."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from emberbox.api_server.configuring import CLUSTER_METADATA
from emberbox.shared.protocol import CLIENT_ID, ENVD_VERSION

from .harness import eventually
from .standin import BASE_ID, BUILD_ID, template

if TYPE_CHECKING:
    from .harness import World


async def test_v2_answers_201_with_the_required_fields(world: World) -> None:
    answer = await world.create(metadata={"a": "b"}, envVars={"X": "1"}, future={"field": 1})
    assert answer.status_code == 201
    body = answer.json()
    assert body["templateID"] == BASE_ID
    assert body["clientID"] == CLIENT_ID
    assert body["envdVersion"] == ENVD_VERSION
    assert body["alias"] == "base"
    assert body["sandboxID"].startswith("i")
    assert len(body["sandboxID"]) == 21
    assert len(body["envdAccessToken"]) == 64
    assert "trafficAccessToken" not in body
    config = world.host.configs[body["sandboxID"]]
    assert config.env_vars == {"X": "1"}
    assert config.metadata.pop(CLUSTER_METADATA)
    assert config.metadata == {"a": "b"}
    assert config.build_id == BUILD_ID
    assert config.envd_access_token == body["envdAccessToken"]
    assert config.allow_internet_access
    assert not config.HasField("traffic_access_token")


async def test_running_is_written_after_the_answer(world: World) -> None:
    sandbox_id = await world.created()
    await world.becomes(sandbox_id, "running")


async def test_default_timeouts_of_both_generations(world: World) -> None:
    for path, expected in (("/v2/sandboxes", 300), ("/sandboxes", 15)):
        answer = await world.http.post(path, json={"templateID": "base"})
        row = await world.row(answer.json()["sandboxID"])
        assert (row.end_at - row.started_at).total_seconds() == expected
        told = world.host.sandboxes[row.sandbox_id].end_time.ToDatetime(row.end_at.tzinfo)
        assert told == row.end_at


@pytest.mark.parametrize(("secure", "tokens"), [(None, 0), (False, 0), (True, 1)])
async def test_v1_is_secured_only_on_demand(world: World, secure: bool | None, tokens: int) -> None:
    body = {"templateID": "base"} if secure is None else {"templateID": "base", "secure": secure}
    answer = await world.http.post("/sandboxes", json=body)
    assert answer.status_code == 201
    assert ("envdAccessToken" in answer.json()) == bool(tokens)
    token = world.host.configs[answer.json()["sandboxID"]].envd_access_token
    assert bool(token) == bool(tokens)


async def test_private_traffic_gets_a_token_of_its_own(world: World) -> None:
    answer = await world.create(network={"allowPublicTraffic": False})
    body = answer.json()
    config = world.host.configs[body["sandboxID"]]
    assert body["trafficAccessToken"] == config.traffic_access_token
    assert body["trafficAccessToken"] != body["envdAccessToken"]


@pytest.mark.parametrize(
    "body", [{"allow_internet_access": False}, {"network": {"denyOut": ["0.0.0.0/0"]}}]
)
async def test_without_internet(world: World, body: dict[str, object]) -> None:
    sandbox_id = await world.created(**body)
    assert not world.host.configs[sandbox_id].allow_internet_access
    detail = (await world.http.get(f"/sandboxes/{sandbox_id}")).json()
    assert detail["allowInternetAccess"] is False


@pytest.mark.parametrize("name", ["base", "BASE", "base:default", BASE_ID])
async def test_names_of_a_template(world: World, name: str) -> None:
    assert (await world.create(templateID=name)).status_code == 201


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("nope", 404, "template 'nope' not found"),
        ("base:v2", 404, "tag 'v2' does not exist for template 'base'"),
        ("a b", 400, "Invalid template reference: 'a b' is not [namespace/]name[:tag]"),
    ],
)
async def test_templates_that_are_not_there(
    world: World, name: str, status: int, message: str
) -> None:
    answer = await world.create(templateID=name)
    assert answer.status_code == status
    assert answer.json() == {"code": status, "message": message}
    assert await world.rows() == []


@pytest.mark.parametrize("path", ["/sandboxes", "/v2/sandboxes"])
@pytest.mark.parametrize("timeout", [0, -1])
async def test_timeout_must_be_positive(world: World, path: str, timeout: int) -> None:
    answer = await world.http.post(path, json={"templateID": "base", "timeout": timeout})
    assert answer.status_code == 400
    assert answer.json() == {"code": 400, "message": "Timeout must be greater than 0"}


async def test_timeout_above_the_teams_maximum(world: World) -> None:
    await world.limit(max_length_hours=1)
    answer = await world.create(timeout=3601)
    assert answer.status_code == 400
    assert answer.json()["message"] == "Timeout cannot be greater than 1 hours"
    assert (await world.create(timeout=3600)).status_code == 201


async def test_a_timeout_beyond_all_time_is_refused(world: World) -> None:
    assert (await world.create(timeout=10**15)).status_code == 400


@pytest.mark.parametrize(
    "option",
    [
        {"network": {"allowOut": ["1.1.1.1"]}},
        {"network": {"denyOut": ["1.1.1.1"]}},
        {"network": {"rules": {"a.example": []}}},
        {"network": {"egressProxy": {"address": "a:1"}}},
        {"network": {"dnsServers": []}},
        {"network": {"maskRequestHost": "a"}},
        {"network": {"httpsPorts": [443]}},
        {"volumeMounts": [{"name": "v", "path": "/v"}]},
        {"iam": {"tokens": {"t": {}}}},
    ],
)
async def test_options_of_later_are_refused_by_type(
    world: World, option: dict[str, object]
) -> None:
    answer = await world.create(**option)
    assert answer.status_code == 501
    assert answer.json()["code"] == 501
    assert answer.json()["error_code"] == "not_implemented"
    assert ": not available in Emberbox yet" in answer.json()["message"]
    assert await world.rows() == []


async def test_options_that_ask_for_nothing_are_fine(world: World) -> None:
    await world.created(
        autoPause=False,
        autoResume={"enabled": False},
        network={"allowOut": [], "denyOut": None, "rules": {}, "egressProxy": None},
        volumeMounts=[],
        iam=None,
        mcp={"browser": {}},
    )


async def test_memory_of_auto_pause_without_auto_pause(world: World) -> None:
    answer = await world.create(autoPauseMemory=False)
    assert answer.status_code == 400
    assert answer.json()["message"] == "autoPauseMemory=false only applies when autoPause is true."


async def test_memory_of_auto_pause_with_auto_resume(world: World) -> None:
    answer = await world.create(autoPause=True, autoPauseMemory=False, autoResume={"enabled": True})
    assert answer.status_code == 400
    assert "cannot be combined with autoResume" in answer.json()["message"]


@pytest.mark.parametrize(
    ("options", "lifecycle"),
    [
        ({"autoPause": True}, (True, False, False, "pause")),
        ({"autoPause": True, "autoPauseMemory": False}, (True, True, False, "pause")),
        ({"autoPause": True, "autoResume": {"enabled": True}}, (True, False, True, "pause")),
        ({"autoResume": {"enabled": True}}, (False, False, True, "kill")),
        ({}, (False, False, False, "kill")),
    ],
)
async def test_what_is_to_happen_at_the_deadline(
    world: World, options: dict[str, object], lifecycle: tuple[bool, bool, bool, str]
) -> None:
    sandbox_id = await world.created(**options)
    pauses, files_only, resumes, on_timeout = lifecycle
    config = world.host.configs[sandbox_id]
    assert (config.auto_pause, config.auto_pause_filesystem_only) == (pauses, files_only)
    detail = (await world.http.get(f"/sandboxes/{sandbox_id}")).json()
    assert detail["lifecycle"] == {"autoResume": resumes, "onTimeout": on_timeout}
    assert "pauseMode" not in detail


async def test_a_start_that_went_otherwise_says_so(world: World) -> None:
    world.host.notice = "started from files: the memory belongs to another QEMU"
    sandbox_id = await world.created()

    async def shown() -> bool:
        detail = (await world.http.get(f"/sandboxes/{sandbox_id}")).json()
        return bool(detail.get("notice") == world.host.notice)

    await eventually(shown)


async def test_quota_holds_under_parallel_creates(world: World) -> None:
    await world.limit(concurrent_sandboxes=7)
    answers = await asyncio.gather(*(world.create() for _ in range(50)))
    codes = [answer.status_code for answer in answers]
    assert codes.count(201) == 7
    assert codes.count(429) == 43
    assert len(world.host.sandboxes) == 7
    refused = next(answer.json() for answer in answers if answer.status_code == 429)
    assert refused["code"] == 429
    assert "maximum number of concurrent sandboxes (7)" in refused["message"]


async def test_a_killed_sandbox_gives_its_quota_back(world: World) -> None:
    await world.limit(concurrent_sandboxes=1)
    sandbox_id = await world.created()
    assert (await world.create()).status_code == 429
    assert (await world.http.delete(f"/sandboxes/{sandbox_id}")).status_code == 204
    await world.created()


@pytest.mark.parametrize(
    "limit", [{"total_vcpu": 5}, {"total_ram_mb": 1500}, {"total_disk_mb": 2048}]
)
async def test_sums_are_limited(world: World, limit: dict[str, int]) -> None:
    await world.limit(**limit)
    await world.created()
    await world.created()
    assert (await world.create()).status_code == 429


async def test_one_sandbox_may_be_too_big(world: World) -> None:
    world.host.templates.append(template(["big"], "big00000000000000000", vcpu=16))
    await world.limit(max_vcpu=8)
    answer = await world.create(templateID="big")
    assert answer.status_code == 400
    assert "16 vCPUs" in answer.json()["message"]


async def test_a_full_host_is_503_with_its_reason_and_frees_the_quota(world: World) -> None:
    world.host.capacity = 0
    await world.limit(concurrent_sandboxes=1)
    for _ in range(2):
        answer = await world.create()
        assert answer.status_code == 503
        assert answer.json() == {
            "code": 503,
            "message": "Failed to place sandbox: node-1: no memory left",
            "error_code": "sandbox_capacity_unavailable",
        }
        assert "Should-Retry" not in answer.headers
        assert answer.headers["Retry-After"] == "1"
    assert await world.rows() == []


async def test_a_host_that_knows_when_it_will_have_room_is_believed(world: World) -> None:
    world.host.capacity, world.host.retry_after = 0, 7
    answer = await world.create()
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "7"


async def test_the_answer_tells_where_the_time_went(world: World) -> None:
    world.host.steps = [("claim", 1.25), ("init", 20.0)]
    answer = await world.create()
    steps = [step.split(";dur=") for step in answer.headers["Server-Timing"].split(", ")]
    took = {name: float(milliseconds) for name, milliseconds in steps}
    ours = ["auth", "template", "place", "reserve", "host"]
    assert list(took) == [*ours, "host.claim", "host.init", "total"]
    assert (took["host.claim"], took["host.init"]) == (1.2, 20.0)
    assert took["total"] >= took["host"] >= 0


async def test_hosts_can_tell_teams_apart_and_no_more(world: World) -> None:
    first, second = await world.created(), await world.created()
    async with await world.other_team() as other:
        answer = await other.post("/v2/sandboxes", json={"templateID": "base"})
    configs = world.host.configs
    group = configs[first].queue_group
    assert group == configs[second].queue_group != configs[answer.json()["sandboxID"]].queue_group
    assert group not in ((await world.row(first)).team_id, "")


async def test_a_template_that_was_built_anew_is_found_at_once(world: World) -> None:
    await world.created()
    newer = "0b0d1f3e-6f0c-4f0e-9a53-7d5f0c1f2a22"
    world.host.templates[:] = [template(["base"], BASE_ID, newer)]
    sandbox_id = await world.created()
    assert world.host.configs[sandbox_id].build_id == newer
    assert len(await world.rows()) == 2


async def test_a_vm_that_fails_is_500_with_its_console_and_leaves_nothing(world: World) -> None:
    reason = "the guest ended while starting\nconsole:\nmounting\n\x1b[31mkernel panic\x1b[0m\x00"
    world.host.fail_create = (grpc.StatusCode.INTERNAL, reason)
    answer = await world.create()
    assert answer.status_code == 500
    shown = "the guest ended while starting\nthe end of its console:\nmounting\n[31mkernel panic[0m"
    assert answer.json() == {
        "code": 500,
        "message": f"Failed to place sandbox: node-1: {shown}",
        "error_code": "sandbox_create_failed",
    }
    (sandbox_id,) = await _wait_for_delete(world)
    row = await world.becomes(sandbox_id, "killed")
    assert row.end_reason == "the guest ended while starting"


async def test_only_the_end_of_a_long_console_is_shown(world: World) -> None:
    lines = [f"line {number} {'ä' * 60}" for number in range(20)]
    world.host.fail_create = (grpc.StatusCode.INTERNAL, "\n".join(["no answer", *lines]))
    message = (await world.create()).json()["message"]
    told, _, console = message.partition("\nthe end of its console:\n")
    assert told == "Failed to place sandbox: node-1: no answer"
    assert len(console.encode()) <= 1024
    assert console.endswith(lines[-1])
    assert lines[9] not in console


async def test_a_host_that_is_not_ready_says_why(world: World) -> None:
    world.host.ready = False
    world.host.templates.clear()
    answer = await world.create()
    assert answer.status_code == 503
    assert answer.json()["message"] == "Failed to place sandbox: node-1: building the base image"


async def _wait_for_delete(world: World) -> list[str]:
    async def deleted() -> bool:
        return bool(world.host.deleted)

    await eventually(deleted)
    return world.host.deleted
