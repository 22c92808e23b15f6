"""What `doctor` says of hosts for Firecracker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.cli import firecracker_checks as checks
from emberbox.cli.finding import Level
from emberbox.cli.servers import load_settings
from emberbox.orchestrator.machines.firecracker import installation
from emberbox.orchestrator.machines.firecracker.installation import Installation, Options
from emberbox.orchestrator.machines.firecracker.jail import Programs
from emberbox.orchestrator.machines.firecracker.version import Version
from emberbox.orchestrator.settings import Settings
from emberbox.shared.home import Home

if TYPE_CHECKING:
    from emberbox.cli.finding import Finding


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file"
    path.write_text(text)
    return path


def of(finding: Finding) -> tuple[Level, str]:
    return finding.level, finding.text


def test_nothing_is_said_where_firecracker_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "firecracker_of", lambda _options: None)
    assert list(checks.look(load_settings(Settings))) == []
    monkeypatch.setenv("EMBERBOX_DRIVER", "firecracker")
    subjects = [finding.subject for finding in checks.look(load_settings(Settings))]
    assert subjects[:3] == ["firecracker", "jailer", "cgroup v2"]
    assert len(subjects) == len(set(subjects)) == 10


@pytest.mark.parametrize(("minor", "level"), [(15, Level.WARNING), (16, Level.OK)])
def test_versions(minor: int, level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(Path("/usr/bin/firecracker"), None)
    found = Installation(programs, Version(1, minor, 0), "")
    monkeypatch.setattr(installation, "look", lambda _options: found)
    assert checks.program(Options()).level is level
    monkeypatch.setattr(installation, "look", lambda _options: "none here")
    assert of(checks.program(Options())) == (Level.WARNING, "none here")


def test_jailer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "EMBERBOX_FIRECRACKER_JAIL=false" in checks.jailer(Options(jail=False)).text
    monkeypatch.setattr(installation, "jailer_of", lambda _options: None)
    assert checks.jailer(Options()).level is Level.WARNING
    monkeypatch.setattr(installation, "jailer_of", lambda _options: Path("/bin/jailer"))
    assert of(checks.jailer(Options())) == (Level.OK, "/bin/jailer")


def test_cgroups() -> None:
    assert checks.cgroups(2).level is Level.OK
    assert "slow to restore" in checks.cgroups(1).text


@pytest.mark.parametrize(
    ("release", "level"),
    [
        ("6.1.0-25-amd64", Level.OK),
        ("5.10.220", Level.OK),
        ("6.18.4", Level.OK),
        ("6.12.1", Level.WARNING),
        ("6.10.3", Level.WARNING),
    ],
)
def test_host_kernels(release: str, level: Level) -> None:
    assert checks.host_kernel(release).level is level


def test_swap(tmp_path: Path) -> None:
    header = "Filename Type Size Used Priority\n"
    assert checks.swap(file(tmp_path, header)).level is Level.OK
    finding = checks.swap(file(tmp_path, header + "/dev/sda2 partition 1 0 -2\n"))
    assert finding.level is Level.WARNING
    assert "/dev/sda2: guests' memory gets onto disks" in finding.text


def test_sharing_between_guests(tmp_path: Path) -> None:
    for check in (checks.same_page_merging, checks.hyperthreads):
        assert check(tmp_path / "nothing").level is Level.OK
    assert checks.same_page_merging(file(tmp_path, "1\n")).level is Level.WARNING
    assert checks.same_page_merging(file(tmp_path, "0\n")).level is Level.OK
    assert checks.hyperthreads(file(tmp_path, "on\n")).level is Level.WARNING
    assert checks.hyperthreads(file(tmp_path, "forceoff\n")).level is Level.OK


def test_slow_starts(tmp_path: Path) -> None:
    plain = file(tmp_path, "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n")
    nothing = tmp_path / "nothing"
    assert checks.starting("5.10.1", plain, nothing).level is Level.OK
    assert "favordynmods" in checks.starting("6.1.0-1", plain, nothing).text
    never = tmp_path / "never"
    never.write_text("never\n")
    assert checks.starting("6.1.0-1", plain, never).level is Level.OK
    quick = file(tmp_path, "cgroup2 /sys/fs/cgroup cgroup2 rw,favordynmods 0 0\n")
    assert checks.starting("6.1.0-1", quick, nothing).level is Level.OK


def test_sparse_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "not" / "there")
    assert checks.holes(home).level is Level.OK
    monkeypatch.setattr(checks, "exact_holes", lambda _place: False)
    assert "each pause writes all memory" in checks.holes(home).text

    def refuse(_place: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(checks, "exact_holes", refuse)
    assert "cannot write" in checks.holes(home).text


def test_a_guest_kernel_without_images(tmp_path: Path) -> None:
    assert "not built" in checks.guest_kernel(Home(tmp_path), None).text
