"""Children of a sandbox, by fork and by snapshot: theirs is the memory, never the secret."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx2
import pytest

import emberbox
from emberbox import Sandbox
from emberbox.sdk.config import ENVD_PORT, routing_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox import SandboxNetworkOpts
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

MANY = 20
"""As many VMs as the exhaustive test runs at a time."""
MOST = 100


class Family:
    """A source and its children, in a team of their own."""

    def __init__(self, stack: Stack, *limits: str) -> None:
        self.options = stack.sdk_of_new_team(*limits)
        self.source = self._create("base")
        self.members = [self.source]
        self.url = str(stack.sdk["sandbox_url"])

    def fork(self, count: int) -> list[Exception]:
        """Fork the source; the errors of the children that did not start."""
        results = self.source.fork(timeout=900, count=count)
        assert len(results) == count
        self.members += [one for one in results if isinstance(one, Sandbox)]
        return [one for one in results if isinstance(one, Exception)]

    def make_of_a_snapshot(self, name: str) -> None:
        """Another member, by way of a named snapshot."""
        snapshot = self.source.create_snapshot(name)
        self.members.append(self._create(snapshot.snapshot_id))

    def status(self, member: Sandbox, token: str | None) -> int:
        """What the daemon of a member answers to whoever shows this token."""
        headers = routing_headers(member.sandbox_id, ENVD_PORT)
        if token is not None:
            headers["X-Access-Token"] = token
        return httpx2.get(
            f"{self.url}/envs", headers=headers, timeout=60, trust_env=False
        ).status_code

    def _create(self, template: str) -> Sandbox:
        network: SandboxNetworkOpts = {"allow_public_traffic": False}
        return Sandbox.create(template, timeout=900, network=network, **self.options)

    def end(self) -> None:
        for member in self.members:
            member.kill()
        for snapshot in Sandbox.list_snapshots(**self.options).next_items():
            assert Sandbox.delete_snapshot(snapshot.snapshot_id, **self.options)


@pytest.fixture
def family(stack: Stack) -> Iterator[Family]:
    family = Family(stack)
    yield family
    family.end()


def token_of(member: Sandbox) -> str:
    token = member._access.envd_access_token
    assert token
    return token


def assert_apart(family: Family) -> None:
    """Each answers to its own tokens and to nobody else's."""
    tokens = [token_of(member) for member in family.members]
    traffic = [member.traffic_access_token for member in family.members]
    assert len(set(tokens)) == len(tokens)
    assert len(set(traffic)) == len(traffic)
    asked = list(itertools.product(family.members, [None, *tokens]))
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda pair: family.status(*pair), asked))
    for (member, token), status in zip(asked, answers, strict=True):
        assert status == (200 if token == token_of(member) else 401), member.sandbox_id


def test_no_child_answers_to_a_token_that_is_not_its_own(family: Family) -> None:
    family.source.files.write("/dev/shm/kept", "by all")
    assert family.fork(2) == []
    family.make_of_a_snapshot("secret")
    assert_apart(family)
    for member in family.members:
        assert member.files.read("/dev/shm/kept") == "by all"
    # Neither does one that was paused, nor its own child.
    child = family.members[1]
    assert child.pause()
    child.connect(timeout=900)
    (grandchild,) = child.fork(timeout=900)
    assert isinstance(grandchild, Sandbox)
    family.members.append(grandchild)
    assert_apart(family)
    ids = [member.commands.run("hostname").stdout.strip() for member in family.members]
    assert ids == [member.sandbox_id for member in family.members]


@pytest.mark.exhaustive
def test_a_hundred_can_be_asked_for(stack: Stack) -> None:
    """The team may run three, so that only two of them start."""
    family = Family(stack, "--concurrent-sandboxes", "3")
    try:
        errors = family.fork(MOST)
        assert len(family.members) == 3
        assert {type(error) for error in errors} == {emberbox.RateLimitException}
        assert len(errors) == MOST - 2
        assert all(member.is_running() for member in family.members)
    finally:
        family.end()


@pytest.mark.exhaustive
def test_many_children(family: Family) -> None:
    family.source.files.write("/dev/shm/kept", "by all")
    assert family.fork(MANY) == []
    family.make_of_a_snapshot("secret")
    assert_apart(family)
    contents = {member.files.read("/dev/shm/kept") for member in family.members}
    assert contents == {"by all"}
