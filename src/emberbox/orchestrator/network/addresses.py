"""Names and addresses: those that are the same in every slot, and those of one node."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

GUEST_ADDRESS = "169.254.0.21"
GATEWAY_ADDRESS = "169.254.0.22"
GUEST_PREFIX = 30
"""The guest's network: fixed, so that a clone of a snapshot needs no reconfiguration."""

GUEST_MAC = "02:FC:00:00:00:05"
GATEWAY_MAC = "02:FC:00:00:00:06"
"""The gateway's is fixed too: a resumed guest still has it in its neighbour table."""

TAP = "tap0"
UPLINK = "eth0"
"""The two links inside a slot's namespace: to the VM and to the host."""

DEFAULT_RANGE = IPv4Network("10.11.0.0/16")
DEFAULT_DNS_PORT = 10053
"""Where the forwarder listens: not 53, which the host's own resolver may hold on all addresses."""

NETNS_DIRECTORY = Path("/run/netns")
"""Where iproute2 keeps named namespaces, so that `ip netns` shows ours."""

_TAG_LENGTH = 5


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot. Everything in it follows from the node and `index`."""

    index: int
    netns: str
    address: str
    """Reaches the VM from the host, on the same ports. It is the veth's end inside."""
    host_address: str
    """The host's end of the veth: the source that the guest sees of proxied traffic."""
    link: str
    """The host's end of the veth, by name."""
    tap: str = TAP

    @property
    def netns_path(self) -> Path:
        """The namespace's file."""
        return NETNS_DIRECTORY / self.netns


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """What one orchestrator's network is called and which addresses it may use.

    Several nodes share a machine when their `tag` and `address_range` differ. The range is cut
    into pairs: pair 0 stays free, the last one holds the DNS forwarder's address, every other is
    one slot's veth (even address on the host, odd one in the slot).
    """

    tag: str
    address_range: IPv4Network = DEFAULT_RANGE
    egress_allow: tuple[IPv4Network, ...] = ()
    """Ranges that operators open for every guest (EMBERBOX_EGRESS_ALLOW), before the denies."""
    dns_port: int = DEFAULT_DNS_PORT
    bandwidth: int | None = None
    """Bytes a second that a guest may send, and as many that it may receive."""

    def __post_init__(self) -> None:
        if not (self.tag.isalnum() and self.tag.isascii() and len(self.tag) <= 6):
            raise ValueError(f"tag {self.tag!r} must be 1 to 6 letters and digits")
        if self.address_range.prefixlen > 28:
            raise ValueError(f"network range {self.address_range} is too small; /28 at least")

    @classmethod
    def of_node(
        cls,
        node_id: str,
        address_range: IPv4Network = DEFAULT_RANGE,
        egress_allow: tuple[IPv4Network, ...] = (),
        dns_port: int = DEFAULT_DNS_PORT,
        bandwidth: int | None = None,
    ) -> NodeNetwork:
        """The network of the node with that id; the same id gives the same names for ever."""
        tag = hashlib.sha256(node_id.encode()).hexdigest()[:_TAG_LENGTH]
        return cls(tag, address_range, egress_allow, dns_port, bandwidth)

    @property
    def capacity(self) -> int:
        """How many slots the range holds. Their indices are 1 to `capacity`."""
        return self.address_range.num_addresses // 2 - 2

    @property
    def dns_address(self) -> str:
        """The forwarder's address on the host."""
        return str(self._address(self.address_range.num_addresses - 2))

    @property
    def dns_label(self) -> str:
        """The label of that address on `lo`, by which it is found again."""
        return f"lo:eb{self.tag}"

    @property
    def table(self) -> str:
        """Name of our nftables tables, in the slots and on the host."""
        return f"emberbox_{self.tag}"

    @property
    def link_prefix(self) -> str:
        """How the names of our links on the host begin (15 bytes is the limit of a name)."""
        return f"eb{self.tag}v"

    @property
    def netns_prefix(self) -> str:
        """How the names of our namespaces begin."""
        return f"eb-{self.tag}-"

    def slot(self, index: int) -> Slot:
        """The slot with that index. Raises ValueError when the range does not reach so far."""
        if not 1 <= index <= self.capacity:
            raise ValueError(f"slot index {index} is not within 1 and {self.capacity}")
        return Slot(
            index=index,
            netns=f"{self.netns_prefix}{index}",
            address=str(self._address(2 * index + 1)),
            host_address=str(self._address(2 * index)),
            link=f"{self.link_prefix}{index}",
        )

    def index_of_netns(self, name: str) -> int | None:
        """The index behind a namespace's name, None when it is not ours."""
        return self._index(name, self.netns_prefix)

    def index_of_link(self, name: str) -> int | None:
        """The index behind a link's name, None when it is not ours."""
        return self._index(name, self.link_prefix)

    def _index(self, name: str, prefix: str) -> int | None:
        number = name.removeprefix(prefix)
        if number == name or not number.isdecimal():
            return None
        return int(number) if 1 <= int(number) <= self.capacity else None

    def _address(self, offset: int) -> IPv4Address:
        return self.address_range.network_address + offset
