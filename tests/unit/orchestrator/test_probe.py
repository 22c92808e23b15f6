"""Which drivers are usable: an honest answer, and the one thing missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.machines import kvm, probe
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/kvm that opens, on a CPU that shows vmx."""
    device = tmp_path / "kvm"
    device.touch(0o666)
    device.chmod(0o666)
    monkeypatch.setattr(kvm, "KVM", device)
    monkeypatch.setattr(kvm, "_cpu_flags", lambda: {"vmx"})
    return device


def test_kvm_works_where_it_opens_and_the_cpu_has_it(device: Path) -> None:
    assert kvm.missing_for_kvm() == ""


def test_a_device_that_opens_is_not_enough(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "_cpu_flags", lambda: {"fpu"})
    assert "neither vmx nor svm" in kvm.missing_for_kvm()


def test_no_device(device: Path) -> None:
    device.unlink()
    assert "no /dev/kvm" in kvm.missing_for_kvm()


def test_a_device_for_root_alone_is_no_use_to_a_vmm(device: Path) -> None:
    device.chmod(0o600)
    assert "chmod 660" in kvm.missing_for_kvm()
    assert kvm.kvm_groups() == ()


def test_qemu_without_its_binary_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    reports = {report.name: report for report in probe.probe_all()}
    assert not reports["qemu"].usable
    assert "apt-get install qemu-system-x86" in reports["qemu"].missing
    assert "no firecracker binary" in reports["firecracker"].missing
    with pytest.raises(StartupError, match="apt-get install qemu-system-x86"):
        probe.select_driver("auto")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("firecracker", "firecracker driver cannot be used"),
        ("xen", "use auto, firecracker or qemu"),
    ],
)
def test_a_driver_that_is_not_there_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        probe.select_driver(name)
