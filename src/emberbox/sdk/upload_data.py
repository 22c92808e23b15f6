"""What can be written to files, and how an upload carries it. No I/O but reading open files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, TypeAlias, TypedDict, TypeGuard, TypeVar

from .errors import InvalidArgumentException

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHUNK_BYTES = 256 << 10
OCTET_STREAM = "application/octet-stream"
FILES_OF_A_FORM = 1000
"""Well below the 10 000 that the daemon takes in one request."""

FormFile: TypeAlias = tuple[str, tuple[str, IO[bytes], str]]
"""Field, then path, content and media type."""

WriteData: TypeAlias = str | bytes | IO[str] | IO[bytes] | Iterable[bytes]
"""What `Sandbox.files.write` takes. Files and iterables are streamed."""
AsyncWriteData: TypeAlias = str | bytes | IO[str] | IO[bytes] | AsyncIterable[bytes]
"""What `AsyncSandbox.files.write` takes. Files and iterables are streamed."""

_METADATA_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]*")


class WriteEntry(TypedDict):
    """A file for `Sandbox.files.write_files`."""

    path: str
    data: WriteData


class AsyncWriteEntry(TypedDict):
    """A file for `AsyncSandbox.files.write_files`."""

    path: str
    data: AsyncWriteData


EntryT = TypeVar("EntryT", WriteEntry, AsyncWriteEntry)


def sends_form(data: Sequence[object], *, gzip: bool, use_octet_stream: bool | None) -> bool:
    """Whether an upload is one multipart form; an octet stream for each file otherwise.

    When the caller leaves it open, a form takes several files that are in memory anyway.
    Raises InvalidArgumentException for what a form cannot carry.
    """
    if use_octet_stream is None:
        in_memory = all(isinstance(each, str | bytes) for each in data)
        return len(data) > 1 and in_memory and not gzip
    if use_octet_stream:
        return False
    if gzip:
        raise InvalidArgumentException("gzip needs an octet stream: leave use_octet_stream out")
    for each in data:
        if not (isinstance(each, str | bytes) or is_file(each)):
            raise InvalidArgumentException(
                "use_octet_stream=False takes str, bytes and files; an iterable of bytes needs"
                " an octet stream: leave use_octet_stream out"
            )
    return True


def forms_of(files: Sequence[EntryT]) -> Iterator[list[EntryT]]:
    """The files in their order, in groups that one form takes each."""
    group: list[EntryT] = []
    for file in files:
        alone = not _survives_as_file_name(file["path"])
        if group and (alone or len(group) == FILES_OF_A_FORM):
            yield group
            group = []
        group.append(file)
        if alone:
            yield group
            group = []
    if group:
        yield group


def _survives_as_file_name(path: str) -> bool:
    """Some characters are escaped in a form; the path of a single file is in the query."""
    return path.isprintable() and not set(path) & set('"\\')


def metadata_headers(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Headers that store metadata on an uploaded file. Raises InvalidArgumentException."""
    for name, value in (metadata or {}).items():
        if not _METADATA_NAME.fullmatch(name):
            raise InvalidArgumentException(f"metadata name {name!r} is not an HTTP token")
        if not _METADATA_VALUE.fullmatch(value):
            raise InvalidArgumentException(f"metadata value of {name!r} is not printable ASCII")
    return {f"X-Metadata-{name}": value for name, value in (metadata or {}).items()}


def slices(data: bytes) -> Iterator[bytes]:
    """The data in pieces, so that a limit on writing holds for each piece, not for the whole."""
    view = memoryview(data)
    for start in range(0, len(data), CHUNK_BYTES):
        yield bytes(view[start : start + CHUNK_BYTES])


def check_chunk(chunk: object) -> bytes:
    """A piece that the caller's iterable gave. Raises InvalidArgumentException."""
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)
    raise InvalidArgumentException(
        f"data to write must be an iterable of bytes, this one gave {type(chunk).__name__}"
    )


def is_file(data: object) -> TypeGuard[IO[str] | IO[bytes]]:
    """Whether the data is a file: it has a `read` method."""
    return callable(getattr(data, "read", None))


def read_chunk(file: IO[str] | IO[bytes]) -> bytes:
    """The next piece of a file of either mode; empty at its end."""
    piece = file.read(CHUNK_BYTES)
    return piece.encode() if isinstance(piece, str) else piece
