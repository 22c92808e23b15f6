"""The fields of a head: a strict reading of RFC 9112, 5, kept as one block of bytes.

A block is what stands between the first line of a head and its empty line, each line end
included: `\\r\\nHost: a\\r\\nAccept: b\\r\\n`. In canonical form every field is
`Name: value` with one space and no other blanks around the value. Blocks are read and cut with
few calls that run in C, as this is done for every request: most fields only pass through.
"""

from __future__ import annotations

import re

from emberbox.proxying.errors import BadMessageError

MOST_FIELDS = 128

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = rb"[\t -~\x80-\xff]*+"
_BLOCK = re.compile(rb"\r\n(?:%b: %b\r\n)*+" % (_NAME, _VALUE))
_FIELD = re.compile(rb"(%b):(%b)" % (_NAME, _VALUE))


def canonical(block: bytes) -> bytes:
    """The block in canonical form. Raises BadMessageError for anything but well-formed fields.

    Control characters, bare CR and LF, folded lines, and blanks before a colon are refused, not
    mended: the next hop might mend them otherwise.
    """
    if _BLOCK.fullmatch(block) is None or _has_odd_blanks(block):
        block = _rewritten(block)
    if block.count(b"\n") > MOST_FIELDS:
        raise BadMessageError(f"more than {MOST_FIELDS} header fields", 431)
    return block


def _has_odd_blanks(block: bytes) -> bool:
    return b" \r" in block or b"\t\r" in block or b":  " in block or b": \t" in block


def _rewritten(block: bytes) -> bytes:
    lines = [b"\r\n"]
    for line in block[2:].split(b"\r\n")[:-1]:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise BadMessageError("malformed header field")
        name, value = match.groups()
        lines.append(b"%b: %b\r\n" % (name, value.strip(b" \t")))
    return b"".join(lines)


def value_of(block: bytes, lower: bytes, name: bytes) -> bytes | None:
    """The value of the field `name` (in lower case), several of them joined by commas.

    `lower` is the block in lower case.
    """
    mark = b"\n%b: " % name
    start = lower.find(mark)
    if start < 0:
        return None
    values = []
    while start >= 0:
        end = block.index(b"\r", start)
        values.append(block[start + len(mark) : end])
        start = lower.find(mark, end)
    return b", ".join(values)


def without(block: bytes, name: bytes) -> bytes:
    """The block without the fields whose name begins with `name`, given in lower case.

    With a colon at its end it is a whole name.
    """
    mark = b"\n" + name
    lower = block.lower()
    start = lower.find(mark)
    while start >= 0:
        end = lower.index(b"\n", start + 1)
        block = block[:start] + block[end:]
        lower = lower[:start] + lower[end:]
        start = lower.find(mark, start)
    return block


def searcher(*names: bytes) -> re.Pattern[bytes]:
    """Finds name and value of the fields of these names in a block in lower case.

    A name may be a pattern.
    """
    return re.compile(rb"\n(%b): ([^\r]*+)" % b"|".join(names))


def index(found: list[tuple[bytes, bytes]], single: frozenset[bytes]) -> dict[bytes, bytes]:
    """What `searcher` found by name, several values of one name joined by commas.

    Raises BadMessageError when a field of `single` is there twice: it could be read differently
    by us and by the next hop.
    """
    indexed = dict(found)
    if len(indexed) == len(found):
        return indexed
    indexed.clear()
    for name, value in found:
        if name not in indexed:
            indexed[name] = value
        elif name in single:
            raise BadMessageError(f"several {name.decode('latin-1')} headers")
        else:
            indexed[name] += b", " + value
    return indexed


def tokens(value: bytes | None) -> frozenset[bytes]:
    """The items of a list such as that of Connection."""
    if not value:
        return frozenset()
    return frozenset(token.strip(b" \t") for token in value.split(b","))
