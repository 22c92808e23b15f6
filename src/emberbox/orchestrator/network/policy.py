"""What a guest may reach, and its form as the contents of the sets in its slot's rules."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses

from emberbox.orchestrator.network.addresses import GATEWAY_ADDRESS

EVERYTHING = IPv4Network("0.0.0.0/0")
_GATEWAY = IPv4Network(GATEWAY_ADDRESS)

ALLOW_SET = "allow_out"
DENY_SET = "deny_out"
DNS_SET = "dns_gateway"
"""The sets in a slot's table whose contents are the policy."""


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What a guest may reach outside. Closed ranges stay closed under every policy.

    `allow` wins over `deny`, as in the E2B protocol, where no internet means deny 0.0.0.0/0.
    A guest that is denied everything has no DNS either: queries carry data out.
    """

    internet: bool
    allow: tuple[IPv4Network, ...] = ()
    deny: tuple[IPv4Network, ...] = ()

    def sets(self) -> dict[str, tuple[IPv4Network, ...]]:
        """The contents of the policy's sets, without overlaps."""
        deny = self.deny if self.internet else (*self.deny, EVERYTHING)
        denied = tuple(collapse_addresses(deny))
        return {
            ALLOW_SET: tuple(collapse_addresses(self.allow)),
            DENY_SET: denied,
            DNS_SET: () if EVERYTHING in denied else (_GATEWAY,),
        }


CLOSED = EgressPolicy(internet=False)
"""The policy of a slot that nobody has acquired."""
