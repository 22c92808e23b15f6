"""Which control groups a machine has, from what the kernel says of its mounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.cgroups import find

if TYPE_CHECKING:
    from pathlib import Path


class Machine:
    """Mounts and groups as files. Lines as proc(5) and cgroups(7) describe them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mountinfo = root / "mountinfo"
        self.own = root / "own"
        self.mountinfo.write_text("22 1 0:20 / /proc rw,nosuid - proc proc rw\n")
        self.own.write_text("0::/\n")

    def mount_v2(self, name: str, controllers: str) -> Path:
        point = self._mount(name, "cgroup2", "/", "rw")
        (point / "cgroup.controllers").write_text(f"{controllers}\n")
        return point

    def mount_v1(self, controllers: str, shown: str = "/") -> Path:
        return self._mount(controllers, "cgroup", shown, f"rw,{controllers}")

    def _mount(self, name: str, kind: str, shown: str, options: str) -> Path:
        point = self.root / name
        point.mkdir()
        with self.mountinfo.open("a") as lines:
            lines.write(f"30 22 0:26 {shown} {point} rw shared:4 - {kind} cgroup {options}\n")
        return point

    def find(self) -> object:
        found = find(mountinfo=self.mountinfo, own=self.own)
        return found.version, found.parents, found.missing


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_version_2_where_all_is_in_one(machine: Machine) -> None:
    at = machine.mount_v2("cgroup", "cpuset cpu io memory hugetlb pids")
    assert machine.find() == (2, dict.fromkeys(("cpu", "memory", "pids", "io"), at), ())


def test_version_2_without_some(machine: Machine) -> None:
    at = machine.mount_v2("cgroup", "memory pids")
    assert machine.find() == (2, {"memory": at, "pids": at}, ("cpu", "io"))


def test_version_1_in_the_groups_of_this_process(machine: Machine) -> None:
    machine.mount_v2("unified", "")  # there and empty, as on hosts that have both
    cpu = machine.mount_v1("cpu,cpuacct")
    memory, pids = machine.mount_v1("memory"), machine.mount_v1("pids")
    (memory / "a" / "b").mkdir(parents=True)
    machine.own.write_text("5:pids:/\n4:memory:/a/b\n3:cpu,cpuacct:/\n0::/\n")
    parents = {"cpu": cpu, "memory": memory / "a" / "b", "pids": pids}
    assert machine.find() == (1, parents, ("io",))


def test_version_1_in_a_container_that_sees_its_own_group_as_the_root(machine: Machine) -> None:
    memory = machine.mount_v1("memory", shown="/docker/1")
    machine.own.write_text("4:memory:/docker/1\n")
    assert machine.find() == (1, {"memory": memory}, ("cpu", "pids", "io"))


def test_none(machine: Machine) -> None:
    assert machine.find() == (0, {}, ("cpu", "memory", "pids", "io"))


def test_what_cannot_be_written_to_is_not_there(machine: Machine) -> None:
    machine.mount_v1("memory")
    machine.own.write_text("4:memory:/gone\n")
    assert machine.find() == (0, {}, ("cpu", "memory", "pids", "io"))


def test_a_parent_of_ones_own(machine: Machine) -> None:
    at = machine.mount_v2("cgroup", "cpu memory")
    found = find(at, machine.mountinfo, machine.own)
    assert (found.version, set(found.parents)) == (2, {"cpu", "memory"})
    with pytest.raises(OSError, match=r"cgroup\.controllers"):
        find(at / "none", machine.mountinfo, machine.own)
