"""An API server whose answers the test chooses: as a resolver has it, and its internal port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

import grpc
import grpc.aio

from emberbox._gen.emberbox.api.v1 import api_pb2 as pb
from emberbox._gen.emberbox.api.v1 import api_pb2_grpc as pb_grpc
from emberbox.shared.protocol import GRPC_SECRET_KEY

if TYPE_CHECKING:
    from emberbox.proxying.auto_resume import Resumed, Traffic
    from emberbox.proxying.replies import Reply

    Context = grpc.aio.ServicerContext[pb.ResumeSandboxRequest, pb.ResumeSandboxResponse]

Decide = Callable[[pb.ResumeSandboxRequest], Awaitable[str]]


class Resuming:
    """Gives a resolver the same answer each time."""

    def __init__(self, answer: Resumed | Reply) -> None:
        self.answer = answer
        self.asked: list[Traffic] = []

    async def resume(self, traffic: Traffic) -> Resumed | Reply:
        self.asked.append(traffic)
        return self.answer


class RefusalError(Exception):
    """How a decision refuses."""

    def __init__(self, code: grpc.StatusCode, message: str = "the reason") -> None:
        super().__init__(message)
        self.code = code


async def unknown(request: pb.ResumeSandboxRequest) -> NoReturn:
    """The decision about a sandbox that is not there."""
    raise RefusalError(grpc.StatusCode.NOT_FOUND)


class Api(pb_grpc.ResumeServiceServicer):
    """Serves ResumeService; `decide` returns the run that a sandbox has, or raises RefusalError."""

    def __init__(self, secret: str, decide: Decide = unknown) -> None:
        self.decide = decide
        self.asked: list[pb.ResumeSandboxRequest] = []
        self._secret = secret
        self._server = grpc.aio.server()
        pb_grpc.add_ResumeServiceServicer_to_server(self, self._server)

    async def start(self) -> str:
        """Where it listens."""
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(0)

    async def ResumeSandbox(  # noqa: N802 - the name of the call
        self, request: pb.ResumeSandboxRequest, context: Context
    ) -> pb.ResumeSandboxResponse:
        self.asked.append(request)
        presented = dict(context.invocation_metadata() or ())
        assert presented[GRPC_SECRET_KEY] == self._secret
        try:
            run = await self.decide(request)
        except RefusalError as refusal:
            await context.abort(refusal.code, str(refusal))
        return pb.ResumeSandboxResponse(node_id="n", execution_id=run, orchestrator_address="a:1")
