"""Files in and out, beside what the disk of the guest and the way through the proxies allow."""

from __future__ import annotations

import os
import statistics
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from benchmarks.figures import Clock, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.envd_bare import Bare
    from emberbox import Sandbox

_MIB = 1024 * 1024
_SIZES = {"1": _MIB, "100": 100 * _MIB}
_PORT = 8123
_OURS, _BARE = "/home/user/ours", "/home/user/bare-file"
_PATIENCE = 600

Work = dict[str, "Callable[[], float]"]
"""Sides of a comparison; each says how many milliseconds it took."""


def measure_transfers(sandbox: Sandbox, bare: Bare, small: int, large: int) -> dict[str, Any]:
    """Megabytes (a million bytes) a second for each size in MiB."""
    result: dict[str, Any] = {"write_mb_s": {}, "read_mb_s": {}}
    with bare.serving(_PORT), _through_the_proxies(sandbox) as client:
        for (name, size), count in zip(_SIZES.items(), (small, large), strict=True):
            writing, reading = _work(sandbox, bare, client, size)
            result["write_mb_s"][name] = _rates(f"write {name} MiB", writing, size, count)
            result["read_mb_s"][name] = _rates(f"read {name} MiB", reading, size, count)
    return result


def _work(sandbox: Sandbox, bare: Bare, client: httpx2.Client, size: int) -> tuple[Work, Work]:
    content = bytes(size)
    files = sandbox.files

    def read() -> None:
        assert len(files.read(_OURS, format="bytes", request_timeout=_PATIENCE)) == size

    writing: Work = {
        "ours": _timed(lambda: files.write(_OURS, content, request_timeout=_PATIENCE)),
        "in_guest": lambda: bare.once("write", _BARE, str(size)),
        "same_path": _timed(lambda: client.post("/", content=content).raise_for_status()),
    }
    reading: Work = {
        "ours": _timed(read),
        "in_guest": lambda: bare.once("read", _BARE),
        "same_path": _timed(lambda: client.get(f"/{size}").raise_for_status()),
    }
    return writing, reading


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def timed() -> float:
        clock = Clock()
        with clock.running():
            work()
        return clock.ms

    return timed


def _rates(name: str, sides: Work, size: int, count: int) -> dict[str, float]:
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(count):
        for side, work in sides.items():
            rates[side].append(size / work() / 1000)
        progress(name, number + 1, count)
    return {side: round(statistics.median(found), 1) for side, found in rates.items()}


@contextmanager
def _through_the_proxies(sandbox: Sandbox) -> Iterator[httpx2.Client]:
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(_PORT)}
    url = os.environ["EMBERBOX_SANDBOX_URL"]
    with httpx2.Client(base_url=url, headers=headers, timeout=_PATIENCE) as client:
        yield client
