"""What of Firecracker is on this host, and what is missing for it to run."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from emberbox.orchestrator.machines.driver import DriverReport
from emberbox.orchestrator.machines.firecracker import calls
from emberbox.orchestrator.machines.firecracker.calls import Rates
from emberbox.orchestrator.machines.firecracker.jail import Programs
from emberbox.orchestrator.machines.firecracker.version import OLDEST, Version

NAME = "firecracker"
_PROBE_SECONDS = 10.0
_FLAGS_DIGEST = 16


@dataclass(frozen=True, slots=True)
class Options:
    """What operators set.

    firecracker, jailer: the programs, by default those on PATH; a jailer also beside Firecracker
    jail:                whether the jailer is used
    state:               where extracted kernels are kept
    """

    firecracker: Path | None = None
    jailer: Path | None = None
    jail: bool = True
    rates: Rates = field(default_factory=Rates)
    state: Path = Path("/var/lib/emberbox/orchestrator/firecracker")


@dataclass(frozen=True, slots=True)
class Installation:
    """A Firecracker that is there, and what VMs on this host depend on."""

    programs: Programs
    version: Version
    made_with: str


def firecracker_of(options: Options) -> Path | None:
    """The program that is set, or else on PATH."""
    return _program(options.firecracker, NAME)


def jailer_of(options: Options) -> Path | None:
    """The program that is set, on PATH or beside Firecracker."""
    found = _program(options.jailer, "jailer")
    beside = firecracker_of(options)
    if found is None and options.jailer is None and beside is not None:
        found = _program(beside.with_name("jailer"), "jailer")
    return found


def look(options: Options) -> Installation | str:
    """The installation, or the one thing to change. Runs each program with --version."""
    program = firecracker_of(options)
    if program is None:
        return f"no {options.firecracker or NAME} binary (EMBERBOX_FIRECRACKER, or on PATH)"
    version = version_of(program)
    if version is None or version < OLDEST:
        return f"{program} is of version {version or 'unknown'}: {OLDEST} or later is needed"
    jailer = jailer_of(options) if options.jail else None
    if options.jail and (missing := _missing_for_jail(options, jailer, version)):
        return missing
    if not options.jail and not _runs_for_all(program):
        return f"{program} cannot be executed by VMMs without root's rights: chmod a+rx it"
    made_with = f"Firecracker {version}, {_snapshot_format(program)}, {_host()}: {calls.shape()}"
    return Installation(Programs(program, jailer), version, made_with)


def report(found: Installation | str, kvm_missing: str) -> DriverReport:
    """For people; missing hardware comes last, as it is the hardest to mend."""
    version = "" if isinstance(found, str) else str(found.version)
    missing = found if isinstance(found, str) else kvm_missing
    return DriverReport(NAME, not missing, "kvm", version, missing)


def version_of(program: Path) -> Version | None:
    """What a program says of itself."""
    return Version.parse(_said(program, "--version"))


def _missing_for_jail(options: Options, jailer: Path | None, version: Version) -> str:
    if jailer is None:
        return (
            f"no {options.jailer or 'jailer'} binary (EMBERBOX_JAILER, on PATH or beside"
            " Firecracker): install it, or set EMBERBOX_FIRECRACKER_JAIL=false"
        )
    if (other := version_of(jailer)) != version:
        return f"{jailer} is of version {other or 'unknown'}, Firecracker of {version}: install one"
    return ""


def _program(path: Path | None, name: str) -> Path | None:
    found = shutil.which(path or name)
    return Path(found).resolve() if found else None


def _runs_for_all(program: Path) -> bool:
    """Whether a uid without any rights can reach and execute it."""
    directories = all(parent.stat().st_mode & 0o001 for parent in program.parents)
    return directories and program.stat().st_mode & 0o005 == 0o005


def _snapshot_format(program: Path) -> str:
    found = re.search(r"v(\d+\.\d+\.\d+)", _said(program, "--snapshot-version"))
    return f"snapshots {found[1]}" if found else "snapshots of unknown format"


def _said(program: Path, question: str) -> str:
    try:
        return subprocess.run(
            [program, question],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _host(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What a snapshot depends on of the host: it loads on the same CPU model and kernel alone."""
    first = cpuinfo.read_text().split("\n\n", 1)[0]
    fields = dict(re.findall(r"^(.+?)\s*:\s*(.*)$", first, re.MULTILINE))
    flags = " ".join(sorted(fields.get("flags", "").split()))
    digest = hashlib.sha256(flags.encode()).hexdigest()[:_FLAGS_DIGEST]
    model = " ".join(fields.get(name, "?") for name in ("vendor_id", "cpu family", "model"))
    return f"CPU {model} with flags {digest}, Linux {platform.release()}"
