"""Checks of what a client asks of a sandbox's network, with the protocol's messages (2.8)."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from emberbox.api_server.errors import BadRequestError, NotAvailableYetError
from emberbox.api_server.networks import ALL_TRAFFIC, ipv4_network
from emberbox.shared.protocol import ENVD_PORT, MASKED_PORT

if TYPE_CHECKING:
    from collections.abc import Sized

    from emberbox.api_server.models import Egress, Network

_MOST_ENTRIES = 1000
_MOST_DNS_SERVERS = 10
_MOST_HTTPS_PORTS = 100
_LONGEST_NAME = 253
_HIGHEST_PORT = 65535

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*"
_DOMAIN = re.compile(rf"\*|(?:\*\.)?{_NAME}", re.IGNORECASE)
_HOST = re.compile(rf"(?P<host>{_NAME}|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?", re.IGNORECASE)


def check_network(network: Network) -> None:
    """What a create asks for. Raises BadRequestError and NotAvailableYetError."""
    check_egress(network)
    _check_https_ports(network.https_ports or [])
    if network.mask_request_host is not None:
        _check_mask(network.mask_request_host)


def check_egress(egress: Egress) -> None:
    """What a create or an update asks for. Raises BadRequestError and NotAvailableYetError."""
    for field, value in (("rules", egress.rules), ("egressProxy", egress.egress_proxy)):
        if value:
            raise NotAvailableYetError(f"network.{field}")
    _check_dns(egress.dns_servers or [])
    _check_denied(egress.deny_out or [])
    _check_allowed(egress.allow_out or [], egress.deny_out or [])


def _check_denied(entries: list[str]) -> None:
    _check_count("denyOut", entries, _MOST_ENTRIES)
    for entry in entries:
        if ipv4_network(entry) is None and not _is_ipv6(entry):
            raise BadRequestError(f"invalid denied CIDR {entry}")


def _check_allowed(entries: list[str], denied: list[str]) -> None:
    _check_count("allowOut", entries, _MOST_ENTRIES)
    others = [entry for entry in entries if ipv4_network(entry) is None]
    for entry in others:
        if _is_ipv6(entry):
            raise BadRequestError(f"invalid allowed address {entry}: sandboxes have no IPv6")
        if not _is_domain(entry):
            raise BadRequestError(f"invalid allowed address {entry}")
    if others and ALL_TRAFFIC not in denied:
        raise BadRequestError(
            "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny"
            " out to block all other traffic."
        )
    if others:
        raise NotAvailableYetError(f"network.allowOut with a domain ({others[0]})")


def _is_domain(entry: str) -> bool:
    # No top-level domain is a number: that is an address with a mistake in it.
    numeric = entry.rpartition(".")[2].isdecimal()
    return len(entry) <= _LONGEST_NAME and not numeric and bool(_DOMAIN.fullmatch(entry))


def _is_ipv6(entry: str) -> bool:
    address, slash, prefix = entry.partition("/")
    try:
        IPv6Address(address)
    except AddressValueError:
        return False
    return not slash or (prefix.isascii() and prefix.isdecimal() and int(prefix) <= 128)


def _check_dns(servers: list[str]) -> None:
    _check_count("dnsServers", servers, _MOST_DNS_SERVERS)
    for server in servers:
        try:
            IPv4Address(server)
        except AddressValueError:
            raise BadRequestError(f"invalid DNS server {server}: give an IPv4 address") from None


def _check_https_ports(ports: list[int]) -> None:
    _check_count("httpsPorts", ports, _MOST_HTTPS_PORTS)
    for port in ports:
        if not 1 <= port <= _HIGHEST_PORT or port == ENVD_PORT:
            raise BadRequestError(f"network.httpsPorts has {port}: give ports of your servers")


def _check_count(field: str, entries: Sized, most: int) -> None:
    if len(entries) > most:
        raise BadRequestError(f"network.{field} has {len(entries)} entries: at most {most}")


def _check_mask(mask: str) -> None:
    if not mask.isascii():
        raise BadRequestError(f"mask request host is not ASCII: {mask}")
    found = _HOST.fullmatch(mask.replace(MASKED_PORT, str(_HIGHEST_PORT)))
    if found is None or len(found["host"]) > _LONGEST_NAME or _too_high(found["port"]):
        raise BadRequestError(f"mask request host is not valid: {mask}")


def _too_high(port: str | None) -> bool:
    return port is not None and int(port) > _HIGHEST_PORT
