"""Links, addresses, routes and neighbours over rtnetlink(7), without a process for each."""

from __future__ import annotations

import errno
import socket
import struct

from emberbox.orchestrator.network.errors import KernelRefusedError
from emberbox.orchestrator.network.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NetlinkSocket,
    attribute,
    nested,
    read_attributes,
    text_attribute,
)

_RTM_NEWLINK = 16
_RTM_DELLINK = 17
_RTM_GETLINK = 18
_RTM_NEWADDR = 20
_RTM_DELADDR = 21
_RTM_GETADDR = 22
_RTM_NEWROUTE = 24
_RTM_NEWNEIGH = 28

_IFF_UP = 1
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_LINKINFO = 18
_IFLA_NET_NS_FD = 28
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_VETH_INFO_PEER = 1
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_LABEL = 3
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RT_TABLE_MAIN = 254
_RTPROT_STATIC = 4
_RTN_UNICAST = 1
_NDA_DST = 1
_NDA_LLADDR = 2
_NUD_PERMANENT = 0x80
_SCOPE_UNIVERSE = 0
_SCOPE_HOST = 254


class Links(NetlinkSocket):
    """The links of the namespace in which this was opened. All raise KernelRefusedError."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def add_veth(self, name: str, peer: str, peer_netns_fd: int) -> None:
        """Make a veth pair, its other end in another namespace."""
        peer_attributes = (
            _link()
            + text_attribute(_IFLA_IFNAME, peer)
            + attribute(_IFLA_NET_NS_FD, struct.pack("=I", peer_netns_fd))
        )
        info = nested(
            _IFLA_LINKINFO,
            text_attribute(_IFLA_INFO_KIND, "veth"),
            nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer_attributes)),
        )
        body = _link() + text_attribute(_IFLA_IFNAME, name) + info
        self.request(f"add link {name}", _RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)

    def delete(self, name: str) -> None:
        """Remove a link. Nothing happens when it is absent."""
        body = _link() + text_attribute(_IFLA_IFNAME, name)
        try:
            self.request(f"delete link {name}", _RTM_DELLINK, 0, body)
        except KernelRefusedError as error:
            if error.errno != errno.ENODEV:
                raise

    def index(self, name: str) -> int:
        """The number of a link; ENODEV when it is absent."""
        body = _link() + text_attribute(_IFLA_IFNAME, name)
        answers = self.request(f"find link {name}", _RTM_GETLINK, 0, body)
        (number,) = struct.unpack_from("=i", answers[0], 4)
        return int(number)

    def up(self, index: int, mac: str | None = None) -> None:
        """Bring a link up, with this hardware address if given."""
        body = _link(index, _IFF_UP)
        if mac is not None:
            body += attribute(_IFLA_ADDRESS, _mac(mac))
        self.request(f"bring up link {index}", _RTM_NEWLINK, 0, body)

    def add_address(self, index: int, address: str, prefix: int) -> None:
        """Give a link an IPv4 address."""
        body = _address(index, prefix, _SCOPE_UNIVERSE, address)
        self.request(f"add address {address}", _RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)

    def add_host_address(self, index: int, address: str, label: str) -> None:
        """Give a link a /32 that is never chosen as the source of the host's own traffic."""
        body = _address(index, 32, _SCOPE_HOST, address) + text_attribute(_IFA_LABEL, label)
        try:
            self.request(f"add address {address}", _RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)
        except KernelRefusedError as error:
            if error.errno != errno.EEXIST:
                raise

    def delete_host_address(self, index: int, address: str) -> None:
        """Take such an address away. Nothing happens when it is absent."""
        body = _address(index, 32, _SCOPE_HOST, address)
        try:
            self.request(f"delete address {address}", _RTM_DELADDR, 0, body)
        except KernelRefusedError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise

    def addresses(self) -> list[tuple[str, str]]:
        """Every IPv4 address of the namespace, with the name of its link."""
        head = struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)
        found = []
        for answer in self.request("list addresses", _RTM_GETADDR, NLM_F_DUMP, head):
            (index,) = struct.unpack_from("=I", answer, 4)
            local = read_attributes(answer[8:])[_IFA_LOCAL]
            found.append((socket.inet_ntoa(local), socket.if_indextoname(index)))
        return found

    def add_default_route(self, index: int, gateway: str) -> None:
        """Send what has no other route to a gateway on that link."""
        head = struct.pack(
            "=BBBBBBBBI",
            socket.AF_INET,
            0,
            0,
            0,
            _RT_TABLE_MAIN,
            _RTPROT_STATIC,
            _SCOPE_UNIVERSE,
            _RTN_UNICAST,
            0,
        )
        body = (
            head
            + attribute(_RTA_GATEWAY, socket.inet_aton(gateway))
            + attribute(_RTA_OIF, struct.pack("=i", index))
        )
        self.request("add the default route", _RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)

    def add_neighbour(self, index: int, address: str, mac: str) -> None:
        """Fix the hardware address of a neighbour for ever."""
        body = (
            struct.pack("=BxxxiHBB", socket.AF_INET, index, _NUD_PERMANENT, 0, 0)
            + attribute(_NDA_DST, socket.inet_aton(address))
            + attribute(_NDA_LLADDR, _mac(mac))
        )
        self.request(f"add neighbour {address}", _RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, body)


def _link(index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _address(index: int, prefix: int, scope: int, address: str) -> bytes:
    packed = socket.inet_aton(address)
    head = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, scope, index)
    return head + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
