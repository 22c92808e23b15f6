"""Tells the API servers that this host is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

import grpc
import grpc.aio
import structlog

from emberbox._gen.emberbox.api.v1 import api_pb2 as pb
from emberbox._gen.emberbox.api.v1 import api_pb2_grpc as pb_grpc
from emberbox.shared.channels import open_channel
from emberbox.shared.protocol import GRPC_SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpc.aio import UnaryUnaryMultiCallable

    from emberbox.orchestrator.node_info import NodeInfo

_log = structlog.get_logger(__name__)

_ANSWER_SECONDS = 3.0


class _Nodes(Protocol):
    Heartbeat: UnaryUnaryMultiCallable[pb.HeartbeatRequest, pb.HeartbeatResponse]


class Heartbeat:
    """Says it to one of the API servers, and to the next when that one does not answer.

    `addresses` are host:port of their internal ports, or of a load balancer before them.
    """

    def __init__(
        self, addresses: Sequence[str], secret: str, info: NodeInfo, interval: float
    ) -> None:
        self._addresses = list(addresses)
        self._metadata = ((GRPC_SECRET_KEY, secret),)
        self._info = info
        self._interval = interval
        self._told = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; nothing waits for the API servers."""
        if self._addresses:
            self._task = asyncio.get_running_loop().create_task(self._forever(), name="heartbeat")

    async def close(self) -> None:
        """Fall silent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _forever(self) -> None:
        while True:
            await self._to_any()
            await asyncio.sleep(self._interval)

    async def _to_any(self) -> None:
        reason = ""
        for address in list(self._addresses):
            try:
                async with open_channel(address) as channel:
                    stub = cast("_Nodes", pb_grpc.NodeServiceStub(channel))
                    await stub.Heartbeat(
                        pb.HeartbeatRequest(info=self._info.read()),
                        metadata=self._metadata,
                        timeout=_ANSWER_SECONDS,
                    )
            except grpc.aio.AioRpcError as error:
                reason = f"{address}: {error.code().name}: {error.details()}"
                # The next time with another one first.
                self._addresses.append(self._addresses.pop(0))
            else:
                self._tell("")
                return
        self._tell(reason)

    def _tell(self, reason: str) -> None:
        if bool(reason) != bool(self._told):  # once, not at every beat
            if reason:
                _log.warning("no API server hears this host", reason=reason)
            else:
                _log.info("an API server hears this host again")
        self._told = reason
