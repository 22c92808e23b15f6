"""The forwarder's program."""

from __future__ import annotations

import argparse
import asyncio

# Loaded now: nobody may not be able to read the directory from which asyncio would load it.
import encodings.idna  # noqa: F401
import os
import signal
import socket
from pathlib import Path

from emberbox.orchestrator.network.dns.forwarder import Forwarder
from emberbox.orchestrator.network.dns.limits import Limits
from emberbox.orchestrator.network.dns.resolvers import Resolvers
from emberbox.shared import logs

_NOBODY = 65534


def main() -> None:
    """Bind, give up root, serve until SIGTERM."""
    options = _parse()
    logs.configure("dns-forwarder")
    udp = _bind(socket.SOCK_DGRAM, options.listen)
    tcp = _bind(socket.SOCK_STREAM, options.listen)
    _drop_privileges()
    asyncio.run(_serve(Forwarder(Resolvers(options.resolv_conf), Limits()), udp, tcp))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m emberbox.orchestrator.network.dns")
    parser.add_argument("--listen", type=_address, required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"))
    return parser.parse_args()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _bind(kind: socket.SocketKind, address: tuple[str, int]) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind)
    if kind is socket.SOCK_STREAM:
        # Connections of a forwarder that just ended must not keep its successor away.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    bound.setblocking(False)
    return bound


def _drop_privileges() -> None:
    """Guests write what this process reads: it is nobody as soon as its sockets are bound."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


async def _serve(forwarder: Forwarder, udp: socket.socket, tcp: socket.socket) -> None:
    task = asyncio.ensure_future(forwarder.serve(udp, tcp))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return


if __name__ == "__main__":
    main()
