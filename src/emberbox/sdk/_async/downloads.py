"""The content of a file as it arrives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx2

from emberbox.sdk.error_mapping import request_timed_out

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Self

    from .envd import AsyncEnvd


class AsyncFileStreamReader:
    """The content of a file as it arrives. Read it to its end, or close it.

    It is an iterator of bytes and a context manager that closes it.
    """

    def __init__(self, response: httpx2.Response, envd: AsyncEnvd, limit: float | None) -> None:
        self._response = response
        self._envd = envd
        self._deadline = None if limit is None else time.monotonic() + limit
        self._chunks = response.aiter_bytes()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            self._check_deadline()
            return await anext(self._chunks)
        except httpx2.TransportError as error:
            await self.aclose()
            raise await self._envd.explain_lost(error) from error
        except BaseException:
            await self.aclose()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give up the connection. Can be called again."""
        await self._response.aclose()

    def _check_deadline(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise request_timed_out()
