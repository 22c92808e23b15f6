"""As much of the DNS message format (RFC 1035, section 4.1) as forwarding needs."""

from __future__ import annotations

import struct

HEADER_SIZE = 12
_RESPONSE = 0x8000
_OPCODE_AND_RD = 0x7900
_RECURSION_AVAILABLE = 0x0080
_SERVER_FAILURE = 2


def is_query(data: bytes) -> bool:
    """Whether this may be a question that we forward: whole header, not an answer."""
    return len(data) >= HEADER_SIZE and not _flags(data) & _RESPONSE


def answers(query: bytes, response: bytes) -> bool:
    """Whether a datagram is the answer to that query: same id, marked as an answer."""
    return (
        len(response) >= HEADER_SIZE
        and response[:2] == query[:2]
        and bool(_flags(response) & _RESPONSE)
    )


def server_failure(query: bytes) -> bytes:
    """SERVFAIL for a query, with its question as resolvers expect it."""
    flags = _RESPONSE | _flags(query) & _OPCODE_AND_RD | _RECURSION_AVAILABLE | _SERVER_FAILURE
    question = _first_question(query)
    return query[:2] + struct.pack("!HHHHH", flags, bool(question), 0, 0, 0) + question


def _flags(data: bytes) -> int:
    (flags,) = struct.unpack_from("!H", data, 2)
    return int(flags)


def _first_question(query: bytes) -> bytes:
    """The bytes of the first question; none when the message is malformed."""
    position = HEADER_SIZE
    while position < len(query) and 0 < query[position] < 64:
        position += 1 + query[position]
    end = position + 5
    if position >= len(query) or query[position] != 0 or end > len(query):
        return b""
    return query[HEADER_SIZE:end]
