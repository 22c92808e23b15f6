"""Networks as the control plane is asked for them. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .network_models import ALL_TRAFFIC, SandboxNetworkSelectorContext
from .not_yet import refuse_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .network_models import (
        SandboxNetworkOpts,
        SandboxNetworkSelector,
        SandboxNetworkUpdate,
    )

_TO_COME = ("rules", "egress_proxy")
_PLAIN = {
    "dns_servers": "dnsServers",
    "allow_public_traffic": "allowPublicTraffic",
    "mask_request_host": "maskRequestHost",
    "https_ports": "httpsPorts",
    "allow_internet_access": "allow_internet_access",
}
_SELECTORS = {"allow_out": "allowOut", "deny_out": "denyOut"}


def network_body(owner: str, network: SandboxNetworkOpts | None) -> dict[str, object]:
    """The network in the body of a create.

    Raises NotSupportedYetException, in the name of `owner`, for a field that cannot be asked for.
    """
    body = _body(owner, network or {})
    return {"network": body} if body else {}


def network_update_body(owner: str, network: SandboxNetworkUpdate) -> dict[str, object]:
    """Body of `PUT /sandboxes/{id}/network`. Raises as `network_body`."""
    return _body(owner, network)


def _body(owner: str, network: Mapping[str, Any]) -> dict[str, object]:
    refuse_options(owner, {f"network.{name}": network.get(name) for name in _TO_COME})
    selected = {
        wire: _selected(network[name])
        for name, wire in _SELECTORS.items()
        if network.get(name) is not None
    }
    plain = {wire: network[name] for name, wire in _PLAIN.items() if network.get(name) is not None}
    return {**selected, **plain}


def _selected(selector: SandboxNetworkSelector) -> list[str]:
    if callable(selector):
        selector = selector(SandboxNetworkSelectorContext(ALL_TRAFFIC, {}))
    return list(selector)
