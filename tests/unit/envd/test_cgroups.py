"""A kernel that takes its time over control groups keeps only the one who waits for it waiting."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emberbox.envd.cgroups import Cgroups
from tests.unit.envd.conftest import output, serving

PATIENCE = 20.0


class SlowCgroups(Cgroups):
    """No groups at all, but one of the calls blocks until it is told not to."""

    def __init__(self, slow: str) -> None:
        super().__init__(Path("/nowhere"))
        self._slow = slow
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def adopt(self, pid: int) -> Path:
        self._called("adopt")
        return Path("/nowhere/group")

    def release(self, group: Path) -> None:
        self._called("release")

    def refill(self) -> None:
        self._called("refill")

    def _called(self, name: str) -> None:
        if name == self._slow:
            self.entered.set()
            assert self.go_on.wait(PATIENCE)


@pytest.mark.parametrize("slow", ["adopt", "release", "refill"])
def test_nobody_else_waits_for_a_cgroup(slow: str) -> None:
    groups = SlowCgroups(slow)
    with serving(groups) as running, ThreadPoolExecutor(1) as threads:
        try:
            started = threads.submit(running.client.run, "/bin/echo", "done")
            assert groups.entered.wait(PATIENCE)
            assert running.client.get("/health", timeout=PATIENCE / 2).status_code == 204
        finally:
            groups.go_on.set()
        assert output(started.result(PATIENCE)) == b"done\n"
