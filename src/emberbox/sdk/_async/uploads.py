"""Writing files: as octet streams, one for each file, or together as a multipart form."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from emberbox.sdk.error_mapping import FILE_HTTP_ERRORS
from emberbox.sdk.errors import SandboxException
from emberbox.sdk.file_models import WriteInfo, file_parameters
from emberbox.sdk.json_fields import parse_objects
from emberbox.sdk.transport_options import limits
from emberbox.sdk.upload_data import (
    OCTET_STREAM,
    forms_of,
    metadata_headers,
    sends_form,
)

from .flavour import chunks_of, compress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from emberbox.sdk.config import Username
    from emberbox.sdk.upload_data import AsyncWriteEntry, FormFile

    from .envd import AsyncEnvd


class AsyncUpload:
    """One call of `files.write` or `files.write_files`; raises as they say."""

    def __init__(
        self,
        envd: AsyncEnvd,
        user: Username | None,
        request_timeout: float | None,
        metadata: Mapping[str, str] | None,
    ) -> None:
        self._envd = envd
        self._user = user
        self._timeout = limits(envd.request_limit(request_timeout))
        self._headers = metadata_headers(metadata)

    async def send(
        self, files: Sequence[AsyncWriteEntry], *, gzip: bool, use_octet_stream: bool | None
    ) -> list[WriteInfo]:
        """Write them in the way that suits them, unless the caller says how."""
        data = [file["data"] for file in files]
        if not sends_form(data, gzip=gzip, use_octet_stream=use_octet_stream):
            return [await self._send_octets(file, gzip=gzip) for file in files]
        return [info for form in forms_of(files) for info in await self._send_form(form)]

    async def _send_octets(self, file: AsyncWriteEntry, *, gzip: bool) -> WriteInfo:
        data = file["data"]
        content = chunks_of(data)
        headers = {"Content-Type": OCTET_STREAM}
        if gzip:
            content = compress(content)
            headers["Content-Encoding"] = "gzip"
        elif isinstance(data, str | bytes):
            headers["Content-Length"] = str(len(data.encode() if isinstance(data, str) else data))
        (info,) = await self._post([file], headers=headers, content=content)
        return info

    async def _send_form(self, files: Sequence[AsyncWriteEntry]) -> list[WriteInfo]:
        parts = [await _form_file(file) for file in files]
        return await self._post(files, headers={}, parts=parts)

    async def _post(
        self,
        files: Sequence[AsyncWriteEntry],
        *,
        headers: Mapping[str, str],
        content: AsyncIterator[bytes] | None = None,
        parts: Sequence[FormFile] | None = None,
    ) -> list[WriteInfo]:
        """A single file's path is in the query, several files' paths are in the form."""
        response = await self._envd.request(
            "POST",
            "/files",
            params=file_parameters(files[0]["path"] if len(files) == 1 else None, self._user),
            headers={**headers, **self._headers},
            content=content,
            files=parts,
            timeout=self._timeout,
            errors=FILE_HTTP_ERRORS,
        )
        written = parse_objects(response.content, "the answer to the upload")
        if len(written) != len(files):
            raise SandboxException(
                f"the upload of {len(files)} files was answered by {len(written)}"
            )
        return [WriteInfo.from_json(record) for record in written]


async def _form_file(file: AsyncWriteEntry) -> FormFile:
    content = io.BytesIO()
    async for chunk in chunks_of(file["data"]):
        content.write(chunk)
    content.seek(0)
    return ("file", (file["path"], content, OCTET_STREAM))
