from __future__ import annotations

import pytest

from emberbox.orchestrator.network.dns.messages import answers, is_query, server_failure

QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x07example\x00\x00\x01\x00\x01"
OPTIONS = b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"


def test_query_is_told_from_answer_and_rubbish() -> None:
    assert is_query(QUERY)
    assert not is_query(QUERY[:2] + b"\x81\x80" + QUERY[4:])
    assert not is_query(QUERY[:11])
    assert not is_query(b"")


def test_answer_belongs_to_its_query() -> None:
    reply = QUERY[:2] + b"\x81\x80" + QUERY[4:]
    assert answers(QUERY, reply)
    assert not answers(QUERY, QUERY)
    assert not answers(QUERY, b"\x00\x00" + reply[2:])
    assert not answers(QUERY, reply[:5])


def test_failure_repeats_id_and_question_only() -> None:
    reply = server_failure(QUERY + OPTIONS)
    assert reply[:4] == b"\x12\x34\x81\x82"
    assert reply[4:12] == b"\x00\x01" + b"\x00" * 6
    assert reply[12:] == QUERY[12:]


@pytest.mark.parametrize(
    "question",
    [b"", b"\x07exam", b"\x07example", b"\x07example\x00\x00\x01", b"\xc0\x0c\x00\x01\x00\x01"],
)
def test_failure_of_a_malformed_query_has_no_question(question: bytes) -> None:
    reply = server_failure(QUERY[:12] + question)
    assert len(reply) == 12
    assert reply[4:6] == b"\x00\x00"
