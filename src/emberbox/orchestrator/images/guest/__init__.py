"""The files that the images carry into the guest. Nothing here is imported on the host."""

from __future__ import annotations

from pathlib import Path

_DIRECTORY = Path(__file__).parent


def read(name: str) -> bytes:
    """Content of one of the files."""
    return (_DIRECTORY / name).read_bytes()
