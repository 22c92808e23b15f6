"""envd as a program of its own, for tests that look at its memory and its descriptors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2

from tests.unit.envd.conftest import Client

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def daemon(*options: str) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "emberbox.envd", "--address", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, *options]) as process:
        try:
            with Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                wait_until_ready(process, client)
                yield process, client
        finally:
            process.terminate()
            assert process.wait(10) == 0


def wait_until_ready(process: subprocess.Popen[bytes], client: Client) -> None:
    while process.poll() is None:
        try:
            assert client.get("/health").status_code == 204
        except httpx2.ConnectError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError("the daemon ended")


def open_descriptors(process: subprocess.Popen[bytes]) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def resident_bytes(process: subprocess.Popen[bytes]) -> int:
    """Its memory."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
