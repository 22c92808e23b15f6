"""What the VMMs of sandboxes take of this machine's memory."""

from __future__ import annotations

from pathlib import Path


def pss_mb(sandbox_id: str) -> float:
    """Proportional memory of a sandbox's VMM, in MiB: what it shares counts in parts.

    Raises LookupError when it has none on this machine.
    """
    return _field(_vmm(sandbox_id) / "smaps_rollup", "Pss")


def available_mb() -> float:
    """What the kernel would give to new programs, in MiB."""
    return _field(Path("/proc/meminfo"), "MemAvailable")


def _vmm(sandbox_id: str) -> Path:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        # Named by node and sandbox, in whichever argument its VMM takes that.
        if any(a.startswith("emberbox-") and a.endswith(f"-{sandbox_id}") for a in arguments):
            return process
    raise LookupError(f"sandbox {sandbox_id} has no VMM on this machine")


def _field(path: Path, name: str) -> float:
    for line in path.read_text().splitlines():
        key, _, rest = line.partition(":")
        if key == name:
            return int(rest.split()[0]) / 1024
    raise LookupError(f"{path} has no {name}")
