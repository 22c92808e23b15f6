"""The Range header (RFC 9110, section 14), one range of bytes."""

from __future__ import annotations

import re

# No file is longer than 18 digits say, and Python refuses to read numbers of thousands.
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")


class UnsatisfiableRangeError(ValueError):
    """The range lies outside the file."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and length; None for the whole file, which also answers what is not understood.

    Raises UnsatisfiableRangeError.
    """
    found = _RANGE.fullmatch(header) if header else None
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        if length == 0:
            raise UnsatisfiableRangeError
        return size - length, length
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    if start >= size:
        raise UnsatisfiableRangeError
    return start, end - start + 1
