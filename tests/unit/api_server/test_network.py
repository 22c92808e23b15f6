"""Group N: what a sandbox may reach, how it is reached, and changing the former (2.8)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb

from .harness import paused

if TYPE_CHECKING:
    import httpx

    from .harness import World

ALL = "0.0.0.0/0"


async def put(world: World, sandbox_id: str, **body: object) -> httpx.Response:
    return await world.http.put(f"/sandboxes/{sandbox_id}/network", json=body)


def egress(world: World, sandbox_id: str) -> pb.SandboxNetworkEgressConfig:
    """What the host was told last."""
    return world.host.configs[sandbox_id].network.egress


async def detail(world: World, sandbox_id: str) -> dict[str, Any]:
    body: dict[str, Any] = (await world.http.get(f"/sandboxes/{sandbox_id}")).json()
    return body


# Creating


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, {}),
        ({"allow_internet_access": True}, {}),
        ({"allow_internet_access": False}, {"denied_cidrs": [ALL]}),
        ({"network": {"denyOut": [ALL]}}, {"denied_cidrs": [ALL]}),
        (
            {"network": {"allowOut": ["192.0.2.1", "198.51.100.77/24"], "denyOut": [ALL]}},
            {"allowed_cidrs": ["192.0.2.1/32", "198.51.100.0/24"], "denied_cidrs": [ALL]},
        ),
        (
            {"network": {"allowOut": ["192.0.2.1"]}, "allow_internet_access": False},
            {"allowed_cidrs": ["192.0.2.1/32"], "denied_cidrs": [ALL]},
        ),
        # There is no IPv6 to deny.
        ({"network": {"denyOut": ["::/0", "2001:db8::1", ALL]}}, {"denied_cidrs": [ALL]}),
        ({"network": {"dnsServers": []}}, {"dns_servers": {}}),
        (
            {"network": {"dnsServers": ["192.0.2.53", "192.0.2.54"]}},
            {"dns_servers": {"addresses": ["192.0.2.53", "192.0.2.54"]}},
        ),
    ],
)
async def test_what_a_host_is_told(
    world: World, body: dict[str, object], wanted: dict[str, Any]
) -> None:
    sandbox_id = await world.created(**body)
    assert egress(world, sandbox_id) == pb.SandboxNetworkEgressConfig(**wanted)


async def test_what_was_asked_for_is_shown(world: World) -> None:
    network = {
        "allowPublicTraffic": False,
        "allowOut": ["192.0.2.1"],
        "denyOut": [ALL, "2001:db8::/32"],
        "dnsServers": ["192.0.2.1"],
        "maskRequestHost": "${PORT}-app.example.com:8443",
        "httpsPorts": [443, 8443],
    }
    sandbox_id = await world.created(network=network)
    shown = await detail(world, sandbox_id)
    assert shown["network"] == network
    assert "allowInternetAccess" not in shown


@pytest.mark.parametrize(
    "mask", ["a", "localhost:${PORT}", "${PORT}-x.example", "[2001:db8::1]:80"]
)
async def test_the_host_that_servers_see(world: World, mask: str) -> None:
    sandbox_id = await world.created(network={"maskRequestHost": mask})
    ingress = world.host.configs[sandbox_id].network.ingress
    assert ingress == pb.SandboxNetworkIngressConfig(mask_request_host=mask)


async def test_the_ports_that_speak_tls(world: World) -> None:
    sandbox_id = await world.created(network={"httpsPorts": [443, 8443]})
    ingress = world.host.configs[sandbox_id].network.ingress
    assert list(ingress.https_ports) == [443, 8443]


@pytest.mark.parametrize("port", [0, -1, 65536, 49983])
async def test_ports_that_cannot_speak_tls(world: World, port: int) -> None:
    answer = await world.create(network={"httpsPorts": [port]})
    assert answer.status_code == 400
    assert f"network.httpsPorts has {port}: " in answer.json()["message"]
    assert await world.rows() == []


DOMAINS_ALONE = (
    "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny out to "
    "block all other traffic."
)
INVALID: list[tuple[dict[str, list[str]], str]] = [
    *(
        ({"denyOut": [entry]}, f"invalid denied CIDR {entry}")
        for entry in ("example.com", "1.2.3", "1.2.3.4/33", "1.2.3.4/255.0.0.0", "", "::/129", " ")
    ),
    *(
        ({"allowOut": [entry]}, f"invalid allowed address {entry}")
        for entry in ("1.2.3.4/33", "1.2.3.256", "a..b", "http://a.example", "*a.example", "", "-")
    ),
    (
        {"allowOut": ["2001:db8::1"]},
        "invalid allowed address 2001:db8::1: sandboxes have no IPv6",
    ),
    *(
        (
            {"allowOut": ["192.0.2.1", domain], "denyOut": ["192.0.2.0/24"]},
            DOMAINS_ALONE,
        )
        for domain in ("example.com", "*.example.com", "*")
    ),
    ({"dnsServers": ["a.example"]}, "invalid DNS server a.example: give an IPv4 address"),
    ({"dnsServers": ["192.0.2.1/32"]}, "invalid DNS server 192.0.2.1/32: give an IPv4 address"),
    (
        {"dnsServers": [f"192.0.2.{n}" for n in range(11)]},
        "network.dnsServers has 11 entries: at most 10",
    ),
    (
        {"denyOut": [f"10.{n >> 8}.{n & 255}.1" for n in range(1001)]},
        "network.denyOut has 1001 entries: at most 1000",
    ),
]


@pytest.mark.parametrize(("network", "message"), INVALID)
async def test_values_that_cannot_be_meant(
    world: World, network: dict[str, object], message: str
) -> None:
    answer = await world.create(network=network)
    assert (answer.status_code, answer.json()) == (400, {"code": 400, "message": message})
    assert await world.rows() == []
    sandbox_id = await world.created()
    answer = await put(world, sandbox_id, **network)
    assert (answer.status_code, answer.json()) == (400, {"code": 400, "message": message})
    assert egress(world, sandbox_id) == pb.SandboxNetworkEgressConfig()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("bücher.example", "mask request host is not ASCII: bücher.example"),
        *(
            (mask, f"mask request host is not valid: {mask}")
            for mask in (
                "",
                "a b",
                "a\r\nX: y",
                "a.example:65536",
                "a.example:",
                "http://a",
                "a/b",
                "${HOST}",
                "x" * 64,
                "a." * 130 + "b",
                "user@a",
            )
        ),
    ],
)
async def test_hosts_that_cannot_be(world: World, mask: str, message: str) -> None:
    answer = await world.create(network={"maskRequestHost": mask})
    assert (answer.status_code, answer.json()["message"]) == (400, message)


NOT_YET = [
    (
        {"allowOut": ["example.com"], "denyOut": [ALL]},
        "network.allowOut with a domain (example.com)",
    ),
    ({"rules": {"a.example": [{}]}}, "network.rules"),
    ({"egressProxy": {"address": "a.example:1080"}}, "network.egressProxy"),
]


@pytest.mark.parametrize(("network", "what"), NOT_YET)
async def test_what_comes_later_is_refused(
    world: World, network: dict[str, object], what: str
) -> None:
    sandbox_id = await world.created()
    for answer in (await world.create(network=network), await put(world, sandbox_id, **network)):
        assert answer.status_code == 501
        assert answer.json()["message"].startswith(f"{what}: not available in Emberbox yet")
        assert answer.json()["error_code"] == "not_implemented"
    assert egress(world, sandbox_id) == pb.SandboxNetworkEgressConfig()


# Changing


async def test_an_update_replaces_all(world: World) -> None:
    sandbox_id = await world.created(
        allow_internet_access=False,
        network={"dnsServers": [], "maskRequestHost": "a.example", "allowPublicTraffic": False},
        mcp={"browser": {}},
    )
    answer = await put(world, sandbox_id, allowOut=["192.0.2.1"], denyOut=[ALL])
    assert (answer.status_code, answer.content) == (204, b"")
    wanted = pb.SandboxNetworkEgressConfig(allowed_cidrs=["192.0.2.1/32"], denied_cidrs=[ALL])
    assert egress(world, sandbox_id) == wanted
    shown = await detail(world, sandbox_id)
    assert shown["network"] == {
        "allowPublicTraffic": False,
        "maskRequestHost": "a.example",
        "allowOut": ["192.0.2.1"],
        "denyOut": [ALL],
    }
    assert "allowInternetAccess" not in shown
    assert (await world.row(sandbox_id)).options["mcp"] == {"browser": {}}

    assert (await put(world, sandbox_id)).status_code == 204
    assert egress(world, sandbox_id) == pb.SandboxNetworkEgressConfig()
    assert "allowOut" not in (await detail(world, sandbox_id))["network"]


async def test_the_internet_is_closed_by_an_update(world: World) -> None:
    sandbox_id = await world.created()
    assert (await put(world, sandbox_id, allow_internet_access=False)).status_code == 204
    assert egress(world, sandbox_id).denied_cidrs == [ALL]
    assert (await detail(world, sandbox_id))["allowInternetAccess"] is False


async def test_an_update_may_follow_the_create_at_once(world: World) -> None:
    """ "Running" is written after the answer."""
    sandbox_id = await world.created()
    assert (await put(world, sandbox_id, denyOut=[ALL])).status_code == 204


async def test_the_last_of_many_updates_is_what_holds(world: World) -> None:
    sandbox_id = await world.created()
    for number in range(20):
        await put(world, sandbox_id, denyOut=[f"192.0.2.{number}"])
        row = await world.row(sandbox_id)
        assert row.options["network"] == {"denyOut": [f"192.0.2.{number}"]}
        assert egress(world, sandbox_id).denied_cidrs == [f"192.0.2.{number}/32"]


async def test_what_does_not_run_is_not_changed(world: World) -> None:
    sleeping = await paused(world)
    answer = await put(world, sleeping, denyOut=[ALL])
    assert answer.status_code == 404
    assert answer.json()["message"] == f'Sandbox "{sleeping}" is not running: connect to it first'

    killed = await world.created()
    await world.http.delete(f"/sandboxes/{killed}")
    for sandbox_id in (killed, "inotthere"):
        answer = await put(world, sandbox_id, denyOut=[ALL])
        assert answer.status_code == 404
        assert "doesn't exist or you don't have access" in answer.json()["message"]


async def test_one_that_is_being_paused_is_in_between(world: World) -> None:
    sandbox_id = await world.created()
    world.host.hold_pause = asyncio.Event()
    pausing = asyncio.create_task(world.http.post(f"/sandboxes/{sandbox_id}/pause", json={}))
    await world.becomes(sandbox_id, "pausing")
    assert (await put(world, sandbox_id, denyOut=[ALL])).status_code == 409
    world.host.hold_pause.set()
    assert (await pausing).status_code == 204


async def test_the_sandbox_of_another_team_is_not_changed(world: World) -> None:
    sandbox_id = await world.created()
    async with await world.other_team() as stranger:
        answer = await stranger.put(f"/sandboxes/{sandbox_id}/network", json={"denyOut": [ALL]})
    assert answer.status_code == 404
    assert egress(world, sandbox_id) == pb.SandboxNetworkEgressConfig()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.INTERNAL, 503),
        (grpc.StatusCode.NOT_FOUND, 404),
        (grpc.StatusCode.ALREADY_EXISTS, 404),
    ],
)
async def test_what_the_host_refused_is_not_recorded(
    world: World, code: grpc.StatusCode, status: int
) -> None:
    sandbox_id = await world.created(network={"denyOut": ["192.0.2.1"]})
    world.host.fail_update = code, "the rules were not taken"
    answer = await put(world, sandbox_id, denyOut=[ALL])
    assert answer.status_code == status
    assert (await detail(world, sandbox_id))["network"]["denyOut"] == ["192.0.2.1"]


@pytest.mark.parametrize("body", [[], {"denyOut": "x"}, {"denyOut": [1]}, {"dnsServers": {}}, "x"])
async def test_bodies_that_cannot_be_meant(world: World, body: object) -> None:
    sandbox_id = await world.created()
    answer = await world.http.put(f"/sandboxes/{sandbox_id}/network", json=body)
    assert answer.status_code == 400


# Pausing and forking


async def test_a_resume_leaves_egress_to_the_host(world: World) -> None:
    """It knows what held when the sandbox was paused, whichever server changed it."""
    sandbox_id = await world.created(
        allow_internet_access=False, network={"maskRequestHost": "a.example"}
    )
    await put(world, sandbox_id, denyOut=["192.0.2.1"])
    await world.http.post(f"/sandboxes/{sandbox_id}/pause", json={})
    await world.http.post(f"/v2/sandboxes/{sandbox_id}/connect", json={})
    request = world.host.creates[-1]
    assert request.sandbox.snapshot
    assert not request.sandbox.network.HasField("egress")
    assert request.sandbox.network.ingress.mask_request_host == "a.example"
    assert (await detail(world, sandbox_id))["network"]["denyOut"] == ["192.0.2.1"]


async def test_a_child_begins_with_what_its_parent_has_now(world: World) -> None:
    parent = await world.created(network={"denyOut": ["192.0.2.1"], "maskRequestHost": "a.example"})
    await put(world, parent, denyOut=["192.0.2.2"], dnsServers=[])
    answer = await world.http.post(f"/sandboxes/{parent}/fork", json={})
    child = answer.json()[0]["sandbox"]["sandboxID"]
    assert world.host.configs[child].network == world.host.configs[parent].network
    assert (await detail(world, child))["network"] == (await detail(world, parent))["network"]
