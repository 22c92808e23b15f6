"""Nonsense through both proxies in a row, as programs."""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.data_proxy.messages import Route
from tests.conformance.fuzzing import BROKEN, PATIENCE, Fuzz
from tests.conformance.proxies import data_proxy_of, running, scrape, wait_for_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FreePorts

SECONDS = float(os.environ.get("EMBERBOX_FUZZ_SECONDS", "30"))
SEED = int(os.environ.get("EMBERBOX_FUZZ_SEED", random.randrange(2**32)))


@pytest.mark.timeout(SECONDS + 120)
def test_fuzz(free_ports: FreePorts, tmp_path: Path, guest: str) -> None:
    """No crash, no hang, nothing malformed goes on, and no sandbox gets what is another's."""
    port, health_port, data_port, metrics_port = free_ports(proxy=1, health=1, data=1, metrics=1)
    prefix = guest.rpartition(".")[0]
    routes = [Route(f"i{n}", f"e{n}", f"{prefix}.{n}") for n in range(1, BROKEN + 1)]
    fuzz = Fuzz(port, SEED)
    with ExitStack() as started:
        started.enter_context(data_proxy_of(tmp_path, [data_port, metrics_port], routes))
        flags = {
            "--home": tmp_path,
            "--port": port,
            "--health-port": health_port,
            "--data-proxy": f"127.0.0.1:{data_port}",
            "--access-log": tmp_path / "access.log",
        }
        words = [str(word) for pair in flags.items() for word in pair]
        process = started.enter_context(running("emberbox.cli", "client-proxy", *words, flags={}))
        wait_for_port(port, process)
        asyncio.run(fuzz.run(lambda number: f"{prefix}.{number}", SECONDS))
        findings = fuzz.findings
        print(  # noqa: T201 - shown by make fuzz
            f"seed {SEED}: {findings.sent} sent, {findings.reached} reached a server, "
            f"{findings.answered} answered by one, {findings.served} served beside them"
        )
        assert not findings.wrong, f"EMBERBOX_FUZZ_SEED={SEED}: {findings.wrong[0]}"
        assert process.poll() is None
        _wait_until_nothing_is_open(health_port, "emberbox_client_proxy")
        _wait_until_nothing_is_open(metrics_port, "emberbox_data_proxy", kept=True)
    assert findings.answered > findings.sent / 10
    assert findings.served > SECONDS


def _wait_until_nothing_is_open(port: int, prefix: str, *, kept: bool = False) -> None:
    """All connections of clients have ended; those that the client proxy keeps may stay."""
    deadline = time.monotonic() + PATIENCE
    while True:
        text = scrape(port)
        line = next(
            line for line in text.splitlines() if line.startswith(f"{prefix}_connections_open")
        )
        if float(line.split()[1]) <= (256 if kept else 0):
            return
        assert time.monotonic() < deadline, line
        time.sleep(0.2)
