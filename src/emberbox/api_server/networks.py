"""A sandbox's network between requests, records and hosts.

A record keeps the request's own fields, in its options, so that answers show them again.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.api_server.models import Egress, Network

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from emberbox.api_server.store.rows import JsonValue

    Options = Mapping[str, JsonValue]

ALL_TRAFFIC = "0.0.0.0/0"
_OPTION = "network"
_OF_UPDATES = ("allow_out", "deny_out", "dns_servers")
_KEPT = {*_OF_UPDATES, "mask_request_host", "https_ports"}


def network_of(options: Options) -> Network:
    """What a record's options say of its network."""
    return Network.model_validate(options.get(_OPTION, {}))


def with_network(options: Options, network: Network) -> dict[str, JsonValue]:
    """A record's options, its network replaced."""
    kept: dict[str, JsonValue] = network.model_dump(include=_KEPT, by_alias=True, exclude_none=True)
    others = {name: value for name, value in options.items() if name != _OPTION}
    return {**others, _OPTION: kept} if kept else others


def with_egress(options: Options, egress: Egress) -> dict[str, JsonValue]:
    """A record's options, what it may reach replaced; what is not given is cleared."""
    changes = {name: getattr(egress, name) for name in _OF_UPDATES}
    return with_network(options, network_of(options).model_copy(update=changes))


def egress_config(
    egress: Egress, allow_internet_access: bool | None
) -> pb.SandboxNetworkEgressConfig:
    """For the host. No internet is everything denied."""
    denied = list(egress.deny_out or [])
    if allow_internet_access is False:
        denied.append(ALL_TRAFFIC)
    servers = egress.dns_servers
    return pb.SandboxNetworkEgressConfig(
        allowed_cidrs=_in_cidr_form(egress.allow_out or []),
        denied_cidrs=_in_cidr_form(denied),
        dns_servers=None if servers is None else pb.DnsServers(addresses=servers),
    )


def ipv4_network(entry: str) -> IPv4Network | None:
    """An address or CIDR of IPv4, whatever the bits behind its prefix; None for all else."""
    _, slash, prefix = entry.partition("/")
    if slash and not (prefix.isascii() and prefix.isdecimal()):
        return None  # Python takes netmasks, too
    try:
        return IPv4Network(entry, strict=False)
    except ValueError:
        return None


def _in_cidr_form(entries: Sequence[str]) -> list[str]:
    """Those of IPv4: sandboxes have no IPv6 that could be denied."""
    return [str(network) for entry in entries if (network := ipv4_network(entry)) is not None]
