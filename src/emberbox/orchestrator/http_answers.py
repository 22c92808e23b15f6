"""Reading the answers of HTTP servers that may be hostile: a guest's, a VMM's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

MAX_ANSWER = 65536
"""Bytes of the head of an answer, and of its body."""

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([1-5][0-9]{2})(?: |\Z)")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers, their names in lower case.

    Raises EOFError, asyncio.LimitOverrunError, or ValueError, which repeats nothing of the answer.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.rstrip("\r\n").split("\r\n")
    status = _STATUS_LINE.match(status_line)
    if status is None:
        raise ValueError("the answer has no status line")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    return int(status[1]), headers


def length_of(headers: Mapping[str, str]) -> int:
    """Bytes of the body. Raises ValueError when it is not told, or more than `MAX_ANSWER`."""
    text = headers.get("content-length", "")
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= MAX_ANSWER):
        raise ValueError("the answer has no length, or is too long")
    return int(text)
