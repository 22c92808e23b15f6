"""Which drivers really work on this host, and what is missing where one does not."""

from __future__ import annotations

import re
import shutil
import subprocess

from emberbox.orchestrator.machines.driver import Driver, DriverReport
from emberbox.orchestrator.machines.firecracker import installation
from emberbox.orchestrator.machines.firecracker.driver import FirecrackerDriver
from emberbox.orchestrator.machines.firecracker.installation import Options
from emberbox.orchestrator.machines.kvm import missing_for_kvm, missing_hardware
from emberbox.orchestrator.machines.qemu.driver import QemuDriver
from emberbox.shared.errors import StartupError

QEMU_BINARY = "qemu-system-x86_64"
_PROBE_SECONDS = 10.0


def probe_all(firecracker: Options | None = None) -> list[DriverReport]:
    """Every driver, best first. Runs each binary with --version; starts no VM."""
    found = installation.look(firecracker or Options())
    return [installation.report(found, missing_hardware()), _probe_qemu()]


def select_driver(name: str = "auto", firecracker: Options | None = None) -> Driver:
    """The driver of that name, or with `auto` the best that works.

    Raises StartupError that names the one thing missing.
    """
    options = firecracker or Options()
    if name in ("auto", installation.NAME):
        found = installation.look(options)
        report = installation.report(found, missing_hardware())
        if not isinstance(found, str) and report.usable:
            return FirecrackerDriver(found, report, options.state, options.rates)
        if name == installation.NAME:
            raise StartupError(f"the firecracker driver cannot be used: {report.missing}")
    elif name != "qemu":
        raise StartupError(f"EMBERBOX_DRIVER is {name!r}: use auto, firecracker or qemu")
    qemu = _probe_qemu()
    if not qemu.usable:
        raise StartupError(f"the qemu driver cannot be used: {qemu.missing}")
    # By its full path: a VMM is started with an empty environment, and so without PATH.
    return QemuDriver(shutil.which(QEMU_BINARY) or QEMU_BINARY, qemu)


def _probe_qemu() -> DriverReport:
    accelerator = "tcg" if missing_for_kvm() else "kvm"
    version = _version(QEMU_BINARY, r"version (.+)")
    if not version:
        missing = f"{QEMU_BINARY} is not installed: apt-get install qemu-system-x86"
        return DriverReport("qemu", False, accelerator, "", missing)
    return DriverReport("qemu", True, accelerator, version, "")


def _version(binary: str, pattern: str) -> str:
    if shutil.which(binary) is None:
        return ""
    output = subprocess.run(
        [binary, "--version"], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
    ).stdout
    found = re.search(pattern, output)
    return found.group(1).strip() if found else ""
