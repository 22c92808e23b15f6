"""Which drivers really work on this host, and what is missing where one does not."""

from __future__ import annotations

import re
import shutil
import subprocess

from emberbox.orchestrator.machines.driver import Driver, DriverReport
from emberbox.orchestrator.machines.kvm import missing_for_kvm
from emberbox.orchestrator.machines.qemu.driver import QemuDriver
from emberbox.shared.errors import StartupError

QEMU_BINARY = "qemu-system-x86_64"
FIRECRACKER_BINARY = "firecracker"
_PROBE_SECONDS = 10.0


def probe_all() -> list[DriverReport]:
    """Every driver, best first. Runs each binary once with --version; starts no VM."""
    kvm_missing = missing_for_kvm()
    return [_probe_firecracker(kvm_missing), _probe_qemu(kvm_missing)]


def select_driver(name: str = "auto") -> Driver:
    """The driver of that name, or with `auto` the best that works.

    Raises StartupError that names the one thing missing.
    """
    reports = {report.name: report for report in probe_all()}
    if name not in (*reports, "auto"):
        raise StartupError(f"EMBERBOX_DRIVER is {name!r}: use auto, {' or '.join(reports)}")
    if name == "firecracker":
        raise StartupError(f"the firecracker driver cannot be used: {reports[name].missing}")
    qemu = reports["qemu"]
    if not qemu.usable:
        raise StartupError(f"the qemu driver cannot be used: {qemu.missing}")
    # By its full path: a VMM is started with an empty environment, and so without PATH.
    return QemuDriver(shutil.which(QEMU_BINARY) or QEMU_BINARY, qemu)


def _probe_qemu(kvm_missing: str) -> DriverReport:
    accelerator = "tcg" if kvm_missing else "kvm"
    version = _version(QEMU_BINARY, r"version (.+)")
    if not version:
        missing = f"{QEMU_BINARY} is not installed: apt-get install qemu-system-x86"
        return DriverReport("qemu", False, accelerator, "", missing)
    return DriverReport("qemu", True, accelerator, version, "")


def _probe_firecracker(kvm_missing: str) -> DriverReport:
    version = _version(FIRECRACKER_BINARY, r"Firecracker v(\S+)")
    missing = kvm_missing
    if not version:
        missing = f"no {FIRECRACKER_BINARY} binary on PATH"
    return DriverReport(
        "firecracker",
        usable=False,
        accelerator="kvm",
        version=version,
        missing=missing or "this version of Emberbox has no firecracker driver yet",
    )


def _version(binary: str, pattern: str) -> str:
    if shutil.which(binary) is None:
        return ""
    output = subprocess.run(
        [binary, "--version"], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
    ).stdout
    found = re.search(pattern, output)
    return found.group(1).strip() if found else ""
