"""What one hop through a proxy costs, ours beside nginx's.

Both do the hop of the client proxy: parse, read the sandbox out of the host, look up where it runs,
add the programs' secret, forward over a kept connection, with access log, header limits and a limit
of connections. Each has one worker on the first core, alone there; the other core has the backend
and the load. The sides take turns, and figures are medians over the rounds.

The heads are those of the official Python SDK reading a file, for sixteen sandboxes. `unique_heads`
have a field more with another value in each request, so that no head comes twice.
"""

from __future__ import annotations

import argparse
import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.figures import at_least_one, progress
from benchmarks.proxy.load import Load, Peer, Requests
from benchmarks.proxy.sides import Side, started

if TYPE_CHECKING:
    from collections.abc import Sequence

_MIB = 1024 * 1024


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks proxy")
    parser.add_argument("--rounds", type=at_least_one, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load in a round")
    parser.add_argument("--connections", type=at_least_one, default=32)
    parser.add_argument("--idle", type=at_least_one, default=1000, help="connections kept idle")
    options = parser.parse_args(arguments)
    with Peer.started() as peer, started(peer.port) as sides:
        runs = _Runs(peer, sides, options.rounds, options.seconds)
        many = options.connections
        with Requests.made() as requests:
            small = runs.measure("requests", requests.small, many)
            unique = runs.measure("unique heads", requests.unique, many)
            download = runs.measure("download", requests.large(32 * _MIB), 2)
            upload = runs.measure("upload", requests.upload(32 * _MIB), 2, f"upload:{32 * _MIB}")
            websocket = runs.measure("websocket", requests.upgrade, many, "echo:64")
            direct = runs.measure("latency", requests.small, 1, direct=True)
        idle = sides["ours"].memory_of_idle(options.idle)
    return {
        "cpu_ratio": _ratio(small, "cpu_us"),
        "cpu_us": _by_side(small, "cpu_us"),
        "requests_ratio": _ratio(small, "per_second"),
        "requests_per_s": _by_side(small, "per_second", 0),
        "unique_heads": {
            "cpu_ratio": _ratio(unique, "cpu_us"),
            "cpu_us": _by_side(unique, "cpu_us"),
        },
        "download_ratio": _ratio(download, "bytes_per_second"),
        "upload_ratio": _ratio(upload, "bytes_per_second"),
        "websocket_ratio": _ratio(websocket, "per_second"),
        "websocket_cpu_ratio": _ratio(websocket, "cpu_us"),
        "mb_per_s": {
            "download": _by_side(download, "megabytes_per_second", 0),
            "upload": _by_side(upload, "megabytes_per_second", 0),
        },
        "added_ms": _added(direct, "ours"),
        "added_ms_nginx": _added(direct, "nginx"),
        "idle1000_mb": round(idle * 1000 / options.idle / 1e6, 1),
        "errors": sum(
            load.errors
            for measured in (small, unique, download, upload, websocket)
            for loads in measured.values()
            for load in loads
        ),
        "runs": {"rounds": options.rounds, "seconds": options.seconds, "connections": many},
    }


Measured = dict[str, list[Load]]


class _Runs:
    def __init__(self, peer: Peer, sides: dict[str, Side], rounds: int, seconds: float) -> None:
        self._peer = peer
        self._sides = sides
        self._rounds = rounds
        self._seconds = seconds

    def measure(
        self,
        name: str,
        requests: Sequence[str],
        connections: int,
        mode: str = "http",
        *,
        direct: bool = False,
    ) -> Measured:
        """Let the sides take turns; with `direct` the backend itself takes one too."""
        measured: Measured = {side: [] for side in self._sides}
        if direct:
            measured["direct"] = []
        for number in range(self._rounds):
            for side, loads in measured.items():
                loads.append(self._once(side, requests, connections, mode))
            progress(name, number + 1, self._rounds)
        return measured

    def _once(self, name: str, requests: Sequence[str], connections: int, mode: str) -> Load:
        side = self._sides.get(name)
        port = self._peer.port if side is None else side.port
        begun = 0.0 if side is None else side.cpu_seconds()
        load = self._peer.load(port, connections, self._seconds, mode, requests)
        if side is not None:
            load.cpu_seconds = side.cpu_seconds() - begun
        return load


def _median(measured: Measured, side: str, figure: str) -> float:
    return float(statistics.median(getattr(load, figure) for load in measured[side]))


def _ratio(measured: Measured, figure: str) -> float:
    """Ours over nginx's."""
    return round(_median(measured, "ours", figure) / _median(measured, "nginx", figure), 2)


def _by_side(measured: Measured, figure: str, digits: int = 1) -> dict[str, float]:
    return {side: round(_median(measured, side, figure), digits) for side in ("ours", "nginx")}


def _added(measured: Measured, side: str) -> dict[str, float]:
    """Milliseconds that a hop adds to one request at a time."""
    return {
        name: round(
            (_median(measured, side, figure) - _median(measured, "direct", figure)) / 1e3, 3
        )
        for name, figure in (("p50", "p50_us"), ("p99", "p99_us"))
    }
