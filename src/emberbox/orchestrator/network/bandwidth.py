"""Bounding how fast a link sends, with the kernel's token bucket (tc-tbf(8)).

Message and attribute numbers: linux/rtnetlink.h, linux/pkt_sched.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emberbox.orchestrator.network.errors import KernelRefusedError
from emberbox.orchestrator.network.netlink import (
    NLM_F_CREATE,
    NLM_F_REPLACE,
    attribute,
    nested,
    text_attribute,
)

if TYPE_CHECKING:
    from emberbox.orchestrator.network.links import Links

_RTM_NEWQDISC = 36
_RTM_DELQDISC = 37
_ROOT = 0xFFFFFFFF
_TCA_KIND = 1
_TCA_OPTIONS = 2
_TBF_PARAMETERS = 1
_TBF_RATE64 = 4
_TBF_BURST = 6
_LINK_LAYER_ETHERNET = 1

_SMALLEST_BURST = 64 * 1024
_BURST_S = 0.02
_QUEUE_S = 0.1
"""What may pass at once, and what may wait: of the bytes of a second, so many seconds' worth."""


def limit(links: Links, index: int, rate: int | None) -> None:
    """Let a link send so many bytes a second at most, or as fast as it can with None.

    What is above it waits for a moment and is then dropped. Raises KernelRefusedError.
    """
    head = struct.pack("=BxxxiIII", 0, index, 0, _ROOT, 0)
    if rate is not None:
        body = head + text_attribute(_TCA_KIND, "tbf") + _bucket(rate)
        links.request("limit a link", _RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body)
        return
    try:
        links.request("free a link", _RTM_DELQDISC, 0, head)
    except KernelRefusedError as error:
        if not error.nothing_is_there:
            raise


def _bucket(rate: int) -> bytes:
    burst = max(int(rate * _BURST_S), _SMALLEST_BURST)
    waiting = burst + int(rate * _QUEUE_S)
    # A rate specification, none for peaks, then limit, and buffer and mtu that BURST replaces.
    narrow = struct.pack("=BBHhHI", 0, _LINK_LAYER_ETHERNET, 0, 0, 0, min(rate, 0xFFFFFFFF))
    parameters = narrow + bytes(len(narrow)) + struct.pack("=III", waiting, 0, 0)
    return nested(
        _TCA_OPTIONS,
        attribute(_TBF_PARAMETERS, parameters),
        attribute(_TBF_RATE64, struct.pack("=Q", rate)),
        attribute(_TBF_BURST, struct.pack("=I", burst)),
    )
