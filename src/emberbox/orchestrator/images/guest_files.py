"""The scripts that the images carry into the guest; they lie in `guest/` beside this module."""

from __future__ import annotations

from pathlib import Path

_DIRECTORY = Path(__file__).with_name("guest")


def read(name: str) -> bytes:
    """Content of one of the scripts."""
    return (_DIRECTORY / name).read_bytes()
