"""How a sandbox reaches the internet and is reached from it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NotRequired, TypeAlias, TypedDict

if TYPE_CHECKING:
    from .json_fields import JsonObject

ALL_TRAFFIC = "0.0.0.0/0"
"""In `deny_out`: everything that `allow_out` does not name."""


class SandboxNetworkTransform(TypedDict):
    """What a rule changes in a request."""

    headers: NotRequired[dict[str, str]]
    """Headers to set."""


@dataclass(frozen=True)
class SandboxNetworkTransformIam:
    """The placeholders of identity tokens, by name."""

    tokens: Mapping[str, str]


@dataclass(frozen=True)
class SandboxNetworkTransformContext:
    """What a function that makes a transform is given."""

    iam: SandboxNetworkTransformIam


SandboxNetworkTransformResolver: TypeAlias = Callable[
    [SandboxNetworkTransformContext], SandboxNetworkTransform
]


class SandboxNetworkRule(TypedDict):
    """What happens to requests to a host."""

    transform: NotRequired[SandboxNetworkTransform | SandboxNetworkTransformResolver]


class SandboxNetworkRuleInfo(TypedDict):
    """A rule as the control plane tells it."""

    transform: NotRequired[SandboxNetworkTransform]


SandboxNetworkRules: TypeAlias = dict[str, list[SandboxNetworkRule]]
"""Rules by host."""


@dataclass(frozen=True)
class SandboxNetworkSelectorContext:
    """What a function that selects addresses is given."""

    all_traffic: str
    rules: Mapping[str, list[SandboxNetworkRule]]


SandboxNetworkSelector: TypeAlias = list[str] | Callable[[SandboxNetworkSelectorContext], list[str]]
"""Addresses, networks and (to allow) host names; or a function that gives them."""


class SandboxEgressProxyTLSOpts(TypedDict, total=False):
    """TLS to the egress proxy."""

    server_name: str
    ca_cert: str
    """PEM."""


class SandboxEgressProxyOpts(TypedDict):
    """A SOCKS5 proxy that outgoing connections go through."""

    address: str
    """`host:port`."""
    username: NotRequired[str]
    password: NotRequired[str]
    tls: NotRequired[bool | SandboxEgressProxyTLSOpts]


class SandboxEgressProxyTLSInfo(TypedDict):
    """TLS to the egress proxy, as the control plane tells it."""

    server_name: NotRequired[str]


class SandboxEgressProxyInfo(TypedDict):
    """The egress proxy as the control plane tells it: without the password."""

    address: str
    username: NotRequired[str]
    tls: NotRequired[SandboxEgressProxyTLSInfo]


class SandboxNetworkOpts(TypedDict):
    """The network of a sandbox to create."""

    allow_out: NotRequired[SandboxNetworkSelector]
    deny_out: NotRequired[SandboxNetworkSelector]
    rules: NotRequired[SandboxNetworkRules]
    egress_proxy: NotRequired[SandboxEgressProxyOpts]
    dns_servers: NotRequired[list[str]]
    allow_public_traffic: NotRequired[bool]
    """False: requests to ports need the traffic token."""
    mask_request_host: NotRequired[str]
    https_ports: NotRequired[list[int]]


class SandboxNetworkUpdate(TypedDict, total=False):
    """What can be changed while the sandbox runs; what is left out is cleared."""

    allow_out: SandboxNetworkSelector
    deny_out: SandboxNetworkSelector
    rules: SandboxNetworkRules
    egress_proxy: SandboxEgressProxyOpts
    dns_servers: list[str]
    allow_internet_access: bool


class SandboxNetworkInfo(TypedDict, total=False):
    """The network of a sandbox as the control plane tells it."""

    allow_out: list[str]
    deny_out: list[str]
    rules: dict[str, list[SandboxNetworkRuleInfo]]
    egress_proxy: SandboxEgressProxyInfo
    dns_servers: list[str]
    allow_public_traffic: bool
    mask_request_host: str
    https_ports: list[int]


_WIRE_NAMES = {
    "allow_out": "allowOut",
    "deny_out": "denyOut",
    "rules": "rules",
    "dns_servers": "dnsServers",
    "allow_public_traffic": "allowPublicTraffic",
    "mask_request_host": "maskRequestHost",
    "https_ports": "httpsPorts",
}


def network_info(record: JsonObject | None) -> SandboxNetworkInfo | None:
    """From `SandboxNetworkConfig`; fields that are absent or null are left out."""
    if record is None:
        return None
    known: dict[str, Any] = {
        name: record[wire] for name, wire in _WIRE_NAMES.items() if record.get(wire) is not None
    }
    proxy = record.get("egressProxy")
    if isinstance(proxy, dict):
        known["egress_proxy"] = _egress_proxy(proxy)
    info: SandboxNetworkInfo = known  # type: ignore[assignment]
    return info


def _egress_proxy(record: JsonObject) -> dict[str, object]:
    proxy: dict[str, object] = {
        name: record[name] for name in ("address", "username") if record.get(name) is not None
    }
    tls = record.get("tls")
    if isinstance(tls, dict) and tls.get("enabled"):
        proxy["tls"] = {"server_name": tls["serverName"]} if tls.get("serverName") else {}
    return proxy
