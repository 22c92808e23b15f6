from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberbox.sdk.connect_protocol import (
    END_OF_STREAM,
    Frame,
    FrameParser,
    call_headers,
    decode_message,
    encode_frame,
    stream_error,
)
from emberbox.sdk.errors import SandboxException

STREAM = encode_frame({"a": 1}) + encode_frame({"text": "ä" * 50}) + encode_frame({}, END_OF_STREAM)


@given(st.lists(st.integers(0, len(STREAM)), max_size=10).map(sorted))
def test_frames_are_the_same_however_the_bytes_are_split(cuts: list[int]) -> None:
    parser = FrameParser()
    frames = [
        frame
        for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)
        for frame in parser.feed(STREAM[start:end])
    ]
    assert [frame.ends_stream for frame in frames] == [False, False, True]
    assert decode_message(frames[1]) == {"text": "ä" * 50}
    assert not parser.incomplete


def test_a_half_frame_waits_for_its_rest() -> None:
    parser = FrameParser()
    assert parser.feed(STREAM[:7]) == []
    assert parser.incomplete


def test_an_oversize_frame_is_refused_before_it_is_buffered() -> None:
    parser = FrameParser(max_message_bytes=100)
    with pytest.raises(SandboxException, match="101 bytes; the limit is 100"):
        parser.feed(b"\x00\x00\x00\x00\x65")


def test_a_compressed_frame_is_refused() -> None:
    with pytest.raises(SandboxException, match="flags 0x01"):
        FrameParser().feed(b"\x01\x00\x00\x00\x02{}")


@pytest.mark.parametrize("payload", [b"nonsense", b"[]", b'"text"'])
def test_a_message_that_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(SandboxException):
        decode_message(Frame(0, payload))


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"metadata":{}}'])
def test_a_stream_that_ends_well_has_no_error(payload: bytes) -> None:
    assert stream_error(Frame(END_OF_STREAM, payload)) is None


def test_a_stream_that_ends_badly_says_why() -> None:
    error = stream_error(Frame(END_OF_STREAM, b'{"error":{"code":"not_found","message":"gone"}}'))
    assert error is not None
    assert (error.code, error.message) == ("not_found", "gone")


def test_headers_of_a_stream() -> None:
    headers = call_headers(streaming=True, timeout=1.5, user="root")
    assert headers["Content-Type"] == "application/connect+json"
    assert headers["Connect-Timeout-Ms"] == "1500"
    assert headers["Keepalive-Ping-Interval"] == "50"
    assert headers["Authorization"] == "Basic cm9vdDo="


@pytest.mark.parametrize(
    ("timeout", "expected"), [(0.0001, "1"), (60, "60000"), (0, None), (None, None)]
)
def test_no_timeout_sends_no_limit(timeout: float | None, expected: str | None) -> None:
    assert call_headers(streaming=False, timeout=timeout).get("Connect-Timeout-Ms") == expected
