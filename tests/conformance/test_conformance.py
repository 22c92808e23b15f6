"""HTTP/1.1 by the byte, good and hostile, through each of the two proxies as a program.

The cases are tables in `requests.py`, `answers.py` and `talks.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.answers import ANSWERED, CUT, OK, UNTIL_THE_END, UNUSABLE
from tests.conformance.proxies import client_proxy, data_proxy
from tests.conformance.requests import FORWARDED, GET, POST, REFUSED
from tests.conformance.stage import Stage
from tests.conformance.talks import FIN, RST, TALKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.proxies import Proxy
    from tests.conftest import FreePorts


@pytest.fixture(scope="module", params=["client proxy", "data proxy"])
def proxy(
    request: pytest.FixtureRequest,
    free_ports: FreePorts,
    tmp_path_factory: pytest.TempPathFactory,
    guest: str,
) -> Iterator[Proxy]:
    place = tmp_path_factory.mktemp("proxy")
    ports = free_ports(proxy=1, beside=1)
    started = (
        client_proxy(place, ports)
        if request.param == "client proxy"
        else data_proxy(place, ports, guest)
    )
    with started as proxy:
        yield proxy


@pytest.mark.parametrize(("sent", "seen"), FORWARDED.values(), ids=FORWARDED.keys())
def test_request_is_forwarded(proxy: Proxy, sent: bytes, seen: bytes) -> None:
    with Stage(proxy) as stage:
        stage.play([("C>", sent), (">S", seen), ("S>", OK), (">C", 200)])
        stage.nothing_is_left()


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_request_is_refused(proxy: Proxy, sent: bytes, status: int) -> None:
    """And what stands behind it is not looked at."""
    with Stage(proxy) as stage:
        if b"Transfer-Encoding: chunked\r\n\r\n" in sent and status == 400:
            head, end, body = sent.partition(b"\r\n\r\n")
            if body:  # the head was good, so that it went on when the body turned out bad
                stage.play([("C>", head + end), (">S", head + end), ("C>", body), (">S", RST)])
                stage.play([(">C", 400)])
                stage.client_is_let_go()
                return
        stage.play([("C>", sent + GET + b"\r\n"), (">C", status)])
        stage.client_is_let_go()
        stage.nobody_reached_the_server()


@pytest.mark.parametrize(("asked", "answer", "got"), ANSWERED.values(), ids=ANSWERED.keys())
def test_answer_passes(proxy: Proxy, asked: bytes, answer: bytes, got: bytes) -> None:
    with Stage(proxy) as stage:
        stage.play([("C>", asked), (">S", _as_forwarded(asked)), ("S>", answer), (">C", got)])
        stage.nothing_is_left()


@pytest.mark.parametrize(
    ("asked", "answer", "got"), UNTIL_THE_END.values(), ids=UNTIL_THE_END.keys()
)
def test_answer_until_the_end_passes(proxy: Proxy, asked: bytes, answer: bytes, got: bytes) -> None:
    with Stage(proxy) as stage:
        stage.play([("C>", asked), (">S", _as_forwarded(asked))])
        stage.play([("S>", answer), ("S>", FIN), (">C", got)])
        stage.nothing_is_left()


@pytest.mark.parametrize("answer", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unusable_answer_is_502(proxy: Proxy, answer: bytes) -> None:
    asked = POST + b"Content-Length: 0\r\n\r\n"  # a GET might be repeated
    with Stage(proxy) as stage:
        stage.play([("C>", asked), (">S", asked), ("S>", answer)])
        stage.server_finishes()
        stage.play([(">C", 502)])
        stage.nothing_is_left()


@pytest.mark.parametrize(("begun", "got", "broken"), CUT.values(), ids=CUT.keys())
def test_broken_answer_resets_the_client(
    proxy: Proxy, begun: bytes, got: bytes, broken: bytes
) -> None:
    with Stage(proxy) as stage:
        stage.play([("C>", GET + b"\r\n"), (">S", GET + b"\r\n"), ("S>", begun), (">C", got)])
        stage.play([("S>", broken)])
        stage.server_finishes()
        stage.play([(">C", RST)])


@pytest.mark.parametrize("steps", TALKS.values(), ids=TALKS.keys())
def test_conversation(proxy: Proxy, steps: list[tuple[str, bytes | str | int]]) -> None:
    with Stage(proxy) as stage:
        stage.play(steps)
        stage.nothing_is_left()


def _as_forwarded(asked: bytes) -> bytes:
    return asked.replace(b"HTTP/1.0", b"HTTP/1.1").replace(b"Connection: close\r\n", b"")
