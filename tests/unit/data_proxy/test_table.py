"""The routing table and the feed's messages."""

from __future__ import annotations

import pytest

from emberbox.orchestrator.data_proxy.errors import BadFeedError
from emberbox.orchestrator.data_proxy.messages import (
    Ack,
    Delete,
    Message,
    Put,
    Route,
    Snapshot,
    decode,
    encode,
)
from emberbox.orchestrator.data_proxy.table import RouteTable

ONE = Route("i1", "e1", "10.0.0.1")
AGAIN = Route("i1", "e2", "10.0.0.1")
MOVED = Route("i1", "e1", "10.0.0.9")
TOKEN = Route("i1", "e1", "10.0.0.1", "token", "secret", "a.example", (8443,))
TWO = Route("i2", "e1", "10.0.0.2")


@pytest.mark.parametrize(
    ("last", "ended", "left"),
    [
        (Put(2, ONE), [], {ONE, TWO}),
        (Put(2, AGAIN), [ONE], {AGAIN, TWO}),
        (Put(2, MOVED), [ONE], {MOVED, TWO}),
        (Put(2, TOKEN), [], {TOKEN, TWO}),
        (Delete(2, "i1", "e1"), [ONE], {TWO}),
        (Delete(2, "i1", "e0"), [], {ONE, TWO}),
        (Delete(2, "i3", "e1"), [], {ONE, TWO}),
        (Snapshot(2, (TWO,)), [ONE], {TWO}),
        (Snapshot(2, (AGAIN,)), [ONE, TWO], {AGAIN}),
    ],
)
def test_changes(last: Message, ended: list[Route], left: set[Route]) -> None:
    table = RouteTable()
    assert table.apply(Snapshot(1, (ONE, TWO))) == []
    assert table.apply(last) == ended
    assert {route for name in ("i1", "i2") if (route := table.get(name))} == left
    assert len(table) == len(left)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            Snapshot(0, (ONE,)),
            (
                b'{"type":"snapshot","number":0,"routes":[{"sandbox_id":"i1","execution_id":"e1",'
                b'"address":"10.0.0.1","traffic_token":null,"envd_token":null,"mask_host":null,'
                b'"https_ports":[]}]}\n'
            ),
        ),
        (
            Put(1, TOKEN),
            (
                b'{"type":"put","number":1,"route":{"sandbox_id":"i1","execution_id":"e1",'
                b'"address":"10.0.0.1","traffic_token":"token","envd_token":"secret",'
                b'"mask_host":"a.example","https_ports":[8443]}}\n'
            ),
        ),
        (
            Delete(2, "i1", "e1"),
            b'{"type":"delete","number":2,"sandbox_id":"i1","execution_id":"e1"}\n',
        ),
        (Ack(3), b'{"type":"ack","number":3}\n'),
    ],
)
def test_messages(message: Message, line: bytes) -> None:
    assert encode(message) == line
    assert decode(line) == message


def test_an_older_orchestrator_sends_less() -> None:
    line = encode(Put(1, TOKEN)).replace(
        b',"envd_token":"secret","mask_host":"a.example","https_ports":[8443]', b""
    )
    assert decode(line) == Put(1, Route("i1", "e1", "10.0.0.1", "token"))


def test_a_newer_orchestrator_may_send_more() -> None:
    line = encode(Put(1, TOKEN)).replace(b'"envd_token"', b'"more":[1],"envd_token"')
    assert decode(line) == Put(1, TOKEN)


def test_tokens_are_shown_nowhere() -> None:
    assert "secret" not in repr(Snapshot(1, (TOKEN,)))
    assert "token'" not in repr(TOKEN)
    with pytest.raises(BadFeedError) as bad:
        decode(encode(Put(1, TOKEN)).replace(b'"put"', b'"?"'))
    assert "secret" not in str(bad.value)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"x",
        b"[]",
        b"{}",
        b'{"type":"stop","number":1}',
        b'{"type":"ack","number":"1"}',
        b'{"type":"put","number":1,"route":{"sandbox_id":1}}',
        b'{"type":"put","number":1}',
    ],
)
def test_malformed_messages(line: bytes) -> None:
    with pytest.raises(BadFeedError):
        decode(line)
