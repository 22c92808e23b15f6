"""What a guest may reach, and its form as the contents of the sets in its slot's rules."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable

EVERYTHING = IPv4Network("0.0.0.0/0")


class _Ranges:
    """Networks without overlaps, in which an address is found fast."""

    def __init__(self, networks: tuple[IPv4Network, ...]) -> None:
        self._firsts = sorted(int(network.network_address) for network in networks)
        self._lasts = sorted(int(network.broadcast_address) for network in networks)

    def __contains__(self, address: IPv4Address) -> bool:
        at = bisect.bisect_right(self._firsts, int(address)) - 1
        return at >= 0 and int(address) <= self._lasts[at]


class PolicyFields(TypedDict):
    """A policy as JSON holds it."""

    allow: list[str]
    deny: list[str]
    dns_servers: list[str] | None


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What a guest may reach outside. Closed ranges stay closed under every policy.

    `allow` wins over `deny`; what is in neither is open (protocol reference, 4.7).
    dns_servers: where the gateway's port 53 leads, as far as the guest may reach them itself; None
    for the host's resolvers, which a guest that is denied everything does not have: queries carry
    data out.
    """

    allow: tuple[IPv4Network, ...] = ()
    deny: tuple[IPv4Network, ...] = ()
    dns_servers: tuple[IPv4Address, ...] | None = None

    @property
    def allowed(self) -> tuple[IPv4Network, ...]:
        """The networks of `allow` without overlaps."""
        return tuple(collapse_addresses(self.allow))

    @property
    def denied(self) -> tuple[IPv4Network, ...]:
        """The networks of `deny` without overlaps."""
        return tuple(collapse_addresses(self.deny))

    @property
    def uses_resolvers_of_host(self) -> bool:
        """Whether the gateway passes queries to the host's resolvers."""
        return self.dns_servers is None and EVERYTHING not in self.denied

    def judge(self) -> Callable[[IPv4Address], bool]:
        """A function that tells whether the policy leaves an address open.

        Of ranges that are closed under every policy it knows nothing.
        """
        allowed, denied = _Ranges(self.allowed), _Ranges(self.denied)
        return lambda address: address in allowed or address not in denied

    def describe(self) -> str:
        """One line for people."""
        servers = "the host's" if self.dns_servers is None else len(self.dns_servers)
        return f"{len(self.allow)} allowed, {len(self.deny)} denied, {servers} DNS servers"

    def to_json(self) -> PolicyFields:
        """Its fields for a record."""
        servers = None if self.dns_servers is None else [str(one) for one in self.dns_servers]
        return {
            "allow": [str(network) for network in self.allow],
            "deny": [str(network) for network in self.deny],
            "dns_servers": servers,
        }

    @classmethod
    def from_json(cls, fields: PolicyFields) -> EgressPolicy:
        """Read what `to_json` gave. Raises ValueError or KeyError on anything else."""
        servers = fields["dns_servers"]
        return cls(
            allow=tuple(IPv4Network(text) for text in fields["allow"]),
            deny=tuple(IPv4Network(text) for text in fields["deny"]),
            dns_servers=None if servers is None else tuple(map(IPv4Address, servers)),
        )


OPEN = EgressPolicy()
"""The policy of a sandbox that nobody gave another."""

CLOSED = EgressPolicy(deny=(EVERYTHING,))
"""The policy of a slot that nobody has acquired."""


def recorded_policy(record: dict[str, Any]) -> EgressPolicy:
    """The policy in a record's JSON, taken out of it.

    Older records say only whether there was internet. Raises ValueError or KeyError.
    """
    internet = record.pop("internet", None)
    if "egress" in record:
        return EgressPolicy.from_json(record.pop("egress"))
    if internet is None:
        raise KeyError("egress")
    return OPEN if internet else CLOSED
