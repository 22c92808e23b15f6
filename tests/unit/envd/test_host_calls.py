"""The host's calls of one datagram."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from emberbox.envd.state import VERSION
from emberbox.envd.telemetry import Telemetry
from tests.unit.envd.conftest import HOST, Running, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = bytes(range(64))


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """How often the disks were written; really done it takes as long as other programs like."""
    done: list[None] = []
    monkeypatch.setattr(os, "sync", lambda: done.append(None))
    return done


class Host:
    """The other end of the calls."""

    def __init__(self, port: int, address: str = HOST) -> None:
        self._port = port
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.bind((address, port))

    def tell(self, call: bytes) -> None:
        self.socket.sendto(call, ("127.0.0.1", self._port))

    def ask(self, call: bytes) -> bytes:
        self.tell(call)
        return self.socket.recv(1024)


def resume(number: bytes, at: int, token: str = "", run: str = "run-2") -> bytes:
    name = run.encode()
    return (
        number + b"R" + at.to_bytes(8, "little") + SEED + bytes([len(name)]) + name + token.encode()
    )


def introduce(
    number: bytes, at: int, token: str = "", variables: dict[str, str] | None = None, **fields: str
) -> bytes:
    present = token.encode()
    words = [word for pair in (*fields.items(), *(variables or {}).items()) for word in pair]
    told = bytes([len(fields)]) + b"".join(word.encode() + b"\0" for word in words)
    return number + b"I" + at.to_bytes(8, "little") + SEED + bytes([len(present)]) + present + told


@contextmanager
def host_of(running: Running) -> Iterator[Host]:
    host = Host(running.envd.settings.port)
    with closing(host.socket):
        yield host


def token_of(running: Running) -> str | None:
    return running.envd.state.access_token


def wait_for(running: Running, run: str) -> None:
    deadline = time.monotonic() + 10
    while running.envd.state.lifecycle_id != run:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_clone_becomes_another(running: Running) -> None:
    with host_of(running) as host:
        call = introduce(
            b"12345678",
            at=5,
            sandboxId="iabc",
            templateId="base",
            lifecycleId="run-1",
            accessToken="secret",
            hostname="iabc",
            variables={"A": "b", "EMPTY": ""},
        )
        assert host.ask(call) == b"12345678\0" + VERSION.encode()
        # All of it is so before the answer.
        state = running.envd.state
        assert (state.sandbox_id, state.template_id, state.lifecycle_id) == (
            "iabc",
            "base",
            "run-1",
        )
        assert (state.access_token, state.env_vars) == ("secret", {"A": "b", "EMPTY": ""})
        done = [("clock", 5), ("entropy", SEED), ("hostname", "iabc"), ("machine-id", None)]
        assert running.system.done == done
        # Its answer was lost: the token is the new one by now.
        assert host.ask(introduce(b"12345678", at=6)) == b"12345678\0" + VERSION.encode()
        assert running.system.done == [*done, ("clock", 6)]


def test_nobody_introduces_a_sandbox_without_its_token(running: Running) -> None:
    running.init(accessToken="secret", sandboxId="iabc")
    running.system.done.clear()
    with host_of(running) as host:
        for token in ("", "wrong"):
            call = introduce(b"12345678", at=5, token=token, accessToken="mine")
            assert host.ask(call) == b"12345678\1"
        assert running.system.done == []
        call = introduce(b"12345678", at=5, token="secret", accessToken="new")
        assert host.ask(call)[8:9] == b"\0"
        assert token_of(running) == "new"
        # An empty one takes it away, and what is not named stays.
        call = introduce(b"11111111", at=5, token="new", accessToken="")
        assert host.ask(call)[8:9] == b"\0"
    assert (token_of(running), running.envd.state.sandbox_id) == (None, "iabc")


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\1",
        b"\1hostname",
        b"\1hostname\0",
        b"\1hostname\0iabc",
        b"\1hostname\0-\0",
        b"\2hostname\0iabc\0",
        b"\0A\0b\0C\0",
        b"\1sandboxId\0\xff\0",
    ],
)
def test_what_is_no_introduction_has_no_answer_and_changes_nothing(
    running: Running, told: bytes
) -> None:
    with host_of(running) as host:
        host.tell(b"12345678I" + bytes(8) + SEED + b"\0" + told)
        assert host.ask(b"87654321S")[:8] == b"87654321"
    assert running.system.done == []


def test_a_run_goes_on(running: Running) -> None:
    with host_of(running) as host:
        assert host.ask(resume(b"12345678", at=5)) == b"12345678\0" + VERSION.encode()
        wait_for(running, "run-2")
    assert running.system.done == [("clock", 5), ("entropy", SEED)]


def test_the_same_call_again_sets_the_clock_and_nothing_else(running: Running) -> None:
    begun: list[str | None] = []
    with host_of(running) as host, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Telemetry, "begin", lambda _self, run: begun.append(run))
        first = host.ask(resume(b"12345678", at=5))
        assert host.ask(resume(b"12345678", at=6)) == first
        assert host.ask(resume(b"87654321", at=7, run="run-3"))[:8] == b"87654321"
        wait_for(running, "run-3")
    clocks = [value for name, value in running.system.done if name == "clock"]
    seeds = [value for name, value in running.system.done if name == "entropy"]
    assert (clocks, seeds) == ([5, 6, 7], [SEED, SEED])
    running.client.get("/health")  # the loop has done what was left to it
    assert begun == ["run-2", "run-3"]


@pytest.mark.parametrize("token", ["", "wrong", "secre", "secret2", "sécret"])
def test_without_the_token_nothing_changes(running: Running, token: str) -> None:
    running.init(accessToken="secret", lifecycleId="run-1")
    running.system.done.clear()
    with host_of(running) as host:
        assert host.ask(resume(b"12345678", at=5, token=token)) == b"12345678\1"
        assert host.ask(resume(b"12345678", at=6, token="secret"))[8:9] == b"\0"
        wait_for(running, "run-2")
    assert [name for name, _ in running.system.done] == ["clock", "entropy"]


def test_disks_are_written_once_for_each_call(running: Running, synced: list[None]) -> None:
    with host_of(running) as host:
        assert [host.ask(b"12345678S") for _ in range(2)] == [b"12345678\0"] * 2
        assert len(synced) == 1
        assert host.ask(b"87654321S") == b"87654321\0"
        assert len(synced) == 2


def test_who_is_not_the_host_is_not_heard(running: Running) -> None:
    stranger = Host(running.envd.settings.port, "127.0.0.3")
    with closing(stranger.socket), host_of(running) as host:
        stranger.tell(resume(b"12345678", at=5))
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
            other.bind((HOST, 0))  # the host's address and another port
            other.sendto(resume(b"12345678", at=5), ("127.0.0.1", running.envd.settings.port))
        assert host.ask(b"87654321S")[:8] == b"87654321"
    assert running.system.done == []


@pytest.mark.parametrize(
    "call",
    [
        b"1",
        b"12345678",
        b"12345678X",
        b"12345678R",
        b"12345678R" + bytes(71),
        b"12345678I" + bytes(71),
        bytes(2048),
    ],
)
def test_what_is_no_call_has_no_answer(running: Running, call: bytes) -> None:
    with host_of(running) as host:
        host.tell(call)
        assert host.ask(b"87654321S")[:8] == b"87654321"
    assert running.system.done == []


def test_an_answer_that_nobody_takes_ends_nothing(running: Running) -> None:
    with host_of(running) as host:
        host.tell(b"12345678S")
    with host_of(running) as host:
        host.socket.settimeout(0.2)
        for _ in range(50):
            try:
                answer = host.ask(b"87654321S")
            except TimeoutError:
                continue
            if answer[:8] == b"87654321":
                return
    raise AssertionError("no answer")


def test_an_address_that_is_taken_is_told_and_envd_serves(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_arguments: object) -> None:
        raise OSError("taken")

    monkeypatch.setattr(socket.socket, "connect", taken)
    with serving() as running:
        monkeypatch.undo()
        assert running.client.get("/health").status_code == 204
    assert "the host's calls are not answered: taken" in caplog.text
