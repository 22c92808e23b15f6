"""Whether resolvers answer, asked as the forwarder asks them."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from emberbox.orchestrator.network.dns import upstream

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT_SERVERS = b"\1\0\0\1\0\0\0\0\0\0\0\0\2\0\1"
"""A query behind its id: the name servers of the root, which every resolver knows."""


async def silent(resolvers: Iterable[str], seconds: float) -> list[str]:
    """Those that do not answer within that time, all asked at once."""
    addresses = list(resolvers)
    answers = await asyncio.gather(*(_answers(address, seconds) for address in addresses))
    return [address for address, answered in zip(addresses, answers, strict=True) if not answered]


async def _answers(resolver: str, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await upstream.ask_by_udp(resolver, os.urandom(2) + _ROOT_SERVERS)
    except OSError:  # TimeoutError among them
        return False
    return True
