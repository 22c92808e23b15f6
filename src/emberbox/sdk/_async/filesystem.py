"""`sandbox.files`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from emberbox.sdk.error_mapping import FILE_HTTP_ERRORS, FILE_RPC_ERRORS
from emberbox.sdk.errors import (
    AlreadyExistsException,
    FileNotFoundException,
    InvalidArgumentException,
)
from emberbox.sdk.file_models import EntryInfo, file_parameters
from emberbox.sdk.json_fields import nested, repeated
from emberbox.sdk.transport_options import limits, shorter

from .downloads import AsyncFileStreamReader
from .uploads import AsyncUpload
from .watching import WatchesDirectories

if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence

    from emberbox.sdk.config import Username
    from emberbox.sdk.file_models import WriteInfo
    from emberbox.sdk.json_fields import JsonObject
    from emberbox.sdk.upload_data import AsyncWriteData, AsyncWriteEntry

    from .envd import AsyncEnvd


class AsyncFilesystem(WatchesDirectories):
    """Files in the sandbox. Relative paths start at the user's home.

    `user` acts as that user instead of the sandbox's default one; `request_timeout` is in
    seconds, 0 for no limit. Every method can raise SandboxNotRunningException when the
    sandbox is gone, SandboxUnreachableException when it does not answer, and
    AuthenticationException.
    """

    def __init__(self, envd: AsyncEnvd) -> None:
        self._envd = envd

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
        idle = self._envd.request_limit(
            request_timeout if stream_idle_timeout is None else stream_idle_timeout
        )
        whole = request_timeout or None if format == "stream" else None
        response = await self._envd.request(
            "GET",
            "/files",
            params=file_parameters(path, user),
            headers={"Accept-Encoding": "gzip" if gzip else "identity"},
            timeout=limits(shorter(idle, whole)),
            stream=True,
            errors=FILE_HTTP_ERRORS,
        )
        reader = AsyncFileStreamReader(response, self._envd, whole)
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
            gzip: compress the transfer; needs an octet stream.
            use_octet_stream: False sends a multipart form, which takes text, bytes and files
                and holds them in memory. By default the SDK chooses.
            metadata: stored with the file, under lower-case names.

        Raises:
            NotEnoughSpaceException: the sandbox's disk is full.
            InvalidArgumentException: the path, the data or the metadata cannot be used.
        """
        upload = AsyncUpload(self._envd, user, request_timeout, metadata)
        entry: AsyncWriteEntry = {"path": path, "data": data}
        (info,) = await upload.send([entry], gzip=gzip, use_octet_stream=use_octet_stream)
        return info

    async def write_files(  # noqa: PLR0917 (as in e2b)
        self,
        files: Sequence[AsyncWriteEntry],
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
        metadata: dict[str, str] | None = None,
    ) -> builtins.list[WriteInfo]:
        """Write several files, in the order given; options and errors as of `write`.

        Files that are all in memory are sent in one request, unless `gzip` or
        `use_octet_stream` says otherwise; others one after the other. After an error the files
        before it may have been written.
        """
        upload = AsyncUpload(self._envd, user, request_timeout, metadata)
        return await upload.send(files, gzip=gzip, use_octet_stream=use_octet_stream)

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
