"""What Firecracker is told, in order: its configuration as the bodies of its calls.

Fields, limits and order are those of its published interface
(src/firecracker/swagger/firecracker.yaml), versions 1.12 and later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.machines.firecracker import view
from emberbox.orchestrator.network.addresses import GUEST_MAC, TAP

if TYPE_CHECKING:
    from emberbox.orchestrator.machines.firecracker.version import Version

# Given instead of Firecracker's own, which says `nomodule`: the initrd loads modules. The console
# is on, as its last lines are in the errors that callers get; it is kept short by `quiet`, and
# bounded by the pipe that it goes into. reboot=k: a reset by the keyboard controller ends the VMM.
KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=3 reboot=k panic=-1 i8042.noaux i8042.nomux i8042.dumbkbd"
    " swiotlb=noforce random.trust_cpu=on audit=0"
)

_SCRATCH = "scratch"
_INTERFACE = "eth0"
_SECOND_MS = 1000


class Call(NamedTuple):
    """One PUT or PATCH."""

    path: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rates:
    """What one VM may move in a second, in each direction; 0 is no limit."""

    disk_mb: int = 0
    disk_operations: int = 0
    network_mb: int = 0


def reporting() -> list[Call]:
    """The PUTs that come first, also before a load: where log and metrics go."""
    return [
        Call("/logger", {"log_path": view.path(view.LOG), "level": "Warning", "show_level": True}),
        Call("/metrics", {"metrics_path": view.path(view.METRICS)}),
    ]


def configuration(hardware: Hardware) -> list[Call]:
    """All PUTs before the start of a VM that is booted.

    No dirty pages are tracked: its first snapshot is whole in any case, and what is cloned from
    that is tracked from its loading on.
    """
    return [
        Call(
            "/machine-config",
            {"vcpu_count": hardware.vcpu, "mem_size_mib": hardware.ram_mb, "smt": False},
        ),
        Call(
            "/boot-source",
            {
                "kernel_image_path": view.path(view.KERNEL),
                "initrd_path": view.path(view.INITRD),
                "boot_args": KERNEL_COMMAND_LINE,
            },
        ),
        # The guest takes them in this order: Firecracker gives disks serial numbers of its own.
        _drive(view.ROOT, read_only=True),
        _drive(view.RUNTIME, read_only=True),
        _drive(view.SCRATCH, read_only=False),
        Call(
            f"/network-interfaces/{_INTERFACE}",
            {"iface_id": _INTERFACE, "host_dev_name": TAP, "guest_mac": GUEST_MAC},
        ),
        Call("/entropy", {}),
    ]


START = Call("/actions", {"action_type": "InstanceStart"})
PAUSE = Call("/vm", {"state": "Paused"})
RESUME = Call("/vm", {"state": "Resumed"})


def load(version: Version) -> Call:
    """The PUT that loads a snapshot, with the memory mapped privately; the VM stands still then."""
    return Call(
        "/snapshot/load",
        {
            "snapshot_path": view.path(view.STATE),
            "mem_backend": {"backend_type": "File", "backend_path": view.path(view.RAM)},
            # Not kept in a snapshot: to be asked for each time.
            version.dirty_pages_field: True,
            "resume_vm": False,
        },
    )


def dump(*, changes: bool) -> Call:
    """The PUT that writes device state and memory: all of it, or what changed since the last."""
    return Call(
        "/snapshot/create",
        {
            "snapshot_type": "Diff" if changes else "Full",
            "snapshot_path": view.path(view.DUMPED_STATE),
            "mem_file_path": view.path(view.DUMPED_MEMORY),
        },
    )


def limits(rates: Rates) -> list[Call]:
    """The PATCHes of a VM that was started or loaded: a snapshot keeps the limits of its source."""
    disk = _limiter(rates.disk_mb << 20, rates.disk_operations)
    network = _limiter(rates.network_mb << 20, 0)
    return [
        Call(f"/drives/{_SCRATCH}", {"drive_id": _SCRATCH, "rate_limiter": disk}),
        Call(
            f"/network-interfaces/{_INTERFACE}",
            {"iface_id": _INTERFACE, "rx_rate_limiter": network, "tx_rate_limiter": network},
        ),
    ]


def shape() -> str:
    """All that a cold boot is told but its size: snapshots are bound to every part of it."""
    return json.dumps(configuration(Hardware(vcpu=1, ram_mb=1)), separators=(",", ":"))


def _drive(name: str, *, read_only: bool) -> Call:
    body: dict[str, Any] = {
        "drive_id": name,
        "path_on_host": view.path(name),
        "is_root_device": name == view.ROOT,
        "is_read_only": read_only,
        "io_engine": "Sync",
    }
    if not read_only:
        # What the guest flushes is on the host's disk; by default Firecracker would not care.
        body["cache_type"] = "Writeback"
    return Call(f"/drives/{name}", body)


def _limiter(bandwidth: int, operations: int) -> dict[str, dict[str, int]]:
    return {"bandwidth": _bucket(bandwidth), "ops": _bucket(operations)}


def _bucket(per_second: int) -> dict[str, int]:
    """Nothing of either removes a bucket that is there."""
    return {"size": per_second, "refill_time": _SECOND_MS if per_second else 0}
