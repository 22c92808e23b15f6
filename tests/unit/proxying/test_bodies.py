"""Taking payload out of framing, however the bytes are cut."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from emberbox.proxying.bodies import (
    BodyReader,
    ChunkedReader,
    LengthReader,
    framed,
)


def read_in_pieces(reader: BodyReader, data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Payload, and what follows the body."""
    payload = b""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        if reader.done:
            return payload, reader.rest + data[start:]
        payload += b"".join(reader.feed(data[start:end]))
    return payload, reader.rest


CUTS = st.lists(st.integers(0, 10_000), max_size=20)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=10), CUTS, st.binary(max_size=20))
def test_chunked_payload_survives_any_cut(
    chunks: list[bytes], cuts: list[int], after: bytes
) -> None:
    pieces = [piece for chunk in chunks for piece in framed([chunk], None)]
    reader = ChunkedReader()
    data = b"".join([*pieces, *framed([], b"X-A: 1\r\n"), after])
    assert read_in_pieces(reader, data, cuts) == (b"".join(chunks), after)
    assert reader.done
    assert reader.trailers == b"X-A: 1\r\n"


@given(st.binary(min_size=1, max_size=300), CUTS, st.binary(max_size=20))
def test_payload_of_known_length_survives_any_cut(
    body: bytes, cuts: list[int], after: bytes
) -> None:
    reader = LengthReader(len(body))
    assert read_in_pieces(reader, body + after, cuts) == (body, after)
    assert reader.done
