"""What `doctor` says of machines that are not this one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from emberbox.cli import checks
from emberbox.cli.doctor import doctor
from emberbox.cli.finding import Level
from emberbox.cli.options import Node, Options
from emberbox.cli.preflight import check_disk, disk_needed
from emberbox.orchestrator.cgroups import Hierarchy
from emberbox.orchestrator.images.tools import BUILD_SPACE
from emberbox.orchestrator.machines.firecracker import installation as firecracker
from emberbox.orchestrator.network.dns import probe
from emberbox.shared.errors import StartupError
from emberbox.shared.home import Home

if TYPE_CHECKING:
    from pathlib import Path


def test_without_hardware_virtualization_vms_are_slower() -> None:
    assert checks.virtualization("").level is Level.OK
    finding = checks.virtualization("no /dev/kvm: load kvm_intel")
    assert finding.level is Level.WARNING
    assert finding.text == "no /dev/kvm: load kvm_intel; VMs run in software (slower)"


@pytest.mark.parametrize("name", ["firecracker", "vmware"])
def test_a_driver_that_is_set_and_cannot_be_used_is_missing(name: str) -> None:
    finding = checks.driver(name, firecracker.Options())
    assert finding.level is Level.MISSING
    assert name in finding.text


@pytest.mark.parametrize(
    ("controllers", "level", "text"),
    [
        ("cpu memory pids io", Level.OK, "version 2: cpu, memory, pids, io"),
        ("memory", Level.WARNING, "version 2: memory; not bounded: cpu, pids, io"),
        ("", Level.WARNING, "VMs are not bounded: no control groups can be written to"),
    ],
)
def test_doctor_says_what_bounds_vms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, controllers: str, level: Level, text: str
) -> None:
    def found(parent: Path | None) -> Hierarchy:
        assert parent is None
        return Hierarchy(2 if controllers else 0, dict.fromkeys(controllers.split(), tmp_path))

    monkeypatch.setattr(checks, "find_groups", found)
    finding = checks.cgroups("auto")
    assert finding.level is level
    assert finding.text.startswith(text)


def test_doctor_says_when_vms_are_not_to_be_bounded(tmp_path: Path) -> None:
    assert "EMBERBOX_CGROUP_PARENT=none" in checks.cgroups("none").text
    finding = checks.cgroups(str(tmp_path))
    assert finding.level is Level.WARNING
    assert "set EMBERBOX_CGROUP_PARENT" in finding.text


@pytest.mark.parametrize(
    ("named", "silent", "level", "text"),
    [
        (
            ["127.0.0.53"],
            [],
            Level.OK,
            "sandboxes reach 127.0.0.53 by the DNS forwarder",
        ),
        (["10.0.0.2", "9.9.9.9"], [], Level.OK, "9.9.9.9 answer; sandboxes reach 10.0.0.2 by"),
        (["9.9.9.9"], [], Level.OK, "9.9.9.9 answer"),
        (["10.0.0.2", "9.9.9.9"], ["10.0.0.2"], Level.WARNING, "10.0.0.2 of"),
        (["10.0.0.2"], ["10.0.0.2"], Level.WARNING, "sandboxes have no DNS: mend"),
    ],
)
def test_resolvers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: list[str],
    silent: list[str],
    level: Level,
    text: str,
) -> None:
    async def ask(resolvers: tuple[str, ...], _seconds: float) -> list[str]:
        assert list(resolvers) == named
        return silent

    monkeypatch.setattr(probe, "silent", ask)
    path = tmp_path / "resolv.conf"
    path.write_text("".join(f"nameserver {address}\n" for address in named))
    finding = checks.resolvers(path)
    assert finding.level is level
    assert text in finding.text


def test_memory_below_the_reserve_and_one_vm_is_missing() -> None:
    assert checks.memory(512, 512, available_mb=1024).level is Level.OK
    finding = checks.memory(512, 512, available_mb=1023)
    assert finding.level is Level.MISSING
    assert "EMBERBOX_MEMORY_RESERVE_MB=512" in finding.text


def test_doctor_and_up_ask_for_the_same_disk(tmp_path: Path) -> None:
    home, node = Home(tmp_path), Node(disk_reserve_mb=1 << 40)
    assert checks.disk(home, node).level is Level.MISSING
    with pytest.raises(StartupError, match=r"EMBERBOX_DISK_RESERVE_MB=1099511627776\)"):
        check_disk(Options(home, node=node))
    assert disk_needed(home, Node(0)) > BUILD_SPACE


def test_missing_tools_name_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    finding = checks.tools()
    assert finding.level is Level.MISSING
    assert "nft" in finding.text
    assert "apt-get install" in finding.text
    assert "nftables" in finding.text


def test_a_home_that_is_not_there_yet_is_measured_where_it_will_be(tmp_path: Path) -> None:
    home = Home(tmp_path / "not" / "yet")
    assert "GiB free" in checks.disk(home, Node()).text
    assert checks.reflink(home).subject == "reflink"
    assert checks.images(home, Node()).level is Level.WARNING
    assert list(tmp_path.iterdir()) == []


def test_the_report_of_this_machine_is_one_json_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBERBOX_HOME", str(tmp_path))
    result = CliRunner().invoke(doctor, ["--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == (0 if report["healthy"] else 1)
    assert {driver["name"] for driver in report["drivers"]} == {"qemu", "firecracker"}
    unusable = [driver for driver in report["drivers"] if not driver["usable"]]
    assert all(driver["missing"] for driver in unusable)
    monkeypatch.setenv("EMBERBOX_DRIVER", "firecracker")
    assert CliRunner().invoke(doctor, ["--json"]).exit_code == 1
    subjects = {finding["subject"] for finding in report["findings"]}
    assert {"root", "virtualization", "tools", "cgroups", "network", "memory", "disk"} <= subjects
    plain = CliRunner().invoke(doctor, [])
    assert "driver qemu" in plain.stdout
