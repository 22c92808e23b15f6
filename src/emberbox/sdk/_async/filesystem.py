"""`sandbox.files`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, overload

import httpx2

from emberbox.sdk.error_mapping import FILE_HTTP_ERRORS, FILE_RPC_ERRORS, request_timed_out
from emberbox.sdk.errors import (
    AlreadyExistsException,
    FileNotFoundException,
    InvalidArgumentException,
    SandboxException,
)
from emberbox.sdk.file_models import EntryInfo, WriteInfo, metadata_headers
from emberbox.sdk.json_fields import nested, parse_objects, repeated
from emberbox.sdk.not_yet import NotYet
from emberbox.sdk.transport_options import limits

from .flavour import chunks_of, compress

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Sequence
    from typing import Self

    from emberbox.sdk.config import ConnectionConfig, Username
    from emberbox.sdk.file_models import AsyncWriteData, AsyncWriteEntry
    from emberbox.sdk.json_fields import JsonObject

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


class AsyncFilesystem:
    """Files in the sandbox. Relative paths start at the user's home.

    `user` acts as that user instead of the sandbox's default one; `request_timeout` is in
    seconds, 0 for no limit. Every method can raise SandboxNotRunningException when the
    sandbox is gone, SandboxUnreachableException when it does not answer, and
    AuthenticationException.
    """

    watch_dir = NotYet()

    def __init__(self, envd: AsyncEnvd, config: ConnectionConfig) -> None:
        self._envd = envd
        self._config = config

    @overload
    async def read(
        self,
        path: str,
        format: Literal["text"] = "text",
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
    ) -> str: ...

    @overload
    async def read(
        self,
        path: str,
        format: Literal["bytes"],
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
    ) -> bytearray: ...

    @overload
    async def read(
        self,
        path: str,
        format: Literal["stream"],
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> AsyncFileStreamReader: ...

    async def read(  # noqa: PLR0917 (as in e2b)
        self,
        path: str,
        format: Literal["text", "bytes", "stream"] = "text",  # noqa: A002 (the name in e2b)
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> str | bytearray | AsyncFileStreamReader:
        """Read a file, as text (UTF-8), as bytes, or as a stream that is never whole in memory.

        Args:
            request_timeout: longest wait for a part of the content; for a stream, when given,
                the limit of the whole transfer.
            gzip: ask for compressed transfer.
            stream_idle_timeout: longest wait for a part of a stream, in seconds; 0 for no limit.

        Raises:
            FileNotFoundException: there is no such file.
            InvalidArgumentException: it is a directory, or `format` is unknown.
        """
        if format not in ("text", "bytes", "stream"):
            raise InvalidArgumentException(f"format must be text, bytes or stream, got {format!r}")
        idle = self._config.timeout(
            request_timeout if stream_idle_timeout is None else stream_idle_timeout
        )
        response = await self._envd.request(
            "GET",
            "/files",
            params=_file_parameters(path, user),
            headers={"Accept-Encoding": "gzip" if gzip else "identity"},
            timeout=limits(idle),
            stream=True,
            errors=FILE_HTTP_ERRORS,
        )
        reader = AsyncFileStreamReader(
            response, self._envd, request_timeout if format == "stream" else None
        )
        if format == "stream":
            return reader
        content = bytearray()
        async for chunk in reader:
            content += chunk
        return content if format == "bytes" else content.decode(errors="replace")

    async def write(  # noqa: PLR0917 (as in e2b)
        self,
        path: str,
        data: AsyncWriteData,
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
        metadata: dict[str, str] | None = None,
    ) -> WriteInfo:
        """Write a file; it and its parent directories are created where missing.

        Args:
            data: text, bytes, an open file or an iterable of bytes; the latter two are sent
                in pieces and never whole in memory.
            request_timeout: longest wait for the sandbox to take a part of the data.
            gzip: compress the transfer.
            use_octet_stream: ignored: every upload is an octet stream.
            metadata: stored with the file.

        Raises:
            NotEnoughSpaceException: the sandbox's disk is full.
            InvalidArgumentException: the path, the data or the metadata cannot be used.
        """
        content = chunks_of(data)
        headers = {"Content-Type": "application/octet-stream", **metadata_headers(metadata)}
        if gzip:
            content = compress(content)
            headers["Content-Encoding"] = "gzip"
        elif isinstance(data, str | bytes):
            headers["Content-Length"] = str(len(data.encode() if isinstance(data, str) else data))
        response = await self._envd.request(
            "POST",
            "/files",
            params=_file_parameters(path, user),
            headers=headers,
            content=content,
            timeout=limits(self._config.timeout(request_timeout)),
            errors=FILE_HTTP_ERRORS,
        )
        written = parse_objects(response.content, "the answer to the upload")
        if len(written) != 1:
            raise SandboxException(f"the upload of one file was answered by {len(written)}")
        return WriteInfo.from_json(written[0])

    async def write_files(  # noqa: PLR0917 (as in e2b)
        self,
        files: Sequence[AsyncWriteEntry],
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
        metadata: dict[str, str] | None = None,
    ) -> builtins.list[WriteInfo]:
        """Write several files, one after the other; options and errors as of `write`."""
        return [
            await self.write(
                file["path"], file["data"], user, request_timeout, gzip, use_octet_stream, metadata
            )
            for file in files
        ]

    async def list(
        self,
        path: str,
        depth: int | None = 1,
        user: Username | None = None,
        request_timeout: float | None = None,
    ) -> builtins.list[EntryInfo]:
        """The entries of a directory, and of those below it down to `depth`.

        Raises:
            FileNotFoundException: there is no such directory.
            InvalidArgumentException: it is not a directory, or `depth` is below 1.
        """
        if depth is not None and depth < 1:
            raise InvalidArgumentException("depth should be at least 1")
        message = {"path": path, "depth": depth or 0}
        answer = await self._call("ListDir", message, user, request_timeout)
        entries = [EntryInfo.from_json(entry) for entry in repeated(answer, "entries")]
        return [entry for entry in entries if entry.type is not None]

    async def exists(
        self, path: str, user: Username | None = None, request_timeout: float | None = None
    ) -> bool:
        """Whether there is such a file or directory."""
        try:
            await self._call("Stat", {"path": path}, user, request_timeout)
        except FileNotFoundException:
            return False
        return True

    async def get_info(
        self, path: str, user: Username | None = None, request_timeout: float | None = None
    ) -> EntryInfo:
        """Size, owner, times and so on. Raises FileNotFoundException."""
        return _entry(await self._call("Stat", {"path": path}, user, request_timeout))

    async def remove(
        self, path: str, user: Username | None = None, request_timeout: float | None = None
    ) -> None:
        """Remove a file, or a directory with all it has; no error if there is none."""
        await self._call("Remove", {"path": path}, user, request_timeout)

    async def rename(
        self,
        old_path: str,
        new_path: str,
        user: Username | None = None,
        request_timeout: float | None = None,
    ) -> EntryInfo:
        """Move a file or directory; the new parent is created. Raises FileNotFoundException."""
        message = {"source": old_path, "destination": new_path}
        return _entry(await self._call("Move", message, user, request_timeout))

    async def make_dir(
        self, path: str, user: Username | None = None, request_timeout: float | None = None
    ) -> bool:
        """Make a directory and its parents; False when it exists already.

        Raises InvalidArgumentException when a file is in the way.
        """
        try:
            await self._call("MakeDir", {"path": path}, user, request_timeout)
        except AlreadyExistsException:
            return False
        return True

    async def _call(
        self,
        method: str,
        message: dict[str, object] | dict[str, str],
        user: Username | None,
        request_timeout: float | None,
    ) -> JsonObject:
        return await self._envd.call(
            f"filesystem.Filesystem/{method}",
            message,
            user=user,
            request_timeout=request_timeout,
            errors=FILE_RPC_ERRORS,
        )


def _entry(answer: JsonObject) -> EntryInfo:
    return EntryInfo.from_json(nested(answer, "entry") or {})


def _file_parameters(path: str, user: Username | None) -> dict[str, str]:
    return {"path": path, "username": user} if user else {"path": path}
