"""One of several worker processes of the client proxy: `python -m emberbox.client_proxy.worker`.

Its settings come by the environment. It says `ready` on stdout when it serves, and drains when it
is told to by SIGTERM, or when the end of its stdin says that the process that started it is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import structlog
import uvloop

from emberbox.client_proxy.edge import Edge
from emberbox.client_proxy.main import stopped
from emberbox.client_proxy.settings import Settings
from emberbox.client_proxy.workers import READY
from emberbox.shared import logs
from emberbox.shared.errors import StartupError

_log = structlog.get_logger()


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m emberbox.client_proxy.worker")
    parser.add_argument("--row", type=Path, required=True, help="file for what is counted")
    row: Path = parser.parse_args().row
    logs.configure("client-proxy")
    # `ps` and whoever looks for the program by its name find the one that is in charge.
    Path("/proc/self/comm").write_text("proxy-worker")
    try:
        uvloop.run(_serve(Settings(), row))
    except StartupError as error:
        _log.error("client proxy worker cannot start", reason=str(error))
        sys.exit(1)


async def _serve(settings: Settings, row: Path) -> None:
    stop = stopped()
    edge = Edge(settings, row)
    await edge.serve()
    asyncio.get_running_loop().add_reader(0, _read_stdin, stop)
    os.write(1, READY)
    await stop.wait()
    cut = await edge.drain()
    _log.info("client proxy worker ended", connections_cut=cut)


def _read_stdin(stop: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stop.set()


if __name__ == "__main__":
    main()
