"""The secret that our own programs show one another, checked before any gRPC call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from emberbox.shared.internal_secret import matches
from emberbox.shared.protocol import GRPC_SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class RequireSecret(grpc.aio.ServerInterceptor):
    """Refuses every call that does not carry the secret our own programs share."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._refuse: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            _unauthenticated
        )

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Let a call through, or answer it with UNAUTHENTICATED."""
        metadata = dict(handler_call_details.invocation_metadata or ())
        if matches(metadata.get(GRPC_SECRET_KEY), self._secret):
            return await continuation(handler_call_details)
        return self._refuse


async def _unauthenticated(_request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED,
        f"the call has no valid {GRPC_SECRET_KEY}: give both programs the same"
        " EMBERBOX_INTERNAL_SECRET_FILE",
    )
