"""Whether hardware virtualization truly works here, and who may use it."""

from __future__ import annotations

import stat
from pathlib import Path

KVM = Path("/dev/kvm")


def missing_hardware() -> str:
    """What hardware virtualization lacks here; empty when it works for root.

    A /dev/kvm that opens is not enough: there are hosts where it opens and an ordinary guest
    kernel never boots, so the CPU must show the extension as well.
    """
    if not KVM.exists():
        return "no /dev/kvm: load kvm_intel or kvm_amd, or enable nested virtualization"
    if not _cpu_flags() & {"vmx", "svm"}:
        return "the CPU shows neither vmx nor svm: enable (nested) virtualization on this machine"
    try:
        with KVM.open("rb+", buffering=0):
            pass
    except OSError as error:
        return f"/dev/kvm does not open: {error.strerror}"
    return ""


def missing_for_kvm() -> str:
    """The same for VMMs that open the host's /dev/kvm without being root."""
    if missing := missing_hardware():
        return missing
    if not _open_to_all() and not kvm_groups():
        return "/dev/kvm is for root alone: run chgrp kvm /dev/kvm && chmod 660 /dev/kvm"
    return ""


def kvm_groups() -> tuple[int, ...]:
    """The group that a VMM needs to open /dev/kvm, if any helps."""
    status = KVM.stat()
    readable = status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP
    return (status.st_gid,) if readable and status.st_gid != 0 else ()


def _open_to_all() -> bool:
    mode = KVM.stat().st_mode
    return bool(mode & stat.S_IROTH and mode & stat.S_IWOTH)


def _cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()
