"""What is found of Firecracker on a host, and the one thing that is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.cli.servers import load_settings
from emberbox.orchestrator.machines import kvm, probe
from emberbox.orchestrator.machines.firecracker import installation
from emberbox.orchestrator.machines.firecracker.driver import FirecrackerDriver
from emberbox.orchestrator.machines.firecracker.installation import Installation, Options
from emberbox.orchestrator.machines.firecracker.version import Version
from emberbox.orchestrator.settings import Settings
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from tests.firecracker.world import StandIn


@pytest.fixture
def options(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setenv("PATH", "/nowhere:/usr/bin")
    stand_in.go_wrong()
    return Options(stand_in.firecracker)


def missing(options: Options) -> str:
    found = installation.look(options)
    assert isinstance(found, str), found
    report = installation.report(found, "no KVM")
    assert (report.usable, report.missing) == (False, found)
    return found


def test_all_is_there(options: Options, stand_in: StandIn) -> None:
    found = installation.look(options)
    assert isinstance(found, Installation)
    assert found.version == Version(1, 16, 1)
    assert found.programs.jailer == stand_in.jailer.resolve()
    assert found.made_with.startswith("Firecracker 1.16.1, snapshots 9.9.9, CPU ")
    assert ", Linux " in found.made_with
    assert installation.report(found, "").usable
    assert installation.report(found, "no KVM").missing == "no KVM"


def test_a_program_that_is_not_there(options: Options) -> None:
    assert "no firecracker binary" in missing(Options())
    assert "no /nowhere/fc binary" in missing(Options(Path("/nowhere/fc")))
    with pytest.raises(StartupError, match="no firecracker binary"):
        probe.select_driver("firecracker")


@pytest.mark.parametrize("version", ["1.11.9", "unreadable"])
def test_a_version_that_is_too_old(options: Options, stand_in: StandIn, version: str) -> None:
    stand_in.go_wrong(version=version)
    assert "1.12.0 or later is needed" in missing(options)


def test_a_program_that_cannot_be_executed(tmp_path: Path) -> None:
    broken = tmp_path / "firecracker"
    broken.write_text("#!/nonexistent\n")
    broken.chmod(0o755)
    assert "version unknown" in missing(Options(broken))


def test_no_jailer(options: Options, stand_in: StandIn, tmp_path: Path) -> None:
    assert "no /nowhere/jailer binary" in missing(
        Options(stand_in.firecracker, Path("/nowhere/jailer"))
    )
    alone = tmp_path / "firecracker"
    alone.write_text(stand_in.firecracker.read_text())
    alone.chmod(0o755)
    assert "set EMBERBOX_FIRECRACKER_JAIL=false" in missing(Options(alone))
    found = missing(Options(alone, jail=False))  # pytest's directories are closed to others
    assert "cannot be executed by VMMs without root's rights" in found
    bare = installation.look(Options(stand_in.firecracker, jail=False))
    assert isinstance(bare, Installation)
    assert bare.programs.jailer is None


def test_a_jailer_of_another_version(options: Options, stand_in: StandIn) -> None:
    stand_in.go_wrong(jailer_version="1.15.0")
    assert "is of version 1.15.0, Firecracker of 1.16.1" in missing(options)


def test_the_best_driver_that_works(
    options: Options, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` takes Firecracker where all is there, and its settings reach it."""
    monkeypatch.setattr(probe, "missing_hardware", lambda: "")
    monkeypatch.setenv("EMBERBOX_FIRECRACKER", str(stand_in.firecracker))
    monkeypatch.setenv("EMBERBOX_FIRECRACKER_DISK_MB", "7")
    settings = load_settings(Settings).firecracker_options
    assert settings.rates.disk_mb == 7
    for name in ("auto", "firecracker"):
        driver = probe.select_driver(name, settings)
        assert isinstance(driver, FirecrackerDriver)
        assert driver.report.name == "firecracker"
    assert [report.usable for report in probe.probe_all(settings)] == [True, True]
    monkeypatch.setattr(probe, "missing_hardware", lambda: "no vmx")
    assert probe.select_driver("auto", settings).report.name == "qemu"
    with pytest.raises(StartupError, match="no vmx"):
        probe.select_driver("firecracker", settings)


def test_root_needs_no_group_of_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "kvm"
    device.touch(0o600)
    monkeypatch.setattr(kvm, "KVM", device)
    monkeypatch.setattr(kvm, "_cpu_flags", lambda: {"svm"})
    assert kvm.missing_hardware() == ""
    assert "chmod 660" in kvm.missing_for_kvm()
