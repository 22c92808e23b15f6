"""A kernel that takes its time over control groups keeps only the one who waits for it waiting."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.envd.cgroups import Cgroups
from tests.unit.envd.conftest import output, serving

if TYPE_CHECKING:
    from collections.abc import Collection

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

    def tidy(self, ended: Collection[Path] = ()) -> None:
        self._called("tidy")

    def _called(self, name: str) -> None:
        if name == self._slow:
            self.entered.set()
            assert self.go_on.wait(PATIENCE)


class Directories(Cgroups):
    """Directories where a kernel has groups: none can be removed that has something in it."""

    @staticmethod
    def _move(pid: int, target: str) -> None:
        pass


@pytest.fixture
def groups(tmp_path: Path) -> Cgroups:
    (tmp_path / "cgroup.controllers").write_text("")
    opened = Directories.open(tmp_path)
    assert opened
    (tmp_path / "emberbox-envd" / "cgroup.procs").write_text("")
    return opened


def test_groups_are_ready_before_they_are_needed(groups: Cgroups, tmp_path: Path) -> None:
    ready = set((tmp_path / "emberbox-user").glob("p*"))
    taken = [groups.adopt(1) for _ in range(len(ready) + 1)]
    assert set(taken[:-1]) == ready
    assert len(set(taken)) == len(taken)


def test_a_group_stays_while_something_lives_in_it(groups: Cgroups) -> None:
    left, empty = groups.adopt(1), groups.adopt(1)
    child = left / "of-a-user"
    child.mkdir()
    groups.tidy([left, empty])
    assert (left.exists(), empty.exists()) == (True, False)
    child.rmdir()
    groups.tidy()
    assert not left.exists()


@pytest.mark.parametrize("slow", ["adopt", "tidy"])
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
