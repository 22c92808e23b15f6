"""gRPC connections between our own programs."""

from __future__ import annotations

import asyncio

import grpc.aio

_OPTIONS = (
    # A proxy of the environment is for the internet, not for our own hosts.
    ("grpc.enable_http_proxy", 0),
    # A restarted program is met again within a second, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """A connection to `host:port` that is made when it is used and made again when it breaks."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


async def connects_within(seconds: float, channel: grpc.aio.Channel) -> bool:
    """Wait until there is a connection; False when there is none by then.

    Asked before a call, it tells "never sent" from "sent and lost": gRPC says UNAVAILABLE to both.
    """
    try:
        async with asyncio.timeout(seconds):
            await channel.channel_ready()
    except TimeoutError:
        return False
    return True
