"""What `doctor` says of machines that are not this one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from emberbox.cli import checks
from emberbox.cli.checks import Level
from emberbox.cli.doctor import doctor
from emberbox.shared.home import Home

if TYPE_CHECKING:
    from pathlib import Path

INTEL = "processor\t: 0\nflags\t\t: fpu vme vmx sse2\n"
NESTED_OFF = "processor\t: 0\nflags\t\t: fpu vme sse2 hypervisor\n"


@pytest.mark.parametrize(
    ("cpuinfo", "kvm", "level", "text"),
    [
        (INTEL, True, Level.OK, "shows vmx"),
        (INTEL, False, Level.WARNING, "load kvm_intel or kvm_amd"),
        (NESTED_OFF, True, Level.WARNING, "guests would not boot"),
        (NESTED_OFF, False, Level.WARNING, "enable nested virtualization"),
    ],
)
def test_dev_kvm_alone_is_not_virtualization(
    tmp_path: Path, cpuinfo: str, kvm: bool, level: Level, text: str
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    if kvm:
        (tmp_path / "kvm").touch()
    finding = checks.virtualization(tmp_path / "cpuinfo", tmp_path / "kvm")
    assert finding.level is level
    assert text in finding.text


@pytest.mark.parametrize(
    ("mounts", "level", "text"),
    [
        (["cgroup2"], Level.OK, "version 2"),
        (["cgroup", "cgroup2"], Level.WARNING, "unified_cgroup_hierarchy"),
        ([], Level.WARNING, "without CPU and memory limits"),
    ],
)
def test_cgroups(tmp_path: Path, mounts: list[str], level: Level, text: str) -> None:
    lines = [f"30 23 0:26 / /sys/fs/cgroup rw - {kind} {kind} rw" for kind in mounts]
    (tmp_path / "mountinfo").write_text("\n".join(lines))
    finding = checks.cgroups(tmp_path / "mountinfo")
    assert finding.level is level
    assert text in finding.text


def test_missing_tools_name_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    finding = checks.tools()
    assert finding.level is Level.MISSING
    assert "nft" in finding.text
    assert "apt-get install" in finding.text
    assert "nftables" in finding.text


def test_a_home_that_is_not_there_yet_is_measured_where_it_will_be(tmp_path: Path) -> None:
    home = Home(tmp_path / "not" / "yet")
    assert "GiB free" in checks.disk(home).text
    assert checks.reflink(home).subject == "reflink"
    assert checks.images(home).level is Level.WARNING
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
    subjects = {finding["subject"] for finding in report["findings"]}
    assert {"root", "virtualization", "tools", "cgroups", "network", "disk"} <= subjects
    plain = CliRunner().invoke(doctor, [])
    assert "driver qemu" in plain.stdout
