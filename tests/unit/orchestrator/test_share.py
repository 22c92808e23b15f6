"""What VMs get of a host. The groups are files here; tests/integration/cgroups has real ones."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.cgroups import Hierarchy, VmGroups
from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.processes import ProcessIdentity, identify
from emberbox.orchestrator.sandboxes import share as share_module
from emberbox.orchestrator.sandboxes.share import Shares, open_shares, usable
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = ("cpu.max", "cpu.weight", "memory.max", "pids.max", "cgroup.procs", "io.max")
LEAST_PRIORITY = 19


@pytest.fixture
def at(tmp_path: Path) -> Path:
    """The group of slot 3 of a node, with the files that the kernel would make."""
    group = tmp_path / "emberbox-abc" / "vm-3"
    group.mkdir(parents=True)
    for name in FILES:
        (group / name).touch()
    return group


def shares(tmp_path: Path) -> Shares:
    parents = dict.fromkeys(("cpu", "memory", "pids", "io"), tmp_path)
    return Shares(VmGroups(Hierarchy(2, parents), "abc"), io=("8:0", 1 << 20))


@pytest.fixture
def process() -> Iterator[ProcessIdentity]:
    sleeping = subprocess.Popen(["sleep", "60"])
    yield identify(sleeping.pid)
    sleeping.kill()
    sleeping.wait()


def own_niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def niceness(process: ProcessIdentity) -> int:
    """More than this program's."""
    return os.getpriority(os.PRIO_PROCESS, process.pid) - own_niceness()


def test_a_vm_is_bounded_by_its_size_and_what_its_vmm_needs(at: Path, tmp_path: Path) -> None:
    share = shares(tmp_path).of(3, Hardware(vcpu=2, ram_mb=512))
    share.add(1234)
    written = {name: (at / name).read_text() for name in FILES}
    assert written == {
        "cpu.max": "300000 100000",
        "cpu.weight": "",
        "memory.max": str(1280 << 20),
        "pids.max": "256",
        "cgroup.procs": "1234",
        "io.max": "8:0 rbps=1048576 wbps=1048576",
    }


def test_who_is_not_waited_for_weighs_a_third(
    at: Path, tmp_path: Path, process: ProcessIdentity
) -> None:
    share = shares(tmp_path).of(3, Hardware(vcpu=1, ram_mb=64))
    share.give_way(process)
    assert (at / "cpu.weight").read_text() == "33"
    share.come_forward(process)
    assert (at / "cpu.weight").read_text() == "100"
    assert niceness(process) == 0


def test_without_groups_niceness_does_it(process: ProcessIdentity) -> None:
    share = Shares().of(3, Hardware(vcpu=1, ram_mb=64))
    share.add(process.pid)
    share.give_way(process)
    assert niceness(process) == min(5, LEAST_PRIORITY - own_niceness())
    share.come_forward(process)
    assert niceness(process) == 0
    gone = ProcessIdentity((1 << 22) - 1, 1, "none")
    share.give_way(gone)


async def test_a_group_that_stays_in_use_is_told(
    at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_module, "_REMOVAL_SECONDS", 0.05)
    share = shares(tmp_path).of(3, Hardware(vcpu=1, ram_mb=64))
    with pytest.raises(TimeoutError):  # its files keep the directory from being removed
        await share.remove()
    for name in FILES:
        (at / name).unlink()
    await share.remove()
    assert share.group is not None
    assert share.group.remove()  # there is none any more


def test_a_host_says_what_it_cannot_bound(tmp_path: Path) -> None:
    assert usable("none", "abc") == (None, "")
    groups, problem = usable(str(tmp_path / "missing"), "abc")
    assert groups is None
    assert "EMBERBOX_CGROUP_PARENT" in problem
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    (tmp_path / "cgroup.subtree_control").touch()
    own = tmp_path / "emberbox-abc"
    own.mkdir()
    for name in ("cgroup.subtree_control", "cpu.weight"):
        (own / name).touch()
    groups, problem = usable(str(tmp_path), "abc")
    assert groups is not None
    assert problem == "no cgroup controller for pids, io"
    assert (own / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (own / "cpu.weight").read_text() == "50"


@pytest.mark.parametrize(("nice", "weight"), [(0, 200), (5, 66), (19, 3), (-10, 1863)])
def test_beside_groups_of_v1_our_programs_weigh_by_their_niceness(
    monkeypatch: pytest.MonkeyPatch, nice: int, weight: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getpriority", lambda *_: nice)
    assert share_module._weight_of_all(1) == weight


def test_disk_limits_need_a_disk(tmp_path: Path) -> None:
    assert open_shares("none", "abc", tmp_path, 0).io is None
    device, rate = open_shares("none", "abc", tmp_path, 2).io or ("", 0)
    assert rate == 2 << 20
    assert device.count(":") == 1
    with pytest.raises(StartupError, match="EMBERBOX_VM_IO_MB_S"):
        open_shares("none", "abc", type(tmp_path)("/proc"), 2)
