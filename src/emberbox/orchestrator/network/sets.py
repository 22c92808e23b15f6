"""Replacing the contents of nftables sets over nfnetlink, in one transaction.

The create path sets a guest's policy this way: no process, and no libnftables, which ends the
whole program when it cannot open a socket. Message and attribute numbers:
linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from emberbox.orchestrator.network.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NetlinkSocket,
    attribute,
    message,
    nested,
    text_attribute,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from ipaddress import IPv4Network

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
_NEW_ELEMENTS = _SUBSYSTEM << 8 | 12
_DELETE_ELEMENTS = _SUBSYSTEM << 8 | 14
_NFPROTO_INET = 1

_LIST_TABLE = 1
_LIST_SET = 2
_LIST_ELEMENTS = 3
_LIST_ELEMENT = 1
_ELEMENT_KEY = 1
_ELEMENT_FLAGS = 3
_DATA_VALUE = 1
_INTERVAL_END = 1

_NETWORKS_PER_MESSAGE = 500
"""An attribute holds 64 KiB at most; a network takes about 60 bytes."""


def replace_sets(table: str, contents: Mapping[str, Sequence[IPv4Network]]) -> NetlinkSocket:
    """Give sets of IPv4 intervals new contents, all at once, in the calling thread's namespace.

    The networks of one set must not overlap. Raises KernelRefusedError; then nothing changed.
    Returns the socket for the caller to close when nobody waits any more: the kernel lets a close
    wait until it has freed what the transaction removed (measured: 7 to 20 ms, against 0.2 ms).
    """
    begin = message(_BATCH_BEGIN, 0, _generic(socket.AF_UNSPEC, _SUBSYSTEM))
    changes = list(_changes(table, contents))
    end = message(_BATCH_END, 0, _generic(socket.AF_UNSPEC, _SUBSYSTEM))
    awaited = {sequence for sequence, _ in changes}
    netfilter = NetlinkSocket(_NETLINK_NETFILTER)
    try:
        netfilter.batch(f"replace sets of {table}", [begin, *changes, end], awaited)
    except BaseException:
        netfilter.close()
        raise
    return netfilter


def _changes(
    table: str, contents: Mapping[str, Sequence[IPv4Network]]
) -> Iterator[tuple[int, bytes]]:
    for name, networks in contents.items():
        head = _generic(_NFPROTO_INET, 0) + _names(table, name)
        yield message(_DELETE_ELEMENTS, NLM_F_ACK, head)
        for start in range(0, len(networks), _NETWORKS_PER_MESSAGE):
            some = networks[start : start + _NETWORKS_PER_MESSAGE]
            added = nested(_LIST_ELEMENTS, *(e for n in some for e in elements(n)))
            yield message(_NEW_ELEMENTS, NLM_F_ACK | NLM_F_CREATE, head + added)


def _names(table: str, name: str) -> bytes:
    return text_attribute(_LIST_TABLE, table) + text_attribute(_LIST_SET, name)


def elements(network: IPv4Network) -> list[bytes]:
    """The set elements that stand for a network: its first address, and the one after its last."""
    first = int(network.network_address)
    after = first + network.num_addresses
    # An interval that reaches the end of the address space has no closing element.
    closing = [_element(after, _INTERVAL_END)] if after < 1 << 32 else []
    return [_element(first, 0), *closing]


def _element(key: int, flags: int) -> bytes:
    value = nested(_ELEMENT_KEY, attribute(_DATA_VALUE, struct.pack("!I", key)))
    if flags:
        value += attribute(_ELEMENT_FLAGS, struct.pack("!I", flags))
    return nested(_LIST_ELEMENT, value)


def _generic(family: int, resource: int) -> bytes:
    return struct.pack("!BBH", family, 0, resource)
