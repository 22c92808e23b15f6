"""What the edge decides where there are several hosts."""

from __future__ import annotations

import json

import pytest

from emberbox.client_proxy.catalog import Place
from emberbox.client_proxy.resolver import EdgeResolver
from emberbox.proxying.heads import parse_request_head
from emberbox.proxying.replies import Reply
from emberbox.proxying.resolving import Target

SECOND = Place("10.0.0.2", 5007)


class SeveralHosts:
    """A catalog that knows where each sandbox is."""

    def find(self, sandbox_id: str) -> Place | None:
        return {"i2": SECOND}.get(sandbox_id)

    async def look_up(self, sandbox_id: str) -> Place | None:
        return None

    def learn(self, sandbox_id: str, host: Place) -> None:
        pass

    def doubt(self, sandbox_id: str) -> None:
        pass

    def only_host(self) -> Place | None:
        return None


def resolve(target: str, host: str = "127.0.0.1:3002", *fields: str) -> Target | Reply:
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]
    request = parse_request_head("\r\n".join(lines).encode())
    decision = EdgeResolver(SeveralHosts(), "secret").resolve(request, "10.1.1.1")
    assert isinstance(decision, Target | Reply)
    return decision


def test_signed_url_that_names_no_sandbox_is_told_the_remedy() -> None:
    reply = resolve("/files?path=a&signature=v1_x")
    assert isinstance(reply, Reply)
    assert reply.status == 400
    answer = json.loads(reply.to_bytes(None, close=False).partition(b"\r\n\r\n")[2])
    assert answer["code"] == 400
    for remedy in ("wildcard domain", "E2b-Sandbox-Id", "E2b-Sandbox-Port"):
        assert remedy in answer["message"]


@pytest.mark.parametrize(
    ("host", "fields"),
    [
        ("49983-i2.example.com", []),
        ("127.0.0.1:3002", ["E2b-Sandbox-Id: i2", "E2b-Sandbox-Port: 49983"]),
    ],
)
def test_remedies_work(host: str, fields: list[str]) -> None:
    decision = resolve("/files?path=a&signature=v1_x", host, *fields)
    assert isinstance(decision, Target)
    assert (decision.address, decision.sandbox_id, decision.sandbox_port) == (
        SECOND.address,
        "i2",
        49983,
    )
    assert b"Signed-Url" not in decision.extra


async def test_sandbox_that_no_host_runs_was_not_found() -> None:
    head = b"GET / HTTP/1.1\r\nHost: 49983-i3.example.com\r\n\r\n"
    resolver = EdgeResolver(SeveralHosts(), "secret")
    decision = resolver.resolve(parse_request_head(head), "10.1.1.1")
    assert not isinstance(decision, Target | Reply)
    reply = await decision
    assert isinstance(reply, Reply)
    assert reply.status == 502
