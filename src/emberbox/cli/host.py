"""The orchestrator of this machine, as our commands ask it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.shared.protocol import GRPC_SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


@dataclass(frozen=True, slots=True)
class HostInfo:
    """What `up` needs of ServiceInfo."""

    ready: bool
    status: str
    sandboxes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A host and its sandboxes."""

    info: pb.ServiceInfoResponse
    sandboxes: Sequence[pb.RunningSandbox]


class HostUnreachableError(Exception):
    """The orchestrator did not answer as hoped.

    `refused`: nobody listens yet, which is normal while it starts.
    """

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class HostClient:
    """gRPC calls to one orchestrator; a channel per call, as there are few of them."""

    address: str
    secret: str = field(repr=False)

    async def info(self, timeout: float = 2.0) -> HostInfo:
        """ServiceInfo, within `timeout` seconds. Raises HostUnreachableError."""
        async with self._channel() as channel:
            stub = pb_grpc.InfoServiceStub(channel)
            answer: pb.ServiceInfoResponse = await stub.ServiceInfo(
                pb.ServiceInfoRequest(), timeout=timeout, metadata=self._metadata()
            )
        return HostInfo(answer.ready, answer.status, answer.sandboxes_running)

    async def listing(self, timeout: float = 5.0) -> Listing:
        """What runs there, within `timeout` seconds. Raises HostUnreachableError."""
        async with self._channel() as channel:
            more = {"timeout": timeout, "metadata": self._metadata()}
            info = pb_grpc.InfoServiceStub(channel).ServiceInfo(pb.ServiceInfoRequest(), **more)
            found = pb_grpc.SandboxServiceStub(channel).List(pb.SandboxListRequest(), **more)
            return Listing(await info, (await found).sandboxes)

    async def story(self, sandbox_id: str, timeout: float = 5.0) -> list[str]:
        """What happened to one sandbox, oldest first. Raises HostUnreachableError."""
        async with self._channel() as channel:
            answer: pb.SandboxGetResponse = await pb_grpc.SandboxServiceStub(channel).Get(
                pb.SandboxGetRequest(sandbox_id=sandbox_id),
                timeout=timeout,
                metadata=self._metadata(),
            )
        return list(answer.story)

    async def shutdown(self, *, keep_sandboxes: bool, timeout: float) -> int:
        """End the host; how many sandboxes that ended. Raises HostUnreachableError."""
        async with self._channel() as channel:
            stub = pb_grpc.HostServiceStub(channel)
            answer: pb.ShutdownResponse = await stub.Shutdown(
                pb.ShutdownRequest(keep_sandboxes=keep_sandboxes),
                timeout=timeout,
                metadata=self._metadata(),
            )
        return answer.sandboxes_ended

    def _metadata(self) -> list[tuple[str, str]]:
        return [(GRPC_SECRET_KEY, self.secret)]

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        # A channel of its own: gRPC otherwise shares the back-off of an earlier failed attempt.
        options = [("grpc.use_local_subchannel_pool", 1)]
        try:
            async with grpc.aio.insecure_channel(self.address, options=options) as channel:
                yield channel
        except grpc.aio.AioRpcError as error:
            refused = error.code() is grpc.StatusCode.UNAVAILABLE
            message = f"{error.code().name}: {error.details()}"
            raise HostUnreachableError(message, refused=refused) from error
