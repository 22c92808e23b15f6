"""Networks of sandboxes with the official Python package (group N).

Whether names are resolved tells here what holds: the machine may have no internet. What each policy
closes is tried in tests/integration/hostile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import e2b
import pytest
from e2b import AuthenticationException, SandboxException, SandboxNotFoundException

from tests.compatibility.covering import covers, covers_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.compatibility.flavours import Sdk

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

NO_SANDBOX = "i00000000000000000000"
WRONG_KEY = "e2b_" + "0" * 40

NETWORK = {
    "allow_out": ["192.0.2.1"],
    "deny_out": lambda context: [context.all_traffic],
    "dns_servers": ["192.0.2.1"],
    "mask_request_host": "app.example:${PORT}",
    "https_ports": [8443],
    "allow_public_traffic": False,
}
SHOWN = {**NETWORK, "deny_out": [e2b.ALL_TRAFFIC]}


async def has_names(box: Any) -> bool:
    """Whether the gateway takes queries."""
    probe = "timeout 5 bash -c '</dev/tcp/169.254.0.22/53' 2>/dev/null && echo yes || echo no"
    return bool((await box.commands.run(probe)).stdout == "yes\n")


@covers("Sandbox.create", "Sandbox.get_info")
async def test_what_was_asked_for_is_shown(new_box: Callable[..., Any]) -> None:
    box = await new_box(network=NETWORK)
    assert (await box.get_info()).network == SHOWN


@covers("Sandbox.update_network")
async def test_an_update_replaces_what_may_be_reached(
    sdk: Sdk, new_box: Callable[..., Any]
) -> None:
    box = await new_box()
    assert await has_names(box)
    await box.update_network({"deny_out": [e2b.ALL_TRAFFIC]})
    assert not await has_names(box)
    info = await box.get_info()
    assert info.network == {"allow_public_traffic": True, "deny_out": [e2b.ALL_TRAFFIC]}

    await sdk.Sandbox.update_network(box.sandbox_id, {"allow_internet_access": False})
    assert not await has_names(box)
    assert (await box.get_info()).allow_internet_access is False

    await box.update_network({})
    assert await has_names(box)
    assert (await box.get_info()).network == {"allow_public_traffic": True}


@covers_error(SandboxException, "Sandbox.update_network")
@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"deny_out": ["example.com"]}, "400: invalid denied CIDR example.com"),
        ({"allow_out": ["1.2.3.4/99"]}, "400: invalid allowed address 1.2.3.4/99"),
        ({"allow_out": ["example.com"]}, "400: When specifying allowed domains in allow out"),
        ({"dns_servers": ["example.com"]}, "400: invalid DNS server example.com"),
        (
            {"allow_out": ["example.com"], "deny_out": [e2b.ALL_TRAFFIC]},
            r"501: network.allowOut with a domain \(example.com\): not available in Emberbox yet",
        ),
        ({"rules": {"a.example": [{"transform": {"headers": {"a": "b"}}}]}}, "501: network.rules"),
        ({"egress_proxy": {"address": "a.example:1080"}}, "501: network.egressProxy"),
    ],
)
async def test_what_cannot_be_asked_for(box: Any, network: dict[str, Any], message: str) -> None:
    with pytest.raises(SandboxException, match=message):
        await box.update_network(network)
    assert (await box.get_info()).network == {"allow_public_traffic": True}


@covers_error(SandboxException, "Sandbox.create")
@pytest.mark.parametrize("mask", ["bücher.example", "a b", "a.example:99999"])
async def test_hosts_that_cannot_be(sdk: Sdk, mask: str) -> None:
    with pytest.raises(SandboxException, match=r"400: mask request host is not (valid|ASCII): "):
        await sdk.Sandbox.create(network={"mask_request_host": mask})


@covers_error(SandboxNotFoundException, "Sandbox.update_network")
async def test_the_network_of_nothing(sdk: Sdk, new_box: Callable[..., Any]) -> None:
    killed = await new_box()
    await killed.kill()
    for sandbox_id in (NO_SANDBOX, killed.sandbox_id):
        with pytest.raises(SandboxNotFoundException):
            await sdk.Sandbox.update_network(sandbox_id, {})


@covers_error(AuthenticationException, "Sandbox.update_network")
async def test_the_network_with_a_wrong_key(sdk: Sdk, box: Any) -> None:
    with pytest.raises(AuthenticationException):
        await sdk.Sandbox.update_network(box.sandbox_id, {}, api_key=WRONG_KEY)
