"""Bodies of the proxies' own answers, byte for byte."""

from __future__ import annotations

import pytest

from emberbox.proxying import replies
from emberbox.proxying.heads import RequestHead, parse_request_head
from emberbox.proxying.replies import Reply

FIREFOX = "User-Agent: Mozilla/5.0 Firefox/140"


def head(*fields: str, method: str = "GET") -> RequestHead:
    lines = [f"{method} / HTTP/1.1", "Host: a", *fields, "", ""]
    return parse_request_head("\r\n".join(lines).encode())


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        (
            replies.not_found("iabc"),
            502,
            '{"sandboxId":"iabc","message":"The sandbox was not found","code":502}',
        ),
        (
            replies.port_closed("iabc", 8000),
            502,
            (
                '{"sandboxId":"iabc","message":"The sandbox is running but port is not open",'
                '"port":8000,"code":502}'
            ),
        ),
        (
            replies.host_unreachable("iabc"),
            502,
            (
                '{"sandboxId":"iabc","message":"The host of the sandbox does not answer; '
                'try again",'
                '"code":502}'
            ),
        ),
        (
            replies.traffic_token_missing("iabc"),
            403,
            (
                '{"sandboxId":"iabc","message":"Sandbox is secured with traffic access token. '
                'Token header \'e2b-traffic-access-token\' is missing","code":403}'
            ),
        ),
        (
            replies.traffic_token_invalid("iabc"),
            403,
            (
                '{"sandboxId":"iabc","message":"Sandbox is secured with traffic access token. '
                'Provided token in header \'e2b-traffic-access-token\' is invalid","code":403}'
            ),
        ),
        (
            replies.control_route_closed("/init"),
            404,
            (
                '{"message":"This endpoint is reserved for the E2B control plane and is '
                "not reachable "
                'through the sandbox URL","path":"/init","code":404}'
            ),
        ),
    ],
)
def test_json(reply: Reply, status: int, body: str) -> None:
    answer = reply.to_bytes(head(), close=False)
    first, _, rest = answer.partition(b"\r\n")
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert rest == (
        b"Content-Type: application/json; charset=utf-8\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body.encode())
    )


def test_text() -> None:
    assert Reply(400, text="Invalid host").to_bytes(None, close=True) == (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 12\r\nConnection: close\r\n\r\nInvalid host"
    )


def test_head_request_gets_no_body() -> None:
    answer = replies.not_found("iabc").to_bytes(head(method="HEAD"), close=False)
    assert answer.endswith(b"Content-Length: 69\r\n\r\n")


@pytest.mark.parametrize(
    ("fields", "page"),
    [
        ([], False),
        (["User-Agent: python-httpx/0.28.1", "Accept: text/html"], False),
        ([FIREFOX], True),
        ([FIREFOX, "Accept: text/html,application/xhtml+xml,*/*"], True),
        ([FIREFOX, "Accept: application/json"], False),
        ([FIREFOX, "Accept: application/json, text/html"], True),
        ([FIREFOX, "Sec-Fetch-Mode: navigate", "X-Requested-With: XMLHttpRequest"], True),
        ([FIREFOX, "X-Requested-With: XMLHttpRequest"], False),
        ([FIREFOX, "Sec-Fetch-Mode: cors"], False),
        ([FIREFOX, "Sec-Fetch-Mode: no-cors"], False),
        ([FIREFOX, "Sec-Fetch-Mode: same-origin"], False),
        ([FIREFOX, "Sec-Fetch-Mode: websocket"], False),
        (["User-Agent: OPERA"], True),
    ],
)
def test_page_for_a_browser_that_navigates(fields: list[str], page: bool) -> None:
    answer = replies.not_found("iabc").to_bytes(head(*fields), close=False)
    assert (b"Content-Type: text/html" in answer) is page
    assert b"The sandbox was not found" in answer
